"""Networks of the reader's own: found, named, tried, trained, evaluated and kept in records."""

import copy
import dataclasses
import functools
import json
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from memcomp import evaluation, images, models, plugins, records, training
from memcomp.experiments import base, limits, omniglot

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ("flat_mlp", "vision_transformer", "deep_sets")

LINEAR = """
from torch import nn

def build(width, seed):
    return nn.Sequential(nn.Flatten(), nn.Linear(2352, 1), nn.Flatten(0))
"""

FRAME = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2352, 1)

    def forward(self, x):
        y = self.layer(x.flatten(1))
        {forward}

    {more}

def build(width, seed):
    return Net()
"""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return an empty folder that is the working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text, name="my_net.py"):
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(textwrap.dedent(text))
    return f"{name}:build"


def net(forward, more=""):
    return write(FRAME.format(forward=forward, more=more.replace("\n", "\n    ")))


# -------------------------------------------------------------------------------------------------- names


def test_a_config_holds_the_files_name_and_a_hash_and_no_path(folder):
    typed = write(LINEAR, "deep/my_net.py")
    ways = (typed, f"./{typed}", str(folder / typed), f"deep/../{typed}")
    configs = [omniglot.Config(way, 0.0, 0) for way in ways]
    plain = [records.plain_config(config) for config in configs]
    assert {one["architecture"] for one in plain} == {configs[0].architecture}
    assert configs[0].architecture == plugins.named(typed)
    assert configs[0].architecture.startswith("my_net.py:build@")
    assert configs[0].architecture.label == "my_net.py:build"
    assert type(plain[0]["architecture"]) is str
    assert str(folder) not in json.dumps(plain)
    assert len({records.key_of("omniglot", 1, config) for config in configs}) == 1


def test_an_edited_file_is_another_point_and_other_code(folder):
    typed = write(LINEAR)
    first = omniglot.Config(typed, 0.0, 0)
    write(LINEAR.replace("2352, 1)", "2352, 1, bias=False)"))
    second = omniglot.Config(typed, 0.0, 0)
    assert records.key_of("omniglot", 1, first) != records.key_of("omniglot", 1, second)
    sizes = [len(list(models.build(one.architecture, 1).parameters())) for one in (first, second)]
    assert sizes == [2, 1]  # the first as it was when it was named
    assert dataclasses.replace(first, seed=1).architecture == first.architecture


def test_names_of_architectures_and_what_is_no_text_stay_as_they_are():
    assert [plugins.named(name) for name in ("sum", "nonsense", None)] == ["sum", "nonsense", None]
    with pytest.raises(ValueError, match="unknown architecture None"):
        models.build(None)


def test_a_name_goes_through_pickle_and_copy_with_its_source(folder):
    config = omniglot.Config(write(LINEAR), 0.0, 0)
    Path("my_net.py").unlink()
    for again in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config)):
        assert again == config
        assert models.build(again.architecture)(torch.zeros(2, 3, 28, 28)).shape == (2,)


def test_a_config_of_a_record_says_that_its_file_is_needed(folder):
    stored = records.plain_config(omniglot.Config(write(LINEAR), 0.0, 0))
    config = omniglot.Config(**stored)
    assert config.architecture == stored["architecture"]
    with pytest.raises(ValueError, match=r"my_net.py:build@\w+ is the name that a record gives a network"):
        models.build(config.architecture)


def test_absolute_is_for_a_process_elsewhere(folder, monkeypatch):
    typed = write(LINEAR)
    found = plugins.absolute(typed)
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert plugins.named(found).startswith("my_net.py:build@")


# ---------------------------------------------------------------------------------------- what is refused

FILES = {
    "names a file and nothing in it; write my_net.py:build": (LINEAR, "my_net.py"),
    r"does not end in the name of a callable": (LINEAR, "my_net.py:a build"),
    "no 'bild', did you mean 'build'": (LINEAR, "my_net.py:bild"),
    r"my_net.py:build is an object of type int; expected a callable build\(width, seed\)": (
        "build = 3",
        None,
    ),
    r"my_net.py:build\(width\) cannot be called with width and seed": ("def build(width): ...", None),
    r"my_net.py stopped with SyntaxError: .* \(line 2 of my_net.py\)": ("\ndef build(", None),
    r"my_net.py stopped with NameError: .* \(line 3 of my_net.py\)": ("\n\nnothing\n", None),
    r"my_net.py stopped with SystemExit: 2": ("raise SystemExit(2)", None),
    "can import what is installed, not what lies beside it": ("import not_there", None),
    r"called with width=8 and seed=3, stopped with KeyError: 'x' \(line 3 of my_net.py\)": (
        "\ndef build(width, seed):\n    return {}['x']",
        None,
    ),
    "returned an object of type int; expected .* returns a torch.nn.Module": (
        "def build(width, seed): return 3",
        None,
    ),
    "network without parameters to train": (
        "from torch import nn\ndef build(width, seed): return nn.Flatten(0)",
        None,
    ),
    "lazy layer without a shape; run the network once in build": (
        "from torch import nn\ndef build(width, seed): return nn.Sequential(nn.Flatten(), nn.LazyLinear(1))",
        None,
    ),
    "returned the same network twice": (
        f"{LINEAR}\nNET = build(1, 0)\ndef build(width, seed): return NET",
        None,
    ),
    "made two different networks of seed=3": (
        f"import torch\n{LINEAR}\nMAKE = build\ndef build(width, seed):\n"
        "    torch.seed()\n    return MAKE(width, seed)",
        None,
    ),
}


@pytest.mark.parametrize("message", FILES)
def test_a_file_that_is_not_as_expected_is_refused_by_name(folder, message):
    text, typed = FILES[message]
    usual = write(text)
    with pytest.raises(ValueError, match=message) as caught:
        models.build(typed or usual, 8, seed=3)
    assert "my_net.py" in str(caught.value)


NETWORKS = {
    r"takes \(4, 3, 28, 28\) to a float32 tensor of shape \(4, 1\) in evaluation mode; expected": "return y",
    # squeeze() is right but for a batch of one
    r"takes \(1, 3, 28, 28\) to a float32 tensor of shape \(\)": "return y.squeeze()",
    r"to a float64 tensor of shape \(4,\)": "return y.squeeze(1).double()",
    "to an object of type tuple": "return y.squeeze(1), y",
    r"to a float32 tensor of shape \(4, 1\) in training mode, while that of evaluation mode is right": (
        "return y if self.training else y.squeeze(1)"
    ),
    "to an object of type tuple in training mode": (
        "return (y.squeeze(1), y) if self.training else y.squeeze(1)"
    ),
    "NaN or infinite numbers in its output in evaluation mode": "return y.squeeze(1).abs().neg().sqrt()",
    "NaN or infinite numbers in its output in training mode": (
        "return y.squeeze(1) / (0 if self.training else 1)"
    ),
    "expected one answer, whatever else is in the batch": "return (y - y.mean(0)).squeeze(1)",
    "alone and .* among others": "return nn.functional.dropout(y, 0.5).squeeze(1) + torch.rand(len(y))",
    "an output without gradient in training mode": "return y.squeeze(1).detach()",
    r"given a batch of shape \(4, 3, 28, 28\) in evaluation mode, stopped with RuntimeError": (
        "return y @ y.double()"
    ),
}


@pytest.mark.parametrize("message", NETWORKS)
def test_a_network_that_is_not_as_expected_is_refused_by_name(folder, message):
    typed = net(NETWORKS[message])
    with pytest.raises(ValueError, match=message) as caught:
        models.build(typed, 8)
    assert str(caught.value).startswith("my_net.py:build")


PARTS = "def encode(self, images):\n    return {encode}\n\ndef join(self, features):\n    return {join}"
GOOD = {"encode": "images.flatten(1)", "join": "self.layer(features.flatten(1)).squeeze(1)"}
JOINS = {
    r"encode, given 12 images of shape \(12, 28, 28\), returned a .* shape \(9408,\); expected": {
        "encode": "images.flatten()"
    },
    r"encode, .* stopped with RuntimeError": {"encode": "self.layer(images)"},
    r"join takes \(4, 3, 784\) to a float32 tensor of shape \(4, 1\)": {
        "join": "self.layer(features.flatten(1))"
    },
    r"join\(encode\(…\)\) differs from the network's output by up to \d": {
        "join": "self.layer(features.flip(1).flatten(1)).squeeze(1)"
    },
}


@pytest.mark.parametrize("message", JOINS)
def test_encode_and_join_that_are_not_the_network_are_refused(folder, message):
    typed = net("return y.squeeze(1)", PARTS.format(**GOOD | JOINS[message]))
    with pytest.raises(ValueError, match=message):
        models.build(typed, 8)


def test_a_file_or_module_that_is_not_there_is_named_with_what_is_expected(folder):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*/my_net.py; expected a callable"):
        omniglot.Config("my_net.py:build", 0.0, 0)
    with pytest.raises(ValueError, match=r"there is no module my_net; is it .* by its path, my_net.py"):
        plugins.named("my_net:build")
    with pytest.raises(ValueError, match=r"no_package.net cannot be found .* path, no_package/net.py"):
        plugins.named("no_package.net:build")
    with pytest.raises(ValueError, match="no source in Python"):
        plugins.named("math:sin")
    Path("a.py").mkdir()
    with pytest.raises(ValueError, match=r"a.py cannot be read as Python \(.*directory"):
        plugins.named("a.py:build")
    Path("my_net.py").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"my_net.py cannot be read as Python \('utf-8'"):
        plugins.named("my_net.py:build")


def test_options_that_a_readers_network_does_not_get_are_refused(folder):
    typed = write(LINEAR)
    with pytest.raises(ValueError, match=r"gets width and seed, and cannot be given stem='small'"):
        models.build(typed, stem="small")
    with pytest.raises(ValueError, match="normalise='apart'"):
        base.fit(omniglot.Config(typed, 0.0, 0, normalise="apart"), tiny_set(), progress=False)
    with pytest.raises(ValueError, match="vectors=True"):
        base.fit(limits.Config(typed, 0.0, 0, oracle=True), tiny_set(np.eye(10, dtype=np.float32)))


def test_building_leaves_the_random_generator_alone(folder):
    typed = write(LINEAR)
    before = torch.get_rng_state()
    plugins.build(typed, 8, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_a_network_keeps_from_batch_to_batch_is_as_new(folder):
    """It is another one that is tried."""
    model = models.build("memcomp.examples.deep_sets:build", 1)
    assert model.encoder.bn1.num_batches_tracked == 0
    assert model.training


# ---------------------------------------------------------------------------------------------- modules


def test_a_module_is_named_by_its_source_and_must_stay_what_it_was(folder, monkeypatch):
    write(LINEAR, "my_package/net.py")
    monkeypatch.syspath_prepend(folder)
    name = plugins.named("my_package.net:build")
    assert name.startswith("my_package.net:build@")
    assert "my_package.net" not in sys.modules  # named is not imported
    assert models.build(name)(torch.zeros(2, 3, 28, 28)).shape == (2,)
    write(f"{LINEAR}\n# edited", "my_package/net.py")
    edited = plugins.named("my_package.net:build")
    assert edited != name
    for one in (name, edited):  # neither is the code that this process has imported
        with pytest.raises(ValueError, match=r"my_package.net stopped with ImportError.* start Python anew"):
            models.build(one)


def test_dataclasses_of_a_file_work(folder):
    """They look for the module of their class."""
    typed = write(
        f"from __future__ import annotations\nimport dataclasses\n{LINEAR}\n"
        "@dataclasses.dataclass\nclass Size:\n    width: int\n"
    )
    models.build(typed)


# --------------------------------------------------------------------------------------------- examples


def tiny_set(pool=None):
    rng = np.random.default_rng(0)
    pool = rng.integers(0, 256, (10, 28, 28), dtype=np.uint8) if pool is None else pool
    rows = rng.integers(0, 10, (64, 3))
    labels = np.arange(10)
    return base.TrainingSet(pool, labels, rows, labels[rows].sum(1).astype(np.float32))


@pytest.fixture
def small(monkeypatch):
    """Let the experiment of chapter 9 have few triplets to train on and to test."""
    digits = images.load("embedded", "test")
    chosen = np.concatenate(
        [np.flatnonzero(digits[1] == label)[: 6 if label < 5 else 40] for label in range(10)]
    )
    few = digits[0][chosen], digits[1][chosen]
    monkeypatch.setattr(omniglot, "held_out_digits", lambda *_: few)
    return {
        "dataset": "embedded",
        "glyphs": "letters",
        "size": 300,
        "epochs": 1,
        "batch_size": 32,
        "width": 1,
    }


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_train_and_are_tested_as_our_own_networks_are(small, name):
    by_module = omniglot.Config(f"memcomp.examples.{name}:build", 0.0, 1, **small)
    by_file = omniglot.Config(str(ROOT / f"memcomp/examples/{name}.py:build"), 0.0, 1, **small)
    assert by_module.architecture.rpartition("@")[2] == by_file.architecture.rpartition("@")[2]
    found = omniglot.run(by_file)
    assert np.isfinite(found["test_loss"])
    assert np.shape(found["pair_loss"]) == (45,)
    one, other = (models.build(config.architecture, 2, seed=4) for config in (by_module, by_file))
    assert all(map(torch.equal, one.parameters(), other.parameters()))


def test_examples_are_short():
    for name in EXAMPLES:
        code = (ROOT / f"memcomp/examples/{name}.py").read_text().split('"""', 2)[2]
        assert sum(bool(line.strip()) for line in code.splitlines()) <= 23, name


def test_the_example_of_deep_sets_is_the_registered_one():
    example, registered = (
        models.build(name, 2, seed=3).eval() for name in ("memcomp.examples.deep_sets:build", "deep_sets")
    )
    x = torch.rand(5, 3, 28, 28)
    assert torch.equal(example(x), registered(x))


def code(name):
    """Return a block of code of the guide."""
    page = (ROOT / "book/guide_your_network.md").read_text()
    return page.split(f":name: {name}\n")[1].split("```")[0]


def test_the_experiment_of_the_guide_runs_as_shown(folder, small, monkeypatch, capsys):
    page = (ROOT / "book/guide_your_network.md").read_text()
    shown = page.split(":caption: my_net.py")[0].split("literalinclude} ../")[-1].split("\n")[0]
    write((ROOT / shown).read_text())
    here = functools.partial(records.collect, workers=0, progress=False)
    monkeypatch.setattr(records, "collect", here)
    monkeypatch.setitem(omniglot.PROFILES, "quick", small)
    names = {"__name__": "__main__"}
    exec(code("code-your-network").replace("range(3)", "range(1)"), names)
    printed = capsys.readouterr().out
    assert "my_net.py:build@" in printed
    assert np.isfinite(names["table"].relative).all()
    assert len(list((folder / "my_results").rglob("*.json"))) == 3


@pytest.mark.parametrize("name", ["after_2", "attention"])
def test_networks_of_chapter_12_are_written_to_the_same_interface(folder, name):
    write(code("code-later"), "later.py")
    own, registered = (models.build(typed, 2, seed=3).eval() for typed in (f"later.py:{name}", name))
    x = torch.rand(5, 3, 28, 28)
    assert torch.equal(own(x), registered(x))


def test_records_of_own_networks_are_collected_once_and_name_no_folder(folder, small):
    typed = write(LINEAR)
    grid = [omniglot.Config(name, 0.0, 0, **small) for name in (typed, "sum")]
    keep = {"root": folder / "mine", "workers": 0, "progress": False}
    found = records.collect(omniglot.run, grid, **keep)
    again = records.collect(omniglot.run, grid, **keep)
    assert [one["provenance"] for one in again] == [one["provenance"] for one in found]
    table = records.frame(again)
    assert len(records.like(table, grid[0])) == 1
    assert table.architecture[0].startswith("my_net.py:build@")
    stored = [path.read_text() for path in (folder / "mine").rglob("*.json")]
    assert len(stored) == 2
    assert not any(str(folder) in text for text in stored)


SCRIPT = """
import dataclasses, os
from memcomp import models, records
from memcomp.experiments import base

@dataclasses.dataclass(frozen=True)
class Config(base.Recipe):
    architecture: str
    seed: int

@records.experiment("sizes", version=1, config=Config)
def run(config):
    model = models.build(config.architecture, config.width)
    return {"weights": sum(one.numel() for one in model.parameters()), "process": os.getpid()}

if __name__ == "__main__":
    grid = [Config("my_net.py:build", seed) for seed in range(2)]
    os.remove("my_net.py")
    os.chdir("/")
    found = records.collect(run, grid, workers=2, root=os.environ["KEEP"], progress=False)
    for one in found:
        assert one["metrics"]["process"] != os.getpid()
        print(one["config"]["architecture"], one["metrics"]["weights"])
"""


@pytest.mark.slow
def test_worker_processes_need_neither_the_file_nor_the_folder(folder):
    write(LINEAR)
    Path("script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"],
        env={"PATH": "", "PYTHONPATH": str(ROOT), "KEEP": str(folder / "mine"), "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")[:2]
    assert all(line.startswith("my_net.py:build@") and line.endswith(" 2353") for line in lines)


# ------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize("architecture", ["after_1", "after_3", "memcomp.examples.deep_sets:build"])
def test_encode_and_join_give_what_every_triplet_gives_and_encode_once(architecture):
    rng = np.random.default_rng(1)
    pool = rng.integers(0, 256, size=(20, 28, 28), dtype=np.uint8)
    rows = rng.integers(3, 20, size=(500, 3))
    model, seen = models.build(architecture, 2, seed=1), []
    model.encoder.conv1.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    quick = evaluation.predict(model, pool, rows)
    assert sum(seen) == len(np.unique(rows))
    slow = evaluation.predict(model, pool, rows, factorised=False)
    assert quick == pytest.approx(slow, rel=1e-3, abs=1e-4)
    assert slow.std() > 1e-3


def test_large_features_are_joined_in_small_batches(monkeypatch):
    pool = np.random.default_rng(1).integers(0, 256, size=(20, 28, 28), dtype=np.uint8)
    rows = np.random.default_rng(2).integers(0, 20, size=(50, 3))
    model, sizes = models.build("after_1", 2, seed=1), []
    model.mix.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    whole = evaluation.predict(model, pool, rows)
    monkeypatch.setattr(evaluation, "_CHUNK", 3 * 2 * 7 * 7 * 8)
    assert evaluation.predict(model, pool, rows) == pytest.approx(whole, rel=1e-3, abs=1e-4)
    assert sizes == [50, 8, 8, 8, 8, 8, 8, 2]


def test_a_long_evaluation_shows_the_time_left_where_that_is_asked_for(monkeypatch, capsys):
    real = evaluation.tqdm
    monkeypatch.setattr(evaluation, "tqdm", lambda *rest, **more: real(*rest, **more | {"delay": 0}))
    pool = np.zeros((4, 28, 28), np.uint8)
    model = models.build("memcomp.examples.flat_mlp:build", 1)
    evaluation.predict(model, pool, np.zeros((5000, 3), int))
    assert capsys.readouterr().err == ""
    with evaluation.progress():
        evaluation.predict(model, pool, np.zeros((5000, 3), int))
    assert "evaluating:" in (shown := capsys.readouterr().err)
    assert "0/5 [00:00<?" in shown  # the time that it took, and the time left
    evaluation.predict(model, pool, np.zeros((5000, 3), int))
    assert capsys.readouterr().err == ""


# --------------------------------------------------------------------------- networks that drop at random

DROPPING = LINEAR.replace("nn.Flatten(),", "nn.Flatten(), nn.Dropout(0.5),")


class Stop(Exception):
    pass


def trained(typed, folder=None, stop=None):
    data = tiny_set()

    def along(epoch, model):
        if epoch == stop:
            raise Stop

    model = models.build(typed, 1, seed=2)
    path = folder and folder / "checkpoint"
    training.fit(model, data.images, data.rows, data.targets, epochs=4, batch_size=16, seed=2, progress=False,
                 lr=0.01, along=along, checkpoint=path, checkpoint_minutes=0)  # fmt: skip
    return list(model.parameters())


def test_dropout_repeats_with_the_seed_and_over_an_interruption(folder):
    typed = write(DROPPING)
    torch.manual_seed(1)
    first = trained(typed)
    torch.manual_seed(2)
    after = torch.get_rng_state()
    assert all(map(torch.equal, first, trained(typed)))
    assert torch.equal(torch.get_rng_state(), after)
    with pytest.raises(Stop):
        trained(typed, folder, stop=3)
    assert (folder / "checkpoint").exists()
    assert all(map(torch.equal, first, trained(typed, folder)))


def test_outputs_in_training_mode_repeat(folder):
    model = models.build(write(DROPPING), 1)
    data = tiny_set()
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(evaluation.predict_in_training_mode(model, data.images, data.rows, 16))
    one, other = found
    assert (one == other).all()
    assert (one != evaluation.predict(model, data.images, data.rows)).any()
