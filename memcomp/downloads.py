"""Fetch the real data sets and say what is there (``memcomp data``).

The downloads are torchvision's: its addresses, its MD5 sums, its folder layout.
"""

import gzip
import shutil
import urllib.error
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets import MNIST, Omniglot
from torchvision.datasets.utils import check_integrity, download_url, extract_archive

from memcomp import images

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
    root = Path(root)
    return [_check_mnist(root), _check_omniglot(root)]


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
    root = Path(root)
    if not _check_mnist(root).complete:
        _fetch_mnist(root / "MNIST" / "raw")
    if not _check_omniglot(root).complete:
        _fetch_omniglot(root / "omniglot-py")
    images.clear_caches()
    return check(root)


def _check_mnist(root):
    raw = root / "MNIST" / "raw"
    try:
        counts = [len(images.load("mnist", split, root=root)[1]) for split in ("train", "test")]
        compared = sum(_same_as_archive(raw, archive, md5) for archive, md5 in MNIST.resources)
    except images.DataError as error:
        return State("mnist", False, str(error))
    detail = f"{counts[0]} training and {counts[1]} test images; {compared} of 4 files as in their archives"
    return State("mnist", True, detail)


def _same_as_archive(raw, archive, md5):
    """Return whether the file could be compared; raise if it differs."""
    path = raw / archive
    if not path.exists():
        return False
    if not check_integrity(path, md5):
        raise images.DataError(
            f"{path} is damaged: its MD5 sum is not {md5}; run `memcomp data` to replace it"
        )
    with gzip.open(path) as packed, open(path.with_suffix(""), "rb") as unpacked:
        if packed.read() != unpacked.read():
            raise images.DataError(
                f"{path.with_suffix('')} differs from its archive; run `memcomp data` to replace it"
            )
    return True


def _check_omniglot(root):
    try:
        labels = images.load("omniglot", root=root)[1]
    except images.DataError as error:
        return State("omniglot", False, str(error))
    classes = len(set(labels.tolist()))
    detail = f"{len(labels)} drawings of {classes} of the {OMNIGLOT_CLASSES} background characters"
    return State("omniglot", classes == OMNIGLOT_CLASSES, detail)


def _fetch_mnist(raw):
    for archive, md5 in MNIST.resources:
        path = raw / archive
        _download([mirror + archive for mirror in MNIST.mirrors], path, md5)
        partial = raw / (path.stem + ".partial")
        with gzip.open(path) as packed, open(partial, "wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
        partial.replace(path.with_suffix(""))


def _fetch_omniglot(folder):
    name = "images_background"
    archive = folder / f"{name}.zip"
    _download([f"{Omniglot.download_url_prefix}/{archive.name}"], archive, Omniglot.zips_md5[name])
    partial = folder / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    extract_archive(str(archive), str(partial))
    if (folder / name).exists():
        (folder / name).rename(partial / "replaced")
    (partial / name).rename(folder / name)
    shutil.rmtree(partial)


def _download(addresses, path, md5):
    if check_integrity(path, md5):
        return
    failures = []
    for address in addresses:
        try:
            download_url(address, path.parent, filename=path.name, md5=md5)
            return
        except (RuntimeError, OSError, urllib.error.URLError) as error:
            failures.append(f"  {address}: {error}")
    raise ConnectionError(
        f"{path.name} could not be downloaded intact:\n" + "\n".join(failures) + "\n"
        f"Check the connection and run `memcomp data` again, or put the file at {path} by hand (MD5 {md5})."
    )
