"""Names that a person types, looked up in a table of what there is."""

import difflib


def choose(table, name, what):
    """Return an entry of a table by its name.

    Parameters
    ----------
    table : dict
        Entries by name.
    name : str
    what : str
        What the names stand for, in the singular, for the message.

    Returns
    -------
    object

    Raises
    ------
    ValueError
        For an unknown name; the message lists those that there are.

    Examples
    --------
    >>> choose({"sum": 1, "max": 2}, "mean", "target")
    Traceback (most recent call last):
    ...
    ValueError: unknown target 'mean'; choose one of sum, max
    """
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}; choose one of {', '.join(table)}")
    return table[name]


def nearest(name, known):
    """Return ``", did you mean …?"`` with the known name closest to a mistyped one, or an empty text.

    Parameters
    ----------
    name : str
    known : iterable of str

    Returns
    -------
    str
    """
    match = difflib.get_close_matches(str(name), list(known), n=1)
    return f", did you mean {match[0]!r}?" if match else ""
