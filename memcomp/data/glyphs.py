"""Omniglot in torchvision's layout: glyphs, 20 drawings of each."""

import numpy as np
from PIL import Image

from memcomp.data.store import cached, damaged

DRAWINGS = 20  # per class


@cached(maxsize=2)
def omniglot(root, split):
    """Return the drawings of Omniglot's background set (``train``) or evaluation set below a data root."""
    folder = root / "omniglot-py" / ("images_background" if split == "train" else "images_evaluation")
    if not folder.is_dir():
        raise damaged(root, folder, "is not a folder")
    characters = sorted(path for path in folder.glob("*/*") if path.is_dir())
    if len(characters) < 10:
        raise damaged(root, folder, f"holds {len(characters)} characters where at least 10 were expected")
    images = []
    for character in characters:
        drawings = sorted(character.glob("*.png"))
        if len(drawings) != DRAWINGS:
            raise damaged(root, character, f"holds {len(drawings)} drawings where {DRAWINGS} were expected")
        images += [_drawing(root, path) for path in drawings]
    return np.stack(images), np.repeat(np.arange(len(characters)), DRAWINGS)


def _drawing(root, path):
    """Read one drawing, turn it to white on black and shrink it, averaging, to the size of a digit."""
    try:
        with Image.open(path) as image:
            ink = 255 - np.asarray(image.convert("L"))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's ways to say that a file is no whole image
        raise damaged(root, path, f"is not a readable image ({error})") from error
    if ink.shape != (105, 105):
        raise damaged(root, path, f"is {ink.shape[::-1]} pixels where (105, 105) was expected")
    return np.asarray(Image.fromarray(ink).resize((28, 28), Image.Resampling.BILINEAR))
