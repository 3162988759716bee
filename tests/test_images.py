"""Pools of images: what they hold, and what is said when a file is missing or damaged."""

import dataclasses
import gzip
import io
import os
import struct
import zlib
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
    pixels = rng.integers(0, 200, (10_000, 28, 28), dtype=np.uint8)
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
    write_idx(raw / "t10k-images-idx3-ubyte", pixels // 2)
    assert images.load("mnist", "test", root)[0] is before
    clear_caches()
    assert (images.load("mnist", "test", root)[0] == before // 2).all()
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


def test_glyphs_are_distinct_classes_in_the_range_of_digits():
    drawn, labels = images.load("letters")
    counts = np.bincount(labels)
    assert len(counts) >= 90
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
        (("letters", "test"), "letters has no split 'test'"),
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


def spoil_zip(path):
    packed = bytearray(gzip.compress(path.read_bytes(), 1))
    packed[1000:1100] = b"\xff" * 100
    path.with_name(path.name + ".gz").write_bytes(packed)
    path.unlink()


def dangle(path):
    path.unlink()
    path.symlink_to("nowhere")


def make_folder(path):
    path.unlink()
    path.mkdir()


def make_pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (Path.unlink, "does not exist"),
        (cut, "holds 7,839,916 bytes where 7,840,016 were expected"),
        (lengthen, "holds more bytes where 7,840,016 were expected"),
        (scramble, "not the idx file expected"),
        (empty, "not the idx file expected"),
        (cut_zip, "cannot be read"),
        (spoil_zip, "cannot be read"),
        (dangle, "is a link to what does not exist"),
        (make_folder, "is a folder"),
        (make_pipe, "is no regular file"),
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


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (
            lambda pixels: np.where(np.arange(10_000)[:, None, None] < 5000, pixels, 0),
            "5,000 of its 10,000 .*",
        ),
        (lambda pixels: np.full_like(pixels, 7), "10,000 of its 10,000 images are blank, first number 0"),
        (lambda pixels: 255 - pixels, "black digits on white"),
    ],
)
def test_images_that_no_digit_can_be_are_refused(fake_mnist, pixels, words):
    """They have the size of a whole file: nothing but their content tells."""
    root, raw, whole = fake_mnist
    write_idx(raw / "t10k-images-idx3-ubyte", pixels(whole))
    digits.mnist.cache_clear()
    with pytest.raises(DataError, match=f"t10k-images-idx3-ubyte holds .*{words}"):
        images.load("mnist", "test", root)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros(10_000), "holds no label 1 and no label 2 .*and no label 9"),
        (np.arange(10_000) % 9, "holds no label 9"),
        (np.arange(10_000) % 11, "holds labels above 9"),
    ],
)
def test_labels_that_are_not_those_of_ten_digits_are_refused(fake_mnist, labels, words):
    root, raw, _ = fake_mnist
    write_idx(raw / "t10k-labels-idx1-ubyte", labels)
    digits.mnist.cache_clear()
    with pytest.raises(DataError, match=f"t10k-labels-idx1-ubyte {words}"):
        images.load("mnist", "test", root)


def test_a_folder_that_may_not_be_looked_into_is_named(fake_mnist, monkeypatch):
    """As root everything may be read, so the refusal is played."""
    root = fake_mnist[0]

    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    digits.mnist.cache_clear()
    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte cannot be read \(Permission denied\)"):
        images.load("mnist", "test", root)


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
        with pytest.raises(DataError, match=r"07\.png is not a readable PNG image.*memcomp data"):
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
    with pytest.raises(DataError, match=r"images_evaluation is not a folder.*background=False"):
        images.load("omniglot", "test", root)


def test_what_systems_and_editors_hide_is_no_class_and_no_drawing(fake_omniglot):
    root, background = fake_omniglot
    before, labels = images.load("omniglot", root=root)
    omniglot_character(background / ".git" / "character00", drawings=3)
    omniglot_character(background / "__MACOSX" / "character00")
    omniglot_character(background / "Script0" / ".ipynb_checkpoints", drawings=1)
    omniglot_character(background / "Script1" / "__pycache__", drawings=1)
    (background / "Script0" / "character00" / "._00.png").write_bytes(b"x")
    (background / "Script0" / "character00" / ".ipynb_checkpoints").mkdir()
    (background / "Script0" / "Thumbs.db").write_bytes(b"x")
    glyphs.omniglot.cache_clear()
    again, same = images.load("omniglot", root=root)
    assert (again == before).all()
    assert (same == labels).all()


@pytest.mark.parametrize("place", ["Script2", "Script0/character09", "Script0/character00/00.png"])
def test_a_link_to_nowhere_is_not_passed_over(fake_omniglot, place):
    root, background = fake_omniglot
    (background / place).unlink(missing_ok=True)
    (background / place).symlink_to("nowhere")
    glyphs.omniglot.cache_clear()
    with pytest.raises(DataError, match=f"{Path(place).name} is a link to what does not exist"):
        images.load("omniglot", root=root)


def redraw(background, draw):
    """Replace a drawing by what `draw` makes of the ink, True where it is black."""
    path = background / "Script0" / "character00" / "00.png"
    with Image.open(path) as whole:
        draw(np.asarray(whole) < 128).save(path, "png")
    glyphs.omniglot.cache_clear()


def colours(ink, black, white):
    return Image.fromarray(np.where(ink[..., None], black, white).astype(np.uint8), "RGBA").copy()


@pytest.mark.parametrize(
    "draw",
    [
        lambda ink: colours(ink, (0, 0, 0, 255), (0, 0, 0, 0)),  # black on what is transparent
        lambda ink: colours(ink, (0, 0, 0, 255), (255, 255, 255, 255)),
        lambda ink: Image.fromarray(~ink),
        lambda ink: colours(ink, (0, 0, 0, 255), (255, 255, 255, 0)).convert("LA"),
        lambda ink: Image.fromarray(~ink).convert("P"),
        lambda ink: Image.fromarray(~ink).convert("RGB"),
    ],
)
@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
def test_a_drawing_is_the_same_in_every_usual_kind_of_image(fake_omniglot, draw):
    root, background = fake_omniglot
    before = images.load("omniglot", root=root)[0][0]
    redraw(background, draw)
    assert (images.load("omniglot", root=root)[0][0] == before).all()


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda ink: Image.fromarray(ink), r"00\.png is white on black: expected is a black drawing"),
        (lambda ink: Image.fromarray(ink & False), r"00\.png is white on black"),
        (lambda ink: Image.fromarray(ink | True), r"00\.png shows no ink"),
        (lambda ink: colours(ink, (255, 255, 255, 255), (0, 0, 0, 0)), r"00\.png shows no ink"),
        (lambda ink: Image.new("RGBA", (105, 105)), r"00\.png shows no ink"),
        (
            lambda ink: Image.fromarray(ink.astype(np.uint16) * 60000),
            r"00\.png has pixels of the kind 'I;16'",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
def test_a_drawing_that_would_be_read_wrongly_is_refused(fake_omniglot, draw, words):
    root, background = fake_omniglot
    redraw(background, draw)
    with pytest.raises(DataError, match=words):
        images.load("omniglot", root=root)


def huge_png(side):
    """A PNG image that says that it is huge; its one line of pixels is small."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


def jpeg():
    content = io.BytesIO()
    Image.new("L", (105, 105), 255).save(content, "jpeg")
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: huge_png(30_000), "is not a readable PNG image .*900000000 pixels"),
        (lambda: huge_png(11_000), "is not a readable PNG image .*121000000 pixels"),
        (lambda: huge_png(2_000), r"is \(2000, 2000\) pixels where \(105, 105\)"),
        (lambda: huge_png(105), "is not a readable PNG image"),
        (jpeg, "is not a readable PNG image"),
    ],
)
def test_a_huge_or_foreign_picture_is_refused_without_reading_it(fake_omniglot, content, words):
    root, background = fake_omniglot
    (background / "Script0" / "character00" / "00.png").write_bytes(content())
    glyphs.omniglot.cache_clear()
    with pytest.raises(DataError, match=rf"00\.png {words}"):
        images.load("omniglot", root=root)


def test_provenance_tells_pools_apart(fake_mnist):
    root, raw, pixels = fake_mnist
    write_idx(raw / "train-images-idx3-ubyte", np.tile(pixels, (6, 1, 1)))
    write_idx(raw / "train-labels-idx1-ubyte", np.arange(60_000) % 10)
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
