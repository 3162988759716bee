"""The recipe that the experiments on images share: data, network, training, record.

An experiment adds its own fields to :class:`Recipe`, says what its training set is and what it measures, and
puts the three lines of its ``run`` together from what is here.
"""

import dataclasses
import zlib

import numpy as np

from memcomp import evaluation, images, models, training, triplets

ARCHITECTURES = ("sum", "linear", "two_layer", "cross_channel")  # the paper's
PARTNERS = range(5)  # digits beside the rare images in a test triplet

# What quick profiles have in common: chosen once, on networks with other seeds, as the cheapest at which a
# network without weight decay fits the triplets with a rare image. It differs from the paper in every line.
QUICK = {"dataset": "embedded", "batch_size": 64, "lr": 4e-3, "schedule": "cosine", "warmup": 50, "width": 8}
# The paper's recipe to the letter, on a CPU.
NARROW = {"width": 16, "along": True}

STREAMS = {
    # Training sets by seed and another number that is not 0; what all networks share; held-out triplets.
    "training set": (),
    "shared": (0,),
    "fresh": (1,),
    "partners": (2,),
    "batches": (3,),
    "pairs of glyphs": (0, 2),
    # These meet the training set of another seed. They decided what stored networks were trained on, or what
    # their losses were measured on, and get a key of their own with the next version of those experiments.
    "subset": (1,),
    "followed": (2,),
    "victim": (3,),
    "noise": (4,),
    "other drawings": (5,),
    "with parts": (1,),
    # From here on a stream has a key of its own, and meets no other one whatever the numbers.
    "with glyphs": None,
}
"""Random streams by name: what their seed begins with, or None for one with a key of its own."""


def stream(name, *numbers):
    """Return the random generator of a purpose.

    Parameters
    ----------
    name : str
        One of ``STREAMS``.
    *numbers : int
        What tells draws for the same purpose apart, a seed for instance.

    Returns
    -------
    numpy.random.Generator

    Raises
    ------
    ValueError
        For an unknown name.
    """
    if name not in STREAMS:
        raise ValueError(f"unknown random stream {name!r}; choose one of {', '.join(STREAMS)}")
    prefix = STREAMS[name]
    if prefix is None:
        return np.random.default_rng(np.random.SeedSequence(numbers, spawn_key=(zlib.crc32(name.encode()),)))
    return np.random.default_rng([*prefix, *numbers])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is made. The defaults are the paper's where the paper gives a value.

    Attributes
    ----------
    dataset : str
        Pool of digits, see :func:`memcomp.data.load`.
    exponent : float
        Exponent of Zipf's law for the digits.
    target : str
        What is asked about three labels: a name in :data:`memcomp.triplets.TARGETS`.
    size : int
        Triplets of digits in the training set.
    epochs, batch_size, lr, schedule, warmup, optimizer, decayed
        See :func:`memcomp.training.fit`.
    width, stem, normalise
        See :func:`memcomp.models.build`.
    mixed, cuda_graph : bool
        See :func:`memcomp.training.fit`.
    along : bool
        Measure also while training: after 30, 100 and 200 epochs and after each of the last ten.
    """

    dataset: str = "mnist"
    exponent: float = 2.0
    target: str = "sum"
    size: int = 40_000
    epochs: int = 300
    batch_size: int = 256
    lr: float = 1e-4
    schedule: str = "constant"
    warmup: int = 0
    optimizer: str = "adam"
    decayed: str = "all"
    width: int = 64
    stem: str = "imagenet"
    normalise: str = "together"
    mixed: bool = False
    cuda_graph: bool = False
    along: bool = False


def settings(profiles, profile, **given):
    """Return what a grid's configs have in common: a profile's settings, but those that are given.

    Parameters
    ----------
    profiles : dict
        Settings by the name of the profile.
    profile : str
    **given
        Settings in place of the profile's; None leaves the profile's.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        For an unknown profile.
    """
    if profile not in profiles:
        *others, last = map(repr, profiles)
        raise ValueError(f"unknown profile {profile!r}; choose {', '.join(others)} or {last}")
    return profiles[profile] | {name: value for name, value in given.items() if value is not None}


def work(config):
    """Return a number proportional to the cost of a point: images seen in training, times squared width."""
    encoded = 1 if config.architecture == "cross_channel" else 3
    return config.epochs * config.size * encoded * config.width**2


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """What a network is trained on.

    Attributes
    ----------
    images : ndarray, uint8 (N, 28, 28) or float32 (N, dim)
        The pool.
    labels : ndarray, int64, shape (N,)
    rows : ndarray, int64, shape (M, 3)
    targets : ndarray, float32, shape (M,)
    """

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    targets: np.ndarray


def fit(config, data, name="", device="cpu", progress=True, model=None, checkpoint=None, along=None):
    """Build the network that a config describes, and train it as the config says.

    Parameters
    ----------
    config : Recipe
        With the fields ``architecture``, ``seed`` and ``weight_decay``.
    data : TrainingSet
    name, device, progress, checkpoint
        See :func:`memcomp.training.fit`.
    model : torch.nn.Module, optional
        In place of the one that the config describes.
    along : callable, optional
        Takes the network to the metrics that are wanted also while it is trained; used if ``config.along``.

    Returns
    -------
    model : torch.nn.Module
    history : dict
        See :func:`memcomp.training.fit`.
    """
    if model is None:
        model = models.build(
            config.architecture, config.width, seed=config.seed, stem=config.stem, normalise=config.normalise
        )
    options = (
        *("epochs", "batch_size", "lr", "schedule", "warmup", "optimizer", "weight_decay", "decayed"),
        *("seed", "mixed", "cuda_graph"),
    )

    def look(epoch, model):
        return along(model) if epoch in (30, 100, 200) or epoch > config.epochs - 10 else None

    history = training.fit(
        model,
        data.images,
        data.rows,
        data.targets,
        **{name: getattr(config, name) for name in options},
        device=device,
        name=name,
        progress=progress,
        checkpoint=checkpoint,
        along=look if config.along and along else None,
    )
    return model, history


def result(metrics, history, data):
    """Return what ``run`` returns: metrics, the training loss of each epoch, and where the data come from."""
    found = metrics | {"history": [round(loss, 5) for loss in history["loss"]], "data": data}
    return found | ({"along": history["along"]} if history["along"] else {})


def provenance(*names, root=None):
    """Return source and checksum of several pools as one data source."""
    data = [images.provenance(name, root) for name in names]
    return {key: "; ".join(part[key] for part in data) for key in ("source", "sha256")}


def held_out_digits(dataset, each, rng, data_root=None):
    """Draw held-out digits, equally many of each label, sorted by label.

    Returns
    -------
    images : ndarray, uint8, shape (10 · each, 28, 28)
    labels : ndarray, int64, shape (10 · each,)
    """
    pool, labels = images.load(dataset, "test", data_root)
    chosen = np.concatenate(
        [rng.choice(np.flatnonzero(labels == label), each, replace=False) for label in range(10)]
    )
    return pool[chosen], labels[chosen]


def errors(model, part, rows, target="sum"):
    """Return output minus target for triplets of a training or test set, float64."""
    outputs = evaluation.predict(model, part.images, rows).astype(np.float64)
    return outputs - triplets.targets(part.labels, rows, target)


def fresh(labels, config):
    """Return 2,000 triplets of held-out digits that are drawn like those of training."""
    return triplets.long_tailed(labels, 2000, stream("fresh"), exponent=config.exponent)
