"""The experiment of chapter 13: its grid, what a point returns, and that a bad file is told first."""

import dataclasses
import html
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from memcomp import records
from memcomp.__main__ import main
from memcomp.experiments import base, omniglot, subsets, your_network

ROOT = Path(__file__).resolve().parents[1]
SMALL = {"dataset": "embedded", "size": 400, "epochs": 1, "batch_size": 32, "width": 1}
EXAMPLES = ("deep_sets", "flat_mlp", "vision_transformer")


def config(architecture="sum", seed=0, **changes):
    return your_network.Config(architecture, 0.0, seed, **(SMALL | changes))


def test_the_grid_is_the_network_on_six_halves_and_the_references_on_two_of_them():
    grid = your_network.grid("memcomp.examples.flat_mlp:build")
    assert len(grid) == 3 * (6 + 2 + 2)
    own = [one for one in grid if one.architecture.startswith("memcomp.examples.flat_mlp:build@")]
    assert {(one.data, one.seed) for one in own} == {(data, seed) for data in range(3) for seed in range(6)}
    for name in ("sum", "cross_channel"):
        few = {(one.data, one.seed) for one in grid if one.architecture == name}
        assert few == {(data, seed) for data in range(3) for seed in range(2)}
    assert {one.share for one in grid} == {0.5}
    assert len(your_network.grid("sum")) == 3 * (6 + 2)
    assert len(your_network.grid("sum", seeds=1)) == 6 + 2
    assert {one.width for one in your_network.grid("sum", "narrow")} == {16}
    paper = your_network.grid("sum", "paper")
    recipe = {"epochs": 300, "batch_size": 256, "lr": 1e-4, "size": 40_000, "dataset": "mnist", "width": 64}
    assert all(dataclasses.asdict(one).items() >= recipe.items() for one in paper)
    assert {one.data for one in paper} == set(range(5))


def test_halves_are_those_of_chapter_10():
    for seed in range(4):
        mine = config(seed=seed, data=2)
        other = subsets.Config("sum", 0.0, seed, share=0.5, data=2, **SMALL)
        data = subsets.shared_set(mine)
        assert (data.rows == subsets.shared_set(other).rows).all()
        assert (subsets.subset(mine, data) == subsets.subset(other, data)).all()


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("nowhere.py:build", r"there is no file .*nowhere\.py"),
        ("memcomp.examples.flat_mlp:built", "has no 'built', did you mean 'build'"),
        ("summ", "unknown architecture 'summ'; choose one of sum, "),
        ("gaussian", r"gaussian, given a batch of shape \(4, 3, 28, 28\) in evaluation mode, stopped with"),
    ],
)
def test_a_bad_name_is_told_by_the_grid(typed, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((FileNotFoundError, ValueError), match=told):
        your_network.grid(typed)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_guide_are_measured(name):
    """At the smallest size; the vision transformer has four heads, which divide any width."""
    one = config(f"memcomp.examples.{name}:build", seed=1, last=1)
    found = records._plain(your_network.run(one), "metrics")
    again = records._plain(your_network.run(one), "metrics")
    assert found == again
    assert np.shape(found["beside_new"]) == np.shape(found["beside_seen"]) == (3, 10)
    assert np.shape(found["pair_loss"]) == (45,)
    assert sum(found["member"]) == 10 - sum(your_network.run(dataclasses.replace(one, seed=0))["member"])


def test_a_point_adds_up():
    """What is stored is what the network does on the triplets that it is said to be about."""
    one = config(seed=3, data=1, lr=1e-2)
    found = your_network.run(one)
    model, _ = your_network.train(one, progress=False)
    data = subsets.shared_set(one)
    test = omniglot.held_out(one, data)
    member = subsets.subset(one, data)
    error = base.errors(model, data, data.rows)
    rows = data.where[:, 0]
    assert found["member"].tolist() == member[rows].tolist()
    assert (data.rows[rows, found["position"]] == data.glyphs).all()
    assert found["error"] == pytest.approx(error[rows], abs=1e-3)
    assert found["squared"] == pytest.approx(error[rows] ** 2, abs=1e-3)
    whole = found["train_loss"] * member.mean() + found["left_loss"] * (1 - member.mean())
    assert whole == pytest.approx(np.mean(error**2), rel=1e-5)
    glyphs = dict(zip(range(10), test.glyphs))
    for pair, loss in zip(found["pairs"], found["pair_loss"]):
        pictures = [glyphs[label] for label in pair]
        digits = test.digits[:: len(test.digits) // 20]
        triplets = [np.insert(pictures, place, digit) for place in range(3) for digit in digits]
        assert loss == pytest.approx(base.loss(model, test, np.array(triplets)), rel=1e-3)


def test_both_kinds_of_company_have_the_same_labels_and_one_was_trained_on():
    one = config(seed=2, size=600)
    data = subsets.shared_set(one)
    test = omniglot.held_out(one, data)
    seen, new = your_network.company(one, data, test)
    assert (data.labels[seen] == test.labels[new]).all()
    assert np.isin(seen, data.rows[subsets.subset(one, data)]).all()
    assert (seen < data.glyphs[0]).all()
    assert test.labels[new].max() == 4
    assert (new < test.glyphs[0]).all()


def test_who_knows_no_glyph_loses_the_variance_of_the_labels():
    labels = np.arange(10)[:, None]
    assert your_network.unknown(labels).mean() == pytest.approx(np.var(np.arange(10)))


# ------------------------------------------------------------------------------------- the whole chapter

FIFTEEN_LINES = """from torch import nn  # ```


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.one = nn.Sequential(nn.Linear(784, 16 * width), nn.ReLU(), nn.Linear(16 * width, 8))
        self.two = nn.Sequential(nn.ReLU(), nn.Linear(8, 1))

    def forward(self, x):
        return self.two(self.one(x.flatten(2)).sum(1)).squeeze(-1)


def build(width, seed):
    return Net(width)
"""


@pytest.mark.slow
def test_a_file_of_fifteen_lines_outside_the_checkout_gets_its_report(tmp_path, monkeypatch, capsys):
    """Both commands of the chapter, one after the other: the second finds the records of the first."""
    (tmp_path / "my nets").mkdir()
    monkeypatch.chdir(tmp_path / "my nets")
    monkeypatch.setenv("MEMCOMP_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("my net@2.py").write_text(FIFTEEN_LINES)
    assert len(FIFTEEN_LINES.splitlines()) == 15
    given = ["-p", "architecture", "my net@2.py:build"]
    given += [word for name in ("seeds", "epochs", "width") for word in ("-p", name, "1")]
    command = [sys.executable, "-m", "papermill", f"{ROOT}/notebooks/13_your_network.ipynb", "out.ipynb"]
    done = subprocess.run(
        [*command, "--no-progress-bar", *given], capture_output=True, text=True, timeout=570
    )
    assert done.returncode == 0, done.stderr[-3000:]
    stored = {
        path.name: path.stat().st_mtime_ns for path in tmp_path.glob("results/quick/your_network/*.json")
    }
    assert len(stored) == 10

    assert main(["run", "13", *given, "--html", "report.html"]) == 0
    assert "report.html written" in capsys.readouterr().out
    again = {
        path.name: path.stat().st_mtime_ns for path in tmp_path.glob("results/quick/your_network/*.json")
    }
    assert again == stored
    assert {path.name for path in Path().iterdir()} == {"my net@2.py", "out.ipynb", "report.html"}
    page = Path("report.html").read_text(encoding="utf-8")
    text = " ".join(re.sub("<[^>]*>", "", html.unescape(page)).split())
    assert "# ```" in text
    assert re.search(
        r"my net@2.py:build .*\(h = -?\d\.\d\d, relative loss \d+\.\d\d, 1 training set\)\.", text
    )
    assert "Undecided: whether it composes; the rule needs at least 3 sets (-p seeds 3)." in text
    assert page.count("<img ") == page.count('="data:image/png;base64,') == 5
    for folder in (tmp_path.name, "my nets", str(ROOT), str(Path.home())):
        assert folder not in page
