"""What the paper's network costs on a GPU, and whether mixed precision and CUDA graphs train the same one.

    python -m benchmarks.gpu [--dataset mnist] [--epochs 30] [--results runs/gpu]

For Sum of Table 1 at width 64, plain, in mixed precision, as a CUDA graph, and both:

1. losses of the first 50 steps, in means of ten, beside those of the CPU;
2. triplets a second and memory, and what 300 epochs of 40,000 triplets would take;
3. the whole point of the experiment, by default for 30 epochs, kept as a record as soon as it is there.

A few minutes on an H100. Parts 1 and 2 need no data but what the package brings; without a GPU it says so and
ends. ``--device cpu`` with small numbers tries the script.
"""

import argparse
import functools
import statistics
import time

import numpy as np
import torch

from memcomp import images, models, records, training, triplets
from memcomp.experiments import omniglot

BATCH = 256


def variants(device):
    """Return how a network is trained, by name: plain first."""
    graphs = (False, True) if torch.device(device).type == "cuda" else (False,)
    found = {}
    for graph in graphs:
        for mixed in (False, True):
            name = " + ".join(["graph"] * graph + ["mixed"] * mixed) or "plain"
            found[name] = {"mixed": mixed, "cuda_graph": graph}
    return found


def training_set(size):
    pool, labels = images.load("embedded")
    rows = triplets.long_tailed(labels, size, np.random.default_rng(0))
    return pool, rows, triplets.targets(labels, rows)


def fit(data, width, **options):
    model = models.build("sum", width, seed=0)
    return training.fit(model, *data, batch_size=BATCH, lr=1e-4, seed=0, progress=False, **options)


def first_steps(device, width):
    """Print the losses of 50 steps on the CPU and on the device, in means of ten."""
    data = training_set(10 * BATCH)
    print("losses of steps 1-10, 11-20, ... 41-50")
    expected = np.array(fit(data, width, epochs=5, device="cpu")["loss"])
    print(f"  {'CPU':<14}", *(f"{loss:8.4f}" for loss in expected), flush=True)
    for name, options in variants(device).items():
        losses = np.array(fit(data, width, epochs=5, device=device, **options)["loss"])
        away = np.abs(losses / expected - 1).max()
        print(f"  {name:<14}", *(f"{loss:8.4f}" for loss in losses), f"  differ by {away:.1e}", flush=True)


def cost(device, width, size):
    """Print triplets a second, memory, and the time that one of the paper's networks takes."""
    data = training_set(size)
    print(f"speed at width {width}")
    for name, options in variants(device).items():
        if torch.device(device).type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        ends = fit(
            data, width, epochs=4, device=device, along=lambda *_: {"at": time.perf_counter()}, **options
        )
        seconds = statistics.median(np.diff([end["at"] for end in ends["along"]]))  # without the warming up
        rate = size // BATCH * BATCH / seconds
        line = f"  {name:<14} {rate:9,.0f} triplets/s, {300 * 40_000 / rate / 60:8.1f} min a network"
        if torch.device(device).type == "cuda":
            line += f", {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB"
        print(line, flush=True)


def points(device, options):
    """Compute and keep the point of Table 1 in each way, the quickest first."""
    print(f"Table 1, Sum without weight decay, {options.epochs} epochs; records in {options.results}")
    run = functools.partial(omniglot.run, device=device, data_root=options.data_root)
    for name, how in reversed(variants(device).items()):
        config = omniglot.Config(
            *("sum", 0.0, 0),
            dataset=options.dataset,
            width=options.width,
            size=options.size,
            epochs=options.epochs,
            **how,
        )
        (record,) = records.collect(
            run, [config], profile="gpu", root=options.results, workers=0, progress=False
        )
        found, seconds = record["metrics"], record["provenance"]["seconds"]
        print(
            f"  {name:<14} training loss {found['history'][-1]:.4f}, test loss {found['test_loss']:.3f}, "
            f"{seconds:.0f} s in all on {record['provenance']['device']}",
            flush=True,
        )


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", help="default: cuda, where there is one")
    parser.add_argument("--dataset", default="embedded", help="embedded or mnist")
    parser.add_argument("--data-root", help="folder of the real data sets")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--size", type=int, default=40_000, help="triplets of digits")
    parser.add_argument("--epochs", type=int, default=30, help="of the points in part 3")
    parser.add_argument("--results", default="runs/gpu")
    options = parser.parse_args(arguments)
    device = options.device or ("cuda" if torch.cuda.is_available() else None)
    if device is None:
        print("no GPU here; --device cpu with small numbers tries the script")
        return
    first_steps(device, options.width)
    cost(device, options.width, options.size)
    points(device, options)


if __name__ == "__main__":
    main()
