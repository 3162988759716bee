"""Paths that a person types, and paths that a log should not tell."""

import os
import re
from pathlib import Path

#: Environment variables that hold a path.
VARIABLES = ("MEMCOMP_DATA", "MEMCOMP_RESULTS")


def typed(path, what="path"):
    """Return a path that a person typed as an absolute one: ``~`` is a home folder.

    A relative path means the folder of whoever typed it. That is the working folder only until another
    process is started elsewhere, as the kernel of a notebook is: so a path is taken once, where it comes in.

    Parameters
    ----------
    path : str or pathlib.Path
    what : str
        What it is, for the message: an option, a variable, a parameter.

    Returns
    -------
    pathlib.Path
        Absolute; ``..`` stays, because behind a symbolic link it is not the folder before it.

    Raises
    ------
    ValueError
        If it is no text or an empty one, or names the home folder of a user that does not exist.
    FileNotFoundError
        If it is relative and the working folder has been removed.

    Examples
    --------
    >>> typed("~/data") == Path.home() / "data"
    True
    >>> typed("data") == Path.cwd() / "data"
    True
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise ValueError(f"{what} is {path!r}; expected the path of a folder or file")
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise ValueError(
            f"{what} is {os.fspath(path)!r}: there is no such home folder; write ./{expanded} for a name "
            "that begins so"
        )
    try:
        return Path(expanded).absolute()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{what} is {os.fspath(path)!r}, and the working folder that it is relative to no longer exists"
        ) from None


def settle_variables():
    """Make the paths in this process's environment absolute, for itself and for those that it will start.

    Raises
    ------
    ValueError
        As `typed`; the message names the variable.
    """
    for name in VARIABLES:
        if os.environ.get(name):
            os.environ[name] = str(typed(os.environ[name], name))


def shortened(text, names):
    """Return a text with some folders written short, where they begin a path.

    Parameters
    ----------
    text : str
    names : dict of path to str
        What to write for each folder, the innermost first. One that is relative or the root is left alone.

    Returns
    -------
    str

    Examples
    --------
    >>> shortened("/data/ann/x and /data/anna/x, 1/2", {"/data/ann": "~", "/": "~"})
    '~/x and /data/anna/x, 1/2'
    """
    for folder, short in names.items():
        folder = Path(folder)
        if folder.is_absolute() and len(folder.parts) > 1:
            start = re.compile(rf"(?<![\w.~-]){re.escape(str(folder))}(?![\w-]|\.\w)")
            text = short.join(start.split(text))
    return text
