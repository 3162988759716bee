"""Pools of images: what they hold, and what is said when a file is missing or damaged."""

import dataclasses
import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from memcomp import images
from memcomp.data import digits, glyphs, screen, standins
from memcomp.data.points import gaussian
from memcomp.data.store import DataError, cached, clear_caches


@pytest.fixture
def real_root():
    root = os.environ.get("MEMCOMP_DATA")
    if not root:
        pytest.skip("MEMCOMP_DATA is not set: no real data sets to test with")
    return Path(root)


def write_idx(path, array):
    header = np.array([0x0800 + array.ndim, *array.shape], dtype=">u4").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def fake_mnist(tmp_path):
    """A root with a test split of the right form."""
    rng = np.random.default_rng(0)
    raw = tmp_path / "MNIST" / "raw"
    pixels = rng.integers(0, 256, (10_000, 28, 28), dtype=np.uint8)
    write_idx(raw / "t10k-images-idx3-ubyte", pixels)
    write_idx(raw / "t10k-labels-idx1-ubyte", np.arange(10_000) % 10)
    return tmp_path, raw, pixels


def omniglot_character(folder, drawings=glyphs.DRAWINGS, size=105):
    folder.mkdir(parents=True)
    for drawing in range(drawings):
        paper = np.full((size, size), 255, np.uint8)
        paper[40:60, 10 + drawing : 40 + drawing] = 0
        Image.fromarray(paper).save(folder / f"{drawing:02}.png")


@pytest.fixture
def fake_omniglot(tmp_path):
    background = tmp_path / "omniglot-py" / "images_background"
    for number in range(10):
        omniglot_character(background / f"Script{number // 5}" / f"character{number % 5:02}")
    return tmp_path, background


def test_embedded_digits_are_split_without_overlap():
    train, train_labels = images.load("embedded")
    test, test_labels = images.load("embedded", "test")
    assert train.shape == (4000, 28, 28)
    assert test.shape == (1000, 28, 28)
    assert train.dtype == test.dtype == np.uint8
    assert train_labels.dtype == np.int64
    assert np.bincount(train_labels).tolist() == [400] * 10
    assert np.bincount(test_labels).tolist() == [100] * 10
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in test}


def test_embedded_labels_belong_to_their_images():
    """Nearest class mean of the training part: far above chance only if labels and images correspond."""
    train, labels = images.load("embedded")
    test, truth = images.load("embedded", "test")
    means = np.stack([train[labels == label].mean(0) for label in range(10)]).reshape(10, -1)
    distance = ((test.reshape(-1, 1, 784) - means[None]) ** 2).sum(-1)
    assert (distance.argmin(1) == truth).mean() > 0.7


def test_what_is_handed_out_is_kept_and_read_only():
    images_, labels = images.load("embedded", "test")
    assert images.load("embedded", "test")[0] is images_
    with pytest.raises(ValueError, match="read-only"):
        images_[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        labels += 1


def test_one_call_clears_every_cache(fake_mnist):
    root, raw, pixels = fake_mnist
    before, _ = images.load("mnist", "test", root)
    embedded, _ = images.load("embedded", "test")
    write_idx(raw / "t10k-images-idx3-ubyte", 255 - pixels)
    assert images.load("mnist", "test", root)[0] is before
    clear_caches()
    assert (images.load("mnist", "test", root)[0] == 255 - before).all()
    assert images.load("embedded", "test")[0] is not embedded


def test_arrays_inside_dataclasses_are_read_only():
    @dataclasses.dataclass(frozen=True)
    class Part:
        rows: np.ndarray

    @cached(maxsize=1)
    def part(size):
        return Part(np.zeros(size)), 1

    with pytest.raises(ValueError, match="read-only"):
        part(3)[0].rows[0] = 1


def test_a_pool_is_one_entry(monkeypatch):
    def read(split):
        return np.full((3, 28, 28), 7, np.uint8), np.arange(3)

    monkeypatch.setitem(images.POOLS, "sevens", images.Pool(read, "all sevens", splits=("train",)))
    assert images.load("sevens")[0].shape == (3, 28, 28)
    assert images.provenance("sevens")["source"] == "all sevens"
    with pytest.raises(ValueError, match="sevens has no split 'test'"):
        images.load("sevens", "test")


@pytest.mark.parametrize(("pool", "classes"), [("letters", 90), ("glyphs", 200)])
def test_glyphs_are_distinct_classes_in_the_range_of_digits(pool, classes):
    drawn, labels = images.load(pool)
    counts = np.bincount(labels)
    assert len(counts) >= classes
    assert (counts == glyphs.DRAWINGS).all()
    assert len({glyph.tobytes() for glyph in drawn}) == len(drawn)
    brightest = drawn.reshape(len(drawn), -1).max(1)
    assert np.median(brightest) > 220
    assert brightest.min() > 70
    assert not drawn[:, 0].any() or (drawn[:, 0] > 128).mean() < 0.01  # the ink stays inside
    # A class is a shape: its drawings resemble each other more than those of other classes.
    flat = drawn.reshape(-1, 20, 784)[:50].astype(float)
    means = flat[:, :10].mean(1)
    nearest = ((flat[:, 10:, None] - means) ** 2).sum(-1).argmin(-1)
    assert (nearest == np.arange(50)[:, None]).mean() > 0.5  # chance: 0.02


def test_glyphs_do_not_change_between_calls():
    first, _ = images.load("letters")
    standins.letters.cache_clear()
    second, _ = images.load("letters")
    assert (first == second).all()


def test_letters_are_drawn_with_a_line_like_omniglots():
    """By the share of the pixels that have ink, and the mean brightness of all."""
    drawn, _ = images.load("letters")
    assert (drawn > 40).sum((1, 2)).mean() == pytest.approx(102, rel=0.15)  # Omniglot's 4,840 drawings: 102
    assert drawn.mean() == pytest.approx(20.5, rel=0.1)


def test_letters_leave_out_what_is_read_as_a_digit():
    """The list is what the rule gives, but for classes within a hair of its limits."""
    characters = standins.font_characters()
    pens = [screen.resemblance(standins.drawn(characters, pen)) for pen in standins.PENS]
    alike = np.any([pen.alike for pen in pens], axis=0)
    margin = np.max([np.maximum(pen.share - screen.SHARE, 1 - pen.distance) for pen in pens], axis=0)
    listed = np.array([one in standins.READ for one in characters])
    assert (np.abs(margin[listed != alike]) < 0.03).all()
    assert listed.sum() > 50
    assert set(standins.READ + standins.BY_EYE) <= set(characters)
    assert len({*standins.READ, *standins.BY_EYE}) == len(standins.READ + standins.BY_EYE)
    kept = len(characters) - len(standins.READ + standins.BY_EYE)
    assert len(images.load("letters")[0]) == glyphs.DRAWINGS * kept


def test_digits_resemble_digits_and_noise_does_not():
    pool, labels = images.load("embedded", "test")
    found = screen.resemblance([pool[labels == label][:20] for label in range(10)])
    assert found.digit.tolist() == list(range(10))
    assert found.alike.all()
    noise = np.random.default_rng(0).integers(0, 256, (3, 20, 28, 28), dtype=np.uint8)
    assert not screen.resemblance(noise).distance.lt(1).any()


def test_gaussian_has_the_means_and_the_covariance_it_says():
    vectors, labels = gaussian([4000, 3000], means=3, draw=1, covariance=0.25)
    other, other_labels = gaussian([4000, 3000], means=3, draw=2, covariance=0.25)
    assert vectors.dtype == np.float32
    assert np.bincount(labels).tolist() == [4000, 3000]
    centres = np.stack([vectors[labels == label].mean(0) for label in (0, 1)])
    again = np.stack([other[other_labels == label].mean(0) for label in (0, 1)])
    np.testing.assert_allclose(centres, again, atol=0.06)
    np.testing.assert_allclose((vectors - centres[labels]).var(0), 0.25, rtol=0.15)
    assert centres.var() == pytest.approx(1, rel=0.3)
    assert not (vectors[:5] == other[:5]).any()


def test_gaussian_draws_share_their_means():
    (train, labels), (test, truth) = (gaussian([600] * 10, draw=draw) for draw in (0, 1))
    means = np.stack([train[labels == label].mean(0) for label in range(10)])
    nearest = ((test[:, None] - means) ** 2).sum(-1).argmin(1)
    assert (nearest == truth).mean() > 0.999


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("minst",), "'minst'.*embedded"),
        (("embedded", "val"), "'val'"),
        (("glyphs", "test"), "glyphs has no split 'test'"),
    ],
)
def test_unknown_names_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        images.load(*arguments)


def test_idx_files_are_read_plain_or_gzipped(fake_mnist):
    root, raw, pixels = fake_mnist
    loaded, labels = images.load("mnist", "test", root)
    assert (loaded == pixels).all()
    assert (labels == np.arange(10_000) % 10).all()
    path = raw / "t10k-images-idx3-ubyte"
    (raw / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    path.unlink()
    digits.mnist.cache_clear()
    assert (images.load("mnist", "test", root)[0] == pixels).all()


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"0")


def scramble(path):
    path.write_bytes(b"<!DOCTYPE html>" + path.read_bytes()[15:])


def empty(path):
    path.write_bytes(b"")


def cut_zip(path):
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes(), 1)[:-5000])
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (Path.unlink, "does not exist"),
        (cut, "holds 7,839,916 bytes where 7,840,016 were expected"),
        (lengthen, "7,840,017"),
        (scramble, "not the idx file expected"),
        (empty, "not the idx file expected"),
        (cut_zip, "cannot be read"),
    ],
)
def test_damaged_mnist_names_the_file_and_the_remedy(fake_mnist, damage, words):
    root, raw, _ = fake_mnist
    damage(raw / "t10k-images-idx3-ubyte")
    digits.mnist.cache_clear()
    with pytest.raises(DataError) as error:
        images.load("mnist", "test", root)
    assert "t10k-images-idx3-ubyte" in str(error.value)
    assert words in str(error.value)
    assert f"memcomp data --root {root}" in str(error.value)


def test_swapped_files_are_noticed(fake_mnist):
    root, raw, _ = fake_mnist
    (raw / "t10k-labels-idx1-ubyte").write_bytes((raw / "t10k-images-idx3-ubyte").read_bytes())
    digits.mnist.cache_clear()
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte is not the idx file"):
        images.load("mnist", "test", root)


def test_root_must_be_given_and_exist(monkeypatch, tmp_path):
    monkeypatch.delenv("MEMCOMP_DATA", raising=False)
    with pytest.raises(DataError, match="MEMCOMP_DATA"):
        images.load("mnist")
    with pytest.raises(DataError, match="nowhere is not a folder; `memcomp data"):
        images.load("omniglot", root=tmp_path / "nowhere")
    monkeypatch.setenv("MEMCOMP_DATA", str(tmp_path))
    with pytest.raises(DataError, match="train-images-idx3-ubyte does not exist"):
        images.load("mnist")


def test_omniglot_is_inverted_shrunk_and_labelled_in_sorted_order(fake_omniglot):
    root, background = fake_omniglot
    loaded, labels = images.load("omniglot", root=root)
    assert loaded.shape == (200, 28, 28)
    assert loaded.dtype == np.uint8
    assert labels.tolist() == np.repeat(range(10), 20).tolist()
    assert loaded[0, 13, 6] > 200  # the bar that was black on white
    assert loaded[0, 2].max() == 0
    with Image.open(background / "Script0" / "character00" / "00.png") as drawing:
        ink = (255 - np.asarray(drawing)).mean()
    assert loaded[0].mean() == pytest.approx(ink, rel=0.05)


def test_damaged_omniglot_names_the_file_and_the_remedy(fake_omniglot):
    root, background = fake_omniglot
    path = background / "Script1" / "character02" / "07.png"
    whole = path.read_bytes()
    for content in (whole[:60], b"", b"no image"):
        path.write_bytes(content)
        glyphs.omniglot.cache_clear()
        with pytest.raises(DataError, match=r"07\.png is not a readable image.*memcomp data"):
            images.load("omniglot", root=root)
    path.unlink()
    with pytest.raises(DataError, match="character02 holds 19 drawings where 20"):
        images.load("omniglot", root=root)
    omniglot_character(background / "Script2" / "character00", size=90)
    for drawing in background.glob("Script1/character02/*"):
        drawing.unlink()
    (background / "Script1" / "character02").rmdir()
    with pytest.raises(DataError, match=r"\(90, 90\) pixels"):
        images.load("omniglot", root=root)


def test_too_few_classes_and_wrong_folder(fake_omniglot, tmp_path):
    root, background = fake_omniglot
    glyphs.omniglot.cache_clear()
    for drawing in background.glob("Script1/character02/*"):
        drawing.unlink()
    (background / "Script1" / "character02").rmdir()
    with pytest.raises(DataError, match="9 characters where at least 10"):
        images.load("omniglot", root=root)
    with pytest.raises(DataError, match="images_evaluation is not a folder"):
        images.load("omniglot", "test", root)


def test_provenance_tells_pools_apart(fake_mnist):
    root, raw, _ = fake_mnist
    write_idx(raw / "train-images-idx3-ubyte", np.zeros((60_000, 28, 28), np.uint8))
    write_idx(raw / "train-labels-idx1-ubyte", np.zeros(60_000))
    digits.mnist.cache_clear()
    first = images.provenance("mnist", root)
    changed = bytearray((raw / "t10k-images-idx3-ubyte").read_bytes())
    changed[5000] ^= 1
    (raw / "t10k-images-idx3-ubyte").write_bytes(changed)
    digits.mnist.cache_clear()
    second = images.provenance("mnist", root)
    assert first["source"] == second["source"] == "MNIST"
    assert first["sha256"] != second["sha256"]
    assert images.provenance("embedded") == images.provenance("embedded")


@pytest.mark.slow
def test_real_sets(real_root):
    train, labels = images.load("mnist", "train", real_root)
    test, truth = images.load("mnist", "test", real_root)
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(truth)[9] == 1009
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in test}
    characters, classes = images.load("omniglot", root=real_root)
    assert len(characters) == 20 * (classes.max() + 1)
    assert classes.max() >= 99
    assert 5 < characters.mean() < 40
