"""Keys do not move: defaults are pinned to the version of their experiment, and a new field moves nothing."""

import dataclasses
import importlib
import json
from pathlib import Path

import pytest

from memcomp import records

DATA = Path(__file__).parent / "data" / "defaults.json"
EXPERIMENTS = ("gaussian", "mnist_sum", "omniglot", "subsets", "harm", "limits", "your_network", "linear")


def module(name):
    return importlib.import_module(f"memcomp.experiments.{name}")


def pinned(name):
    defaults = records.plain_config(records.defaults_of(module(name).Config))
    return {"version": module(name).run.version, "defaults": defaults}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_default_changes_only_with_the_version(name):
    """A record says only what differs from the defaults, so with another default it would mean another point.

    After raising an experiment's version: ``python -m tests.test_records_defaults`` writes the file anew. New
    fields are added to it in the same way; they need no new version.
    """
    kept, now = json.loads(DATA.read_text())[name], pinned(name)
    if kept["version"] == now["version"]:
        changed = {k: v for k, v in kept["defaults"].items() if now["defaults"].get(k, "gone") != v}
        assert not changed, f"{name}: raise the version, or leave the defaults of {', '.join(changed)}"
    assert now == kept, f"{name}: write {DATA.name} anew"


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name != "linear"])
def test_a_new_field_leaves_all_stored_keys_alone(name, monkeypatch):
    experiment = module(name)
    stored = records.load(name, "quick")
    assert stored
    wider = dataclasses.make_dataclass(
        "Config", [("colour", str, "grey")], bases=(experiment.Config,), frozen=True
    )
    monkeypatch.setitem(records._CONFIGS, name, wider)
    for record in stored:
        config = wider(**record["config"])
        assert records.key_of(name, record["version"], config) == record["key"]
        assert (
            records.key_of(name, record["version"], dataclasses.replace(config, colour="red"))
            != record["key"]
        )
    assert {record["config"]["colour"] for record in records.load(name, "quick")} == {"grey"}


if __name__ == "__main__":
    DATA.write_text(json.dumps({name: pinned(name) for name in EXPERIMENTS}, indent=1) + "\n")
