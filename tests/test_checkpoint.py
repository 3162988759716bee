"""A training that is killed goes on with the same bits, from nothing but its own whole checkpoint."""

import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest
import torch

from memcomp import evaluation, images, models, training, triplets
from memcomp.data.points import gaussian

SHORT = {"epochs": 3, "batch_size": 64, "lr": 1e-3, "seed": 5, "weight_decay": 0.5, "progress": False}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def digits():
    pool, labels = images.load("embedded")
    pool, labels = pool[::10], labels[::10]
    rows = triplets.draw(labels, [90] * 10, np.random.default_rng(0))[:256]
    return pool, rows, triplets.targets(labels, rows)


def trained(data, path=None, minutes=5.0, architecture="sum", build=(), additive=False, **settings):
    """Return the history but for its time, and all of the network's tensors."""
    model = models.build(architecture, 2, seed=1, **dict(build))
    fit = training.fit_additive if additive else training.fit
    history = fit(model, *data, checkpoint=path, checkpoint_minutes=minutes, **settings)
    assert history.pop("seconds") > 0
    return history, list(model.state_dict().values())


def assert_same_bits(one, other):
    assert one[0] == other[0]
    assert all(torch.equal(a, b) for a, b in zip(one[1], other[1], strict=True))


# Killed


def in_a_process(result, started, arguments):
    torch.set_num_threads(1)
    started.set()
    torch.save(trained(**arguments), result)


def killed_at_random(folder, arguments, seed):
    """Train in processes that are killed, until one comes to its end, and compare it with one that is not."""
    start = time.perf_counter()
    expected = trained(**arguments)
    longest = (time.perf_counter() - start) / 3
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["memcomp.models", "memcomp.training", __name__])
    chance, path, places = random.Random(seed), folder / "checkpoint", []
    for _ in range(200):
        started = context.Event()
        more = {"path": path, "minutes": chance.choice([0, 0, 0.0005])}
        job = context.Process(target=in_a_process, args=(folder / "result", started, {**arguments, **more}))
        job.start()
        assert started.wait(60)
        job.join(chance.uniform(0, longest) if len(set(places)) < 4 else None)
        if job.exitcode is None:
            os.kill(job.pid, signal.SIGKILL)
        job.join()
        assert job.exitcode in (0, -signal.SIGKILL)
        if job.exitcode == 0:
            break
        if path.exists():
            state = torch.load(path, weights_only=True)
            places.append((len(state["loss"]), len(state["losses"])))
    assert_same_bits(torch.load(folder / "result"), expected)
    assert len(set(places)) == 4, "it was not killed in the middle"
    assert places == sorted(places), "it lost what it had"


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"architecture": "sum", "optimizer": "adam", "schedule": "cosine", "warmup": 5},
        {"architecture": "cross_channel", "optimizer": "adamw", "schedule": "constant"},
        {"architecture": "two_layer", "optimizer": "adam", "decayed": "conv", "mixed": True},
    ],
    ids=lambda settings: settings["architecture"],
)
def test_killed_at_any_moment_it_ends_with_the_same_bits(digits, tmp_path, settings):
    arguments = {"data": digits, **SHORT, "epochs": 8, "batch_size": 32, **settings}
    killed_at_random(tmp_path, arguments, seed=settings["architecture"])


@pytest.mark.slow
def test_the_additive_network_too(tmp_path):
    pool, labels = gaussian([300] * 10)
    rows = triplets.draw(labels, [300] * 10, np.random.default_rng(0))
    arguments = {
        **{"data": (pool, rows, triplets.targets(labels, rows)), "architecture": "gaussian"},
        **{"additive": True, "epochs": 60, "batch_size": 32, "progress": False},
    }
    killed_at_random(tmp_path, arguments, seed=0)


# Stopped and gone on


class Stop(Exception):
    pass


def stop_in_step(monkeypatch, step):
    """Let the loop fail as it sets the rate of a step, counted from 1."""
    left, set_rate = iter(range(1, step)), training._set_rate

    def failing(*args):
        if next(left, None) is None:
            raise Stop
        set_rate(*args)

    monkeypatch.setattr(training, "_set_rate", failing)


@pytest.mark.parametrize("step", [1, 2, 4, 5, 6, 12])
def test_stopped_between_any_two_steps(digits, tmp_path, monkeypatch, step):
    path = tmp_path / "checkpoint"
    expected = trained(digits, **SHORT)
    with monkeypatch.context() as patch:
        stop_in_step(patch, step)
        with pytest.raises(Stop):
            trained(digits, path, 0, **SHORT)
    assert path.exists() == (step > 1)
    stop_in_step(monkeypatch, 12 - (step - 1) + 1)  # exactly the steps that are left
    assert_same_bits(trained(digits, path, 0, **SHORT), expected)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]


def test_the_end_is_kept_and_seconds_add_up(digits, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint"
    model = models.build("sum", 2)
    first = training.fit(model, *digits, **SHORT, checkpoint=path)
    stop_in_step(monkeypatch, 1)
    again = models.build("sum", 2)
    second = training.fit(again, *digits, **SHORT, checkpoint=path)
    assert second.pop("seconds") >= first.pop("seconds")
    assert_same_bits((second, again.parameters()), (first, model.parameters()))


def test_it_is_written_only_every_so_many_minutes(digits, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(training._Training, "write", lambda self: written.append(len(self.losses)))
    trained(digits, tmp_path / "checkpoint", 5.0, **SHORT)
    assert written == [0]  # the end
    clock = iter(range(0, 10000, 60))
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(training._Training, "written", property(lambda self: 0, lambda self, _: None), False)
    written.clear()
    trained(digits, tmp_path / "checkpoint", 8.0, **SHORT)
    assert written[-1] == 0
    assert 1 < len(written) < 12


# Refused


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"lr": 2e-3}, "with other settings"),
        ({"weight_decay": 0.0}, "with other settings"),
        ({"epochs": 4}, "with other settings"),
        ({"build": (("normalise", "apart"),)}, "with other model"),
        ({"architecture": "linear"}, "with other model"),
        ({"data": "other"}, "with other data"),
        ({"along": lambda epoch, model: None}, "with other settings"),
        ({"version": "0"}, "with other memcomp"),
    ],
)
def test_of_another_training_it_is_not_used(digits, tmp_path, caplog, monkeypatch, change, reason):
    path = tmp_path / "checkpoint"
    trained(digits, path, **SHORT)
    change = {"data": digits, **SHORT, **change}
    if change["data"] == "other":
        change["data"] = digits[0], digits[1], digits[2] + 1
    if "version" in change:
        monkeypatch.setattr(training, "__version__", change.pop("version"))
    expected = trained(**change)
    assert not caplog.text
    assert_same_bits(trained(path=path, **change), expected)
    assert f"the checkpoint {path.name} is not used, the training begins anew" in caplog.text
    assert reason in caplog.text
    caplog.clear()
    assert_same_bits(trained(path=path, **change), expected)  # now it is this training's
    assert not caplog.text


def cut(content):
    return content[: len(content) // 2]


def flip(content):
    middle = content.index(b"model") + len(content) // 3
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [cut, flip, lambda content: b"", lambda content: b"PK" + content])
def test_a_damaged_one_is_not_used(digits, tmp_path, caplog, damage):
    path = tmp_path / "checkpoint"
    expected = trained(digits, path, **SHORT)
    path.write_bytes(damage(path.read_bytes()))
    assert_same_bits(trained(digits, path, **SHORT), expected)
    assert f"the checkpoint {path.name} is not used, the training begins anew" in caplog.text


def test_no_code_is_run_from_it(digits, tmp_path, caplog):
    path, seen = tmp_path / "checkpoint", tmp_path / "seen"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (os.fspath(seen),)

    torch.save({"identity": Evil()}, path)
    trained(digits, path, **SHORT)
    assert not seen.exists()
    assert "begins anew" in caplog.text


# Along


def test_along_sees_each_epoch_and_disturbs_nothing(digits, tmp_path, monkeypatch):
    pool, rows, targets = digits
    epochs = []

    def along(epoch, model):
        epochs.append(epoch)
        assert model.training
        model.eval()
        torch.randn(3)
        loss = np.float32(evaluation.mse(model, pool, rows, targets))
        return None if epoch == 2 else {"test_loss": loss, "parts": np.arange(2)}

    torch.manual_seed(3)
    plain = trained(digits, **SHORT)
    state = torch.get_rng_state()
    with_along = trained(digits, **SHORT, along=along)
    assert torch.equal(torch.get_rng_state(), state)
    found = with_along[0].pop("along")
    assert plain[0].pop("along") == []
    assert_same_bits(with_along, plain)
    assert epochs == [1, 2, 3]
    assert [set(entry) for entry in found] == [{"epoch", "test_loss", "parts"}] * 2
    assert [entry["epoch"] for entry in found] == [1, 3]
    assert type(found[0]["test_loss"]) is float
    assert found[0]["test_loss"] != found[1]["test_loss"]

    path = tmp_path / "checkpoint"
    with monkeypatch.context() as patch:
        stop_in_step(patch, 11)
        with pytest.raises(Stop):
            trained(digits, path, 0, **SHORT, along=along)
    epochs.clear()
    again = trained(digits, path, 0, **SHORT, along=along)
    assert epochs == [3]
    assert again[0]["along"] == found
