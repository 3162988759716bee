"""The training loop against the one that one would write first, on the same cores, with the same mathematics.

    python benchmarks/training.py [--pairs 3] [--steps 94] [--widths 8 16 32 64]

The straightforward loop: a `DataLoader` that yields three images and a number, three calls of torchvision's
encoder, `.item()` after every step, PyTorch's default number of threads. Ours: batches gathered from the
pool, small maps as matrix products, one one-thread process for each core. Both train the same networks (one
for each core) on the same batches; the runs alternate, so that a busy machine slows both. With
``normalise="apart"`` the mathematics is the same and the loss curves are compared; ``together``, the default,
encodes a batch in one call and differs in its batch statistics.

The share of the peak: operations of torchvision's convolutions and matrix products, forward and backward, a
second, over those of multiplying matrices of 2,048 rows on the same cores. Some of these operations meet
nothing but padding and are left out by ours, which counts as speed.
"""

import argparse
import multiprocessing
import os
import statistics
import time

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from memcomp import images, models, training, triplets

BATCH = 64


class ThreeImages(Dataset):
    """Three images and a number for each item."""

    def __init__(self, pool, rows, targets):
        self.pool, self.rows, self.targets = pool, rows, targets

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, item):
        one, two, three = (torch.tensor(self.pool[i]).float()[None] / 255 for i in self.rows[item])
        return one, two, three, self.targets[item]


def data(steps):
    pool, labels = images.load("embedded")
    rows = triplets.long_tailed(labels, steps * BATCH, np.random.default_rng(0))
    return pool, rows, triplets.targets(labels, rows)


def straightforward(seed, steps, width):
    """Train one network for one epoch; return the loss of each step."""
    pool, rows, targets = data(steps)
    model = models.build("linear", width, seed=seed, rewrite=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    losses = []
    for one, two, three, target in DataLoader(ThreeImages(pool, rows, targets), BATCH, sampler=order):
        features = torch.cat([model.encoder(image) for image in (one, two, three)], 1)
        loss = ((model.first(features).squeeze(1) - target) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def ours(job):
    """Train one network for one epoch in this process, on one thread; return the mean loss."""
    seed, steps, width, normalise = job
    torch.set_num_threads(1)
    model = models.build("linear", width, seed=seed, normalise=normalise)
    return training.fit(
        model, *data(steps), epochs=1, batch_size=BATCH, lr=1e-3, seed=seed, progress=False
    )["loss"][0]  # fmt: skip


def peak(_):
    """Return the operations a second of one thread that multiplies matrices."""
    torch.set_num_threads(1)
    a, b = torch.rand(2, 2048, 2048)
    a @ b
    start = time.perf_counter()
    for _ in range(5):
        a @ b
    return 5 * 2 * 2048**3 / (time.perf_counter() - start)


def operations(width):
    """Return those that one triplet takes in training, forward and backward."""
    model = models.build("linear", width, rewrite=False)
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(8, 3, 28, 28)).sum().backward()
    return counter.get_total_flops() / 8


def compare(pool, cores, width, steps, pairs):
    """Print the times of the alternating runs at one width, their ratios, and the speed."""
    print(f"{cores} networks on {cores} cores, {steps} steps of {BATCH} triplets, width {width}")
    seconds = {"straightforward": [], "apart": [], "together": []}
    pool.map(ours, [(seed, 3, width, "apart") for seed in range(cores)])  # imports, first calls
    straightforward(0, 3, width)
    for pair in range(pairs):
        start = time.perf_counter()
        curves = [straightforward(seed, steps, width) for seed in range(cores)]
        seconds["straightforward"].append(time.perf_counter() - start)
        for normalise in ("apart", "together"):
            start = time.perf_counter()
            means = pool.map(ours, [(seed, steps, width, normalise) for seed in range(cores)])
            seconds[normalise].append(time.perf_counter() - start)
            if normalise == "apart":
                plain = np.mean(curves, axis=1)
                difference = np.abs(np.array(means) / plain - 1).max()
        times = ", ".join(f"{name} {values[-1]:.1f} s" for name, values in seconds.items())
        print(f"pair {pair + 1}: {times}; mean losses differ by {difference:.1e}", flush=True)
    for normalise in ("apart", "together"):
        ratios = [a / b for a, b in zip(seconds["straightforward"], seconds[normalise])]
        low, high = min(ratios), max(ratios)
        print(f"speed-up, {normalise}: median {statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})")
    limit, each = sum(pool.map(peak, range(cores))), operations(width)
    for name, values in seconds.items():
        rate = cores * steps * BATCH / statistics.median(values)
        print(f"{name}: {rate:,.0f} triplets/s, {rate * each / limit:.0%} of {limit / 1e9:.0f} GFLOP/s")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument(
        "--steps", type=int, default=94, help="steps a network at width 8, of 6,000 triplets; fewer if wider"
    )
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 16, 32, 64])
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        for width in options.widths:
            compare(pool, cores, width, max(3, options.steps * 8 // width), options.pairs)


if __name__ == "__main__":
    main()
