"""An edit of what a chapter uses executes it again, and an edit of anything else does not."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell

from tools import dependencies, notebooks
from tools.dependencies import Dependencies

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Return a checkout with a package of two experiments, their records and profiles."""
    monkeypatch.delenv("MEMCOMP_RESULTS", raising=False)
    files = {
        "memcomp/__init__.py": "",
        "memcomp/lone.py": "",
        "memcomp/far.py": "from memcomp.near import VALUE",
        "memcomp/near.py": "VALUE = 1",
        "memcomp/lazy.py": "def work():\n    from . import deep",
        "memcomp/deep/__init__.py": "from .inner import x",
        "memcomp/deep/inner.py": "import seaborn",
        "memcomp/deep/table.json": "{}",
        "memcomp/one.py": '@experiment("one", version=1)\ndef run(): ...',
        "memcomp/two.py": '@records.experiment("two", version=1)\ndef run(): ...',
        "memcomp/any.py": "import importlib\nname = 'x'\nimportlib.import_module(name)",
        "memcomp/data.py": "import os\nos.environ.get('MEMCOMP_DATA')",
        "notebooks/helper.py": "import memcomp.near",
        "profiles/paper/01_test.yaml": "",
        "profiles/paper/02_other.yaml": "",
        "results/quick/one/a.json": "{}",
        "results/paper/one/b.json": "{}",
        "results/quick/two/a.json": "{}",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def of(root, *sources):
    return Dependencies(root).of(
        [new_code_cell(source) for source in sources], root / "notebooks/01_test.ipynb"
    )


@pytest.mark.parametrize(
    ("source", "used", "unused"),
    [
        (
            "import memcomp.far",
            ["memcomp/far.py", "memcomp/near.py", "memcomp/__init__.py"],
            "memcomp/lone.py",
        ),
        ("from memcomp import lone", ["memcomp/lone.py"], "memcomp/near.py"),
        ("def f():\n    import memcomp.lone as x", ["memcomp/lone.py"], "memcomp/far.py"),
        ("import memcomp.lazy", ["memcomp/deep/__init__.py", "memcomp/deep/inner.py"], "memcomp/near.py"),
        ("import memcomp.lone", ["memcomp/deep/table.json"], "memcomp/deep/inner.py"),
        ("%matplotlib inline\nimport memcomp.lone", ["memcomp/lone.py"], "memcomp/near.py"),
        ("import helper", ["notebooks/helper.py", "memcomp/near.py"], "memcomp/lone.py"),
        ("import memcomp.any", ["memcomp/near.py", "memcomp/two.py"], "notebooks/helper.py"),
        (
            "import memcomp.one",
            ["results/quick/one/a.json", "results/paper/one/b.json"],
            "results/quick/two/a.json",
        ),
        ("import memcomp.two", ["results/quick/two/a.json"], "results/paper/one/b.json"),
        (
            "open('../results/quick/x')",
            ["results/quick/one/a.json", "results/quick/two/a.json"],
            "memcomp/one.py",
        ),
        ("1", ["profiles/paper/01_test.yaml"], "profiles/paper/02_other.yaml"),
        ("open('../profiles/x')", ["profiles/paper/02_other.yaml"], "memcomp/lone.py"),
    ],
)
def test_edit_of_what_is_used_counts_and_no_other(source, used, unused, checkout):
    before = of(checkout, source)
    for name in used:
        (checkout / name).write_text((checkout / name).read_text() + "\n")
        after = of(checkout, source)
        assert after != before, name
        before = after
    (checkout / unused).write_text((checkout / unused).read_text() + "\n")
    assert of(checkout, source) == before


def test_new_or_lost_records_count_and_leftovers_do_not(checkout):
    found = [of(checkout, "import memcomp.one")]
    (checkout / "results/narrow/one").mkdir(parents=True)
    (checkout / "results/narrow/one/c.json").write_text("{}")
    found.append(of(checkout, "import memcomp.one"))
    (checkout / "results/quick/one/a.json").unlink()
    found.append(of(checkout, "import memcomp.one"))
    assert found[0] != found[1] != found[2]
    (checkout / "memcomp/__pycache__").mkdir()
    (checkout / "memcomp/__pycache__/one.pyc").write_text("")
    (checkout / "results/quick/one/.a.json.lock").write_text("")
    (checkout / "results/quick/two/new.json").write_text("{}")
    assert of(checkout, "import memcomp.one") == found[2]


def test_installed_versions_of_what_is_imported_count(checkout, monkeypatch):
    before = of(checkout, "import memcomp.deep")
    assert before["seaborn"] == importlib.metadata.version("seaborn")
    assert before["numpy"] == importlib.metadata.version("numpy")  # which seaborn requires
    assert before["ipykernel"] == importlib.metadata.version("ipykernel")
    assert "torch" not in before
    assert "ruff" not in before
    assert {"pillow", "Python"} <= of(checkout, "import PIL").keys()
    assert "os" not in of(checkout, "import os")

    class Newer:
        version, requires = "99", ()

    real = importlib.metadata.distribution
    monkeypatch.setattr(importlib.metadata, "distribution", lambda n: Newer() if n == "numpy" else real(n))
    for cached in (dependencies.installed, dependencies.distribution):
        cached.cache_clear()
    try:
        assert of(checkout, "import memcomp.deep")["numpy"] == "99"
    finally:
        for cached in (dependencies.installed, dependencies.distribution):
            cached.cache_clear()


def test_variables_count_for_those_who_read_them(checkout, monkeypatch):
    monkeypatch.setenv("MEMCOMP_DATA", "one")
    before = of(checkout, "import memcomp.data"), of(checkout, "import memcomp.lone")
    monkeypatch.setenv("MEMCOMP_DATA", "two")
    after = of(checkout, "import memcomp.data"), of(checkout, "import memcomp.lone")
    assert (before[0] != after[0], before[1] == after[1]) == (True, True)


def test_what_changed_is_named():
    entry = {"depends": {"memcomp/a.py": "1", "numpy": "2", "records of one": "3", "gone": "4"}}
    assert notebooks.changes(entry, entry["depends"]) == ""
    now = {"memcomp/a.py": "5", "numpy": "2", "records of one": "6"}
    assert notebooks.changes(entry, now) == "gone, memcomp/a.py and 1 more changed"


# --- the chapters themselves -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("path", CHAPTERS[2::3], ids=lambda path: path.stem)
def test_modules_that_a_chapter_imports_are_known(path):
    """What Python says is imported, after the import statements alone, has all been found in the code."""
    cells = notebooks.code_cells(notebooks.read(path))
    lines = [line for cell in cells for line in cell.source.splitlines()]
    imports = [line for line in lines if re.match(r"(from|import) ", line)]
    tell = "import sys, json\nfiles = {name: getattr(m, '__file__', None) for name, m in sys.modules.items()}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    code = "\n".join([*imports, tell, "print(json.dumps(files))"])
    output = subprocess.check_output(
        [sys.executable, "-c", code], cwd=path.parent, env=environment, text=True
    )
    loaded = json.loads(output)
    known = Dependencies(ROOT).of(cells, path)
    ours = {Path(file) for name, file in loaded.items() if name.partition(".")[0] == "memcomp"}
    assert {file.relative_to(ROOT).as_posix() for file in ours} <= known.keys()
    # And of everything else, the packages that have a name of their own.
    packages = {name.partition(".")[0] for name in loaded} & {
        "numpy",
        "scipy",
        "pandas",
        "torch",
        "torchvision",
    }
    assert packages <= known.keys()


def test_records_of_one_experiment_concern_only_the_chapters_that_use_it():
    def concerned(name):
        now = Dependencies(ROOT)
        return {p.stem[:2] for p in CHAPTERS if name in now.of(notebooks.code_cells(notebooks.read(p)), p)}

    assert concerned("records of mnist_sum") == {"08"}
    assert concerned("records of gaussian") == {"07"}
    assert concerned("records of limits") == {"12"}
    assert concerned("memcomp/theory/costs.py") == {"03", "04", "05", "06", "09"}
    assert concerned("memcomp/experiments/harm.py") == {"11"}
    assert concerned("memcomp/sweep.py") == set()
    assert concerned("memcomp/tables.py") == {path.stem[:2] for path in CHAPTERS}
