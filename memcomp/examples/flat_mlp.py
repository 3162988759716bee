"""A multilayer perceptron on the flattened triplet: nothing tells it that there are three images."""

from torch import nn


def build(width, seed):
    """Return a network from (B, 3, 28, 28) to (B,)."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(3 * 28 * 28, 16 * width),
        nn.ReLU(),
        nn.Linear(16 * width, 16 * width),
        nn.ReLU(),
        nn.Linear(16 * width, 1),
        nn.Flatten(0),
    )
