"""Folders of the reader's own images, and KMNIST: named, read, screened, trained on and kept in records."""

import copy
import dataclasses
import gzip
import io
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import session
from PIL import Image, ImageDraw, ImageFont

from memcomp import chapters, figures, images, records
from memcomp.__main__ import main
from memcomp.data import digits, folders, screen
from memcomp.data.store import DataError
from memcomp.experiments import harm, limits, omniglot, subsets, your_network

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "book/guide_own_data.md"
KEPT, LIKE_DIGITS = "ΓΔΞЊЋИЦҨՋ♁♃♄", "ZΩЮ"
SMALL = {"dataset": "embedded", "size": 300, "epochs": 1, "batch_size": 32, "width": 1}
FONT = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return an empty folder that is the working folder; nothing is remembered of earlier ones."""
    monkeypatch.chdir(tmp_path)
    folders._screened.cache_clear()
    yield tmp_path
    folders._screened.cache_clear()


def drawn(letter, drawing=0):
    """Return a letter in navy on ivory, as in the guide."""
    paper = Image.new("RGB", (70, 80), "ivory")
    ImageDraw.Draw(paper).text((35, 40), letter, "navy", ImageFont.truetype(FONT, 60), anchor="mm")
    return paper.rotate(3 * drawing - 14, fillcolor="ivory")


def fill(letters=KEPT, drawings=10, root="my_glyphs"):
    for letter in letters:
        folder = Path(root, letter)
        folder.mkdir(parents=True)
        for drawing in range(drawings):
            drawn(letter, drawing).save(folder / f"{drawing}.png")
    return root


# ------------------------------------------------------------------------------------------------- as a pool


def test_a_folder_is_taken_wherever_a_pool_of_glyphs_is_named(here):
    fill(LIKE_DIGITS + KEPT)
    pool, labels = images.load("my_glyphs")
    assert pool.shape == (120, 28, 28)
    assert pool.dtype == np.uint8
    assert labels.dtype == np.int64
    assert np.bincount(labels).tolist() == [10] * 12
    for module in (omniglot, subsets, harm, limits):
        configs = module.grid(glyphs="my_glyphs", seeds=1)
        assert {config.glyphs.label for config in configs} == {"my_glyphs"}
    data = omniglot.training_set(omniglot.Config("sum", 0.0, 0, glyphs="my_glyphs", **SMALL))
    known = {image.tobytes() for image in pool}
    assert {image.tobytes() for image in data.images[data.glyphs]} <= known
    shared = subsets.Config("sum", 0.0, 0, glyphs="my_glyphs", **SMALL)
    others = subsets.other_drawings(shared, subsets.shared_set(shared))
    assert {image.tobytes() for image in others} <= known
    with pytest.raises(ValueError, match=r"my_glyphs@\w+ has no split 'test'|no split 'test'"):
        images.load("my_glyphs", "test")


def test_a_record_holds_the_folders_name_and_a_hash_and_no_path(here):
    config = omniglot.Config("sum", 0.0, 0, glyphs=fill(), **SMALL)
    found = records.collect(omniglot.run, [config], root="kept", workers=0, progress=False)
    (path,) = Path("kept").rglob("*.json")
    assert str(here) not in path.read_text()
    assert re.fullmatch(r"my_glyphs@[0-9a-f]{12}", found[0]["config"]["glyphs"])
    assert found[0]["data"]["source"].endswith(f"; images of {config.glyphs}")
    assert found[0]["data"]["sha256"].endswith(images.provenance("my_glyphs")["sha256"])
    assert records.collect(omniglot.run, [config], root="kept", workers=0, progress=False) == found


def test_however_a_folder_is_typed_it_is_the_same_point(here):
    fill("ΓΔ", 1, "deep/my_glyphs")
    ways = ("deep/my_glyphs", "./deep/my_glyphs/", here / "deep/my_glyphs", "deep/../deep/my_glyphs")
    configs = [omniglot.Config("sum", 0.0, 0, glyphs=way) for way in ways]
    assert len({records.key_of("omniglot", 1, config) for config in configs}) == 1
    assert str(here) not in json.dumps(records.plain_config(configs[0]))
    os.chdir("deep/my_glyphs/Γ")
    assert images.named("..") == configs[0].glyphs


def test_another_content_is_another_point_and_what_is_no_image_does_not_count(here):
    fill("ΓΔ", 2)
    names = [images.named("my_glyphs")]
    Path("my_glyphs/.DS_Store").write_bytes(b"x")
    Path("my_glyphs/Γ/.hidden.png").write_bytes(b"x")
    Path("my_glyphs/Γ/__MACOSX").mkdir()
    Path("my_glyphs/Γ/notes.txt").write_text("mine")
    assert images.named("my_glyphs") == names[0]
    drawn("Γ", 7).save("my_glyphs/Γ/1.png")
    names.append(images.named("my_glyphs"))
    Path("my_glyphs/Γ/1.png").rename("my_glyphs/Γ/2.png")
    names.append(images.named("my_glyphs"))
    Path("my_glyphs/Γ").rename("my_glyphs/Ω")
    names.append(images.named("my_glyphs"))
    assert len(set(names)) == 4


def test_names_of_pools_stay_as_they_are_also_beside_a_folder_of_that_name(here):
    fill("ΓΔ", 1, "letters")
    names = ["letters", "mnist", None, "nonsense"]
    assert [images.named(name) for name in names] == names
    assert images.absolute("letters") == "letters"
    assert images.named("./letters").startswith("letters@")
    assert omniglot.Config("sum", 0.0, 0, glyphs="letters").glyphs == "letters"


def test_a_name_goes_through_pickle_and_copy_with_its_path(here, monkeypatch):
    config = omniglot.Config("sum", 0.0, 0, glyphs=fill())
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    for again in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config), dataclasses.replace(config)):
        folders._screened.cache_clear()
        assert again == config
        assert len(images.load(again.glyphs)[0]) == 120


def test_a_config_of_a_record_says_that_its_folder_is_needed(here):
    stored = records.plain_config(omniglot.Config("sum", 0.0, 0, glyphs=fill("ΓΔ", 1)))
    config = omniglot.Config(**stored)
    assert config.glyphs == stored["glyphs"]
    with pytest.raises(ValueError, match=r"my_glyphs@\w+ is the name that a record gives a folder"):
        images.load(config.glyphs)


def test_a_folder_that_has_changed_since_it_was_named_is_refused(here):
    folder = images.named(fill("ΓΔ", 2))
    drawn("Γ", 7).save("my_glyphs/Γ/1.png")
    with pytest.raises(DataError, match=f"my_glyphs has changed since it was named {folder}"):
        images.load(folder)
    shutil.rmtree("my_glyphs")
    with pytest.raises(DataError, match=r"there is no folder .* workers elsewhere need it at the same path"):
        images.load(folder)


def test_the_command_takes_a_folder_from_where_the_person_stands(here, capsys):
    fill("ΓΔ", 1)
    (here / "letters").mkdir()
    found = chapters.parameters("09_omniglot", given={"glyphs": "my_glyphs"})
    assert found == {"glyphs": str(here / "my_glyphs")}
    assert chapters.parameters("09_omniglot", given={"glyphs": "letters"}) == {"glyphs": "letters"}
    assert main(["sweep", "12", "-p", "glyphs", "./none"]) == 2
    told = capsys.readouterr().err
    assert f"there is no folder {here}/none; expected is a folder for each class" in told
    assert main(["sweep", "12", "-p", "glyphs", "none"]) == 2
    assert "unknown pool of glyphs 'none'" in capsys.readouterr().err
    assert main(["sweep", "12", "-p", "glyphs", "my_glyphs"]) == 1
    assert "of its 2 classes can be used, and 10 are needed" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- enough of it


def test_too_few_classes_are_refused_with_what_was_left_out_and_still_shown(here):
    fill(LIKE_DIGITS + KEPT[:9])
    with pytest.raises(DataError) as error:
        images.load("my_glyphs")
    assert "my_glyphs: 9 of its 12 classes can be used, and 10 are needed" in str(error.value)
    assert re.search(r"Z is read as a 2 \(\d\d%\), Ω is read as a 0 .*, Ю is read as a 0", str(error.value))
    found = images.screened("my_glyphs")
    assert found.classes.name[~found.classes.kept].tolist() == list(LIKE_DIGITS)
    titles = [ax.get_title("left") for ax in figures.screening(found).axes]
    assert titles[0] == "9 of 12 classes kept"
    assert titles[1].startswith("3 of 12 classes left out")


def test_a_folder_of_folders_of_classes_is_recognised(here):
    fill(KEPT, 1, "data/train")
    fill("Γ", 1, "data/val")
    Path("data/val/Γ/0.png").unlink()
    drawn("Γ", 9).save("data/val/Γ/1.png")
    with pytest.raises(DataError, match="data/train holds folders, too: is it the one that you mean"):
        images.load("data")


def test_too_few_drawings_are_refused_before_anything_is_trained(here):
    fill(KEPT[1:], 10)
    fill("Γ", 5)
    wanted = r"my_glyphs has 5 different drawings of Γ, and {} of every class are needed"
    with pytest.raises(DataError, match=wanted.format(10)):
        omniglot.grid(glyphs="my_glyphs")
    with pytest.raises(DataError, match=wanted.format(6)):
        subsets.grid(glyphs="my_glyphs")
    assert your_network.grid(glyphs="my_glyphs", seeds=1)[0].needed == 1
    assert harm.grid(glyphs="my_glyphs", seeds=2)[0].needed == 1
    with pytest.raises(DataError, match=wanted.format(7)):
        omniglot.training_set(omniglot.Config("sum", 0.0, 0, drawings=7, glyphs="my_glyphs", **SMALL))
    with pytest.raises(DataError, match="letters has 20 different drawings of class 0, and 21"):
        omniglot.training_set(omniglot.Config("sum", 0.0, 0, drawings=21, **SMALL))


def test_what_is_not_used_is_told(here):
    fill("ΓΔ", 2)
    shutil.copy("my_glyphs/Γ/0.png", "my_glyphs/Γ/copy.png")
    Path("my_glyphs/Γ/notes.txt").write_text("mine")
    drawn("Ξ").save("my_glyphs/all.png")
    Path("my_glyphs/Δ/more/deep").mkdir(parents=True)
    drawn("Δ", 8).save("my_glyphs/Δ/more/deep/0.PNG")
    found = images.screened("my_glyphs")
    assert found.classes.drawings.tolist() == [2, 3]
    assert dict(found.aside) == {
        "my_glyphs/all.png": "lies beside the folders of the classes",
        "my_glyphs/Γ/notes.txt": "is no image by the end of its name",
        "my_glyphs/Γ/copy.png": "is the same picture as my_glyphs/Γ/0.png",
    }


# --------------------------------------------------------------------------------------- what becomes of ink

INK = np.zeros((84, 56), np.uint8)  # taller than wide: an L with a serif, grey at one end
INK[14:70, 14:22], INK[62:70, 14:44], INK[14:22, 22:30] = 255, 255, 128


def shown(image, name="0.png", **more):
    """Return what becomes of an image in a folder."""
    Path("f/a").mkdir(parents=True)
    image.save(f"f/a/{name}", **more)
    (example,) = images.screened("f").examples
    shutil.rmtree("f")
    return example


def expected():
    square = np.zeros((84, 84), np.uint8)
    square[:, 14:70] = INK
    return np.asarray(Image.fromarray(square).resize((28, 28), Image.Resampling.BILINEAR))


def transparent(ink):
    """Return the ink in one colour on nothing."""
    colour = np.full((*INK.shape, 3), ink, np.uint8)
    return Image.fromarray(np.dstack([colour, INK]))


KINDS = {
    "white on black": lambda: Image.fromarray(INK),
    "black on white": lambda: Image.fromarray(255 - INK),
    "on grey paper": lambda: Image.fromarray((200 - INK / 255 * 200).round().astype(np.uint8)),
    "colours": lambda: Image.fromarray(255 - INK).convert("RGB"),
    "palette": lambda: Image.fromarray(255 - INK).convert("P"),
    "grey, 16 bits": lambda: Image.fromarray(INK.astype(np.uint16) * 257),
    "black on nothing": lambda: transparent(0),
    "white on nothing": lambda: transparent(255),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_becomes_white_ink_on_black(here, kind):
    np.testing.assert_allclose(shown(KINDS[kind]()), expected().astype(int), atol=2)


def test_a_picture_of_two_colours_is_ink_and_ground(here):
    two = Image.fromarray(INK > 200)
    assert two.mode == "1"
    np.testing.assert_array_equal(shown(two), shown(Image.fromarray(((INK > 200) * 255).astype(np.uint8))))


def test_cmyk_is_read_and_exif_turns_upright(here):
    paper = Image.fromarray(255 - INK).convert("RGB")
    np.testing.assert_allclose(shown(paper.convert("CMYK"), "0.tif"), expected().astype(int), atol=2)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    lying = paper.transpose(Image.Transpose.ROTATE_90)
    np.testing.assert_allclose(shown(lying, exif=exif), expected().astype(int), atol=2)
    assert not np.allclose(shown(lying), expected(), atol=60)


def test_a_drawing_like_omniglots_becomes_what_omniglots_do(here):
    paper = np.full((105, 105), 255, np.uint8)
    paper[30:75, 40:44] = paper[71:75, 40:80] = 0
    shrunk = Image.fromarray(255 - paper).resize((28, 28), Image.Resampling.BILINEAR)
    assert (shown(Image.fromarray(paper).convert("1")) == np.asarray(shrunk)).all()


def test_a_picture_of_the_size_of_a_digit_is_left_alone(here):
    digit = images.load("embedded")[0][0]
    assert (shown(Image.fromarray(digit)) == digit).all()


# ------------------------------------------------------------------------------------------- what is refused


def frames(path, **more):
    first, second = drawn("Γ"), drawn("Δ")
    first.save(path, save_all=True, append_images=[second], **more)


def cut(path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 60), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, "PNG")
    path.write_bytes(content.getvalue()[:1500])


def loop(path):
    (path.parent / "again").symlink_to("..")


SPOILT = {
    "empty.png": (lambda path: path.touch(), "is empty; expected an image"),
    "cut.png": (cut, "is no whole image ("),
    "page.png": (lambda path: path.write_text("<!DOCTYPE html>"), "is no image that can be read"),
    "blank.png": (lambda path: Image.new("L", (60, 60), 90).save(path), "shows nothing: its 28 × 28 pixels"),
    "clear.png": (lambda path: Image.new("RGBA", (60, 60)).save(path), "shows nothing: its 28 × 28 pixels"),
    "film.gif": (lambda path: frames(path, format="GIF"), "holds 2 pictures, as an animation does"),
    "pages.tif": (lambda path: frames(path, format="TIFF"), "holds 2 pictures, as an animation does"),
    "float.tif": (lambda path: Image.fromarray(np.eye(60, dtype=np.float32)).save(path), "of the kind 'F'"),
    "wide.png": (lambda path: Image.new("L", (9000, 8)).save(path), "is 9000 × 8 pixels; at most 8192"),
    "bomb.png": (lambda path: Image.new("1", (20_000, 10_000)).save(path), "is too large; at most 8192"),
    "pipe.png": (os.mkfifo, "is no regular file"),
    "gone.png": (lambda path: path.symlink_to("nowhere"), "is a link to what does not exist"),
    "again": (loop, "is a link to a folder that it lies in"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_bad_image_is_named_without_the_place_where_it_lies(here, name):
    fill("ΓΔ", 1)
    spoil, message = SPOILT[name]
    spoil(here / "my_glyphs/Δ" / name)
    with pytest.raises(DataError) as error:
        images.screened("my_glyphs")
    assert str(error.value).startswith(f"my_glyphs/Δ/{name} ")
    assert message in str(error.value)
    assert str(here) not in str(error.value)
    assert "object at" not in str(error.value)


def test_large_files_and_large_folders_are_refused(here, monkeypatch):
    fill("ΓΔ", 2)
    monkeypatch.setattr(folders, "LARGEST", 100)
    with pytest.raises(DataError, match=r"my_glyphs/Γ/0.png has [\d,]+ bytes; at most 100 are read"):
        images.named("my_glyphs")
    monkeypatch.setattr(folders, "MOST", 3)
    with pytest.raises(DataError, match="my_glyphs holds more than 3 files"):
        images.named("my_glyphs")


def test_a_folder_of_another_layout_is_refused(here):
    Path("my_glyphs").mkdir()
    with pytest.raises(DataError, match="my_glyphs holds no folders; expected is a folder for each class"):
        images.named("my_glyphs")
    drawn("Γ").save("my_glyphs/0.png")
    with pytest.raises(DataError, match="my_glyphs holds no folders, and 1 files"):
        images.named("my_glyphs")
    fill("Γ", 1)
    Path("my_glyphs/Δ").mkdir()
    Path("my_glyphs/Δ/0.svg").touch()
    with pytest.raises(DataError, match=r"my_glyphs/Δ holds no image, which is a file whose name ends in "):
        images.named("my_glyphs")
    shutil.rmtree("my_glyphs/Δ")
    shutil.copytree("my_glyphs/Γ", "my_glyphs/Δ")
    with pytest.raises(DataError, match=r"Δ/0\.png is the same picture as my_glyphs/Γ/0\.png, which"):
        images.screened("my_glyphs")
    with pytest.raises(DataError, match=r"glyphs: 0\.png is a file; expected is a folder"):
        images.named("my_glyphs/0.png")
    with pytest.raises(ValueError, match=r"unknown pool of images 'nonsense'.*or the path of a folder"):
        images.load("nonsense")


def test_the_ends_of_names_are_torchvisions_and_gif():
    from torchvision.datasets.folder import IMG_EXTENSIONS

    assert set(folders.SUFFIXES) == {*IMG_EXTENSIONS, ".gif"}


# ------------------------------------------------------------------------------------------------ the screen


def test_classes_may_differ_in_their_number_of_drawings():
    pool, labels = images.load("embedded", "test")
    several = [pool[labels == label][: 10 + label] for label in range(10)]
    found = screen.resemblance(several)
    assert found.digit.tolist() == list(range(10))
    for label in (0, 9):
        (alone,) = screen.resemblance(several[label : label + 1]).itertuples(index=False)
        assert alone.share == pytest.approx(found.share[label])
        assert alone.distance == pytest.approx(found.distance[label])


def test_the_picture_shows_one_drawing_a_class_up_to_a_number(here):
    fill(LIKE_DIGITS + KEPT[:3])
    top, bottom = figures.screening(images.screened("my_glyphs"), most=2).axes
    assert top.get_title("left") == "3 of 6 classes kept, 2 shown"
    assert [text.get_text() for text in top.texts] == ["Γ", "Δ"]
    assert [text.get_text() for text in bottom.texts] == ["Z\nlike 2", "Ω\nlike 0"]
    assert (len(top.images), len(top.lines), len(bottom.images), len(bottom.lines)) == (2, 0, 2, 2)


# ------------------------------------------------------------------------------------------------ KMNIST


@pytest.fixture
def kmnist(tmp_path, monkeypatch):
    """Return a data root with a small set in the form of KMNIST's files, gzipped and plain."""
    shapes = {name: (200, *shape[1:]) for name, shape in digits.SHAPES.items()}
    monkeypatch.setattr(digits, "SHAPES", shapes)
    raw = tmp_path / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        array = rng.integers(0, 200, shape, dtype=np.uint8) if len(shape) == 3 else np.arange(200) % 10
        content = digits.header(shape) + array.astype(np.uint8).tobytes()
        (raw / f"{name}.gz").write_bytes(gzip.compress(content, 1))
        if name.startswith("t10k"):
            (raw / name).write_bytes(content)
    digits.kmnist.cache_clear()
    yield tmp_path
    digits.kmnist.cache_clear()


def test_kmnist_works_as_digits_and_as_glyphs(kmnist):
    pool, labels = images.load("kmnist", root=kmnist)
    assert np.bincount(labels).tolist() == [20] * 10
    small = SMALL | {"size": 100}
    as_digits = omniglot.Config("sum", 0.0, 0, **small | {"dataset": "kmnist"})
    assert as_digits.glyph_pool == "letters"
    data = omniglot.training_set(as_digits, kmnist)
    assert (data.images[: len(pool)] == pool).all()
    as_glyphs = omniglot.Config("sum", 0.0, 0, glyphs="kmnist", **small)
    data = omniglot.training_set(as_glyphs, kmnist)
    assert {image.tobytes() for image in data.images[data.glyphs]} <= {image.tobytes() for image in pool}
    assert omniglot.grid(dataset="kmnist", seeds=1)[0].dataset == "kmnist"
    assert omniglot.grid(glyphs="kmnist", seeds=1)[0].glyphs == "kmnist"
    with pytest.raises(ValueError, match="kmnist cannot be both the digits and the glyphs"):
        omniglot.grid(dataset="kmnist", glyphs="kmnist")


def test_kmnist_that_is_missing_or_damaged_names_the_file_and_torchvision(kmnist):
    path = kmnist / "KMNIST/raw/train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(
        DataError, match=r"train-images-idx3-ubyte.gz cannot be read .*torchvision.datasets.KMN"
    ):
        images.load("kmnist", root=kmnist)
    shutil.rmtree(kmnist / "KMNIST")
    with pytest.raises(
        DataError, match=r"KMNIST/raw/train-\S+ does not exist .*KMNIST\(root, download=True\)"
    ):
        images.load("kmnist", root=kmnist)


# ------------------------------------------------------------------------------------------------ the guide


@pytest.mark.slow
def test_the_session_of_the_guide_runs_as_shown_and_draws_the_picture_that_it_shows(here):
    attempted, _ = session.run(GUIDE, here, os.environ | {"PYTHONPATH": str(ROOT)}, timeout=600)
    assert attempted > 15
    stored, now = (
        np.asarray(Image.open(path).convert("L"), float)
        for path in (ROOT / "book/_static/own_data.png", here / "kept.png")
    )
    assert stored.shape == now.shape
    assert np.abs(stored - now).mean() < 2, "copy kept.png of the session to book/_static/own_data.png"


def test_the_guide_is_in_the_book_and_named_by_the_readme():
    assert "book/guide_own_data" in (ROOT / "_toc.yml").read_text()
    assert "book/guide_own_data.md" in (ROOT / "README.md").read_text()
