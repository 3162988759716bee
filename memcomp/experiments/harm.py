"""When memorization hurts: a wrong label, two parts that always meet, noise; with and without weight decay.

Networks are trained as in :mod:`memcomp.experiments.omniglot`, on the same triplets, to which one thing is
done. They are tested against the true sums.
"""

import dataclasses

import numpy as np

from memcomp import triplets
from memcomp.experiments import base, omniglot
from memcomp.experiments.base import errors
from memcomp.experiments.subsets import compositions

work = base.work

DAMAGES = ("none", "label", "pair", "noise")
PAIRS = ((1, 8), (2, 9))  # glyphs that are made to meet; their halves differ by 3.5 from either


@dataclasses.dataclass(frozen=True)
class Config(omniglot.Config):
    """One network.

    Attributes
    ----------
    damage : {"none", "label", "pair", "noise"}
        ``label``: the target of one glyph's triplet is too large by ``amount``. ``pair``: each pair of glyphs
        in ``PAIRS`` shares its triplet, so that training tells their sum only. ``noise``: every target has
        Gaussian noise of standard deviation ``amount``.
    amount : float
    ties : {0, 1}
        Further triplets, for ``pair``, in which the first of the two glyphs stands without the second.
    """

    damage: str = "none"
    amount: float = 0.0
    ties: int = 0


# Half of the triplets: the paper's learning rate × steps an epoch, and each glyph's triplet is still fitted.
PROFILES = {"quick": base.QUICK | {"size": 2000}, "paper": {}}
SHIFT = 10.0  # of the wrong label; sums run from 0 to 27
NOISE = (1.0, 4.0)
DIAL = (0.1,)  # weight decays between those of Table 1, for the networks with noise


@base.grid(Config, PROFILES)
def grid(first, profile, seeds):
    """Return the configs: for each kind of damage and weight decay, networks that share their data by seed.

    Profile ``paper``: the paper's recipe, 10 networks a point. ``quick``: 5, and 4 with noise. For the
    arguments see :func:`.base.grid`.

    Returns
    -------
    list of Config
    """
    table = {"weight_decay": (0.0, 0.5), "seed": seeds(5, paper=10)}
    noisy = {"weight_decay": (0.0, *DIAL, 0.5), "seed": seeds(4, paper=10)}
    return [
        *base.vary(first, **table),
        *base.vary(first, **noisy | {"weight_decay": DIAL}),
        *base.vary(first, damage=["label"], amount=[SHIFT], **table),
        *base.vary(first, damage=["pair"], ties=(0, 1), **table),
        *base.vary(first, damage=["noise"], amount=NOISE, **noisy),
    ]


def victim(config):
    """Return the label of the glyph whose triplet gets, or would get, the wrong label."""
    return int(base.stream("victim", config.seed).integers(10))


def training_set(config, data_root=None):
    """Return the triplets after the damage, and what they are trained towards.

    Returns
    -------
    omniglot.TrainingSet
        ``where`` gives a place where each glyph stands; for a pair, that in the triplet that it shares.
    """
    if config.damage not in DAMAGES:
        raise ValueError(f"unknown damage {config.damage!r}; choose one of {', '.join(DAMAGES)}")
    if config.ties not in (0, 1) or (config.ties and config.damage != "pair"):
        raise ValueError(f"ties is {config.ties}; it must be 0 or, with damage 'pair', 1")
    data = omniglot.training_set(config, data_root)
    if config.damage == "pair":
        data = joined(data, config)
    targets = triplets.targets(data.labels, data.rows, config.target)
    if config.damage == "label":
        row = data.where[victim(config) * config.drawings, 0]
        targets[row] += config.amount
    if config.damage == "noise":
        rng = base.stream("noise", config.seed)
        targets += config.amount * rng.standard_normal(len(targets), dtype=np.float32)
    return dataclasses.replace(data, targets=targets)


def joined(data, config):
    """Let the second glyph of each pair change places with a digit in the first one's triplet."""
    if config.drawings != 1:
        raise ValueError(f"pairs are made of glyphs with one drawing each, not {config.drawings}")
    rows, where = data.rows.copy(), data.where.copy()
    for first, second in PAIRS:
        row, position = where[first]
        left, place = where[second]
        new = row, (position + 1) % 3
        digit, glyph = rows[new], rows[left, place]
        rows[new] = glyph
        rows[left, place] = rows[row, position] if config.ties else digit
        where[second] = new
    return dataclasses.replace(data, rows=rows, where=where)


@base.experiment("harm", version=2, config=Config, data=training_set)
def run(model, config, data, data_root):
    """Train one network on damaged data and test it against the truth, see :func:`.base.experiment`.

    Returns
    -------
    dict
        ``victim``, the label of the glyph with the wrong label, also where nothing was damaged; ``pairs``
        (45 × 2), the labels of two glyphs, ``pair_loss`` and ``pair_bias`` (45), mean squared and mean error
        on compositions of the two with a held-out digit from 0 to 4, over three positions; ``composed`` and
        ``bias`` (10), the same for each glyph beside two held-out digits; ``residual`` (10), output minus the
        true sum on the training triplet of each glyph.

        Mean squared errors: ``train_loss``, against the targets as given; ``clean_loss``, on the same
        triplets against the true sums; ``glyph_loss``, on those that hold a glyph, against the true sums;
        ``fresh_loss``, on held-out digits drawn like the training digits; ``test_loss``, the mean of
        ``pair_loss``.
    """
    test = omniglot.held_out(config, data, data_root)
    error = errors(model, data, data.rows, config.target)
    given = error + triplets.targets(data.labels, data.rows, config.target) - data.targets
    fresh = base.fresh(test.labels[: test.glyphs[0]], config)
    by_pair = np.stack([errors(model, test, rows, config.target) for rows in test.rows])
    by_pair = by_pair.reshape(-1, 45)
    return {
        "victim": victim(config),
        "pairs": test.labels[test.rows[0][: by_pair.shape[1], 1:]],
        "pair_loss": (by_pair**2).mean(0).round(5),
        "pair_bias": by_pair.mean(0).round(4),
        **compositions(model, config, test, data.images[data.glyphs], data.labels[data.glyphs]),
        "residual": error[data.where[:, 0]].round(4),
        "train_loss": (given**2).mean(),
        "clean_loss": (error**2).mean(),
        "glyph_loss": (error[data.where[:, 0]] ** 2).mean(),
        "fresh_loss": base.loss(model, test, fresh, config.target),
        "test_loss": (by_pair**2).mean(),
    }


train = run.train
