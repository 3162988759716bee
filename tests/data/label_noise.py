"""How wrong labels spread in the linear model."""

import dataclasses

import numpy as np

from memcomp import linear, records


@dataclasses.dataclass(frozen=True)
class Config:
    """A share of training labels replaced by their negative."""

    share: float
    seed: int
    n: int = 300
    alpha: float = 2.0


def grid(profile="quick", seeds=3):
    """Return five shares, each with several seeds."""
    return [Config(share, seed) for share in (0, 0.01, 0.03, 0.1, 0.3) for seed in range(seeds)]


def work(config):
    """Return the cost of a point, in any unit."""
    return config.n**3


@records.experiment("label_noise", version=1, config=Config)
def run(config):
    """Return the excess loss of the minimum-norm solution."""
    rng = np.random.default_rng(config.seed)
    law = linear.PowerLaw(d=10 * config.n, s=5, alpha=config.alpha)
    X = law.sample(config.n, rng)
    wrong = rng.random(config.n) < config.share
    y = X.sum(axis=1) * np.where(wrong, -1, 1)
    return {"loss": linear.population_loss(linear.min_norm(X, y) - 1, law.p), "wrong": int(wrong.sum())}
