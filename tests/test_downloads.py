"""`memcomp data`: what is there is told, what is missing or damaged is fetched, from a server on loopback."""

import functools
import gzip
import hashlib
import http.server
import io
import shutil
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import MNIST, Omniglot

from memcomp import images
from memcomp.data import downloads
from memcomp.data.store import clear_caches


def idx(array):
    return np.array([0x0800 + array.ndim, *array.shape], ">u4").tobytes() + array.tobytes()


def mnist_archives():
    for prefix, count in (("train", 60_000), ("t10k", 10_000)):
        labels = np.arange(count, dtype=np.uint8) % 10
        pixels = np.broadcast_to(labels[:, None, None], (count, 28, 28))
        yield f"{prefix}-images-idx3-ubyte.gz", gzip.compress(idx(np.ascontiguousarray(pixels)), 1)
        yield f"{prefix}-labels-idx1-ubyte.gz", gzip.compress(idx(labels), 1)


def omniglot_archive(characters):
    drawing = io.BytesIO()
    Image.new("1", (105, 105), 1).save(drawing, "png")
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
