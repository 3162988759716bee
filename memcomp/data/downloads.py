"""Fetch the real data sets and say what is there (``memcomp data``).

The downloads are torchvision's: its addresses, its MD5 sums, its folder layout.
"""

import errno
import hashlib
import shutil
import socket
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from torchvision.datasets import MNIST, Omniglot
from torchvision.datasets.utils import check_integrity, download_url, extract_archive

from memcomp import cluster, data
from memcomp.data import digits, glyphs
from memcomp.data.store import DataError, clear_caches, damaged

OMNIGLOT_CLASSES = 964  # characters in Omniglot's background set
OMNIGLOT_ARCHIVE = "images_background.zip"
PUBLISHED = {  # SHA-256 of the files of MNIST, unpacked
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
NOT_THE_NETWORK = (errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EPERM, errno.EROFS)
STALLED_SECONDS = 60  # a server that sends nothing for so long has been given up
CONSEQUENCE = (
    "Chapters use it as it is. Records name its checksum and are never mixed with those of another set; "
    "their numbers need not be those of the published one"
)


@dataclass(frozen=True)
class State:
    """What was found of one data set.

    Attributes
    ----------
    name : str
        ``"mnist"`` or ``"omniglot"``.
    complete : bool
        Whether all of it is there and readable.
    detail : str
        What is there, or what is wrong with which file.
    published : bool or None
        Whether it also holds what was published, byte by byte; None if there is nothing to compare it with.
    """

    name: str
    complete: bool
    detail: str
    published: bool | None = True


def check(root):
    """Read both data sets below `root` and compare their content with what was published.

    Parameters
    ----------
    root : path-like
        Folder in torchvision's layout: ``MNIST/raw/`` and ``omniglot-py/images_background/``.

    Returns
    -------
    list of State
        One for MNIST, one for Omniglot. Nothing is changed on disk.
    """
    found = []
    for name, look in (("mnist", _look_at_mnist), ("omniglot", _look_at_omniglot)):
        try:
            found.append(State(name, *look(Path(root))))
        except DataError as error:
            found.append(State(name, False, str(error), False))
    return found


def _look_at_mnist(root):
    counts = [len(data.load("mnist", split, root)[1]) for split in ("train", "test")]
    other = [name for name in PUBLISHED if not _is_published(root, name)]
    detail = f"{counts[0]} training and {counts[1]} test images"
    if other:
        detail += (
            f"; the content of {', '.join(other)} differs from it. {CONSEQUENCE}. To have the published "
            "content, remove what differs and download again"
        )
    return True, detail, not other


def _is_published(root, name):
    """Return whether a file holds what was published; raise if it is damaged or differs from its archive."""
    content = digits.header(digits.SHAPES[name]) + digits.read(root, name).tobytes()
    if hashlib.sha256(content).hexdigest() == PUBLISHED[name]:
        return True
    archive = root / digits.RAW / f"{name}.gz"
    if check_integrity(archive, dict(MNIST.resources)[archive.name]):
        raise damaged(root, archive.with_suffix(""), "differs from its archive")
    return False


def _look_at_omniglot(root):
    labels = data.load("omniglot", root=root)[1]
    classes = len(set(labels.tolist()))
    detail = f"{len(labels)} drawings of {classes} of the {OMNIGLOT_CLASSES} background characters"
    archive = glyphs.background(root).with_name(OMNIGLOT_ARCHIVE)
    if classes != OMNIGLOT_CLASSES:
        return False, detail, False
    if not check_integrity(archive, Omniglot.zips_md5["images_background"]):
        what = f"; {archive}, with which to compare them, is not there or not the published archive"
        return True, f"{detail}{what}. {CONSEQUENCE}", None
    if differs := _unlike_archive(archive):
        raise damaged(root, archive.parent / differs, "differs from its archive")
    return True, detail, True


def _unlike_archive(archive):
    """Return the name of a drawing that is not as in the archive beside it; None if all are."""
    with zipfile.ZipFile(archive) as packed:
        for one in packed.infolist():
            path = archive.parent / one.filename
            if path.suffix == ".png" and (not path.is_file() or zlib.crc32(path.read_bytes()) != one.CRC):
                return one.filename
    return None


def fetch(root):
    """Download what `check` finds missing or damaged; leave as it is what can be read, published or not.

    An archive whose checksum is wrong, a half-written one among them, is downloaded again. Files
    appear under their final names only once they are whole.

    Parameters
    ----------
    root : path-like
        Folder to hold the data sets; made if need be.

    Returns
    -------
    list of State
        The states afterwards, all complete.

    Raises
    ------
    ConnectionError
        If an archive could not be downloaded intact from any of its addresses.
    """
    root, found = Path(root), check(root)
    if all(state.complete for state in found):
        return found
    root.mkdir(parents=True, exist_ok=True)
    lock = root / ".download.lock"
    with cluster.told(f"another `memcomp data` is at work here, see {lock}") as waiting, FileLock(lock):
        waiting.set()
        _fetch_missing(root)
    clear_caches()
    return check(root)


def _fetch_missing(root):
    for left in [*root.glob("MNIST/raw/partial*"), *root.glob("omniglot-py/partial*")]:
        shutil.rmtree(left)  # by a process that was killed
    for archive, md5 in MNIST.resources:
        try:
            _is_published(root, archive.removesuffix(".gz"))
        except DataError:
            _fetch(root / digits.RAW / archive, [mirror + archive for mirror in MNIST.mirrors], md5)
    clear_caches()
    if not check(root)[1].complete:
        archive = glyphs.background(root).with_name(OMNIGLOT_ARCHIVE)
        address = f"{Omniglot.download_url_prefix}/{archive.name}"
        _fetch(archive, [address], Omniglot.zips_md5["images_background"])


def _fetch(archive, addresses, md5):
    """Download an archive that is not there intact; put what it holds beside it, once that is whole."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALLED_SECONDS)  # torchvision would wait for ever
    try:
        for address in addresses:
            try:
                download_url(address, archive.parent, filename=archive.name, md5=md5)
                break
            except (RuntimeError, OSError) as error:
                if getattr(error, "errno", None) in NOT_THE_NETWORK:
                    raise
                failures.append(f"  {address}: {error}")
        else:
            raise ConnectionError(
                f"{archive.name} could not be downloaded intact:\n" + "\n".join(failures) + "\n"
                "Check the connection and run `memcomp data` again, or put the file at "
                f"{archive} by hand (MD5 {md5})."
            )
    finally:
        socket.setdefaulttimeout(before)
    final = archive.with_suffix("")
    with tempfile.TemporaryDirectory(prefix="partial", dir=archive.parent) as partial:
        extract_archive(str(archive), partial)
        if final.is_dir():  # a folder that is not empty cannot be replaced in one step, as a file can
            final.rename(Path(partial) / "replaced")
        (Path(partial) / final.name).replace(final)
