"""Errors that a reader can mend from their message alone."""


class MemcompError(Exception):
    """The base class of these errors; a notebook shows the message, without the way that led there.

    Examples
    --------
    >>> from memcomp import records
    >>> issubclass(records.RecordError, MemcompError)
    True
    """

    def _render_traceback_(self):  # IPython's name for what it shows in place of a traceback
        return [f"{type(self).__name__}: {self}"]
