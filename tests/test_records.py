"""What a record says, when it is refused, and what `collect` computes; killed processes are next door."""

import contextlib
import dataclasses
import errno
import functools
import getpass
import itertools
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from memcomp import cluster, records


@dataclasses.dataclass(frozen=True)
class Config:
    x: float
    seed: int = 0
    betas: tuple = (0.9, 0.999)


@records.experiment("toy", version=3)
def toy(config):
    rng = np.random.default_rng([config.seed, int(config.x)])
    return {
        "loss": np.float32(config.x**2),
        "curve": rng.normal(size=3),
        "weights": torch.zeros(2),
        "name": "toy",
        "data": {"source": "embedded", "sha256": "0" * 64},
    }


@records.experiment("picky", version=1)
def picky(config):
    x = config["x"]
    if x == 1:
        raise KeyError("a missing image")
    return {"loss": {2: float("nan"), 3: float("inf")}.get(x, float(x)), "curve": [1.0, 2.0]}


collect = functools.partial(records.collect, workers=0, progress=False)
GRID = [Config(x=1), Config(x=2), Config(x=2, seed=1)]


@pytest.fixture
def stored(tmp_path):
    return collect(toy, GRID, root=tmp_path)


# What is stored


def test_a_record_says_what_it_is_and_where_it_comes_from(stored, tmp_path):
    first = stored[0]
    assert tuple(first) == records.FIELDS
    assert (first["experiment"], first["profile"], first["version"]) == ("toy", "quick", 3)
    assert first["config"] == {"x": 1, "seed": 0, "betas": [0.9, 0.999]}
    assert first["metrics"].keys() == {"loss", "curve", "weights", "name"}
    assert first["data"] == {"source": "embedded", "sha256": "0" * 64}
    origin = first["provenance"]
    assert origin.keys() == {
        "created",
        "commit",
        "dirty",
        "python",
        "versions",
        "device",
        "threads",
        "seconds",
    }
    assert origin["threads"] == 1
    assert origin["seconds"] >= 0
    assert origin["versions"]["numpy"] == np.__version__
    assert origin["device"]
    repository = pathlib.Path(records.__file__).parents[1]
    if (repository / ".git").exists():
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True)
        assert origin["commit"] == head.stdout.strip()
        assert isinstance(origin["dirty"], bool)
    assert (tmp_path / "quick" / "toy" / f"{first['key']}.json").is_file()


def test_a_record_names_no_machine_no_user_and_no_path(stored, tmp_path):
    text = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert str(tmp_path) not in text
    assert str(pathlib.Path.cwd()) not in text
    assert str(pathlib.Path.home()) not in text
    assert f'"{getpass.getuser()}"' not in text
    assert socket.gethostname() not in text


@pytest.mark.parametrize("where", ["config", "metrics", "data"])
def test_absolute_paths_are_refused_wherever_they_hide(where, tmp_path):
    path = os.path.abspath("somewhere")

    @records.experiment("pathy", version=1)
    def run(config):
        return {"loss": 1.0, **({"log": [path]} if where == "metrics" else {}), "data": {"source": source}}

    source = path if where == "data" else "embedded"
    config = {"root": path} if where == "config" else {"x": 1}
    with pytest.raises((ValueError, records.PointsFailed), match="absolute path"):
        collect(run, [config], root=tmp_path)
    assert not list(tmp_path.rglob("*.json"))


def test_arguments_outside_the_config_travel_in_a_partial(tmp_path):
    @records.experiment("partial", version=1)
    def run(config, folder):
        return {"ok": os.path.isdir(folder)}

    (record,) = collect(functools.partial(run, folder=str(tmp_path)), [{"x": 1}], root=tmp_path)
    assert record["metrics"] == {"ok": True}
    assert record["config"] == {"x": 1}


def test_what_was_stored_is_loaded_and_not_computed(stored, tmp_path):
    computed = []

    @records.experiment("toy", version=3)
    def watched(config):
        computed.append(config)
        return toy(config)

    assert collect(watched, GRID, root=tmp_path) == stored
    assert computed == []
    more = collect(watched, [Config(x=5), *GRID, Config(x=5)], root=tmp_path)
    assert computed == [Config(x=5)]  # once, though it stands in the grid twice
    assert more[1:4] == stored
    assert more[0] == more[4]
    again = collect(watched, GRID, root=tmp_path, recompute=True)
    assert len(computed) == 4
    assert [r["metrics"] for r in again] == [r["metrics"] for r in stored]


def test_same_seed_same_bits(stored, tmp_path):
    again = collect(toy, GRID, root=tmp_path / "elsewhere")
    assert [r["metrics"] for r in again] == [r["metrics"] for r in stored]


def test_run_cannot_change_the_config_that_is_stored(tmp_path):
    @records.experiment("rude", version=1)
    def run(config):
        config["x"] = config.pop("x") + 1
        return {"x": config["x"]}

    (record,) = collect(run, [{"x": 1}], root=tmp_path)
    assert (record["config"], record["metrics"]) == ({"x": 1}, {"x": 2})
    assert collect(run, [{"x": 1}], root=tmp_path) == [record]


def test_profiles_do_not_mix(stored, tmp_path):
    assert records.load("toy", "paper", root=tmp_path) == []
    collect(toy, GRID[:1], root=tmp_path, profile="paper")
    assert len(records.load("toy", "paper", root=tmp_path)) == 1
    assert len(records.load("toy", root=tmp_path)) == 3


def test_default_root_is_the_variable_else_the_repository(monkeypatch, tmp_path):
    monkeypatch.setenv("MEMCOMP_RESULTS", str(tmp_path / "there"))
    collect(toy, GRID[:1])
    assert len(records.load("toy")) == 1
    assert (tmp_path / "there" / "quick" / "toy").is_dir()
    monkeypatch.delenv("MEMCOMP_RESULTS")
    monkeypatch.chdir(tmp_path)
    assert records.results_root() == pathlib.Path(records.__file__).parents[1] / "results"


# Keys

scalars = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text("abc", max_size=3)
values = st.recursive(
    scalars | st.floats(-1e6, 1e6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", min_size=1), inner, max_size=3)
    ),
    max_leaves=6,
)


def shuffled(value):
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(list(value))}
    return tuple(map(shuffled, value)) if isinstance(value, list) else value


@given(st.dictionaries(st.text("pqr", min_size=1), values, max_size=4))
def test_the_key_depends_on_content_not_on_its_spelling(config):
    key = records.key_of("toy", 1, config)
    assert key == records.key_of("toy", 1, shuffled(config))
    assert key == records.key_of("toy", 1, json.loads(json.dumps(config)))
    assert key != records.key_of("toy", 2, config)
    assert key != records.key_of("yot", 1, config)
    assert key != records.key_of("toy", 1, {**config, "new": 1})
    assert len(key) == 16


def test_numpy_scalars_and_integral_floats_are_the_same_point_but_booleans_are_not():
    assert records.key_of("toy", 1, {"x": np.float64(1)}) == records.key_of("toy", 1, {"x": 1})
    assert records.key_of("toy", 1, {"x": np.int32(1)}) == records.key_of("toy", 1, {"x": 1.0})
    assert records.key_of("toy", 1, {"x": -0.0}) == records.key_of("toy", 1, {"x": 0})
    assert records.key_of("toy", 1, {"x": True}) != records.key_of("toy", 1, {"x": 1})
    assert records.key_of("toy", 1, {"x": 0.5}) != records.key_of("toy", 1, {"x": 0})


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"x": object()}, TypeError, r"config\.x is of type object"),
        ({"x": {"y": [1, {2}]}}, TypeError, r"config\.x\.y\[1\] is of type set"),
        ({"x": np.zeros(2)}, TypeError, r"config\.x is of type ndarray"),
        ({1: 2}, TypeError, "keys must be texts"),
        ({"x": float("nan")}, ValueError, r"config\.x is nan"),
        (3, TypeError, "must be a dict or a dataclass instance; got int"),
        (Config, TypeError, "must be a dict or a dataclass instance; got type"),
    ],
)
def test_configs_that_cannot_be_stored_are_refused_by_entry(config, error, message, tmp_path):
    with pytest.raises(error, match=message):
        collect(toy, [config], root=tmp_path)
    assert not list(tmp_path.iterdir())


# Failures


def test_a_failing_point_stops_no_other_and_is_named_by_its_config(tmp_path):
    with pytest.raises(records.PointsFailed) as caught:
        collect(picky, [{"x": x} for x in range(6)], root=tmp_path)
    message = str(caught.value)
    assert "3 of 6 points of 'picky' failed" in message
    assert """{"x":1}: KeyError: 'a missing image'""" in message
    assert '{"x":2}: ValueError: metrics.loss is nan' in message
    assert '{"x":3}: ValueError: metrics.loss is inf' in message
    assert [config for config, _, _ in caught.value.failures] == [{"x": 1}, {"x": 2}, {"x": 3}]
    assert "in picky" in caught.value.failures[0][2]  # the traceback
    assert [r["config"]["x"] for r in caught.value.records] == [0, 4, 5]
    assert sorted(r["config"]["x"] for r in records.load("picky", root=tmp_path)) == [0, 4, 5]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (1.0, "expected a dict of metrics"),
        ({}, "no metrics"),
        ({"loss": object()}, r"metrics\.loss is of type object"),
        ({"curve": np.array([1, np.nan])}, r"metrics\.curve\[1\] is nan"),
        ({"loss": torch.tensor(float("inf"))}, r"metrics\.loss is inf"),
        ({"loss": 1.0, "data": "mnist"}, "expected {'source'"),
    ],
)
def test_results_that_cannot_be_stored_are_failures(result, message, tmp_path):
    @records.experiment("odd", version=1)
    def run(config):
        return result

    with pytest.raises(records.PointsFailed, match=message):
        collect(run, [{"x": 1}], root=tmp_path)
    assert not list(tmp_path.rglob("*.json"))


def test_only_experiments_are_run(tmp_path):
    with pytest.raises(TypeError, match=r"not an experiment: put @records\.experiment"):
        collect(lambda config: {}, [{"x": 1}], root=tmp_path)
    with pytest.raises(TypeError, match=r"For one point pass \[config\]"):
        collect(toy, Config(x=1), root=tmp_path)
    with pytest.raises(ValueError, match="workers must be an integer"):
        records.collect(toy, GRID, root=tmp_path, workers=-1)
    with pytest.raises(ValueError, match=r"profile '\.\./x'"):
        collect(toy, GRID, root=tmp_path, profile="../x")
    for name, version in (("Toy", 1), ("claims", 1), ("a/b", 1), ("toy", 0), ("toy", True), ("toy", "1")):
        with pytest.raises(ValueError, match="experiment"):
            records.experiment(name, version=version)


# Damage


def test_a_record_cut_at_any_byte_is_refused_by_name(stored, tmp_path):
    path = tmp_path / "quick" / "toy" / f"{stored[0]['key']}.json"
    whole = path.read_bytes()
    for length in range(len(whole.rstrip())):
        path.write_bytes(whole[:length])
        with pytest.raises(records.RecordError, match=f"damaged record .*{path.name}"):
            records.read(path)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_record_with_one_byte_changed_is_refused_unless_it_says_the_same(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("records")
    (record,) = collect(picky, [{"x": 7}], root=folder)
    path = folder / "quick" / "picky" / f"{record['key']}.json"
    whole = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, 2**16)) % len(whole)  # the length depends on the seconds that it took
    whole[at] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        found = records.read(path)
    except records.RecordError as refusal:
        found, message = None, str(refusal)
    assert found == record if found else path.name in message


def edited(record, path, **changes):
    path.write_text(json.dumps({**record, **changes}))


def signed(record, path, **changes):
    """Write a record that was changed, with the checksum of its new content."""
    changed = {**record, **changes}
    edited(changed, path, checksum=records._checksum(changed))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r, p: edited(r, p, metrics={"loss": 0.0}), "checksum does not match"),
        (lambda r, p: edited(r, p, version=4), "checksum does not match"),
        (
            lambda r, p: p.write_text(p.read_text().replace("{\n", "<<<<<<< HEAD\n{\n", 1)),
            "not readable as JSON",
        ),
        (lambda r, p: p.write_text("[]"), "not a JSON object"),
        (lambda r, p: p.write_text("{}"), "lacks the field 'key'"),
        (lambda r, p: edited(r, p, note="hello"), "unknown field 'note'"),
        (lambda r, p: p.write_bytes(b"\xff\xfe"), "not readable as JSON"),
        (lambda r, p: edited(r, p, config=None, checksum="0"), "checksum does not match"),
        (
            lambda r, p: p.write_text(p.read_text().replace('"metrics": {', '"metrics": {"loss": 0, ', 1)),
            "the name 'loss' stands twice",
        ),
        (
            lambda r, p: p.write_text(p.read_text().replace("{", '{"config": {"x": 9},', 1)),
            "the name 'config' stands twice",
        ),
        (lambda r, p: p.write_text("[" * 100_000), "nested too deeply"),
        (lambda r, p: p.write_text('{"a":' * 100_000), "nested too deeply"),
        (lambda r, p: signed(r, p, metrics=None), "metrics is null where dict was expected"),
        (lambda r, p: signed(r, p, metrics={}), "no metrics"),
        (lambda r, p: signed(r, p, metrics=[0.5]), "metrics is .* where dict"),
        (lambda r, p: signed(r, p, config=None), "config is null where dict"),
        (lambda r, p: signed(r, p, version=True), "version is true where int"),
        (lambda r, p: signed(r, p, provenance={}), r"lacks provenance\.created"),
        (lambda r, p: signed(r, p, provenance=r["provenance"] | {"seconds": "9"}), "provenance.seconds is"),
        (lambda r, p: signed(r, p, provenance=r["provenance"] | {"device": None}), "provenance.device is"),
        (lambda r, p: signed(r, p, data={}), r"lacks data\.source"),
        (lambda r, p: signed(r, p, data=[]), r"data is \[\] where dict \| null"),
        (lambda r, p: (p.unlink(), p.mkdir()), "it cannot be read"),
    ],
)
def test_damage_is_told_with_the_way_to_mend_it(stored, tmp_path, change, message):
    path = tmp_path / "quick" / "toy" / f"{stored[1]['key']}.json"
    change(stored[1], path)
    with pytest.raises(records.RecordError, match=message) as caught:
        collect(toy, GRID, root=tmp_path)
    assert path.name in str(caught.value)
    assert "Delete the file" in str(caught.value)
    assert "git checkout -- " in str(caught.value)
    with pytest.raises(records.RecordError, match=message):
        records.load("toy", root=tmp_path)
    assert collect(toy, [GRID[0], GRID[2]], root=tmp_path) == [stored[0], stored[2]]  # others still serve
    if path.is_file():
        collect(toy, GRID, root=tmp_path, recompute=True)
        assert len(collect(toy, GRID, root=tmp_path)) == 3


def test_all_damaged_records_are_told_at_once(stored, tmp_path):
    for record in stored[:2]:
        (tmp_path / "quick" / "toy" / f"{record['key']}.json").write_text("{")
    with pytest.raises(records.RecordError) as caught:
        collect(toy, GRID, root=tmp_path)
    assert all(record["key"] in str(caught.value) for record in stored[:2])
    assert stored[2]["key"] not in str(caught.value)


def test_a_record_under_another_name_or_in_another_folder_is_refused(stored, tmp_path):
    folder = tmp_path / "quick" / "toy"
    (folder / f"{stored[0]['key']}.json").replace(folder / f"{stored[1]['key']}.json")
    with pytest.raises(records.RecordError, match="belongs to the key"):
        collect(toy, GRID[1:2], root=tmp_path)
    (tmp_path / "paper").mkdir()
    folder.rename(tmp_path / "paper" / "toy")
    with pytest.raises(records.RecordError, match=r"belongs to the key .* in quick/toy, not to this file"):
        records.read(tmp_path / "paper" / "toy" / f"{stored[2]['key']}.json")


def test_versions_are_never_mixed(stored, tmp_path):
    @records.experiment("toy", version=4)
    def newer(config):
        return {"loss": -1.0}

    fresh = collect(newer, GRID, root=tmp_path)
    assert [r["metrics"] for r in fresh] == [{"loss": -1.0}] * 3
    assert collect(toy, GRID, root=tmp_path) == stored
    with pytest.raises(records.RecordError, match="versions 3, 4"):
        records.load("toy", root=tmp_path)
    assert records.load("toy", root=tmp_path, version=4) == sorted(fresh, key=lambda r: r["key"])


def test_a_record_of_code_with_other_fields_is_named_and_not_half_understood(tmp_path):
    @records.experiment("changed", version=1, config=Config)
    def run(config):
        return {"loss": config.x}

    (record,) = collect(run, GRID[:1], root=tmp_path)
    path = tmp_path / "quick" / "changed" / f"{record['key']}.json"
    signed(record, path, config={**record["config"], "momentum": 0.5})
    with pytest.raises(
        records.RecordError, match="of other code than this: configs of changed have no momentum"
    ):
        collect(run, GRID[:1], root=tmp_path)


@pytest.mark.parametrize("spoil", [pathlib.Path.mkdir, lambda path: path.symlink_to("nowhere")])
@pytest.mark.filterwarnings("ignore:cannot lock")
def test_what_stands_where_a_lock_belongs_costs_no_record(tmp_path, spoil):
    folder = tmp_path / "quick" / "toy"
    folder.mkdir(parents=True)
    key = records.key_of("toy", 3, GRID[0])
    spoil(folder / f".{key}.lock")
    assert len(collect(toy, GRID, root=tmp_path)) == 3
    assert len(records.load("toy", root=tmp_path)) == 3


def test_a_link_to_nowhere_is_no_record_and_is_replaced(stored, tmp_path):
    path = tmp_path / "quick" / "toy" / f"{stored[0]['key']}.json"
    path.unlink()
    path.symlink_to("nowhere")
    assert len(collect(toy, GRID, root=tmp_path)) == 3
    assert path.is_file()
    assert not path.is_symlink()


def test_strangers_in_the_folder_are_ignored(stored, tmp_path):
    folder = tmp_path / "quick" / "toy"
    for name in (".0123456789abcdef.json.xyz.tmp", ".0123456789abcdef.lock", "notes.txt", ".DS_Store"):
        (folder / name).write_text("{")
    assert len(records.load("toy", root=tmp_path)) == 3


# What is waited for


def test_what_is_waited_for_is_told_after_a_minute_and_then_rarely(capsys):
    now = [0.0]
    waiting = cluster.Waiting(clock=lambda: now[0])
    told = []
    for now[0] in range(0, 4 * 3600, 5):
        waiting.tell(lambda: told.append(now[0]) or "a friend")
    assert told[:4] == [60, 180, 420, 900]
    assert 8 <= len(told) <= 11
    assert {late - early for early, late in itertools.pairwise(told[-3:])} == {3600}
    assert capsys.readouterr().err.startswith("waiting for 1 min: a friend\nwaiting for 3 min: a friend\n")


def test_waiting_for_points_of_others_is_told_with_who_has_them(stored, tmp_path, monkeypatch):
    """The other process is this one, through locks of its own; it lets go once it has been told of."""
    folder = tmp_path / "quick" / "toy"
    locks = contextlib.ExitStack()
    for record in stored[:2]:
        (folder / f"{record['key']}.json").unlink()
        assert locks.enter_context(records._lock(folder / f".{record['key']}.lock"))
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 0)  # nothing here depends on how fast the machine is
    monkeypatch.setattr(records, "LOOK_SECONDS", 0)
    told = []

    def write(text, file):
        told.append(text)
        locks.close()

    monkeypatch.setattr(cluster.tqdm, "write", write)
    assert len(collect(toy, GRID, root=tmp_path)) == 3
    assert "2 points of this grid are being computed by other processes" in told[0]
    assert f".{stored[0]['key']}.lock: process {os.getpid()} on " in told[0]
    assert "end it" in told[0]
    assert not [path.name for path in folder.iterdir() if path.suffix != ".json"]


def test_a_call_that_gives_no_sign_is_told_of_by_a_thread(monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 0)
    said = threading.Event()
    monkeypatch.setattr(cluster.tqdm, "write", lambda text, file: said.set())
    with cluster.told("godot"):
        assert said.wait(60)


# A folder that takes nothing


def test_a_folder_that_takes_nothing_is_told_before_anything_is_computed(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @records.experiment("toy", version=3)
    def never(config):
        raise AssertionError("computed though it cannot be stored")

    (tmp_path / "quick").write_text("a file where a folder belongs")
    with pytest.raises(OSError, match=r"nothing can be stored in .*MEMCOMP_RESULTS"):
        collect(never, GRID, root=tmp_path)
    monkeypatch.setattr(records.tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match=r"nothing can be stored in .*No space left"):
        collect(never, GRID, root=tmp_path / "other")


def test_many_failures_do_not_fill_the_screen(tmp_path):
    with pytest.raises(records.PointsFailed) as caught:
        collect(picky, [{"x": 1, "seed": seed} for seed in range(40)], root=tmp_path)
    assert len(str(caught.value).splitlines()) == 12
    assert str(caught.value).endswith("  and 30 more")
    assert len(caught.value.failures) == 40


# A process that dies while it writes: it kills itself at the worst moments

SUICIDE = """
import os, signal, sys
from memcomp import records
victim, path = sys.argv[1:]
setattr(os, victim, lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL))
records.write_atomically(path, "x" * 100_000)
"""


@pytest.mark.parametrize("victim", ["fsync", "fchmod", "replace"])
@pytest.mark.parametrize("before", [None, "the old content"])
def test_a_writer_killed_at_work_leaves_the_old_file_or_none(victim, before, tmp_path):
    path = tmp_path / "quick.json"
    if before:
        path.write_text(before)
    dead = subprocess.run([sys.executable, "-c", SUICIDE, victim, path], check=False)
    assert dead.returncode == -9
    assert (path.read_text() if path.exists() else None) == before
    assert len(list(tmp_path.glob(".quick.json.*.tmp"))) == 1  # the victim did get that far


def test_leftovers_of_a_killed_writer_go_when_its_point_is_computed(stored, tmp_path):
    folder = tmp_path / "quick" / "toy"
    key = stored[0]["key"]
    (folder / f"{key}.json").unlink()
    (folder / f".{key}.json.abc.tmp").write_text("half")
    (folder / f".{key}.lock").write_text("")
    collect(toy, GRID, root=tmp_path)
    assert sorted(p.name for p in folder.iterdir()) == sorted(f"{r['key']}.json" for r in stored)


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(records.PointsFailed, match="No space left on device"):
        collect(toy, GRID, root=tmp_path)
    assert not list((tmp_path / "quick" / "toy").iterdir())


def test_a_folder_that_the_worker_cannot_see_is_written_by_the_client(tmp_path, monkeypatch):
    here = tmp_path / "quick" / "toy"
    compute = records._compute

    def on_another_machine(run, config, key, job):
        return compute(run, config, key, dataclasses.replace(job, folder=str(tmp_path / "not" / "there")))

    monkeypatch.setattr(records, "_compute", on_another_machine)
    found = collect(toy, GRID, root=tmp_path)
    assert sorted(p.stem for p in here.iterdir()) == sorted(r["key"] for r in found)
    assert not (tmp_path / "not").exists()


def test_progress_is_shown_only_when_there_is_something_to_do(tmp_path, capsys):
    records.collect(toy, GRID, root=tmp_path, workers=0)
    shown = capsys.readouterr().err
    assert "toy" in shown
    assert "3/3" in shown
    records.collect(toy, GRID, root=tmp_path, workers=0)
    assert capsys.readouterr().err == ""


# Description


def test_describe_says_when_where_and_from_which_code(stored):
    one = json.loads(json.dumps(stored[0]))
    one["provenance"] |= {
        "created": "2030-01-05T10:00:00+00:00",
        "commit": "a" * 40,
        "dirty": False,
        "device": "CPU X",
    }
    assert records.describe([one]) == (
        "1 stored record, computed on 2030-01-05 on CPU X (1 thread), commit aaaaaaaaaa."
    )
    other = json.loads(json.dumps(one))
    other["provenance"] |= {"created": "2030-02-01T10:00:00+00:00", "threads": 2, "commit": None}
    third = json.loads(json.dumps(one))
    third["provenance"] |= {"dirty": True}
    assert records.describe([one, other, third]) == (
        "3 stored records, computed from 2030-01-05 to 2030-02-01 on CPU X (1 thread) and CPU X (2 threads), "
        "commits aaaaaaaaaa, aaaaaaaaaa with uncommitted changes, unknown."
    )
    with pytest.raises(ValueError, match="no records"):
        records.describe([])


@records.experiment("allocator", version=1)
def allocator(config):
    return {"trims": "MALLOC_TRIM_THRESHOLD_" in os.environ, "threads": int(os.environ["OMP_NUM_THREADS"])}


@pytest.mark.slow
def test_workers_keep_their_memory_between_steps(tmp_path, monkeypatch):
    """With Dask's own setting, training spends a third of its time on page faults."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (record,) = records.collect(allocator, [{"x": 1}], root=tmp_path, workers=1, progress=False)
    assert record["metrics"] == {"trims": False, "threads": 1}


# Where a record comes from


@records.experiment("somewhere", version=1)
def somewhere(config, device="cpu"):
    return {"x": config["x"]}


def test_the_device_is_that_of_the_run_not_of_the_process(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda kind: f"a GPU, {kind}")
    (here,) = collect(somewhere, [{"x": 1}], root=tmp_path)
    (there,) = collect(functools.partial(somewhere, device="cuda:1"), [{"x": 2}], root=tmp_path)
    assert here["provenance"]["device"] == records.device_name("cpu")
    assert there["provenance"]["device"] == "a GPU, cuda:1"


@records.experiment("checked", version=1)
def checked(config, checkpoint=None):
    with open(checkpoint, "a+") as file:
        file.seek(0)
        before = file.read()
        file.write("half")
    if not before:
        raise InterruptedError("the time is up")
    return {"x": config["x"], "before": before}


def test_a_checkpoint_outlives_a_failure_and_not_the_record(tmp_path):
    with pytest.raises(records.PointsFailed):
        collect(checked, [{"x": 1}], root=tmp_path)
    assert len(list((tmp_path / "quick" / "checked").glob(".*.checkpoint"))) == 1
    (record,) = collect(checked, [{"x": 1}], root=tmp_path)
    assert record["metrics"]["before"] == "half"
    assert [path.name for path in (tmp_path / "quick" / "checked").iterdir()] == [record["key"] + ".json"]


@records.experiment("sourced", version=1)
def sourced(config, content="a"):
    return {"loss": 0.5, "data": {"source": config["source"], "sha256": content}}


def test_records_of_one_grid_from_different_data_are_refused(tmp_path):
    first = collect(sourced, [{"source": "MNIST", "x": 1}], root=tmp_path)
    other = functools.partial(sourced, content="b")
    both = [{"source": "MNIST", "x": 1}, {"source": "MNIST", "x": 2}]
    with pytest.raises(records.RecordError, match=r"'MNIST'.* different data.*recompute=True"):
        collect(other, both, root=tmp_path)
    second = records.load("sourced", root=tmp_path)
    assert "do not belong together" in records.describe(second)
    assert "do not belong together" not in records.describe(first)
    computed = []

    @records.experiment("sourced", version=1)
    def watched(config):
        computed.append(config)
        return sourced(config)

    with pytest.raises(records.RecordError, match="different data"):
        collect(watched, [*both, {"source": "MNIST", "x": 3}], root=tmp_path)
    assert not computed  # what is stored does not belong together already
    collect(other, both, root=tmp_path, recompute=True)
    collect(other, [{"source": "Omniglot"}, *both], root=tmp_path)


def test_different_data_are_told_at_the_first_point_not_after_the_last(tmp_path):
    grid = [{"source": "MNIST", "x": x} for x in range(4)]
    collect(sourced, grid[:1], root=tmp_path)
    with pytest.raises(records.RecordError, match="different data"):
        collect(functools.partial(sourced, content="b"), grid, root=tmp_path)
    assert len(records.load("sourced", root=tmp_path)) == 2


def test_different_data_are_told_before_hours_of_training_where_they_are_at_hand(tmp_path):
    grid = [{"source": "MNIST", "x": x} for x in range(2)]
    collect(sourced, grid[:1], root=tmp_path)

    @records.experiment("sourced", version=1)
    def never(config, content):
        raise AssertionError("computed though its data are known to be others")

    never.data_of = lambda config, content: {"source": "MNIST", "sha256": content}
    with pytest.raises(records.RecordError, match="different data"):
        collect(functools.partial(never, content="b"), grid, root=tmp_path)
    with pytest.raises(records.PointsFailed, match="computed though"):
        collect(functools.partial(never, content="a"), grid, root=tmp_path)

    def absent(config, content):
        raise RuntimeError("the data are on the workers only")

    never.data_of = absent
    with pytest.raises(records.PointsFailed, match="computed though"):
        collect(functools.partial(never, content="b"), grid, root=tmp_path)


def test_points_that_draw_their_own_data_may_differ(tmp_path):
    @records.experiment("drawn", version=1, drawn_by=["seed"])
    def drawn(config):
        return {"loss": 0.5, "data": {"source": "a law", "sha256": str(config["seed"])}}

    assert len(collect(drawn, [{"seed": 1}, {"seed": 2}], root=tmp_path)) == 2


# Records as a table


def test_frame_has_config_metrics_and_origin(stored):
    table = records.frame(stored)
    assert table[["x", "seed", "loss"]].to_numpy().tolist() == [[1, 0, 1], [2, 0, 4], [2, 1, 4]]
    assert table.curve[1].shape == (3,)
    assert table.key.tolist() == [record["key"] for record in stored]
    assert set(table.device) == {stored[0]["provenance"]["device"]}


def test_frame_refuses_a_name_used_twice(stored):
    stored[0]["metrics"]["seed"] = 1
    with pytest.raises(ValueError, match="seed"):
        records.frame(stored)
    assert records.frame(stored, without=["seed"]).seed.tolist() == [0, 0, 1], "that of the configs"


def test_like_finds_none_beside_numbers_and_texts():
    configs = [{"glyphs": None, "size": None}, {"glyphs": "omniglot", "size": 2}]
    table = records.frame([{"key": "k", "config": c, "metrics": {}, "provenance": {}} for c in configs])
    for number, config in enumerate(configs):
        assert records.like(table, config).index.tolist() == [number]


def test_like_frees_the_seed_and_what_is_named(stored):
    table = records.frame(stored)
    assert records.like(table, Config(x=2)).seed.tolist() == [0, 1]
    assert len(records.like(table, Config(x=2), free=["x"])) == 3
    assert not len(records.like(table, Config(x=2, betas=(0, 0))))
    with pytest.raises(ValueError, match="colour"):
        records.like(table, {"colour": 1})
