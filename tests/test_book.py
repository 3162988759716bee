"""`make book`: what it makes, and that it ends in one sentence, without remains, however it is ended."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest
from toybook import ROOT, build, counted, make, run, write_toc

from tools import book, notebooks, running


def test_failing_notebook_fails_the_build_and_names_the_cell(library):
    make(library / "notebooks" / "01_test.ipynb", "x = 1", "raise ValueError('on purpose')")
    make(library / "notebooks" / "02_forgotten.ipynb", "1;")
    result = build(library)
    assert result.returncode == 1
    assert "_toc.yml does not name 02_forgotten.ipynb" in result.stdout
    assert "The book was not built: 01_test.ipynb: cell 3 of 3 (id 'cell-1') failed" in result.stderr
    assert "ValueError: on purpose" in result.stderr
    assert not (library / "_build" / "html").exists()


def test_contents_name_only_notebooks_that_exist(library):
    write_toc(library, "notebooks/01_test", "notebooks/03_missing")
    result = build(library)
    assert result.returncode == 1
    assert "do not exist: 03_missing.ipynb" in result.stderr


@pytest.mark.slow
def test_warning_fails_every_build_until_it_is_gone(library):
    index = library / "book" / "index.md"
    html = library / "_build" / "html"
    result = build(library)
    assert result.returncode == 0, result.stderr
    assert (html / "index.html").as_uri() in result.stdout
    assert "package-1 record-1 7" in (html / "notebooks" / "01_test.html").read_text()

    index.write_text("# Front page\n\nSee [nothing](#nowhere).\n")
    for _ in range(2):  # Sphinx alone would forget the warning of a page that it need not read again
        result = build(library)
        assert result.returncode == 1
        assert "nowhere" in result.stderr
        assert not html.exists()

    index.write_text("# Front page\n\nHello.\n")
    make(library / "notebooks" / "02_gone.ipynb", "1;")
    write_toc(library, "notebooks/01_test", "notebooks/02_gone")
    result = build(library)
    assert result.returncode == 0, result.stderr
    assert (html / "notebooks" / "02_gone.html").exists()
    (library / "notebooks" / "02_gone.ipynb").unlink()
    write_toc(library, "notebooks/01_test")
    (library / "memcomp" / "part.py").write_text("VALUE = 'package-2'\n")
    result = build(library)
    assert result.returncode == 0, result.stderr
    assert not list(html.rglob("*02_gone*"))
    assert "package-2 record-1 7" in (html / "notebooks" / "01_test.html").read_text()


def test_pages_are_laid_out_with_executed_notebooks_and_the_files_they_show(library, monkeypatch):
    counted(monkeypatch)
    (library / "book" / "gone.md").write_text("# Gone\n")
    executed, _ = run(library)
    book.stage(library, executed)
    (library / "book" / "gone.md").unlink()
    source = book.stage(library, executed)
    staged = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    expected = {"_config.yml", "_toc.yml", "execution.json", "notebooks/01_test.ipynb"}
    assert expected | {"book/index.md", "memcomp/part.py"} <= staged
    assert "book/gone.md" not in staged
    assert notebooks.read(source / "notebooks" / "01_test.ipynb").cells[1].execution_count == 1


# --- a build that is ended ---------------------------------------------------------------------------------

SLEEPS = "import os, pathlib, time\npathlib.Path(f'{os.getpid()}.pid').touch()\ntime.sleep(300)"
RENDERS_SLOWLY = """

import atexit, os, pathlib, time
pathlib.Path(os.environ["MARKS"], f"{os.getpid()}.pid").touch()
time.sleep(300)
"""


@pytest.fixture
def system(monkeypatch):
    """Return the folder for temporary files; its name is short, as sockets need it."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def start(root, marks, **options):
    """Start a build; return its process. Sleeping kernels and renderers leave their numbers in `marks`."""
    environment = os.environ | {"MARKS": str(marks)} | options.pop("env", {})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    command = [sys.executable, "-m", "tools.book", "--root", root, "--jobs", "2"]
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)


def sleepers(marks, count, process):
    """Wait until so many kernels or renderers sleep; return their processes."""
    end = time.monotonic() + 120
    while len(found := list(marks.glob("*.pid"))) < count and time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    assert len(found) == count
    return [psutil.Process(int(path.stem)) for path in found]


def make_sleep(library, stage):
    """Let the book's two chapters or its renderer sleep; return where they leave their marks and how many."""
    make(library / "notebooks" / "02_other.ipynb", "1;")
    write_toc(library, "notebooks/01_test", "notebooks/02_other")
    if stage == "executing":
        for name in ("01_test", "02_other"):
            make(library / "notebooks" / f"{name}.ipynb", SLEEPS)
        return library / "notebooks", 2
    with (library / "book" / "_ext" / "memcomp_book.py").open("a") as file:
        file.write(RENDERS_SLOWLY)
    return library, 1


def awake(library):
    """Undo `make_sleep`."""
    shutil.copy(ROOT / "book" / "_ext" / "memcomp_book.py", library / "book" / "_ext")
    for name in ("01_test", "02_other"):
        make(library / "notebooks" / f"{name}.ipynb", "1;")


def gone(processes):
    """Tell whether all processes end within seconds."""
    return not psutil.wait_procs(processes, timeout=20)[1]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["executing", "rendering"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda one: one.name)
def test_signal_ends_the_build_in_a_sentence(number, stage, library, system):
    marks, count = make_sleep(library, stage)
    process = start(library, marks)
    children = sleepers(marks, count, process)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert gone(children)
    assert error.strip() == (
        f"The book was not built: {running.REASONS[number]}. "
        "What was executed is kept; the next run goes on from there."
    )
    assert list(system.iterdir()) == []
    assert not (library / "_build" / "html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["executing", "rendering"])
def test_killed_build_leaves_no_process_and_the_next_one_mends_all(stage, library, system):
    marks, count = make_sleep(library, stage)
    process = start(library, marks)
    children = sleepers(marks, count, process)
    process.kill()
    process.communicate(timeout=60)
    assert gone(children)
    assert not (library / "_build" / "html").exists()
    awake(library)
    next_one = start(library, marks)
    output, error = next_one.communicate(timeout=300)
    assert next_one.returncode == 0, error
    assert "Another build" not in output
    assert (library / "_build" / "html" / "index.html").exists()
    assert list(system.iterdir()) == []  # what the killed one left is gone, too


@pytest.mark.slow
def test_reader_of_the_output_that_goes_away_ends_the_build(library):
    marks, _ = make_sleep(library, "executing")
    process = start(library, marks)
    assert process.stdout.readline().startswith("Looking for")
    process.stdout.close()
    with process:
        error = process.stderr.read()
    assert process.returncode == 128 + signal.SIGHUP
    assert error.strip().startswith("The book was not built: its terminal went away.")
    assert len(error.strip().splitlines()) == 1
    for mark in marks.glob("*.pid"):
        assert not psutil.pid_exists(int(mark.stem))


@pytest.mark.slow
def test_second_build_waits_and_executes_nothing(library):
    make(library / "notebooks" / "01_test.ipynb", "import time\ntime.sleep(5)")
    first = start(library, library)
    for line in first.stdout:
        if "started" in line:
            break
    second = start(library, library)
    outputs = [process.communicate(timeout=300) for process in (second, first)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert "Another build is at work in this checkout; waiting for it to end." in outputs[0][0]
    assert "01_test                      unchanged" in outputs[0][0]
    assert "started" not in outputs[0][0]


def test_waiting_is_told_again(tmp_path):
    said = []
    with running.alone_with(tmp_path / "lock"):

        def wait():
            with running.alone_with(tmp_path / "lock", said.append, patience=0.2):
                said.append("begun")

        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join(1)
        assert waiting.is_alive()
    waiting.join(30)
    assert said[0] == "Another build is at work in this checkout; waiting for it to end."
    assert said[1] == "Still waiting for the other build, for 10 s now."
    assert said[-1] == "begun"


def test_kernels_get_folders_of_their_own_and_whole_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEMCOMP_DATA", "data")
    monkeypatch.setenv("MEMCOMP_RESULTS", "~/results")
    monkeypatch.setenv("HOME", "/somewhere")
    before = dict(os.environ)
    with running.alone(tmp_path):
        assert os.environ["MEMCOMP_DATA"] == str(tmp_path / "data")
        assert os.environ["MEMCOMP_RESULTS"] == "/somewhere/results"
        temporary = Path(os.environ["TMPDIR"])
        (temporary / "left behind").mkdir()
        for name in ("IPYTHONDIR", "MPLCONFIGDIR", "JUPYTER_RUNTIME_DIR"):
            assert Path(os.environ[name]).is_dir()
            assert not os.environ[name].startswith("/somewhere")
    assert dict(os.environ) == before
    assert not temporary.exists()


def test_folder_that_cannot_be_written_is_named_before_anything_is_executed(library):
    (library / "_build").write_text("a file where the folder should be")
    result = build(library)
    assert result.returncode == 1
    assert "started" not in result.stdout
    (line,) = result.stderr.strip().splitlines()
    assert re.match(r"The book was not built: .*: .*_build", line)


@pytest.mark.slow
def test_home_folder_that_cannot_be_written_is_not_needed(library):
    make(library / "notebooks" / "01_test.ipynb", "import matplotlib.pyplot\nprint('drawn')")
    homes = {"HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none", "XDG_CONFIG_HOME": "/proc/none"}
    process = start(library, library, env=homes)
    output, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert error == ""
    assert "arning" not in output
    page = (library / "_build" / "html" / "notebooks" / "01_test.html").read_text()
    assert "drawn" in page
    assert "stderr" not in page


@pytest.mark.slow
def test_full_disk_is_one_sentence_and_is_mended(library):
    small = library / "_build"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("this system lets nobody mount a small disk")
    try:
        result = build(library)
        assert result.returncode == 1
        assert result.stderr.strip() == (
            f"The book was not built: the disk that holds {small} is full. Free some space and run it again."
        )
        subprocess.run(["mount", "-o", "remount,size=200m", small], check=True)
        result = build(library)
        assert result.returncode == 0, result.stderr
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a"),
        shutil.Error([("from", "to", f"[Errno 28] {os.strerror(errno.ENOSPC)}: 'to'")] * 200),
        book.BookError(f"200 warnings such as {os.strerror(errno.ENOSPC)}"),
    ],
)
def test_full_disk_is_told_from_other_failures(error, tmp_path, capsys):
    def fail():
        raise error

    assert running.complete(fail, tmp_path, "It failed") == 1
    said = capsys.readouterr().err.strip()
    assert said == f"It failed: the disk that holds {tmp_path} is full. Free some space and run it again."


def test_ignored_signal_stays_ignored(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with running.stoppable():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


# --- what it says meanwhile --------------------------------------------------------------------------------


def test_silence_is_broken_by_what_is_at_work():
    said = []
    with running.Progress(said.append, lambda: "at work: chapter 3", silence=0.2) as progress:
        progress("begun")
        time.sleep(0.7)
    assert said[0] == "begun"
    assert 2 <= said.count("at work: chapter 3") <= 3


def test_long_execution_tells_the_cell_and_what_is_left(library):
    make(library / "notebooks" / "01_test.ipynb", "1;", "import time\ntime.sleep(3)")
    _, said = run(library, silence=0.5)
    assert said[0].startswith("Executing 1 of 1 chapters, 1 at once: about 1 minute")
    assert any(re.fullmatch(r"    at work: 01_test in cell 3 of 3; about .* left", line) for line in said)


def test_first_words_come_at_once_and_every_chapter_has_an_estimate(library):
    started = time.monotonic()
    process = start(library, library)
    assert process.stdout.readline().startswith("Looking for what has changed")
    assert time.monotonic() - started < 30  # seconds even on a loaded machine
    process.terminate()
    process.communicate(timeout=60)
    assert notebooks.DURATIONS.keys() == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "10 s"), (42, "40 s"), (58, "1 minute"), (230, "4 minutes"), (9000, "2.5 hours")],
)
def test_durations_are_told_as_people_say_them(seconds, text):
    assert running.roughly(seconds) == text
