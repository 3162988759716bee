"""Folders of the reader's own images as pools of glyphs: found, named, read and screened.

Wherever a pool of glyphs is named, the path of a folder in torchvision's ``ImageFolder`` layout is taken too:
one folder a class, and in it, at any depth, its images. Names that begin with a dot or ``__`` are passed
over.

Every image becomes white ink on black in 28 × 28 pixels. It is turned upright where its EXIF data say so;
what is transparent lies on white paper under dark ink, on black under bright ink; colours become grey
(luminance). If the median of its outermost pixels is above half the range, the background is bright, and the
image is inverted. That median becomes black, and what is brighter is stretched to the full range. The shorter
side is filled up to a square, which is shrunk, averaging, or enlarged to the size of a digit (Pillow's
``BILINEAR``), as Omniglot's drawings are. Nothing is cropped: a glyph keeps its margin.

A class that looks like a digit is left out (:mod:`memcomp.data.screen`), and nothing else is: a file that is
no whole picture is an error that names it.
"""

import dataclasses
import hashlib
import io
import os
import re
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from memcomp import paths
from memcomp.data import glyphs, screen
from memcomp.data.store import DataError, cached, no_file

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")
"""Endings of the names of images: torchvision's, and ``.gif``."""
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
MODES = (*glyphs.MODES, "CMYK", "YCbCr")
DEEP = ("I;16", "I;16L", "I;16B", "I;16N")  # grey, 16 bits
MOST = 100_000
"""Files that a folder may hold."""
LARGEST = 64 * 2**20
"""Bytes that a file may have."""
LONGEST = 8192
"""Pixels that the longer side of an image may have."""
FAINTEST = 32
"""Levels of 255 between the darkest and the brightest of the 28 × 28 pixels, at least."""
LEAST = 10
"""Classes that an experiment needs."""
SCREENED = 100
"""Drawings of a class that the screen looks at, evenly spread over the sorted names."""
SHOWN = 10  # names that one message lists

COLUMNS = ("name", "drawings", "digit", "share", "distance", "kept", "why")
_RECORDED = re.compile(r"[^/]+@[0-9a-f]{12}")
_EXPECTED = "expected is a folder for each class with its images in it"


class Folder(str):
    """The name of a reader's folder as it stands in a config: ``my_folder@0123456789ab``.

    Behind the folder's own name stand the first digits of the SHA-256 of the names and bytes of its images,
    so that a folder with another content is another point. Where it lies stays out of records.

    Attributes
    ----------
    path : str
        Absolute.
    """

    path: str

    @property
    def label(self):
        """str: the name without the digits, for a page."""
        return self.rpartition("@")[0]


@dataclasses.dataclass(frozen=True)
class Screened:
    """What a folder holds, and what the screen made of it.

    Attributes
    ----------
    folder : Folder
    images : ndarray, uint8, shape (N, 28, 28)
        Of the classes that were kept. White ink (255) on black (0).
    labels : ndarray, int64, shape (N,)
        0 for the first class that was kept, and so on.
    examples : ndarray, uint8, shape (classes, 28, 28)
        The first drawing of every class.
    classes : pandas.DataFrame
        One row a class, in the order of the names: ``name``; number of ``drawings``; ``digit``, ``share`` and
        ``distance``, see :func:`memcomp.data.screen.resemblance`; ``kept``; ``why`` it was left out.
    aside : tuple of (str, str)
        Files that belong to no drawing, and why.
    """

    folder: Folder
    images: np.ndarray
    labels: np.ndarray
    examples: np.ndarray
    classes: pd.DataFrame
    aside: tuple


def absolute(name):
    """Return a folder with its absolute path, for a process with another working folder.

    Parameters
    ----------
    name : str
        As :func:`named` takes it. What is no path is returned as it is.

    Returns
    -------
    str

    Examples
    --------
    >>> absolute("letters"), absolute("./letters") == f"{Path.cwd()}/letters"
    ('letters', True)
    """
    return str(paths.typed(name, "glyphs")) if _is_path(name) else name


def named(name):
    """Return what a config holds for a folder that a person typed.

    Parameters
    ----------
    name : str or path
        ``path/to/folder``, where a relative path means the working folder, and one part alone a folder only
        if it is there; or the name of a folder in a record, or anything else.

    Returns
    -------
    str
        A :class:`Folder` for a folder, else what was given.

    Raises
    ------
    FileNotFoundError
        If a path leads to nothing.
    memcomp.data.store.DataError
        If it is no folder of classes, or holds what cannot be read.
    """
    if isinstance(name, Folder) or not _is_path(name):
        return name
    path = paths.typed(name, "glyphs")
    label = _text(path.name if path.name not in ("", "..") else path.resolve().name or "root")
    if not path.exists():
        raise FileNotFoundError(f"glyphs: there is no folder {path}; {_EXPECTED}")
    if not path.is_dir():
        raise DataError(f"glyphs: {label} is a file; {_EXPECTED}")
    digest = hashlib.sha256()
    for where, file in _listed(path, label)[0]:
        _add(digest, where, _content(where, file))
    return _folder(label, digest, path)


def is_recorded(name):
    """Return whether a text is the name that a record gives a folder."""
    return isinstance(name, str) and _RECORDED.fullmatch(name) is not None


def screened(folder):
    """Read a folder, and leave out the classes that look like a digit.

    Parameters
    ----------
    folder : Folder
        From :func:`named`.

    Returns
    -------
    Screened
        Kept for the next call; its arrays are therefore read-only.

    Raises
    ------
    memcomp.data.store.DataError
        If an image cannot be used, or the folder has changed since it was named.
    ValueError
        If it is the name of a folder in a record, which tells no path, or no folder at all.
    """
    if isinstance(folder, Folder):
        return _screened(folder)
    if is_recorded(folder):
        raise ValueError(
            f"{folder} is the name that a record gives a folder of images; to read the images give the path "
            "of the folder"
        )
    raise ValueError(f"{folder!r} is no folder of images; {_EXPECTED}")


def pool(folder):
    """Return images and labels of the classes of a folder that look like no digit.

    Parameters
    ----------
    folder : Folder
        From :func:`named`.

    Returns
    -------
    images : ndarray, uint8, shape (N, 28, 28)
    labels : ndarray, int64, shape (N,)

    Raises
    ------
    ValueError, memcomp.data.store.DataError
        As :func:`screened`; if fewer than ten classes are left.
    """
    found = screened(folder)
    kept = found.classes.kept
    if kept.sum() < LEAST:
        left = [f"{one.name} is {one.why}" for one in found.classes[~kept].itertuples()]
        out = f"; left out as look-alikes of digits: {_few(left)}" if left else ""
        raise DataError(
            f"{folder.label}: {kept.sum()} of its {len(kept)} classes can be used, and {LEAST} are "
            f"needed{out}{_inner(folder)}"
        )
    return found.images, found.labels


# ----------------------------------------------------------------------------------------------------
# Files


def _is_path(name):
    if isinstance(name, os.PathLike):
        return True
    if not isinstance(name, str) or not name or "\0" in name or is_recorded(name):
        return False
    return "/" in name or name.startswith("~") or os.path.lexists(name)


def _text(name):
    """Return a file's name as a text that can be printed, and that is the same on every system."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode(errors="replace"))


def _folder(label, digest, path):
    folder = Folder(f"{label}@{digest.hexdigest()[:12]}")
    folder.path = str(path)
    return folder


def _add(digest, where, content):
    inside = where.partition("/")[2]  # the folder itself may be renamed
    digest.update(inside.encode() + b"\0" + hashlib.sha256(content).digest())


def _listed(path, label):
    """List a folder: its images, and the files that are none, each as a name to show and a path or a reason.

    The part of a name after the first slash begins with the class.
    """
    images, aside, above = [], [], [_identity(path)]
    for where, entry in _entries(path, label, above):
        before = len(images)
        for inside, file in _files(where, entry, above) if entry.is_dir() else [(where, entry)]:
            if inside == where:
                aside.append((inside, "lies beside the folders of the classes"))
            elif inside.lower().endswith(SUFFIXES):
                images.append((inside, file))
            else:
                aside.append((inside, "is no image by the end of its name"))
            if len(images) + len(aside) > MOST:
                raise DataError(f"{label} holds more than {MOST:,} files; take a part of it")
        if entry.is_dir() and len(images) == before:
            raise DataError(
                f"{where} holds no image, which is a file whose name ends in {', '.join(SUFFIXES)}; "
                f"{_EXPECTED}"
            )
    if not images:
        loose = f", and {len(aside)} files" if aside else ""
        raise DataError(f"{label} holds no folders{loose}; {_EXPECTED}")
    return images, aside


def _files(where, path, above):
    """Yield the files of a folder and of those in it, in order, each with its name to show."""
    above = [*above, _identity(path)]
    for inside, entry in _entries(path, where, above):
        if entry.is_dir():
            yield from _files(inside, entry, above)
        else:
            yield inside, entry


def _entries(path, where, above):
    """Return what a folder holds, in order, without what systems and editors hide in it."""
    try:
        names = [name for name in os.listdir(path) if not name.startswith((".", "__"))]
    except OSError as error:
        raise DataError(f"{where} cannot be looked into ({error.strerror})") from error
    if len(names) > MOST:
        raise DataError(f"{where} holds more than {MOST:,} files; take a part of it")
    found = sorted((f"{where}/{_text(name)}", path / name) for name in names)
    for inside, entry in found:
        if not entry.exists():  # else it would be missing without a word
            raise DataError(f"{inside} {no_file(entry)}")
        if entry.is_dir() and _identity(entry) in above:
            raise DataError(f"{inside} is a link to a folder that it lies in")
    return found


def _identity(path):
    status = path.stat()
    return status.st_dev, status.st_ino


def _content(where, path):
    """Return the bytes of a file."""
    if problem := no_file(path):
        raise DataError(f"{where} {problem}")
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise DataError(f"{where} has {size:,} bytes; at most {LARGEST:,} are read as an image")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{where} cannot be read ({error.strerror})") from error


@cached(maxsize=2)
def _screened(folder):
    path, label = Path(folder.path), folder.label
    if not path.is_dir():
        raise DataError(
            f"{folder}: there is no folder {path} here; workers elsewhere need it at the same path, as they "
            "need the other data"
        )
    files, aside = _listed(path, label)
    digest, first, drawn = hashlib.sha256(), {}, {}
    for where, file in files:
        content = _content(where, file)
        _add(digest, where, content)
        drawing = _drawing(where, content)
        name = where.split("/")[1]
        known = first.setdefault(drawing.tobytes(), where)
        if known == where:
            drawn.setdefault(name, []).append(drawing)
        elif known.split("/")[1] == name:
            aside.append((where, f"is the same picture as {known}"))
        else:
            raise DataError(f"{where} is the same picture as {known}, which is of another class; remove one")
    if _folder(label, digest, path) != folder:
        raise DataError(
            f"{label} has changed since it was named {folder}; start again to use it as it is now"
        )
    drawn = {name: np.stack(images) for name, images in drawn.items()}
    classes = _classes(drawn)
    kept = [drawn[name] for name in classes.name[classes.kept]]
    return Screened(
        folder=folder,
        images=np.concatenate([np.empty((0, 28, 28), np.uint8), *kept]),
        labels=np.repeat(np.arange(len(kept)), [len(one) for one in kept]),
        examples=np.stack([images[0] for images in drawn.values()]),
        classes=classes,
        aside=tuple(aside),
    )


def _classes(drawn):
    """Return the table of the classes."""
    spread = [np.linspace(0, len(one) - 1, min(len(one), SCREENED)).astype(int) for one in drawn.values()]
    found = screen.resemblance([one[chosen] for one, chosen in zip(drawn.values(), spread)])
    found["name"], found["drawings"] = list(drawn), [len(one) for one in drawn.values()]
    found["kept"] = ~found.alike
    found["why"] = [
        ""
        if one.kept
        else f"read as a {one.digit} ({one.share:.0%})"
        if one.share > screen.SHARE
        else f"as near to a digit as digits are to each other ({one.distance:.2f})"
        for one in found.itertuples()
    ]
    return found[list(COLUMNS)]


def _few(texts):
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more


def _inner(folder):
    """Say which folder within a folder may have been meant, if one holds ten folders itself."""
    for where, entry in _entries(Path(folder.path), folder.label, []):
        if entry.is_dir() and sum(one.is_dir() for _, one in _entries(entry, where, [])) >= LEAST:
            return f". {where} holds folders, too: is it the one that you mean?"
    return ""


# ----------------------------------------------------------------------------------------------------
# Images


def _drawing(where, content):
    """Return an image as white ink on black, uint8 (28, 28)."""
    if not content:
        raise DataError(f"{where} is empty; expected an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # at what Pillow reads in spite of a doubt, and at large ones
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                _check(where, image)
                grey = _grey(image)
    except DataError:
        raise
    except Image.UnidentifiedImageError as error:
        raise DataError(f"{where} is no image that can be read; expected is {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{where} is too large; at most {LONGEST} pixels a side are read") from error
    except Exception as error:  # Pillow raises nearly anything at a file that is no whole image
        raise DataError(f"{where} is no whole image ({error}); save it anew") from error
    edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ground = int(np.median(edge))
    if ground > 127:
        grey, ground = 255 - grey, 255 - ground
    # Digits lie on black; grey paper would tell a network what is a glyph.
    grey = np.rint(np.clip(grey - float(ground), 0, None) * (255 / (255 - ground))).astype(np.uint8)
    side = max(grey.shape)
    square = np.zeros((side, side), np.uint8)
    top, left = ((side - length) // 2 for length in grey.shape)
    square[top : top + grey.shape[0], left : left + grey.shape[1]] = grey
    drawing = np.asarray(Image.fromarray(square).resize((28, 28), Image.Resampling.BILINEAR))
    if (levels := int(drawing.max()) - int(drawing.min())) < FAINTEST:
        raise DataError(
            f"{where} shows nothing: its 28 × 28 pixels differ by {levels} of 255 levels; expected are at "
            f"least {FAINTEST}"
        )
    return drawing


def _check(where, image):
    """Refuse an image that is too large, not a single one, or of colours that Pillow would cut."""
    if max(image.size) > LONGEST:
        width, height = image.size
        raise DataError(f"{where} is {width} × {height} pixels; at most {LONGEST} a side are read")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a photo of a phone, with another one for its depth
        raise DataError(f"{where} holds {frames} pictures, as an animation does; expected one")
    if image.mode not in MODES + DEEP and (image.mode, image.format) != ("I", "PNG"):
        raise DataError(
            f"{where} has pixels of the kind {image.mode!r}; expected are 8 bits a colour, or 16 bits of grey"
        )


def _grey(image):
    """Return the luminance of an image as it is to be seen, uint8 (height, width)."""
    image = ImageOps.exif_transpose(image)
    if image.mode in DEEP or image.mode == "I":
        return np.rint(np.asarray(image) / 257).astype(np.uint8)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        grey, cover = (np.asarray(one, float) for one in (image.convert("L"), image.getchannel("A")))
        dark = (grey * cover).sum() < 127.5 * cover.sum()
        return np.rint((grey * cover + 255 * dark * (255 - cover)) / 255).astype(np.uint8)
    if image.mode in ("CMYK", "YCbCr"):
        image = image.convert("RGB")
    return np.asarray(image.convert("L"))
