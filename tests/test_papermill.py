"""Plain papermill renders a chapter from any working directory, with the profile of the paper's scale."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
STORED = sorted((ROOT / "notebooks").glob("*.ipynb"))
A_FILE = re.compile(r"\.{0,2}/?[\w.-]+(/[\w.-]+)*(/|\.(json|npy|npz|csv|txt|py|png|svg|pt|ya?ml|ipynb))")
FILE_CALLS = {
    "open",
    "Path",
    "getcwd",
    "cwd",
    "chdir",
    "listdir",
    "glob",
    "savefig",
    "loadtxt",
    "savetxt",
    "load_module",
}


def touches_files(source):
    """Return what in a cell depends on the working directory: names of files and calls that take one."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and A_FILE.fullmatch(node.value):
            found.append(node.value)
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            found += [name] if name in FILE_CALLS else []
    return found


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_no_chapter_depends_on_the_working_directory(path):
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "code":
            assert not touches_files(cell.source), cell.id


@pytest.mark.parametrize(
    "source", ["open(name)", "np.load('../results/a.npy')", "x = 'data/'", "os.getcwd()", "Path(x).exists()"]
)
def test_a_dependence_on_the_working_directory_would_be_seen(source):
    assert touches_files(source)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chapter", "small", "from_records"),
    [
        ("01_long_tail", {"runs": 5, "test_samples": 500}, False),
        ("03_structure", {"draws": 30, "largest_n": 10_000}, False),
        ("07_gaussian", {"seeds": 2, "epochs": 1, "width": 8}, False),
        (
            "08_mnist_sum",
            {"profile": "quick", "dataset": "embedded", "device": "cpu", "live_epochs": 12},
            True,
        ),
    ],
)
def test_papermill_from_another_directory(chapter, small, from_records, tmp_path):
    """The command of the guide, made cheap with -p; what is computed goes to a folder of its own."""
    command = [sys.executable, "-m", "papermill", f"{ROOT}/notebooks/{chapter}.ipynb", "out.ipynb"]
    command += ["-f", f"{ROOT}/profiles/paper/{chapter}.yaml", "--no-progress-bar"]
    for name, value in small.items():
        command += ["-p", name, str(value)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    if from_records:
        environment.pop("MEMCOMP_RESULTS", None)
    else:
        environment["MEMCOMP_RESULTS"] = str(tmp_path / "results")
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        command, cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True, timeout=570
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "unknown parameter" not in done.stderr.lower()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["out.ipynb"]
    notebook = nbformat.read(tmp_path / "elsewhere/out.ipynb", 4)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    claims = [claim for one in outputs for claim in one.get("metadata", {}).get("memcomp_claims", ())]
    assert {claim["chapter"] for claim in claims} == {chapter}
    profile = "quick" if from_records else "paper"
    assert {claim["profile"] for claim in claims} == {profile}
    assert (tmp_path / "results/paper/claims" / f"{chapter}.json").exists() == (profile == "paper")


@pytest.mark.slow
def test_the_line_of_the_readme_renders_its_chapter_from_records(tmp_path, monkeypatch):
    (line,) = re.findall(r"`papermill (.*?)`", (ROOT / "README.md").read_text())
    shutil.copytree(ROOT / "results/paper/gaussian", tmp_path / "paper/gaussian")
    monkeypatch.setenv("MEMCOMP_RESULTS", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    words = line.replace("out.ipynb", str(tmp_path / "out.ipynb")).split()
    command = [sys.executable, "-m", "papermill", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=570)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "paper/gaussian").glob("*.json"))) == 200
    assert (tmp_path / "paper/claims/07_gaussian.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["-f", f"{ROOT}/profiles/paper/08_mnist_sum.yaml"], "DataError: no data root: pass data_root=…"),
        (["-p", "device", "cuda"], "DeviceError: device 'cuda', and this machine shows no GPU"),
        (["-p", "seeds", "two"], "ParameterError: parameter 'seeds' is 'two'; expected a whole number"),
    ],
)
def test_what_a_chapter_lacks_is_one_sentence_of_papermill(given, sentence, tmp_path, monkeypatch):
    monkeypatch.setenv("MEMCOMP_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("MEMCOMP_DATA", raising=False)
    command = [sys.executable, "-m", "papermill", f"{ROOT}/notebooks/08_mnist_sum.ipynb", "out.ipynb"]
    command += ["--no-progress-bar", *given]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    # papermill adds where in itself it stopped, and a frame; nothing is left of ours but the sentence.
    *_, last = done.stderr.strip().splitlines()
    assert last.startswith(sentence), done.stderr
    assert "Cell In[" not in done.stderr
    assert "memcomp/" not in done.stderr.replace(str(ROOT), "")
