"""What the experiments on images share: recipe, grid, and the way from data over training to a record.

An experiment adds its own fields to :class:`Recipe`, and says what its training set is, what it measures
(:func:`experiment`) and which points its chapter shows (:func:`grid`).
"""

import dataclasses
import functools
import inspect
import itertools
import zlib

import numpy as np

from memcomp import evaluation, images, models, plugins, records, training, triplets, values
from memcomp.data.folders import Folder
from memcomp.lookup import choose

ARCHITECTURES = ("sum", "linear", "two_layer", "cross_channel")  # the paper's
PARTNERS = range(5)  # digits beside the rare images in a test triplet

# What quick profiles share. Chosen on seeds from 100 on, as the cheapest that has the paper's constant rate,
# no more than twice its learning rate × steps an epoch (0.031; the paper has 0.016), and enough of them that
# a network without weight decay fits the triplets with a rare image.
QUICK = {
    "dataset": "embedded",
    "size": 4000,
    "epochs": 40,
    "batch_size": 64,
    "lr": 5e-4,
    "width": 8,
    "last": 10,
}
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
    # From here on a stream has a key of its own, and meets no other one whatever the numbers.
    "with glyphs": None,
    "with parts": None,
    "subset": None,
    "followed": None,
    "other drawings": None,
    "victim": None,
    "noise": None,
    "seen": None,
    "company": None,
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
    prefix = choose(STREAMS, name, "random stream")
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
    last : int
        Epochs at the end after each of which a network is measured; its metrics are the means. At a constant
        rate a network with weight decay swings from epoch to epoch.
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
    last: int = 1

    def __post_init__(self):
        # The reader's own network and images are found now, before any process starts that may not find them.
        for field, named in (("architecture", plugins.named), ("glyphs", images.named)):
            if hasattr(self, field):
                object.__setattr__(self, field, named(getattr(self, field)))

    @property
    def pools(self):
        """Names of the pools that the data come from, tuple of str."""
        return (self.dataset,)


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
        For an unknown profile or pool of images, one pool as digits and glyphs, or a value that is not what a
        parameter of a chapter may be.
    FileNotFoundError, memcomp.data.store.DataError
        For a folder of images as :func:`memcomp.data.named`.
    """
    chosen = choose(profiles, profile, "profile")
    given = {name: value for name, value in given.items() if value is not None}
    if "glyphs" in given:
        given["glyphs"] = images.named(given["glyphs"])
    for name, value in given.items():
        values.rule(name)(value, name)
    for name, kind in (("dataset", "digits"), ("glyphs", "glyphs")):
        if name in given:
            images.find(given[name], kind)
    if given.get("glyphs") is not None and given["glyphs"] == (chosen | given).get("dataset"):
        raise ValueError(f"{given['glyphs']} cannot be both the digits and the glyphs")
    return chosen | given


def vary(config, **values):
    """Return copies of a config with every combination of values of some fields, the last changing fastest.

    Examples
    --------
    >>> [(one.width, one.size) for one in vary(Recipe(), width=(8, 16), size=range(1, 3))]
    [(8, 1), (8, 2), (16, 1), (16, 2)]
    """
    return [
        dataclasses.replace(config, **dict(zip(values, chosen)))
        for chosen in itertools.product(*values.values())
    ]


def grid(config, profiles):
    """Make a function that lists an experiment's points one that takes a chapter's parameters.

    Parameters
    ----------
    config : type
        The experiment's configs; the first three fields are the architecture, a number and the seed.
    profiles : dict
        Settings by the name of the profile.

    Returns
    -------
    callable
        A decorator of ``points(first, profile, seeds)``, which returns a list of configs. ``first`` has the
        settings of the profile and the chapter, for Sum; ``seeds(n, PROFILE=m, …)`` returns the seeds of n
        networks a point, or m in another profile, or as many as the chapter asks for.

        What comes of it takes ``profile``, one of ``profiles``; ``dataset``, ``epochs``, ``width`` and
        ``glyphs`` in place of the profile's, and ``seeds``, the number of networks a point, where they are
        not None; and ``mixed`` and ``cuda_graph``, see :func:`memcomp.training.fit`. It raises what
        :func:`settings` does, and :class:`memcomp.data.store.DataError` for a folder of images with fewer
        classes or drawings than the points take.
    """

    def decorate(points):
        def grid(
            profile="quick",
            dataset=None,
            seeds=None,
            epochs=None,
            width=None,
            mixed=False,
            cuda_graph=False,
            glyphs=None,
        ):
            given = {"dataset": dataset, "epochs": epochs, "width": width, "glyphs": glyphs}
            given |= {"mixed": mixed or None, "cuda_graph": cuda_graph or None}
            first = config("sum", 0.0, 0, **settings(profiles, profile, **given))
            values.rule("seeds")(seeds, "seeds")

            def numbers(usual, **by_profile):
                return range(by_profile.get(profile, usual) if seeds is None else seeds)

            found = points(first, profile, numbers)
            if isinstance(getattr(first, "glyphs", None), Folder):  # before hours of training
                images.check_drawings(first.glyphs, max(config.needed for config in found))
            return found

        return _in_place_of(points, grid)

    return decorate


def _in_place_of(inner, outer):
    """Let a function stand where another was defined, for pickle and the reference; its arguments stay."""
    functools.update_wrapper(outer, inner)
    del outer.__wrapped__
    return outer


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


def options(function, config):
    """Return those keyword-only arguments of a function that are fields of a config."""
    parameters = inspect.signature(function).parameters.values()
    names = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and hasattr(config, one.name)]
    return {name: getattr(config, name) for name in names}


def fit(config, data, device="cpu", progress=True, checkpoint=None, along=None):
    """Build the network that a config describes, and train it as the config says.

    Parameters
    ----------
    config : Recipe
        With the fields ``architecture``, ``seed`` and ``weight_decay``.
    data : TrainingSet
        Where the pool holds vectors, the network takes vectors.
    device, progress, checkpoint, along
        See :func:`memcomp.training.fit`.

    Returns
    -------
    model : torch.nn.Module
    history : dict
        See :func:`memcomp.training.fit`.
    """
    shape = {"vectors": data.images.ndim == 2, "dim": data.images.shape[-1]}
    model = models.build(config.architecture, config.width, **shape, **options(models.build, config))
    own = [one for one in dataclasses.fields(config) if one.name not in vars(Recipe) or one.name == "target"]
    values = [(one.name, getattr(config, one.name), one.default) for one in own]
    history = training.fit(
        model,
        data.images,
        data.rows,
        data.targets,
        **options(training.fit, config),
        device=device,
        name=", ".join(f"{field} {value}" for field, value, usual in values if value != usual),
        progress=progress,
        checkpoint=checkpoint,
        along=along,
    )
    return model, history


def experiment(name, version, config, data, *, seen=lambda config, data: data, along=None):
    """Make a measure of trained networks an experiment on images: draw data, train, measure.

    Parameters
    ----------
    name, version, config
        See :func:`memcomp.records.experiment`.
    data : callable
        ``data(config, data_root)`` returns the :class:`TrainingSet` of a config.
    seen : callable
        ``seen(config, data)`` returns what of it the network is trained on; by default all.
    along : callable, optional
        ``along(model, config, data, data_root)`` returns the metrics that are wanted also while the network
        is trained, if ``config.along``.

    Returns
    -------
    callable
        A decorator of ``measure(model, config, data, data_root)``, which returns the metrics of a trained
        network. What comes of it is the experiment, ``run(config, device="cpu", data_root=None,
        progress=False, checkpoint=None)``. Its metrics are those of the network after the last epoch, or the
        means over the ``config.last`` last ones, where ``along`` holds the numbers among them epoch by epoch;
        it adds ``history``, the training loss of each epoch, and ``data``, where the data come from. Its
        attribute ``train(config, device="cpu", data_root=None, progress=True, data=None, checkpoint=None)``
        trains a network and returns it with its history, see :func:`fit`; ``data`` is its training set, if
        that is at hand. For ``data_root`` see :func:`memcomp.data.load`, for the others
        :func:`memcomp.training.fit`.
    """
    draw = data

    def decorate(measure):
        def watch(config, data, data_root):
            """Return what is measured after an epoch, or None if nothing is before the end."""

            def look(epoch, model):
                if config.last > 1 and epoch > config.epochs - config.last:
                    return measure(model, config, data, data_root)
                if config.along and along and (epoch in (30, 100, 200) or epoch > config.epochs - 10):
                    return along(model, config, data, data_root)
                return None

            return look if config.last > 1 or (config.along and along) else None

        def train(config, device="cpu", data_root=None, progress=True, data=None, checkpoint=None, look=None):
            data = data or draw(config, data_root)
            return fit(config, seen(config, data), device, progress, checkpoint, look)

        def run(config, device="cpu", data_root=None, progress=False, checkpoint=None):
            data = draw(config, data_root)
            look = watch(config, data, data_root)
            with evaluation.progress(progress):
                model, history = train(config, device, data_root, progress, data, checkpoint, look)
                found = history["along"]
                if config.last > 1:
                    metrics, found = means(found[-config.last :]), [scalars(one) for one in found]
                else:
                    metrics = measure(model, config, data, data_root)
            metrics |= {
                "history": [round(loss, 5) for loss in history["loss"]],
                "data": provenance(*config.pools, root=data_root),
            }
            return metrics | ({"along": found} if found else {})

        run = _in_place_of(measure, run)
        run.train = train
        run.data_of = lambda config, data_root=None, **_: provenance(*config.pools, root=data_root)
        return records.experiment(name, version, config)(run)

    return decorate


def scalars(metrics):
    """Return those metrics that are single numbers, to five digits."""
    return {name: float(f"{one:.5g}") for name, one in metrics.items() if isinstance(one, int | float)}


def means(found):
    """Return the means of metrics that were measured several times.

    Parameters
    ----------
    found : list of dict
        The same metrics in each; ``epoch`` is left out. What does not change, a name for instance, stays.

    Returns
    -------
    dict

    Examples
    --------
    >>> means([{"epoch": 1, "loss": [1, 2], "kind": "nine"}, {"epoch": 2, "loss": [3, 2], "kind": "nine"}])
    {'loss': [2.0, 2.0], 'kind': 'nine'}
    """
    first = {name: one for name, one in found[0].items() if name != "epoch"}
    return {
        name: one
        if all(other[name] == one for other in found)
        else np.mean([other[name] for other in found], axis=0).round(7).tolist()
        for name, one in first.items()
    }


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


def loss(model, part, rows, target="sum"):
    """Return the mean squared error on triplets of a training or test set."""
    return (errors(model, part, rows, target) ** 2).mean()


def extended(part, images, labels):
    """Return a training or test set with further images behind those of its pool."""
    return dataclasses.replace(
        part, images=np.concatenate([part.images, images]), labels=np.concatenate([part.labels, labels])
    )


def fresh(labels, config, size=2000, rare=None):
    """Return triplets of held-out digits that are drawn like those of training.

    With ``rare`` images of the last label in place of what Zipf's law gives.
    """
    return triplets.long_tailed(labels, size, stream("fresh"), rare=rare, exponent=config.exponent)
