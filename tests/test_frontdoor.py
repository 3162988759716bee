"""The first things a stranger meets: the lock file, the metadata, the README."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def test_lock_has_a_hash_for_every_package_and_no_address():
    lock = (ROOT / "requirements.lock").read_text()
    packages = re.split(r"\n(?=\S)", lock.strip())
    assert len(packages) > 100
    assert all("--hash=sha256:" in package for package in packages)
    assert "://" not in lock
    assert "index" not in re.sub(r"^[a-z0-9-]*index[a-z0-9-]*==", "", lock, flags=re.M)


def test_lock_holds_every_dependency_that_the_package_declares():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    declared += [one for extra in project["project"]["optional-dependencies"].values() for one in extra]
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), flags=re.M))
    names = {re.match(r"[\w-]+", one).group().lower().replace("_", "-") for one in declared} - {"memcomp"}
    assert names <= locked


def test_every_make_target_in_the_readme_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    quoted = set(re.findall(r"`make ([a-z-]+)`", (ROOT / "README.md").read_text()))
    assert quoted
    assert quoted <= targets


def test_citation_names_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["preferred-citation"]["identifiers"][0]["value"] == "arXiv:2510.16322"
    assert [author["family-names"] for author in citation["preferred-citation"]["authors"]] == [
        "Zhou",
        "Ma",
        "Ge",
    ]


def test_version_is_told_once():
    import memcomp

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == memcomp.__version__
    assert "version" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"]


def test_help_runs_without_an_environment(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    result = subprocess.run(["make", "help"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0
    assert "make book" in result.stdout
    assert not (tmp_path / ".venv").exists()


def test_the_picture_in_the_readme_is_the_one_that_its_chapter_draws():
    from tools import finding

    assert str(finding.PICTURE.relative_to(ROOT)) in (ROOT / "README.md").read_text()
    assert finding.PICTURE.read_bytes() == finding.picture()


def table_1(text):
    """Return the losses of Table 1 that a text tells: ours and the paper's, each without and with decay."""
    lines = re.findall(r"^\| (Sum|Linear|2-layer|Cross-channel) \|(.*)\|$", text, flags=re.M)
    return {
        name: [[float(x) for x in cell.split(" / ")] for cell in cells.split("|")] for name, cells in lines
    }


def test_the_readme_and_the_front_page_tell_table_1_as_it_is_stored():
    from memcomp import records
    from memcomp.experiments import omniglot
    from memcomp.models import ARCHITECTURES

    told = table_1((ROOT / "README.md").read_text())
    assert told == table_1((ROOT / "book/index.md").read_text())
    stored = records.load("omniglot", "narrow", root=ROOT / "results")
    losses = {record["key"]: record["metrics"]["test_loss"] for record in stored}
    recipe = omniglot.PROFILES["narrow"] | {"epochs": 100}
    for name in omniglot.ARCHITECTURES:
        ours, paper = told.pop(ARCHITECTURES[name].label)
        for decay, mine, published in zip((0.0, 0.5), ours, paper):
            config = omniglot.Config(name, decay, 0, **recipe)
            key = records.key_of("omniglot", omniglot.run.version, config)
            assert mine == pytest.approx(losses[key], abs=0.005, rel=0.003)
            assert published == pytest.approx(omniglot.TABLE_1[name, decay][0], abs=0.005, rel=0.003)
    assert not told
