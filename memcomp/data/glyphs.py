"""Omniglot in torchvision's layout: glyphs, 20 drawings of each."""

import numpy as np
from PIL import Image

from memcomp.data.store import DataError, cached, damaged, no_file

DRAWINGS = 20  # per class
SIZE = (105, 105)  # of a drawing of Omniglot
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")  # 8 bits a colour: Pillow cuts what is deeper


@cached(maxsize=2)
def omniglot(root, split):
    """Return the drawings of Omniglot's background set (``train``) or evaluation set below a data root."""
    folder = background(root) if split == "train" else root / "omniglot-py" / "images_evaluation"
    if not folder.is_dir():
        raise (
            damaged(root, folder, "is not a folder")
            if split == "train"
            else DataError(
                f"{folder} is not a folder; `memcomp data` does not fetch it, torchvision.datasets.Omniglot("
                "root, background=False, download=True) does"
            )
        )
    scripts = _entries(root, folder)
    characters = [path for script in scripts if script.is_dir() for path in _entries(root, script)]
    characters = sorted(path for path in characters if path.is_dir())
    if len(characters) < 10:
        raise damaged(root, folder, f"holds {len(characters)} characters where at least 10 were expected")
    images = []
    for character in characters:
        drawings = [path for path in _entries(root, character) if path.suffix == ".png"]
        if len(drawings) != DRAWINGS:
            raise damaged(root, character, f"holds {len(drawings)} drawings where {DRAWINGS} were expected")
        images += [_drawing(root, path) for path in drawings]
    return np.stack(images), np.repeat(np.arange(len(characters)), DRAWINGS)


def background(root):
    """Return the folder of Omniglot's background set below a data root."""
    return root / "omniglot-py" / "images_background"


def _entries(root, folder):
    """List a folder in order, without what systems and editors hide in it."""
    found = sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__")))
    for path in found:
        if not path.exists():  # else a class would be missing without a word
            raise damaged(root, path, no_file(path))
    return found


def _drawing(root, path):
    """Read one drawing, turn it to white on black and shrink it, averaging, to the size of a digit."""
    if problem := no_file(path):
        raise damaged(root, path, problem)
    try:
        with Image.open(path, formats=["PNG"]) as image:
            size, mode = image.size, image.mode
            ink = _ink(image) if size == SIZE and mode in MODES else None
    # Pillow raises nearly anything at a file that is no whole image, and one more at a huge one.
    except Exception as error:
        raise damaged(root, path, f"is not a readable PNG image ({error})") from error
    if size != SIZE:
        raise damaged(root, path, f"is {size} pixels where {SIZE} was expected")
    if ink is None:
        raise damaged(
            root, path, f"has pixels of the kind {mode!r} where one of {', '.join(MODES)} was expected"
        )
    if ink.max() < 128:
        raise damaged(root, path, "shows no ink: expected is a black drawing on white or transparent paper")
    if ink.mean() > 127:
        raise damaged(root, path, "is white on black: expected is a black drawing on white paper")
    return np.asarray(Image.fromarray(ink).resize((28, 28), Image.Resampling.BILINEAR))


def _ink(image):
    """Return how dark each pixel is; what is transparent lies on white paper."""
    if image.mode not in ("1", "L") or "transparency" in image.info:
        drawn = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn)
    return 255 - np.asarray(image.convert("L"))
