"""Fetch the real data sets and say what is there (``memcomp data``).

The downloads are torchvision's: its addresses, its MD5 sums, its folder layout.
"""

import gzip
import tempfile
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets import MNIST, Omniglot
from torchvision.datasets.utils import check_integrity, download_url, extract_archive

from memcomp import data
from memcomp.data.store import DataError, clear_caches, damaged

MNIST_RAW = Path("MNIST", "raw")
OMNIGLOT_CLASSES = 964  # characters in Omniglot's background set


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
    """

    name: str
    complete: bool
    detail: str


def check(root):
    """Read both data sets below `root` and compare what has a published checksum.

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
            found.append(State(name, False, str(error)))
    return found


def _look_at_mnist(root):
    counts = [len(data.load("mnist", split, root)[1]) for split in ("train", "test")]
    compared = sum(_same_as_archive(root / MNIST_RAW / archive, md5) for archive, md5 in MNIST.resources)
    detail = f"{counts[0]} training and {counts[1]} test images; {compared} of 4 files as in their archives"
    return True, detail


def _same_as_archive(path, md5):
    """Return whether the file could be compared; raise if it differs."""
    if not path.exists():
        return False
    unpacked, root = path.with_suffix(""), path.parents[2]
    if not check_integrity(path, md5):
        raise damaged(root, path, f"is damaged: its MD5 sum is not {md5}")
    if unpacked.exists() and gzip.decompress(path.read_bytes()) != unpacked.read_bytes():
        raise damaged(root, unpacked, "differs from its archive")
    return True


def _look_at_omniglot(root):
    labels = data.load("omniglot", root=root)[1]
    classes = len(set(labels.tolist()))
    detail = f"{len(labels)} drawings of {classes} of the {OMNIGLOT_CLASSES} background characters"
    return classes == OMNIGLOT_CLASSES, detail


def fetch(root):
    """Download what `check` finds missing or damaged; leave what is complete as it is.

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
    mnist, omniglot = check(root)
    if not mnist.complete:
        for archive, md5 in MNIST.resources:
            _fetch(Path(root) / MNIST_RAW / archive, [mirror + archive for mirror in MNIST.mirrors], md5)
    if not omniglot.complete:
        name = "images_background.zip"
        address = f"{Omniglot.download_url_prefix}/{name}"
        _fetch(Path(root) / "omniglot-py" / name, [address], Omniglot.zips_md5["images_background"])
    clear_caches()
    return check(root)


def _fetch(archive, addresses, md5):
    """Download an archive that is not there intact; put what it holds beside it, once that is whole."""
    failures = []
    for address in addresses:
        try:
            download_url(address, archive.parent, filename=archive.name, md5=md5)
            break
        except (RuntimeError, OSError) as error:
            failures.append(f"  {address}: {error}")
    else:
        raise ConnectionError(
            f"{archive.name} could not be downloaded intact:\n" + "\n".join(failures) + "\n"
            "Check the connection and run `memcomp data` again, or put the file at "
            f"{archive} by hand (MD5 {md5})."
        )
    final = archive.with_suffix("")
    with tempfile.TemporaryDirectory(prefix="partial", dir=archive.parent) as partial:
        extract_archive(str(archive), partial)
        if final.is_dir():  # a folder that is not empty cannot be replaced in one step, as a file can
            final.rename(Path(partial) / "replaced")
        (Path(partial) / final.name).replace(final)
