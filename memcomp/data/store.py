"""What the loaders share: where files are, what is said of a damaged one, what is kept once it was read."""

import dataclasses
import functools
import os
import shlex

import numpy as np

from memcomp.errors import MemcompError
from memcomp.paths import typed


class DataError(MemcompError, RuntimeError):
    """A data file is missing, truncated or not what it should be; the message names it and the remedy."""


def damaged(root, path, what, remedy=None):
    """Return the error that says what is wrong with a file below a data root, and how to mend it."""
    return DataError(
        f"{path} {what}; {remedy or f'`memcomp data --root {shlex.quote(str(root))}` replaces it'}"
    )


def no_file(path):
    """Say why a path is no file that can be read to its end, or return None if it is one."""
    if not path.exists():
        return "is a link to what does not exist" if path.is_symlink() else "does not exist"
    if path.is_dir():
        return "is a folder"
    return None if path.is_file() else "is no regular file"  # reading a pipe would wait for ever


def data_root(root=None):
    """Return the folder of the real data sets: ``root``, else ``$MEMCOMP_DATA``.

    Raises
    ------
    DataError
        If neither is given or the folder does not exist.
    """
    chosen = root or os.environ.get("MEMCOMP_DATA")
    if chosen:
        chosen = typed(chosen, "data_root" if root else "MEMCOMP_DATA")
    else:
        raise DataError(
            "no data root: pass data_root=… or set MEMCOMP_DATA to a folder that holds MNIST/raw and "
            "omniglot-py; `memcomp data --root DIR` downloads both into DIR"
        )
    if not chosen.is_dir():
        raise DataError(
            f"data root {chosen} is not a folder; `memcomp data --root {shlex.quote(str(chosen))}` makes and "
            "fills it"
        )
    return chosen


def cached(maxsize):
    """Keep what a function returned for its last arguments, as ``functools.lru_cache`` does.

    Arrays in it, also inside tuples and dataclasses, are handed out read-only: writing to one would change
    what the next caller gets.

    Parameters
    ----------
    maxsize : int
        Number of answers that are kept.

    Returns
    -------
    callable
        A decorator.
    """

    def decorate(function):
        @functools.lru_cache(maxsize=maxsize)
        @functools.wraps(function)
        def kept(*arguments, **more):
            return _frozen(function(*arguments, **more))

        _CACHES.append(kept)
        return kept

    return decorate


_CACHES = []


def _frozen(value):
    if isinstance(value, np.ndarray):
        value.setflags(write=False)
    elif isinstance(value, tuple):
        for part in value:
            _frozen(part)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _frozen(getattr(value, field.name))
    return value


def clear_caches():
    """Forget all that :func:`cached` functions keep, so that files replaced since then are read again."""
    for kept in _CACHES:
        kept.cache_clear()
