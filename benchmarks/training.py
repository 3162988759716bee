"""The training loop against the one that one would write first, on the same cores, with the same mathematics.

    python benchmarks/training.py [--pairs 3] [--steps 94] [--width 8]

The straightforward loop: a `DataLoader` that yields three images and a number, three calls of torchvision's
encoder, `.item()` after every step, PyTorch's default number of threads. Ours: batches gathered from the
pool, small maps as matrix products, one one-thread process for each core. Both train the same networks (one
for each core) on the same batches; the runs alternate, so that a busy machine slows both. With
``normalise="apart"`` the mathematics is the same and the loss curves are compared; ``together``, the default,
encodes a batch in one call and differs in its batch statistics.
"""

import argparse
import multiprocessing
import os
import statistics
import time

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from memcomp import images, models, training, triplets

BATCH = 64


class ThreeImages(Dataset):
    """Three images and a number for each item."""

    def __init__(self, pool, rows, targets):
        self.pool, self.rows, self.targets = pool, rows, targets

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, item):
        one, two, three = (torch.from_numpy(self.pool[i]).float()[None] / 255 for i in self.rows[item])
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument(
        "--steps", type=int, default=94, help="steps a network; 94 are an epoch of 6,000 triplets"
    )
    parser.add_argument("--width", type=int, default=8)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    size = options.steps, options.width
    print(
        f"{cores} networks on {cores} cores, {options.steps} steps of {BATCH} triplets, width {options.width}"
    )
    seconds = {"straightforward": [], "apart": [], "together": []}
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        pool.map(ours, [(seed, 3, options.width, "apart") for seed in range(cores)])  # imports, first calls
        straightforward(0, 3, options.width)
        for pair in range(options.pairs):
            start = time.perf_counter()
            curves = [straightforward(seed, *size) for seed in range(cores)]
            seconds["straightforward"].append(time.perf_counter() - start)
            for normalise in ("apart", "together"):
                start = time.perf_counter()
                means = pool.map(ours, [(seed, *size, normalise) for seed in range(cores)])
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


if __name__ == "__main__":
    main()
