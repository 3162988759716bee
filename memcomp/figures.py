"""The house style of every figure: white ground, colours that survive colour blindness, large type.

Call `use` once, in a chapter's first cell. A role has the same colour and the same marker on every page:
`COLORS` and `MARKERS`; those of an architecture stand beside its builder, in
:data:`memcomp.models.ARCHITECTURES`. Values of an ordered parameter, such as the noise level, take theirs
from `sequence`.
"""

import matplotlib as mpl
import numpy as np
from cycler import cycler


class _Roles(dict):
    """Looks of roles; an architecture's is looked up when it is asked for, since models load torch."""

    def __init__(self, attribute, roles):
        super().__init__(roles)
        self.attribute = attribute

    def __missing__(self, name):
        from memcomp.models import ARCHITECTURES

        return getattr(ARCHITECTURES[name], self.attribute)


COLORS = _Roles(
    "color",
    {
        "paper": "#000000",
        "floor": "#767676",
        "theory": "#332288",
        # The two kinds of feature.
        "common": "#0072B2",
        "tail": "#D55E00",
    },
)
"""Colour of each role. Contrast with white is at least 3 to 1.

:meta hide-value:
"""

MARKERS = _Roles("marker", {"paper": "*", "floor": "_", "theory": "x", "common": "o", "tail": "^"})
"""Matplotlib marker of each role: colour is never the only difference.

:meta hide-value:
"""

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
    "axes.prop_cycle": cycler(color=["#0072B2", "#D55E00", "#117733", "#332288", "#CC79A7", "#767676"]),
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
        ``n`` hex colours along `viridis`, whose lightness and hue change evenly, cut before it gets too pale.

    Raises
    ------
    ValueError
        If ``n`` is not a positive integer.

    Examples
    --------
    >>> from memcomp import figures
    >>> figures.sequence(3)
    ['#440154', '#31678e', '#32b67a']
    """
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"sequence needs a positive number of colours, an int; got {n!r}")
    cmap = mpl.colormaps["viridis"]
    return [mpl.colors.to_hex(cmap(0.66 * i / max(n - 1, 1))) for i in range(n)]


def lines(n):
    """Return looks for the curves of ``n`` values of an ordered parameter.

    Parameters
    ----------
    n : int
        How many values, at least 1.

    Returns
    -------
    list of dict
        Arguments of Matplotlib's ``plot``: colours from `sequence`, and a line style that differs from the
        neighbours', for curves that lie close.
    """
    styles = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)))
    return [{"color": color, "ls": styles[i % 4]} for i, color in enumerate(sequence(n))]


def points(ax, x, samples, role, *, mean=np.mean, bars=False, line=False, label=None, **look):
    """Draw each member of some samples as a small mark, and each sample's mean as a large one.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    x : sequence of float
        One position for each sample.
    samples : sequence of array_like
        For instance the losses of the networks at one point.
    role : str
        Gives colour and marker.
    mean : callable
        ``numpy.mean``, or ``scipy.stats.gmean`` for a logarithmic axis.
    bars : bool
        Draw one standard deviation to either side of the mean.
    line : bool
        Join the means.
    label : str, optional
        For the legend.
    **look
        Further arguments of Matplotlib, such as ``mfc="white"``.
    """
    look = {"color": COLORS[role], "marker": MARKERS[role]} | look
    for position, sample in zip(x, samples):
        ax.plot(np.full(len(sample), position), sample, ls="", ms=3.5, alpha=0.6, **look)
    centers = [mean(sample) for sample in samples]
    widths = [np.std(sample, ddof=1) if len(sample) > 1 else 0 for sample in samples] if bars else None
    ax.errorbar(x, centers, widths, ls="-" if line else "", ms=9, label=label, **look)


def level(ax, y, text, x=0.01, *, above=True, ls="--", color=None, **look):
    """Draw a horizontal line that says what it is.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    y : float
    text : str
    x : float
        Where the text begins, as a share of the width; from 0.5 on it ends there.
    above : bool
        Whether the text stands above the line.
    ls, color, **look
        As for Matplotlib; grey by default.
    """
    color = color or COLORS["floor"]
    ax.axhline(y, color=color, ls=ls, lw=1.5, zorder=0, **look)
    ax.annotate(
        text,
        (x, y),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3 if above else -3),
        textcoords="offset points",
        ha="left" if x < 0.5 else "right",
        va="bottom" if above else "top",
        color=color,
        fontsize=11,
    )


def strip(ax, images, between=(), *, gap=6, name=None, color="black"):
    """Show a row of images, dark ink on white.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    images : array_like, uint8, shape (k, h, w)
        White ink on black, as pools hold them.
    between : sequence of str
        Texts behind the images, such as ``["+", "+", "= 12"]``; they take the place of the gap.
    gap : int
        Pixels between two images.
    name : str, optional
        Stands to the left of the row.
    color : str
        Of the texts.
    """
    images = np.asarray(images)
    gap = max(gap, 22) if between else gap
    padded = np.pad(255 - images, ((0, 0), (0, 0), (0, gap)), constant_values=255)
    ax.imshow(np.concatenate(list(padded), axis=1), cmap="gray", vmin=0, vmax=255)
    height, step = images.shape[1], images.shape[2] + gap
    for i, text in enumerate(between):
        place = (i + 1) * step - gap / 2 + (4 if len(text) > 1 else 0)
        ax.text(place, height / 2, text, ha="center", va="center", fontsize=17, color=color)
    if name:
        ax.text(-6, height / 2, name, ha="right", va="center", color=color)
    ax.axis("off")


def screening(found, most=60):
    """Show the classes of a folder of images, those that were kept and those that were left out, and why.

    Parameters
    ----------
    found : memcomp.data.folders.Screened
        From :func:`memcomp.data.screened`.
    most : int
        Classes that are shown of either kind; the first ones by name.

    Returns
    -------
    matplotlib.figure.Figure
        One drawing a class, dark ink on white, with the name of the class. Under one that was left out stands
        the digit that it is read as, in the colour of what is rare, and through it goes a line.
    """
    from matplotlib.figure import Figure

    columns, wide, deep = 10, 40, 50  # of the cells, in pixels of a drawing
    kept = found.classes.kept.to_numpy()
    parts = []
    for title, chosen in (("kept", kept), ("left out, with the digit that each looks like", ~kept)):
        shown = np.flatnonzero(chosen)[:most]
        more = f", {len(shown)} shown" if len(shown) < chosen.sum() else ""
        parts.append((f"{chosen.sum()} of {len(kept)} classes {title}{more}", shown))
    rows = [max(1, -(-len(shown) // columns)) for _, shown in parts]
    figure = Figure(figsize=(7.2, 0.72 * deep / wide * sum(rows) + 1), layout="constrained")
    for ax, count, (title, shown) in zip(figure.subplots(2, height_ratios=rows), rows, parts):
        ax.set_title(title, loc="left", fontsize=11)
        for place, number in enumerate(shown):
            left, top = place % columns * wide + 6, place // columns * deep
            one, extent = found.classes.iloc[number], (left, left + 28, top + 28, top)
            ax.imshow(255 - found.examples[number], cmap="gray", vmin=0, vmax=255, extent=extent)
            text = one["name"] if len(one["name"]) <= 9 else f"{one['name'][:8]}…"
            color = "black"
            if not one.kept:
                text, color = f"{text}\nlike {one.digit}", COLORS["tail"]
                ax.plot([left, left + 28], [top + 28, top], color=color, lw=1.2)
            look = {"ha": "center", "va": "top", "fontsize": 7, "color": color, "parse_math": False}
            ax.text(left + 14, top + 30, text, **look)
        ax.set(xlim=(0, columns * wide), ylim=(count * deep, 0), aspect="equal")
        ax.axis("off")
    return figure
