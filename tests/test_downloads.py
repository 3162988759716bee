"""`memcomp data`: what is there is told, what is missing or damaged is fetched, from a server on loopback."""

import errno
import fcntl
import functools
import gzip
import hashlib
import http.server
import io
import os
import shutil
import socket
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import MNIST, Omniglot

from memcomp import cluster, images
from memcomp.data import downloads
from memcomp.data.store import clear_caches


def idx(array):
    return np.array([0x0800 + array.ndim, *array.shape], ">u4").tobytes() + array.tobytes()


def mnist_archives():
    for prefix, count in (("train", 60_000), ("t10k", 10_000)):
        labels = np.arange(count, dtype=np.uint8) % 10
        pixels = np.zeros((count, 28, 28), np.uint8)
        pixels[:, 14] = 100 + labels[:, None]
        yield f"{prefix}-images-idx3-ubyte.gz", gzip.compress(idx(pixels), 1)
        yield f"{prefix}-labels-idx1-ubyte.gz", gzip.compress(idx(labels), 1)


def omniglot_archive(characters):
    drawing = io.BytesIO()
    paper = np.full((105, 105), 255, np.uint8)
    paper[50:60, 20:80] = 0
    Image.fromarray(paper).save(drawing, "png")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for character in range(characters):
            for drawer in range(20):
                archive.writestr(
                    f"images_background/Greek/character{character:02}/{character:04}_{drawer:02}.png",
                    drawing.getvalue(),
                )
    return packed.getvalue()


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        """Let torchvision hang up after it has looked for a redirection."""


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()


@pytest.fixture(scope="module")
def archives():
    return {**dict(mnist_archives()), "images_background.zip": omniglot_archive(12)}


@pytest.fixture
def server(tmp_path, monkeypatch, archives):
    """Serve the archives on loopback and let torchvision look there."""
    folder = tmp_path / "served"
    folder.mkdir()
    md5 = {}
    for name, content in archives.items():
        (folder / name).write_bytes(content)
        md5[name] = hashlib.md5(content).hexdigest()
    asked = []
    handler = type("Recorder", (Handler,), {"asked": asked})
    with Server(("127.0.0.1", 0), functools.partial(handler, directory=folder)) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{httpd.server_port}"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(MNIST, "mirrors", [address + "/"])
        monkeypatch.setattr(
            MNIST, "resources", [(name, md5[name]) for name in archives if name.endswith("gz")]
        )
        monkeypatch.setattr(Omniglot, "download_url_prefix", address)
        monkeypatch.setattr(Omniglot, "zips_md5", {"images_background": md5["images_background.zip"]})
        monkeypatch.setattr(downloads, "OMNIGLOT_CLASSES", 12)
        content = {name.removesuffix(".gz"): gzip.decompress(archives[name]) for name, _ in MNIST.resources}
        published = {name: hashlib.sha256(whole).hexdigest() for name, whole in content.items()}
        monkeypatch.setattr(downloads, "PUBLISHED", published)
        clear_caches()
        yield folder, asked
        httpd.shutdown()
    clear_caches()


def test_everything_is_fetched_once_and_can_be_loaded(server, tmp_path):
    _, asked = server
    root = tmp_path / "data"
    assert [state.complete for state in downloads.check(root)] == [False, False]
    assert all(state.complete for state in downloads.fetch(root))
    assert len(images.load("mnist", root=root)[1]) == 60_000
    assert len(images.load("omniglot", root=root)[1]) == 12 * 20
    first = len(asked)
    assert all(state.complete for state in downloads.fetch(root))
    assert len(asked) == first
    assert not list(root.rglob("*partial*"))
    (root / "MNIST/raw/t10k-images-idx3-ubyte").unlink()  # its archive is read in its place
    clear_caches()
    assert downloads.check(root)[0].complete


def test_checking_changes_nothing(server, tmp_path):
    _, asked = server
    states = downloads.check(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    assert not asked
    assert "nowhere" in states[0].detail


def test_a_truncated_file_and_a_half_written_archive_are_replaced(server, tmp_path):
    _, asked = server
    root = tmp_path / "data"
    downloads.fetch(root)
    asked.clear()
    damaged = root / "MNIST/raw/t10k-images-idx3-ubyte"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    archive = damaged.with_name(damaged.name + ".gz")
    archive.write_bytes(archive.read_bytes()[:50])
    clear_caches()
    assert "t10k-images-idx3-ubyte" in downloads.check(root)[0].detail
    assert all(state.complete for state in downloads.fetch(root))
    assert {path for path in asked if "t10k-images" not in path} == set()


def test_one_changed_pixel_is_noticed_and_mended(server, tmp_path):
    root = tmp_path / "data"
    downloads.fetch(root)
    path = root / "MNIST/raw/train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(bytes(content))
    clear_caches()
    state = downloads.check(root)[0]
    assert not state.complete
    assert "differs from its archive" in state.detail
    assert downloads.fetch(root)[0].complete


@pytest.fixture
def mnist(server, tmp_path):
    """Return the folder of MNIST, unpacked, and without its archives."""
    root = tmp_path / "data"
    downloads.fetch(root)
    for archive in (root / "MNIST/raw").glob("*.gz"):
        archive.unlink()
    clear_caches()
    return root / "MNIST/raw"


def test_content_is_compared_and_not_only_its_size(server, mnist):
    """No archive lies beside it, and the file is as long as it should be."""
    _, asked = server
    root, path = mnist.parents[1], mnist / "train-images-idx3-ubyte"
    assert downloads.check(root)[0].published
    content = bytearray(path.read_bytes())
    content[-392] ^= 1
    path.write_bytes(content)
    clear_caches()
    state = downloads.check(root)[0]
    assert (state.complete, state.published) == (True, False)
    assert "the content of train-images-idx3-ubyte differs" in state.detail
    assert "Records name its checksum" in state.detail
    asked.clear()
    assert not downloads.fetch(root)[0].published
    assert path.read_bytes() == content  # what a person put there is not replaced unasked
    assert not asked
    path.unlink()
    clear_caches()
    assert downloads.fetch(root)[0].published
    assert set(asked) == {"/train-images-idx3-ubyte.gz"}


def test_what_cannot_be_digits_is_replaced(mnist):
    root, path = mnist.parents[1], mnist / "train-labels-idx1-ubyte"
    path.write_bytes(idx(np.zeros(60_000, np.uint8)))
    clear_caches()
    assert "holds no label 1" in downloads.check(root)[0].detail
    assert downloads.fetch(root)[0].published


@pytest.mark.parametrize("beside", [False, True])
def test_files_packed_again_are_the_published_ones(mnist, beside):
    """Whoever packs them gets other bytes: only what comes out counts."""
    root = mnist.parents[1]
    for path in [path for path in mnist.iterdir() if path.suffix != ".gz"]:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes(), 2))
        if not beside:
            path.unlink()
    assert downloads.check(root)[0].published


def test_omniglot_is_compared_with_its_archive_if_that_is_there(server, tmp_path):
    root = tmp_path / "data"
    assert downloads.fetch(root)[1].published
    first = root / "omniglot-py/images_background/Greek/character00/0000_00.png"
    whole = first.read_bytes()
    with Image.open(first) as drawing:
        drawing.transpose(Image.Transpose.ROTATE_90).save(first)
    clear_caches()
    state = downloads.check(root)[1]
    assert not state.complete
    assert "character00/0000_00.png differs from its archive" in state.detail
    first.write_bytes(whole)
    (root / "omniglot-py/images_background.zip").unlink()
    clear_caches()
    state = downloads.check(root)[1]
    assert (state.complete, state.published) == (True, None)
    assert "images_background.zip, with which to compare them, is not there" in state.detail


def test_two_downloads_at_once_wait_for_each_other_and_say_so(server, tmp_path, monkeypatch):
    root, told = tmp_path / "data", []
    root.mkdir()
    lock = os.open(root / ".download.lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)  # as the other process would hold it

    def write(text, file):
        told.append(text)
        fcntl.flock(lock, fcntl.LOCK_UN)

    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 0)
    monkeypatch.setattr(cluster.tqdm, "write", write)
    assert all(state.published for state in downloads.fetch(root))
    os.close(lock)
    assert "another `memcomp data` is at work here" in told[0]


def test_what_a_killed_download_left_is_cleared_away(server, tmp_path):
    left = tmp_path / "data/omniglot-py/partial_abc/images_background"
    left.mkdir(parents=True)
    downloads.fetch(tmp_path / "data")
    assert not list((tmp_path / "data").rglob("partial*"))


def test_a_server_that_falls_silent_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr(downloads, "STALLED_SECONDS", 0.2)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{silent.getsockname()[1]}/"])
        with pytest.raises(ConnectionError, match="timed out"):
            downloads.fetch(tmp_path / "data")
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_does_not_take_it_is_not_blamed_on_the_connection(monkeypatch, tmp_path, reason):
    def refuse(*_, **__):
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(downloads, "download_url", refuse)
    with pytest.raises(OSError, match=os.strerror(reason)):
        downloads.fetch(tmp_path / "data")


def test_a_partial_omniglot_is_told_and_completed(server, tmp_path):
    root = tmp_path / "data"
    downloads.fetch(root)
    shutil.rmtree(root / "omniglot-py/images_background/Greek/character03")
    clear_caches()
    state = downloads.check(root)[1]
    assert not state.complete
    assert "11 of the 12" in state.detail
    assert downloads.fetch(root)[1].complete


def test_a_wrong_archive_is_refused_with_its_address_and_leaves_nothing_behind(server, tmp_path):
    folder, _ = server
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"not what was expected")
    root = tmp_path / "data"
    with pytest.raises(ConnectionError, match=r"train-images-idx3-ubyte.gz could not be downloaded intact"):
        downloads.fetch(root)
    assert not (root / "MNIST/raw/train-images-idx3-ubyte").exists()


def test_no_network_is_told_with_the_way_to_do_it_by_hand(server, tmp_path, monkeypatch):
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(ConnectionError, match=r"(?s)127.0.0.1:9.*put the file at .*by hand"):
        downloads.fetch(tmp_path / "data")
