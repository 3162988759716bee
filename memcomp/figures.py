"""The house style of every figure: white ground, colours that survive colour blindness, large type.

Call `use` once, in a chapter's first cell. A role has the same colour and the same marker on every page:
`COLORS` and `MARKERS`. Values of an ordered parameter, such as the noise level, take theirs from
`sequence`.
"""

import matplotlib as mpl
from cycler import cycler

COLORS = {
    # Four architectures, three kinds of reference line: they meet in one panel, so all seven must differ.
    "sum": "#0072B2",
    "linear": "#117733",
    "two_layer": "#CC79A7",
    "cross_channel": "#D55E00",
    "paper": "#000000",
    "floor": "#767676",
    "theory": "#332288",
    # The two kinds of feature.
    "common": "#0072B2",
    "tail": "#D55E00",
}
"""Colour of each role. Contrast with white is at least 3 to 1."""

MARKERS = {
    "sum": "o",
    "linear": "s",
    "two_layer": "^",
    "cross_channel": "D",
    "paper": "*",
    "floor": "_",
    "theory": "x",
    "common": "o",
    "tail": "^",
}
"""Matplotlib marker of each role: colour is never the only difference."""

_STYLE = {
    "figure.facecolor": "white",  # dark mode shows the picture on its own light ground
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.transparent": False,
    "text.color": "black",
    "axes.labelcolor": "black",
    "axes.edgecolor": "#444444",
    "xtick.color": "#222222",
    "ytick.color": "#222222",
    "figure.figsize": (6.4, 4.2),
    "figure.dpi": 144,
    "savefig.dpi": 144,
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with Matplotlib, so a page looks the same everywhere
    "font.size": 13,  # at phone width a figure shrinks to about 40 %
    "axes.titlesize": 13,
    "axes.labelsize": 13,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "legend.fontsize": 12,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.markersize": 7,
    "errorbar.capsize": 3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "image.cmap": "cividis",
    "axes.prop_cycle": cycler(
        color=[COLORS[role] for role in ("sum", "cross_channel", "linear", "theory", "two_layer", "floor")]
    ),
}


def use():
    """Set the house style for every figure drawn from here on.

    Starts from Matplotlib's defaults, so the result does not depend on a reader's own ``matplotlibrc``.
    The backend is left alone.

    Examples
    --------
    >>> from memcomp import figures
    >>> figures.use()
    """
    mpl.rcdefaults()
    mpl.rcParams.update(_STYLE)


def sequence(n):
    """Colours for ``n`` values of an ordered parameter, from dark (first) to light (last).

    Parameters
    ----------
    n : int
        How many values, at least 1.

    Returns
    -------
    list of str
        ``n`` hex colours along `cividis`, whose lightness grows evenly, cut before it gets too pale.

    Raises
    ------
    ValueError
        If ``n`` is not a positive integer.

    Examples
    --------
    >>> from memcomp import figures
    >>> figures.sequence(3)
    ['#00224e', '#555c6d', '#a19975']
    """
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"sequence needs a positive number of colours, an int; got {n!r}")
    cmap = mpl.colormaps["cividis"]
    return [mpl.colors.to_hex(cmap(0.65 * i / max(n - 1, 1))) for i in range(n)]
