"""The command line: exit statuses and messages. What the commands do is tested with their modules."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import memcomp
from memcomp import chapters
from memcomp.__main__ import main
from memcomp.data import downloads


@pytest.fixture
def states(monkeypatch):
    """Let `memcomp data` find one data set complete and one not, and count the downloads."""
    found = [downloads.State("mnist", True, "all of it"), downloads.State("omniglot", False, "half of it")]
    fetched = []
    monkeypatch.setattr(downloads, "check", lambda root: found)
    monkeypatch.setattr(downloads, "fetch", lambda root: fetched.append(root) or found[:1])
    return fetched


def test_data_check_says_what_is_there_and_fails_if_something_is_missing(
    states, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "--root", "some where", "--check"]) == 1
    out = capsys.readouterr().out
    assert "mnist      complete: all of it" in out
    assert "omniglot   incomplete: half of it" in out
    assert f"`memcomp data --root '{tmp_path}/some where'`" in out
    assert not states


@pytest.mark.parametrize(
    ("published", "words"),
    [
        (False, "mnist      readable, but not the published set: one pixel"),
        (None, "mnist      readable, and not compared with the published set: one pixel"),
    ],
)
def test_data_that_are_not_known_to_be_the_published_ones_have_a_status(
    published, words, monkeypatch, capsys
):
    found = [downloads.State("mnist", True, "one pixel", published), downloads.State("omniglot", True, "all")]
    monkeypatch.setattr(downloads, "check", lambda root: found)
    assert main(["data", "--check"]) == 3
    assert words in capsys.readouterr().out
    found.append(downloads.State("more", False, "half of it"))
    assert main(["data", "--check"]) == 1


def test_data_fetches_into_the_root(states, capsys, tmp_path, monkeypatch):
    """What is advised works from any folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["data", "--root", "~/somewhere"]) == 0
    assert states == [tmp_path / "somewhere"]
    assert f"MEMCOMP_DATA={tmp_path}/somewhere" in capsys.readouterr().out


def test_data_without_root_goes_to_the_variable_or_to_data(states, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEMCOMP_DATA", raising=False)
    main(["data"])
    monkeypatch.setenv("MEMCOMP_DATA", "elsewhere")
    main(["data"])
    assert states == [tmp_path / "data", tmp_path / "elsewhere"]


@pytest.mark.parametrize("variable", ["MEMCOMP_DATA", "MEMCOMP_RESULTS"])
def test_a_relative_path_of_a_variable_is_settled_before_anything_starts(variable, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "runs/here")
    assert main(["sweep", "01"]) == 0
    assert os.environ[variable] == str(tmp_path / "runs/here")


def test_a_variable_that_names_no_home_folder_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("MEMCOMP_RESULTS", "~nobody-of-this-name/results")
    assert main(["run", "01"]) == 2
    assert "MEMCOMP_RESULTS is '~nobody-of-this-name/results': there is no such" in capsys.readouterr().err


def test_an_empty_root_is_refused(states, capsys):
    assert main(["data", "--root", ""]) == 2
    assert "--root is ''" in capsys.readouterr().err


def test_a_root_that_is_a_file_is_refused_before_anything_is_downloaded(states, capsys, tmp_path):
    (tmp_path / "file").touch()
    assert main(["data", "--root", str(tmp_path / "file")]) == 2
    assert "which is a file; expected a folder" in capsys.readouterr().err
    assert not states


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"memcomp {memcomp.__version__}\n"


def test_a_download_that_fails_is_a_message_not_a_traceback(monkeypatch, capsys):
    def refuse(root):
        raise ConnectionError("no route to anywhere")

    monkeypatch.setattr(downloads, "fetch", refuse)
    assert main(["data"]) == 1
    assert capsys.readouterr().err == "memcomp: no route to anywhere\n"


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_an_unknown_chapter_is_refused(command, capsys):
    assert main([command, "long_tale"]) == 2
    assert "did you mean 'long_tail'?" in capsys.readouterr().err


def test_an_unknown_parameter_is_refused(capsys):
    assert main(["run", "01", "-p", "alhpa", "2"]) == 2
    assert "01_long_tail has no parameter 'alhpa'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("chapter", "name", "value", "message"),
    [
        ("08", "seeds", "two", "is 'two'; expected a whole number from 1 to 10000, or null"),
        ("08", "seeds", "2.5", "is 2.5; expected"),
        ("08", "seeds", "true", "is True; expected"),
        ("08", "seeds", "-1", "is -1; expected"),
        ("08", "seeds", "0", "is 0; expected"),
        ("08", "seeds", "9" * 20, "from 1 to 10000"),
        ("08", "seeds", "9" * 5000, "-p seeds cannot be read as YAML"),
        ("08", "seeds", "{a", "-p seeds cannot be read as YAML"),
        ("08", "seeds", "!!python/name:os.system", "-p seeds cannot be read as YAML"),
        ("08", "seeds", "!!python/object/apply:os.system [ls]", "-p seeds cannot be read as YAML"),
        ("08", "seeds", '"3"', "is '3'; expected"),
        ("08", "seeds", "[1,2]", "is [1, 2]; expected"),
        ("08", "seeds", "[" * 5000, "nested too deeply"),
        ("08", "width", "0", "is 0; expected"),
        ("08", "width", "8.0", "is 8.0; expected"),
        ("08", "epochs", "-1", "is -1; expected"),
        ("08", "device", "", "-p gives device no value"),
        ("08", "seeds", " ", "-p gives seeds no value"),
        ("08", "device", "null", "is None; expected a device"),
        ("08", "device", "''", "is ''; expected a device"),
        ("08", "device", "gpu", "is 'gpu'; expected a device"),
        ("08", "data_root", "''", "is ''; expected the path"),
        ("08", "dataset", "mnsit", "unknown pool of digits 'mnsit'; choose one of embedded, mnist"),
        ("08", "dataset", "letters", "unknown pool of digits 'letters'"),
        ("09", "glyphs", "mnist", "unknown pool of glyphs 'mnist'; choose one of kmnist, omniglot, letters"),
        ("08", "recompute", "1", "is 1; expected true or false"),
        ("08", "recompute", "yes", "is 'yes'; expected true or false"),
        ("07", "device", "cuda", "expected 'cpu'"),
        ("07", "dataset", "mnist", "expected 'gaussian'"),
        ("10", "seeds", "3", "is 3; expected a whole number from 4"),
        ("04", "width", "null", "is None; expected a whole number"),
        ("06", "alphas", "[]", "is []; expected a list, not empty"),
        ("06", "sigmas", "[0, -5e-2]", "is [0, -0.05]; expected"),
        ("06", "sigmas", "[0, true]", "is [0, True]; expected"),
        ("06", "gamma", ".inf", "is inf; expected a finite number"),
        ("06", "gamma", "1:30", "is '1:30'; expected a finite number"),
        ("01", "alpha", "null", "is None; expected"),
    ],
)
@pytest.mark.parametrize("command", ["run", "sweep"])
def test_a_value_that_a_parameter_cannot_have_is_refused_by_name(
    command, chapter, name, value, message, capsys
):
    assert main([command, chapter, "-p", name, value]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert name in told or "pool" in told


def test_run_fails_if_one_chapter_fails_and_names_its_log(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    outcomes = [
        chapters.Outcome("01_long_tail", None, 3.2, tmp_path / "01.ipynb", tmp_path / "01.log"),
        chapters.Outcome("06_linear", "ValueError: no", 1.0, tmp_path / "06.ipynb", tmp_path / "06.log"),
    ]
    monkeypatch.setattr(chapters, "run", lambda *_: iter(outcomes))
    assert main(["run", "all"]) == 1
    out, err = capsys.readouterr()
    assert "newest log under" in out
    assert "1 of 2 chapters done" in out
    assert "06_linear: ValueError: no\n  log: 06.log" in err


def test_run_fails_if_records_are_missing_afterwards(monkeypatch, capsys, tmp_path):
    """A notebook that ran through and stored nothing is no success."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEMCOMP_RESULTS", str(tmp_path / "empty"))
    outcome = chapters.Outcome("07_gaussian", None, 3.2, tmp_path / "07.ipynb", tmp_path / "07.log")
    monkeypatch.setattr(chapters, "run", lambda *_: iter([outcome]))
    assert main(["run", "07"]) == 1
    out, err = capsys.readouterr()
    assert "0 of 1 chapters done" in out
    assert "07_gaussian: records are missing afterwards: 30 of gaussian" in err


def test_a_chapter_that_trains_nothing_has_nothing_to_sweep(capsys):
    assert main(["sweep", "01"]) == 0
    assert "trains nothing" in capsys.readouterr().out


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_outputs_are_no_error(closed, tmp_path):
    command = f'exec "$0" -m memcomp sweep 01 {closed}'
    done = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("option", ["--scheduler", "--slurm"])
def test_an_empty_address_or_file_does_not_mean_this_machine(option, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["sweep", "07", option, ""])
    assert f"{option}: it is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["sweep", "08", "--workers", "0"],
        ["sweep", "08", "--workers", "9" * 20],
        ["sweep", "08", "--slurm", ""],
        ["sweep", "08", "--scheduler", " "],
        ["dance"],
        ["sweep"],
        [],
    ],
)
def test_a_wrong_command_line_exits_with_two(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "usage: memcomp" in capsys.readouterr().err


def test_the_module_and_the_console_script_are_one():
    script = Path(sys.executable).with_name("memcomp")
    helps = [
        subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        for command in ([sys.executable, "-m", "memcomp", "--help"], [script, "--help"])
    ]
    assert helps[0] == helps[1]
    assert all(word in helps[0] for word in ("data", "run", "sweep"))


def test_a_reader_that_goes_away_is_told_in_one_sentence(tmp_path):
    command = [sys.executable, "-m", "memcomp", "data", "--check", "--root", "nowhere"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == "memcomp: whatever read the output has ended\n"


def test_file_names_of_no_alphabet_and_a_narrow_terminal_are_written_all_the_same(tmp_path):
    root = os.fsdecode(b"da\xfften \xc3\xa4")
    for encoding in ("utf-8", "ascii"):
        done = subprocess.run(
            [sys.executable, "-m", "memcomp", "data", "--check", "--root", root],
            capture_output=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONIOENCODING": encoding},
        )
        assert (done.returncode, done.stderr) == (1, b"")
        assert done.stdout.startswith(b"mnist      incomplete: ")
