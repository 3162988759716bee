"""A table of numbers: HTML on the page, aligned text for a terminal and for nbval to compare."""

import html
import numbers

import pandas as pd


def typeset(text):
    r"""Escape a text for HTML; what stands between dollar signs becomes maths that MathJax finds.

    Parameters
    ----------
    text : str

    Returns
    -------
    str

    Examples
    --------
    >>> typeset("a < $b$")
    'a &lt; <span class="math">\\(b\\)</span>'
    """
    parts = html.escape(text).split("$")
    return "".join(
        f'<span class="math">\\({part}\\)</span>' if i % 2 else part for i, part in enumerate(parts)
    )


def with_error(values, errors, digits=2):
    """Return texts ``value ± error``, for a column of a table.

    Parameters
    ----------
    values, errors : array_like, shape (n,)
    digits : int
        Decimals.

    Returns
    -------
    list of str

    Examples
    --------
    >>> with_error([1.0, 2.5], [0.25, float("nan")])
    ['1.00 ± 0.25', '2.50']
    """
    return [
        f"{value:,.{digits}f}" + (f" ± {error:,.{digits}f}" if pd.notna(error) else "")
        for value, error in zip(values, errors)
    ]


class Table:
    """A data frame as a page shows it.

    Parameters
    ----------
    frame : pandas.DataFrame
        Shown as it is, index and columns with all their levels; an index without a name that only counts is
        left out.
    caption : str, optional
        What the numbers are; maths between dollar signs.
    digits : int or dict of {column: int}
        Decimals of fractions; of a column by its name, 3 for those that are not named.

    Examples
    --------
    >>> frame = pd.DataFrame({"loss": [0.12345, None], "networks": [5, 1200]}, index=["Sum", "Linear"])
    >>> Table(frame, "Test loss.", digits=2)
    Test loss.
            loss  networks
    Sum     0.12         5
    Linear     –     1,200
    """

    def __init__(self, frame, caption=None, digits=3):
        self.caption = caption
        of = digits.get if isinstance(digits, dict) else lambda name, default: digits
        self.frame = frame.astype(object)
        for i, name in enumerate(frame.columns):
            self.frame.isetitem(i, [_shown(value, of(name, 3)) for value in _whole(frame.iloc[:, i])])
        self.index = not (isinstance(frame.index, pd.RangeIndex) and frame.index.name is None)

    def __repr__(self):
        text = self.frame.to_string(index=self.index)
        return f"{self.caption}\n{text}" if self.caption else text

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/plain": repr(self), "text/html": self._html()}

    def _html(self):
        styler = self.frame.style.set_uuid("t").set_table_attributes('class="memcomp-table"')
        styler.cell_ids = False
        if not self.index:
            styler = styler.hide(axis="index")
        if self.caption:
            styler = styler.set_caption(typeset(self.caption))
        styler = styler.format(typeset)
        for axis in (0, 1):
            styler = styler.format_index(lambda name: typeset(str(name)), axis=axis)
        markup = styler.to_html(doctype_html=False, exclude_styles=True)
        return f'<div class="memcomp-table" tabindex="0">{markup}</div>'


def _whole(column):
    """Undo that pandas makes fractions of whole numbers where one is missing."""
    there = column.dropna()
    if len(there) < len(column) and column.dtype == float and (there % 1 == 0).all():
        return column.astype("Int64")
    return column


def _shown(value, digits):
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or type(value).__name__ == "bool_":
        return "yes" if value else "no"
    if pd.isna(value):
        return "–"
    if isinstance(value, numbers.Integral):
        return f"{value:,}"
    if isinstance(value, numbers.Real):
        text = f"{value:,.{digits}f}"
        return text.lstrip("-") if not float(text.replace(",", "")) else text  # no minus zero
    return str(value)
