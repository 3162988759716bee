"""A stand-in for Omniglot that needs no file: characters of six scripts, drawn from a font's outlines."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from memcomp.data.glyphs import DRAWINGS
from memcomp.data.store import cached
from memcomp.lookup import choose

SCRIPTS = {  # first and last code point of the letters that the stand-in glyphs are taken from
    "Georgian": (0x10D0, 0x10F0),
    "Armenian": (0x0561, 0x0586),
    "Tifinagh": (0x2D30, 0x2D65),
    "Hebrew": (0x05D0, 0x05EA),
    "Lao": (0x0E81, 0x0EAE),
    "N'Ko": (0x07CA, 0x07EA),
}
PENS = ("omniglot", "broad")
"""``omniglot``: a line as wide as Omniglot's at the size of a digit; ``broad``: the font's own strokes."""

BY_EYE = (
    "\u10ea\u0581\u10d6\u10d9\u10ee\u10de\u0ea3\u10d5\u10f0\u10dc\u07d5\u10ec\u05dd\u05e1\u10d2"
    "\u0566\u2d30\u2d59\u2d32\u2d40\u2d31\u0563"
)
"""Characters that a person reads as a digit; chosen by eye, before any network saw one."""

READ = (
    "\u10d1\u10d7\u10e1\u10e6\u10e7\u10ed\u0561\u0562\u056c\u056f\u0573\u0575\u0577\u0579\u057a"
    "\u057b\u057e\u057f\u0582\u0584\u0585\u2d36\u2d38\u2d3a\u2d3d\u2d41\u2d42\u2d43\u2d45\u2d47"
    "\u2d48\u2d49\u2d4a\u2d4b\u2d4d\u2d4f\u2d51\u2d53\u2d54\u2d56\u2d57\u2d5b\u2d5c\u2d5d\u2d5e"
    "\u2d5f\u2d61\u2d62\u2d63\u2d65\u05d1\u05d2\u05d3\u05d5\u05d6\u05d7\u05d9\u05da\u05db\u05dc"
    "\u05de\u05df\u05e0\u05e5\u05e6\u05e7\u05e8\u05e9\u0e84\u0e88\u0e95\u0e9b\u0ea5\u0ea7\u0eaa"
    "\u0ead\u0eae\u07ca\u07cb\u07cc\u07cf\u07d0\u07d1\u07d3\u07d4\u07d6\u07d7\u07d9\u07dd\u07e0"
    "\u07e3\u07e4"
)
"""Characters that a classifier takes for a digit: what :func:`memcomp.data.screen.resemblance` finds."""


@cached(maxsize=1)
def letters(split):
    """Return the characters that look like no digit, in Omniglot's pen; there is one split."""
    kept = [one for one in font_characters() if one not in BY_EYE + READ]
    return drawn(kept).reshape(-1, 28, 28), np.repeat(np.arange(len(kept)), DRAWINGS)


@cached(maxsize=1)
def font_characters():
    """Return the characters of the scripts that the font holds, tuple of str."""
    font = _font()
    empty = _mask(font, "\U0010fffd")
    letters = (chr(code) for first, last in SCRIPTS.values() for code in range(first, last + 1))
    return tuple(one for one in letters if _mask(font, one)[0] and _mask(font, one) != empty)


def drawn(characters, pen="omniglot"):
    """Draw characters as ``DRAWINGS`` hands would.

    Parameters
    ----------
    characters : sequence of str
    pen : str
        One of ``PENS``.

    Returns
    -------
    ndarray, uint8, shape (characters, DRAWINGS, 28, 28)
    """
    line = choose({"omniglot": True, "broad": False}, pen, "pen")
    font = _font()
    return np.stack(
        [
            [_render(one, font, drawing, bones) for drawing in range(DRAWINGS)]
            for one, bones in ((one, _skeleton(one, font) if line else None) for one in characters)
        ]
    )


def _font():
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), 64)


def _mask(font, character):
    mask = font.getmask(character)
    return mask.getbbox(), bytes(mask)


def _written(character, font, stroke=0):
    """Return a canvas with a character in the font's own strokes, or wider ones."""
    canvas = Image.new("L", (112, 112))
    ImageDraw.Draw(canvas).text((56, 56), character, 255, font, anchor="mm", stroke_width=stroke)
    return canvas


def _render(character, font, drawing, bones):
    """Draw a character as another hand would: turned, sheared, stretched, shifted, with a pen of its own."""
    rng = np.random.default_rng([ord(character), drawing])
    stroke = int(rng.integers(0, 3))
    canvas = _written(character, font, stroke)
    box = canvas.getbbox()
    # Centre the ink, and scale it so that its longer side fills 20 of 28 pixels, as MNIST's does.
    scale = max(box[2] - box[0], box[3] - box[1]) / 80 / rng.uniform(0.9, 1.05)
    if bones is not None:  # a line that is 1.1 to 1.4 of 28 pixels wide after scaling, and softer at its edge
        line = ndimage.distance_transform_edt(~bones) <= (2.2 + 0.3 * stroke) * scale
        canvas = Image.fromarray(line.astype(np.uint8) * 255)
    angle, shear, stretch = rng.normal(0, [0.1, 0.12, 0.08])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = scale * turn @ np.array([[1, shear], [0, 1 + stretch]])
    centre = np.array([box[0] + box[2], box[1] + box[3]]) / 2 + rng.normal(0, 2, 2)
    offset = centre - matrix @ [56, 56]
    coefficients = [*matrix[0], offset[0], *matrix[1], offset[1]]
    turned = canvas.transform((112, 112), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    return np.asarray(turned.resize((28, 28), Image.Resampling.BILINEAR))


_EDGE = np.array([[0, 0, 0], [-1, 1, -1], [1, 1, 1]])  # 1: ink, 0: none, -1: either
_CORNER = np.array([[-1, 0, 0], [1, 1, 0], [-1, 1, -1]])
_PEELED = [np.rot90(shape, turns) for turns in range(4) for shape in (_EDGE, _CORNER)]


def _skeleton(character, font):
    """Return the middle line of a character's strokes, bool (112, 112).

    By thinning: pixels at an edge or corner are taken away from all sides in turn until a line is left.
    """
    ink, before = np.asarray(_written(character, font)) > 127, None
    while before is None or (ink != before).any():
        before = ink
        for shape in _PEELED:
            ink = ink & ~ndimage.binary_hit_or_miss(ink, shape == 1, shape == 0)
    return ink
