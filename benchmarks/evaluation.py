"""Factorised evaluation of 60,000 composed triplets against running each through the network.

    python benchmarks/evaluation.py [--pairs 3] [--width 8]

The two alternate; for each architecture it prints both times, their ratio, and the relative difference of the
two mean squared errors. `cross_channel` has no factors: its ratio is 1.
"""

import argparse
import statistics
import time

import numpy as np

from memcomp import evaluation, images, models, training, triplets


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--width", type=int, default=8)
    options = parser.parse_args()
    pool, labels = images.load("embedded", "test")
    pairs = triplets.pairs(labels, range(5), 200, np.random.default_rng(0))
    nines = np.flatnonzero(labels == 9)
    rows = np.concatenate([triplets.composed(nines, pairs, position) for position in range(3)])
    targets = triplets.targets(labels, rows)
    train, train_labels = images.load("embedded")
    train_rows = triplets.long_tailed(train_labels, 1280, np.random.default_rng(0))
    print(f"{len(rows):,} triplets of {len(np.unique(rows))} images, width {options.width}")
    for architecture in ("sum", "linear", "two_layer", "cross_channel"):
        model = models.build(architecture, options.width)
        fitted = triplets.targets(train_labels, train_rows)
        training.fit(model, train, train_rows, fitted, epochs=2, batch_size=64, lr=4e-3, progress=False)
        evaluation.mse(model, pool, rows[:1000], targets[:1000])  # first calls are slower
        seconds, errors = {True: [], False: []}, {}
        for _ in range(options.pairs):
            for factorised in (True, False):
                start = time.perf_counter()
                errors[factorised] = evaluation.mse(model, pool, rows, targets, factorised)
                seconds[factorised].append(time.perf_counter() - start)
        quick, direct = (statistics.median(seconds[factorised]) for factorised in (True, False))
        difference = abs(errors[True] / errors[False] - 1)
        print(
            f"{architecture:14} {quick:.2f} s factorised, {direct:.2f} s direct: {direct / quick:5.1f} times;"
            f" the errors differ by {difference:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
