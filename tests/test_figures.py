"""The house style: the same for everybody, and told apart by everybody."""

import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from scipy.stats import gmean

from memcomp import figures, models

ARCHITECTURE_COLORS = [one.color for one in models.ARCHITECTURES.values()]

RGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
# Machado, Oliveira and Fernandes 2009, complete deficiency, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]]
    ),
}


def linear(color):
    c = np.array(to_rgb(color))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast_with_white(color):
    return 1.05 / (RGB_TO_XYZ[1] @ linear(color) + 0.05)


def lab(color, vision):
    x = RGB_TO_XYZ @ np.clip(VISION[vision] @ linear(color), 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(x > 216 / 24389, np.cbrt(x), (24389 / 27 * x + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distances(colors, vision):
    return [np.linalg.norm(lab(a, vision) - lab(b, vision)) for a, b in itertools.combinations(colors, 2)]


@pytest.fixture(autouse=True)
def restore():
    with mpl.rc_context():
        yield


def test_the_measure_itself_sees_a_bad_pair():
    """Red and green of one lightness, the classic mistake, differ for most people and not for a deutan."""
    pair = ["#C04040", "#6F7F1F"]
    assert min(distances(pair, "normal")) > 40
    assert min(distances(pair, "deutan")) < 13


@pytest.mark.parametrize("vision", VISION)
def test_roles_that_meet_in_one_figure_are_told_apart(vision):
    meeting = [
        figures.COLORS[r] for r in ("sum", "linear", "two_layer", "cross_channel", "paper", "floor", "theory")
    ]
    assert min(distances(meeting, vision)) > 13  # about six just noticeable differences
    features = [figures.COLORS[r] for r in ("common", "tail", "floor", "theory", "paper")]
    assert min(distances(features, vision)) > 13


def test_lines_stand_out_from_white():
    assert min(map(contrast_with_white, [*figures.COLORS.values(), *ARCHITECTURE_COLORS])) >= 3
    assert min(contrast_with_white(c) for n in (1, 2, 5, 9) for c in figures.sequence(n)) >= 2.5


def test_colour_is_never_the_only_difference():
    assert figures.COLORS.keys() == figures.MARKERS.keys()
    markers = [one.marker for name, one in models.ARCHITECTURES.items() if name != "gaussian"]
    assert len(set(markers)) == len(markers)


def test_an_architecture_brings_its_look(monkeypatch):
    new = models.Architecture(None, "New", "#123456", "8")
    monkeypatch.setitem(models.ARCHITECTURES, "new", new)
    assert (figures.COLORS["new"], figures.MARKERS["new"]) == ("#123456", "8")
    with pytest.raises(KeyError):
        figures.COLORS["neither"]


@pytest.mark.parametrize("n", [2, 4, 6])
def test_neighbours_in_a_sequence_differ_in_hue_and_line(n):
    colors = [lab(color, "normal") for color in figures.sequence(n)]
    assert min(np.linalg.norm(np.diff(colors, axis=0), axis=1)) > 15
    styles = [str(look["ls"]) for look in figures.lines(n)]
    assert all(one != other for one, other in itertools.pairwise(styles))


def test_points_show_every_network_and_their_mean():
    _, ax = plt.subplots()
    figures.points(ax, [0, 1], [[1, 100], [4]], "sum", mean=gmean, label="Sum")
    each, (mean, *_) = ax.lines[:2], ax.containers[0]
    assert [line.get_ydata().tolist() for line in each] == [[1, 100], [4]]
    assert mean.get_ydata().tolist() == pytest.approx([10, 4])
    plt.close()


def test_a_strip_shows_images_in_order_dark_on_white():
    _, ax = plt.subplots()
    images = np.stack([np.full((4, 4), value, np.uint8) for value in (0, 255)])
    figures.strip(ax, images, ["+", "= 3"])
    shown = ax.images[0].get_array()
    assert shown[0, 0] == 255
    assert shown[0, 4 + 22] == 0
    assert [text.get_text() for text in ax.texts] == ["+", "= 3"]
    plt.close()


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("n", [2, 5, 7])
def test_a_sequence_gets_lighter_step_by_step_for_everybody(n, vision):
    lightness = [lab(color, vision)[0] for color in figures.sequence(n)]
    assert min(np.diff(lightness)) > 35 / n


def test_sequence_refuses_what_is_no_number_of_colours():
    for n in (0, -1, 2.5, "3"):
        with pytest.raises(ValueError, match="positive number of colours"):
            figures.sequence(n)


def test_use_does_not_depend_on_what_was_set_before_nor_on_how_often_it_is_called():
    figures.use()
    once = dict(mpl.rcParams)
    figures.use()
    assert dict(mpl.rcParams) == once
    plt.style.use("dark_background")
    mpl.rcParams["font.size"] = 5
    figures.use()
    assert dict(mpl.rcParams) == once


def test_a_saved_figure_has_a_white_opaque_ground_and_readable_type(tmp_path):
    figures.use()
    fig, ax = plt.subplots()
    ax.plot([0, 1], label="line")
    ax.set(xlabel="x", ylabel="y")
    ax.legend()
    fig.savefig(tmp_path / "figure.png")
    plt.close(fig)
    pixels = plt.imread(tmp_path / "figure.png")
    assert np.all(pixels[[0, 0, -1, -1], [0, -1, 0, -1], :3] == 1)
    assert pixels.shape[2] == 3 or np.all(pixels[..., 3] == 1)
    # On a telephone 360 points wide the smallest type is at least 8 points high.
    width = mpl.rcParams["figure.figsize"][0] * 72
    sizes = [text.get_fontsize() for text in fig.findobj(mpl.text.Text) if text.get_text()]
    assert min(sizes) * 360 / width >= 8
    assert ax.get_title() == ""
