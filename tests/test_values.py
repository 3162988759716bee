"""Values that a person types: read in one way, and refused by name where a parameter cannot have them."""

import math
import types
from pathlib import Path

import nbformat
import pytest
import yaml

from memcomp import chapters, values
from memcomp.experiments import gaussian, mnist_sum

ROOT = Path(__file__).resolve().parents[1]
STORED = list(chapters.notebooks())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-1E5", -1e5),
        ("5.", 5.0),
        (".5", 0.5),
        ("+3", 3),
        ("0", 0),
        ("-0", 0),
        ("10_000", 10_000),
        ("[0, 5e-2]", [0, 0.05]),
        ("null", None),
        ("None", None),
        ("", None),
        ("False", False),
        ("cuda:1", "cuda:1"),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1:30", "1:30"),
        ("12:00:00", "12:00:00"),
        ("yes", "yes"),
        ("off", "off"),
        ("2026-01-01", "2026-01-01"),
        ("'3'", "3"),
        ("~/data", "~/data"),
    ],
)
def test_one_reader(text, value):
    found = values.read(text)
    assert found == value
    assert type(found) is type(value)


def test_infinities_are_numbers_for_the_reader_so_that_the_rule_can_name_them():
    assert values.read("-.inf") == -math.inf
    assert math.isnan(values.read(".nan"))


@pytest.mark.parametrize(
    "text",
    ["{a", "a: b: c", "!!python/none", "!!timestamp 2026-01-01", "!!binary aGk=", "\x00", "{[1]: 2}", "*a"],
)
def test_what_is_no_plain_value_is_refused_by_name(text):
    with pytest.raises(ValueError, match=r"^-p x cannot be read as YAML"):
        values.read(text, "-p x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jobs: 1\njobs: 2\n", "f.yaml cannot be read as YAML: jobs is given twice"),
        ("- 1\n", "f.yaml holds list; expected lines of the form `name: value`"),
        ("3: 4\n", "f.yaml holds dict"),
        ("a: 1\nb: {\n", "f.yaml cannot be read as YAML, line 3"),
        ("wörter", "f.yaml is not a file of text in UTF-8"),
    ],
)
def test_a_file_that_holds_no_values_is_refused_by_name(text, message, tmp_path):
    (tmp_path / "f.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        values.read_file(tmp_path / "f.yaml", "f.yaml")


def test_a_file_that_is_not_there_is_refused_and_an_empty_one_is_empty(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.yaml"):
        values.read_file(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="is a folder; expected a file"):
        values.read_file(tmp_path)
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert values.read_file(tmp_path / "empty.yaml") == {}


@pytest.mark.parametrize("chapter", STORED)
def test_every_parameter_is_in_the_table_and_its_default_fits(chapter):
    for name, default in chapters.defaults(chapter).items():
        assert name in values.PARAMETERS
        assert values.rule(name, chapter)(default, name) == default
    for name in values.NARROWER.get(chapter, {}):
        assert name in chapters.defaults(chapter)


def test_networks_of_chapter_10_come_in_pairs():
    rule = values.rule("seeds", "10_memorization_scores")
    assert [rule(value, "seeds") for value in (None, 4, 6)] == [None, 4, 6]
    for wrong in (2, 5, 6.0):
        with pytest.raises(
            ValueError, match=rf"^seeds is {wrong}; expected a whole number from 4 .*, and even"
        ):
            rule(wrong, "seeds")


def test_the_table_has_no_parameter_that_no_chapter_has():
    assert set(values.PARAMETERS) == {name for chapter in STORED for name in chapters.defaults(chapter)}
    assert set(values.NARROWER) <= set(STORED)


@pytest.mark.parametrize("path", sorted((ROOT / "profiles").rglob("*.yaml")), ids=lambda path: path.name)
def test_plain_papermill_reads_the_stored_profiles_alike(path):
    assert values.read_file(path) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize("chapter", STORED)
def test_every_notebook_checks_its_parameters_before_it_uses_them(chapter):
    cells = nbformat.read(chapters.notebooks()[chapter], 4).cells
    cells = [cell for cell in cells if cell.cell_type == "code"]
    assert cells[0].metadata.tags == ["parameters"]
    imports, _, rest = cells[1].source.partition("\n\ncheck_parameters(globals()")
    assert "from memcomp.values import check_parameters" in imports
    assert rest.startswith(f', "{chapter}")' if chapter in values.NARROWER else ")")


@pytest.mark.parametrize(
    ("name", "value", "used"),
    [
        ("gamma", "1e-3", 0.001),
        ("sigmas", [0, "5e-2"], [0, 0.05]),
        ("seeds", None, None),
        ("data_root", "data", str(Path.cwd() / "data")),
        ("architecture", "sum", "sum"),
        ("architecture", "package.module:build", "package.module:build"),
        ("architecture", "nets/my_net.py:build", f"{Path.cwd()}/nets/my_net.py:build"),
        ("architecture", "~/my_net.py:build", f"{Path.home()}/my_net.py:build"),
    ],
)
def test_plain_papermill_hands_over_what_was_meant(name, value, used):
    namespace = {name: value, "models": types.ModuleType("models")}
    values.check_parameters(namespace)
    assert namespace[name] == used


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seeds", "3"),
        ("seeds", "two"),
        ("seeds", 2.5),
        ("seeds", True),
        ("seeds", 0),
        ("epochs", "1e3"),
        ("width", 8.0),
        ("gamma", "0.5"),
        ("gamma", math.nan),
        ("sigmas", [0, "0.5"]),
        ("sigmas", "0.5"),
        ("device", ""),
        ("recompute", "yes"),
        ("profile", ""),
        ("glyphs", 3),
        ("architecture", None),
        ("architecture", " "),
        ("architecture", ["sum"]),
    ],
)
def test_plain_papermill_gets_an_error_that_names_the_parameter(name, value):
    with pytest.raises(ValueError, match=f"^parameter '{name}' is .*; expected "):
        values.check_parameters({name: value})


def test_a_chapter_may_allow_less():
    values.check_parameters({"device": "cuda"})
    with pytest.raises(ValueError, match="'device' is 'cuda'; expected 'cpu'"):
        values.check_parameters({"device": "cuda"}, "07_gaussian")


@pytest.mark.parametrize("grid", [gaussian.grid, mnist_sum.grid])
@pytest.mark.parametrize(
    ("name", "value"), [("seeds", 0), ("seeds", -1), ("seeds", 2.5), ("epochs", -1), ("width", True)]
)
def test_a_grid_of_nothing_or_of_nonsense_is_refused(grid, name, value):
    with pytest.raises(ValueError, match=f"^{name} is {value}; expected a whole number"):
        grid(**{name: value})


# ---------------------------------------------------------------------------------------------- Slurm


def slurm(tmp_path, text):
    (tmp_path / "slurm.yaml").write_text(text)
    return values.slurm_options(tmp_path / "slurm.yaml")


def test_the_example_is_accepted():
    options = values.slurm_options(ROOT / "profiles/slurm.example.yaml")
    assert (options["jobs"], options["walltime"], options["memory"]) == (8, "04:00:00", "16GB")


def test_what_was_plainly_meant_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    text = "jobs: 1\nwalltime: 12:00:00\nlog_directory: ~/logs\nlocal_directory: $SCRATCH/dask\n"
    assert slurm(tmp_path, text + "shared_temp_directory: here\n") == {
        "jobs": 1,
        "walltime": "12:00:00",
        "log_directory": str(tmp_path / "logs"),
        "local_directory": "$SCRATCH/dask",
        "shared_temp_directory": str(tmp_path / "here"),
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("jobs: true", "jobs is True; expected a whole number"),
        ("jobs: 0", "jobs is 0; expected a whole number from 1"),
        ("cores: two", "cores is 'two'; expected a whole number"),
        ("cores: 1.5", "cores is 1.5; expected a whole number"),
        ("processes: -1", "processes is -1; expected a whole number"),
        ("memory: 16", "memory is 16; expected a text with a unit, such as 16GB"),
        ("memory: '16'", "memory is '16'; expected a text with a unit"),
        ("memory: lots", "memory is 'lots'; expected a text with a unit"),
        ("walltime: 43200", "walltime is 43200; expected hours, minutes and seconds"),
        ("walltime: '12:00'", "walltime is '12:00'; expected hours, minutes and seconds"),
        ("walltime: a day", "walltime is 'a day'; expected"),
        ("job_extra_directives: --gres=gpu:1", "job_extra_directives is '--gres=gpu:1'; expected a list"),
        (
            "job_script_prologue: module load cuda",
            "job_script_prologue is 'module load cuda'; expected a list",
        ),
        ("worker_extra_args: [--nthreads, 1]", r"worker_extra_args is \['--nthreads', 1\]; expected a list"),
        ("queue: 7", "queue is 7; expected a text; put it in quotes"),
        ("account: [a]", "account is"),
        ("log_directory: ''", "log_directory is ''; expected the path of a folder"),
        ("log_directory: ~nobody-of-this-name/x", "log_directory is .*there is no such home folder"),
        ("scheduler_options: 3", "scheduler_options is 3; expected a mapping"),
    ],
)
def test_an_option_for_slurm_that_cannot_be_is_refused_by_name(line, message, tmp_path):
    start = "" if line.startswith("jobs") else "jobs: 1\n"
    with pytest.raises(ValueError, match=f"slurm.yaml: {message}"):
        slurm(tmp_path, start + line + "\n")


def test_a_file_for_slurm_without_jobs_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected jobs: N.*slurm\.example\.yaml"):
        slurm(tmp_path, "cores: 1\n")
