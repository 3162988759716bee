"""What the guides show runs as shown."""

import importlib.util
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import session
import torch

from memcomp import chapters, experiments, images, models, records, sweep, triplets
from memcomp.__main__ import parser
from memcomp.experiments import omniglot

ROOT = Path(__file__).resolve().parents[1]


def commands():
    for page in [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md"))]:
        text = page.read_text()
        lines = re.findall(r"^\$ (memcomp .*)$", text, flags=re.M)
        lines += re.findall(r"`(memcomp (?:data|run|sweep) [^`\n]*)`", text)
        yield from ((page.name, line) for line in lines)


@pytest.mark.parametrize(("page", "command"), list(commands()))
def test_every_memcomp_command_of_the_guides_is_understood(page, command):
    words = command.replace("CHAPTER", "08").replace("ADDRESS", "127.0.0.1").split()[1:]
    assert callable(parser().parse_args(words).command)


def test_the_guides_show_every_option():
    text = " ".join(page.read_text() for page in (ROOT / "book").glob("guide_*.md"))
    for option in ("--root", "--check", "--profile", "-p ", "--scheduler", "--slurm", "--per-gpu"):
        assert option in text
    assert "--retry-failed" in text
    assert "--limit" in text
    assert "--dry-run" in text


def test_every_profile_that_a_guide_names_exists():
    for page in [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md"))]:
        for name in re.findall(r"(?:profiles|notebooks)/[\w/.]+\.(?:yaml|ipynb)", page.read_text()):
            new = "15_label_noise" in name  # which the guide makes, see test_guide_extend
            assert new or (ROOT / name).exists(), f"{page.name} names {name}"


def test_each_of_the_ten_changes_names_at_most_two_files_that_exist():
    table = (ROOT / "book/guide_extend.md").read_text().split("```{list-table}")[1].split("```")[0]
    rows = re.findall(r"^\* - (.*)\n  - (.*)$", table, flags=re.M)[1:]
    assert len(rows) == 10
    for what, files in rows:
        named = re.findall(r"`([\w/.]+)`", files)
        assert len(named) <= 2, what
        assert all((ROOT / name).exists() for name in named if "NAME" not in name), what


def test_a_new_architecture_target_and_pool_work_in_an_experiment_as_they_are(monkeypatch):
    """One entry each, and nothing else knows of them."""

    class Mean(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(784, 1)

        def forward(self, x):
            return self.first(x.flatten(2)).mean((1, 2))

    new = models.Architecture(lambda own, width, **_: Mean(), "Mean", "#123456", "8")
    monkeypatch.setitem(models.ARCHITECTURES, "mean", new)
    monkeypatch.setitem(triplets.TARGETS, "least", lambda labels: labels.min(-1))
    squares = np.arange(12).repeat(2)

    def read(split):
        pool = np.zeros((24, 28, 28), np.uint8)
        for image, size in zip(pool, squares):
            image[: 2 * size + 2] = 255
        return pool, squares

    monkeypatch.setitem(images.POOLS, "bars", images.Pool(read, "bars", splits=("train",)))
    common = {"dataset": "embedded", "size": 400, "epochs": 1, "batch_size": 32, "width": 1}
    config = omniglot.Config("mean", 0.0, 0, glyphs="bars", target="least", exponent=1.5, **common)
    data = omniglot.training_set(config)
    assert (data.targets == data.labels[data.rows].min(1)).all()
    found = omniglot.run(config)
    assert np.isfinite(found["test_loss"])
    assert found["data"]["source"].endswith("; bars")


def test_the_experiment_of_the_guide_runs_as_shown(tmp_path):
    spec = importlib.util.spec_from_file_location("label_noise", ROOT / "tests/data/label_noise.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = records.collect(module.run, module.grid(), root=tmp_path, workers=0, progress=False)
    assert len(found) == 15
    loss = {
        share: sum(one["metrics"]["loss"] for one in found if one["config"]["share"] == share) / 3
        for share in (0, 0.3)
    }
    assert loss[0] < loss[0.3] / 3
    assert (ROOT / "tests/data/label_noise.py").read_text().count("\n") < 45


def test_the_table_of_costs_counts_the_points_that_the_grids_have():
    text = (ROOT / "book/guide_reproduce.md").read_text()
    rows = re.findall(r"\n  - `(\d\d_\w+)`\n  - ([\d,]+|none)\n  - ([\d,]+|none)\n", text)
    assert {chapter for chapter, *_ in rows} >= set(experiments.CHAPTERS)
    for chapter, *told in rows:
        for profile, count in zip(("quick", "paper"), told):
            points = sum(len(grid.configs) for grid in sweep.grids(chapter, profile))
            assert count == (f"{points:,}" if points else "none")


def test_the_guide_sweeps_cheap_chapters_first_and_says_which_takes_most():
    text = (ROOT / "book/guide_reproduce.md").read_text()
    listed = re.findall(r"^\$ memcomp sweep (\w+) --profile paper$", text, flags=re.M)
    swept = [name for each in listed for name in chapters.find(each)]
    assert sorted(swept) == sorted(experiments.CHAPTERS)
    costs = [
        sum(grid.work(config) for grid in sweep.grids(chapter, "paper") for config in grid.configs.values())
        for chapter in swept
    ]
    assert costs == sorted(costs)
    assert swept[-1] == "08_mnist_sum"
    assert costs[-1] > sum(costs[:-1])


def test_the_python_session_of_the_guide_runs_as_shown_without_the_checkout(tmp_path):
    site, folder = tmp_path / "site", tmp_path / "work"
    shutil.copytree(ROOT / "memcomp", site / "memcomp", ignore=shutil.ignore_patterns("__pycache__"))
    folder.mkdir()
    env = {"PATH": "", "PYTHONPATH": str(site), "HOME": str(folder)}
    attempted, where = session.run(ROOT / "book/guide_python.md", folder, env, timeout=300)
    assert attempted > 20
    assert where.startswith(str(site))
    assert [path.name for path in folder.iterdir()] == ["my_results"]
