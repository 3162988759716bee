"""The path of a GPU: what can be checked without one, and the rest where there is one."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import gpu
from memcomp import cluster, images, models, records, training, triplets

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.fixture(scope="module")
def digits():
    pool, labels = images.load("embedded")
    rows = triplets.long_tailed(labels, 256, np.random.default_rng(0), rare=30)
    return pool, rows, triplets.targets(labels, rows)


@pytest.fixture
def graphs(monkeypatch):
    """Let CUDA graphs be recorded without CUDA: a recorded step runs as usual. Return those recorded."""
    made = []

    class Graph:
        def __init__(self):
            self.replays = 0
            made.append(self)

        def replay(self):
            self.replays += 1

    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "graph", contextlib.nullcontext)
    return made


@pytest.mark.parametrize("begun", [False, True], ids=["new", "resumed"])
def test_recording_a_step_leaves_no_trace_in_weights_statistics_or_optimizer(digits, graphs, begun):
    pool, rows, targets = (torch.tensor(part) for part in digits)

    def trained(recorded):
        model = models.build("linear", 2, seed=0).train()
        update = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=0.1, fused=True)

        def step(batch):
            update.zero_grad()
            loss = ((model(training.scaled(pool[rows[batch]])) - targets[batch]) ** 2).mean()
            loss.backward()
            update.step()
            return loss.detach()

        if begun:
            step(torch.arange(64))
        if recorded:
            training._recorded(step, torch.zeros(64, dtype=torch.int64), model, update)
        losses = [step(batch) for batch in torch.arange(256).view(4, 64)]
        return [*losses, *model.state_dict().values()]

    plain, recorded = trained(False), trained(True)
    assert len(graphs) == 1
    assert all(torch.equal(a, b) for a, b in zip(plain, recorded))


def test_a_replay_sees_the_batch_and_hands_out_its_own_loss(graphs):
    model, batch = torch.nn.Linear(1, 1), torch.zeros(3, dtype=torch.int64)
    update = torch.optim.Adam(model.parameters())
    loss = torch.tensor(2.0)
    replay = training._recorded(lambda rows: loss, batch, model, update)
    first = replay(torch.tensor([4, 5, 6]))
    assert batch.tolist() == [4, 5, 6]
    loss.fill_(7.0)  # as the next replay does
    assert first == 2.0
    assert graphs[0].replays == 1


@needs_gpu
@pytest.mark.parametrize(
    "options", [{"cuda_graph": True}, {"mixed": True}, {"cuda_graph": True, "mixed": True}]
)
def test_graph_and_mixed_precision_train_the_same_network(digits, options):
    def losses(**options):
        model = models.build("two_layer", 8, seed=0)
        settings = {"epochs": 5, "batch_size": 64, "lr": 1e-3, "schedule": "cosine", "seed": 0}
        return training.fit(model, *digits, device="cuda", progress=False, **settings, **options)["loss"]

    tolerance = 0.05 if options.get("mixed") else 2e-3
    assert losses(**options) == pytest.approx(losses(), rel=tolerance)


@needs_gpu
def test_a_record_carries_the_name_of_the_gpu(tmp_path):
    @records.experiment("on_gpu", version=1)
    def run(config):
        return {"sum": float(torch.ones(3, device="cuda").sum())}

    (record,) = records.collect(run, [{"seed": 0}], root=tmp_path, workers=0, progress=False)
    assert record["provenance"]["device"] == torch.cuda.get_device_name()


@needs_gpu
@pytest.mark.slow
def test_a_sweep_has_a_worker_for_each_gpu(tmp_path):
    with cluster.connect(folder=tmp_path) as client:
        client.wait_for_workers(torch.cuda.device_count())
        found = client.run(lambda: __import__("torch").cuda.device_count())
    assert list(found.values()) == [1] * torch.cuda.device_count()


@pytest.mark.slow
def test_the_prepared_script_runs_without_a_gpu(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "BATCH", 16)
    small = ["--width", "1", "--size", "512", "--epochs", "1", "--results", str(tmp_path)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        gpu.main(["--device", "cpu", *small])
    finally:
        torch.set_num_threads(threads)
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines() if line.startswith("  ")] == [
        *("CPU", "plain", "mixed"),
        *("plain", "mixed"),
        *("mixed", "plain"),
    ]
    assert "differ by 0.0e+00" in out, "the plain way on the CPU is the CPU's"
    assert len(list(tmp_path.glob("gpu/omniglot/*.json"))) == 2
