"""`memcomp run`: parameters are checked, every chapter has its own process, failures are told."""

from pathlib import Path

import nbformat
import pytest

from memcomp import chapters


def notebook(
    path, source, parameters="numbers = [0, 1]\nwidth = 8\nrate = 1e-3\nprofile = 'quick'\nroot = None"
):
    cells = [
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(source),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a small checkout with two chapters and a paper profile for one of them."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "profiles/paper").mkdir(parents=True)
    notebook(tmp_path / "notebooks/01_good.ipynb", "print('width is', width, 'numbers are', numbers)")
    notebook(tmp_path / "notebooks/02_bad.ipynb", "raise RuntimeError('the sky is falling')")
    (tmp_path / "profiles/paper/01_good.yaml").write_text("profile: paper\nwidth: 64\n")
    monkeypatch.setattr(chapters, "project", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["01_good", "01", "1", "good"])
def test_a_chapter_may_be_named_by_name_number_or_words(project, name):
    assert chapters.find(name) == ["01_good"]


def test_all_means_all_in_order(project):
    assert chapters.find("all") == ["01_good", "02_bad"]


def test_unknown_chapter_is_refused_with_the_nearest(project):
    with pytest.raises(ValueError, match=r"no chapter 'god', did you mean 'good'\?.*01_good, 02_bad"):
        chapters.find("god")


def test_profile_and_typed_parameters_are_merged_and_typed_ones_win(project):
    assert chapters.parameters("01_good") == {}
    assert chapters.parameters("01_good", "paper") == {"profile": "paper", "width": 64}
    typed = chapters.parameters("01_good", "paper", {"width": "16", "numbers": "[3, 4]", "rate": "1e-3"})
    assert typed == {"profile": "paper", "width": 16, "numbers": [3, 4], "rate": 0.001}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"widht": "16"}, r"no parameter 'widht' \(-p\), did you mean 'width'\?"),
        ({"width": "wide"}, r"01_good: parameter 'width' \(-p\) is 'wide'; expected a whole number from 1"),
        ({"width": "true"}, r"'width' \(-p\) is True; expected a whole number"),
        ({"numbers": "3"}, r"'numbers' \(-p\) is 3; expected a list"),
        ({"numbers": "[3, 4.5]"}, r"'numbers' \(-p\) is \[3, 4.5\]; expected a list.* a whole number"),
        ({"rate": ".nan"}, r"'rate' \(-p\) is nan; expected a finite number"),
        ({"width": "010"}, r"'width' \(-p\) is '010'; expected a whole number"),
        ({"profile": "paper"}, r"-p cannot set the profile.*: give --profile NAME"),
        ([("width", "4"), ("width", "5")], r"-p gives width twice"),
    ],
)
def test_mistyped_parameters_are_refused_by_name(project, given, message):
    with pytest.raises(ValueError, match=message):
        chapters.parameters("01_good", given=given)


def test_a_typo_in_a_profile_names_the_file(project):
    (project / "profiles/paper/01_good.yaml").write_text("epoch: 3\n")
    with pytest.raises(ValueError, match=r"no parameter 'epoch' \(profiles/paper/01_good.yaml\)"):
        chapters.parameters("01_good", "paper")


@pytest.mark.parametrize("profile", ["papr", "../profiles/paper", "", ".", "paper/"])
def test_a_profile_is_a_folder_of_profiles(project, profile):
    with pytest.raises(ValueError, match=r"no profile .*; the profiles are quick, paper"):
        chapters.parameters("01_good", profile)


def test_a_relative_folder_means_the_one_where_it_was_typed(project, tmp_path, monkeypatch):
    notebook(project / "notebooks/04_data.ipynb", "pass", "data_root = None")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    (project / "profiles/paper/04_data.yaml").write_text("data_root: ~/data\n")
    typed = chapters.parameters("04_data", given={"data_root": "data"})
    assert typed == {"data_root": str(tmp_path / "here/data")}
    assert chapters.parameters("04_data", "paper") == {"data_root": str(tmp_path / "data")}


def test_a_log_loses_only_whole_paths(project, monkeypatch):
    line = f"{project}/notebooks and {project}s, 1/2 / 3\n"
    for home, expected in (("/", f"./notebooks and {project}s, 1/2 / 3\n"), (str(project.parent), None)):
        monkeypatch.setenv("HOME", home)
        assert chapters.without_paths(line) == (expected or f"./notebooks and ~/{project.name}s, 1/2 / 3\n")


def test_a_profile_without_this_chapter_is_refused(project):
    with pytest.raises(FileNotFoundError, match=r"expected profiles/paper/02_bad.yaml; it has 01_good"):
        chapters.parameters("02_bad", "paper")


def test_a_notebook_without_parameters_is_refused(project):
    plain = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("width = 8")])
    nbformat.write(plain, project / "notebooks/03_plain.ipynb")
    with pytest.raises((ValueError, UserWarning), match="parameters"):
        chapters.parameters("03_plain", given={"width": "9"})


def test_a_wrong_parameter_stops_the_run_before_anything_is_executed(project):
    with pytest.raises(ValueError, match="no parameter"):
        list(chapters.run(["01_good", "02_bad"], given={"epochs": "3"}))
    assert not (project / "runs").exists()


def test_a_failing_chapter_is_reported_and_does_not_stop_the_next(project):
    notebook(project / "notebooks/03_last.ipynb", "print('still here')")
    bad, last = chapters.run(["02_bad", "03_last"])
    assert "the sky is falling" in bad.error
    assert "the sky is falling" in bad.log.read_text()
    assert last.error is None
    assert "still here" in last.notebook.read_text()


def test_executed_notebook_and_log_tell_nothing_of_this_machine(project):
    (outcome,) = chapters.run(["01_good"], "paper", {"numbers": "[7]"})
    assert outcome.error is None
    text = outcome.notebook.read_text() + outcome.log.read_text()
    assert "width is 64 numbers are [7]" in text
    assert str(project) not in text
    assert str(Path.home()) + "/" not in text
    assert outcome.notebook.is_relative_to(project / "runs")


def test_a_kernel_that_did_not_start_gets_one_more_chance(project, monkeypatch):
    answers = [(1, "zmq.error.ZMQError: Address already in use\n"), (0, "fine\n")]
    monkeypatch.setattr(chapters, "_follow", lambda command, root, log: answers.pop(0))
    (outcome,) = chapters.run(["01_good"])
    assert outcome.error is None
    assert not answers


def test_a_kernel_that_never_starts_is_a_failure(project, monkeypatch):
    tries = []
    monkeypatch.setattr(chapters, "_follow", lambda *_: tries.append(1) or (1, "Address already in use\n"))
    (outcome,) = chapters.run(["01_good"])
    assert outcome.error == "Address already in use"
    assert len(tries) == 2


def test_an_error_in_the_notebook_is_not_tried_again(project, monkeypatch):
    tries = []
    monkeypatch.setattr(chapters, "_follow", lambda *_: tries.append(1) or (1, "ValueError: no\n"))
    (outcome,) = chapters.run(["01_good"])
    assert outcome.error == "ValueError: no"
    assert len(tries) == 1
