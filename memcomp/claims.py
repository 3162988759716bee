"""The table that ends each chapter: what the paper says, what we measured, and whether it holds.

A chapter builds one `Claim` per statement and shows `report`. The table's output carries the claims as
metadata as well, under ``"memcomp_claims"``; the scorecard reads them from the executed notebooks.
"""

import json
import math
import numbers
import os
import re
import textwrap
from dataclasses import asdict, dataclass

from memcomp import records
from memcomp.tables import typeset

VERDICTS = {
    True: "holds",
    False: "fails",
    "undecided": "undecided",
    "vacuous": "vacuous",
    None: "not tested at this scale",
}
"""The words of a verdict by the value of `Claim.holds`.

:meta hide-value:
"""

MARKS = {word: word.split()[0].replace("not", "untested") for word in VERDICTS.values()}
"""The style of each verdict's mark on the pages, by its word."""

SCALES = ("quick", "narrow", "paper")
"""Scales at which something is measured, from small to large."""
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Claim:
    """One checkable statement with the value measured for it.

    Parameters
    ----------
    id : str
        Short and stable, lower case with hyphens; the scorecard's anchor, unique in its chapter.
    source : str
        Where the paper (or this book) says it, for example ``"Claim 1"`` or ``"section 5.1, Figure 1(c)"``.
    statement : str
        The statement in our words. Maths goes between dollar signs.
    paper : str or number
        The paper's value, or ``"shape only"`` where it gives none.
    value : str or number or None
        Ours. Shown with three significant digits, so that it reads the same on every machine; an ``int`` is
        shown in full.
    spread : float, optional
        Standard deviation of the value over the runs.
    standard_error : float, optional
        In place of ``spread`` where the value is no mean over runs, a ratio of means for example: how far it
        may be off. The table says which of the two it shows.
    n : int, optional
        Number of runs or seeds behind the value.
    holds : bool, "undecided", "vacuous" or None
        Undecided: measured, and not told apart by the rule of :func:`memcomp.stats.decide`. Vacuous: a bound
        that the trivial estimator keeps as well. None: not tested at this scale.
    scale : {"quick", "narrow", "paper"}
        Scale at which the value was measured.
    same_as : str, optional
        ``"chapter/id"`` of the claim that this one tells again; the scorecard counts the two once.

    Raises
    ------
    ValueError
        If a field cannot be shown: a malformed id, an empty text, a non-finite number, a negative spread.
    TypeError
        If ``value``, ``paper`` or ``holds`` has another type.

    Examples
    --------
    >>> claim = Claim("ood", "Table 1", "Sum composes", 0.176, 0.18249, spread=0.0041, n=5, holds=True)
    >>> claim.measured, claim.verdict
    ('0.182 ± 0.004 (n = 5)', 'holds')
    >>> Claim("fall", "Figure 3", "it falls", "shape only", 0.56, standard_error=0.03, n=6).measured
    '0.560 ± 0.03 (standard error, n = 6)'
    """

    id: str
    source: str
    statement: str
    paper: str | float
    value: str | float | None
    spread: float | None = None
    n: int | None = None
    holds: bool | None = None
    scale: str = "quick"
    standard_error: float | None = None
    same_as: str | None = None

    def __post_init__(self):
        if not isinstance(self.id, str) or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.id):
            raise ValueError(
                f"claim id {self.id!r}: expected lower-case words joined by hyphens, like 'rate-at-2'"
            )
        for name in ("source", "statement"):
            text = getattr(self, name)
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"claim {self.id!r}: {name} must be a non-empty text; got {text!r}")
        if self.statement.count("$") % 2:
            raise ValueError(f"claim {self.id!r}: a dollar sign is missing in {self.statement!r}")
        # NumPy's scalars compare and print differently and are no JSON: keep plain Python values.
        for name in ("paper", "value", "spread", "standard_error"):
            object.__setattr__(self, name, _plain(self, name))
        for name in ("spread", "standard_error"):
            width = getattr(self, name)
            if isinstance(width, str) or (width is not None and width < 0):
                raise ValueError(f"claim {self.id!r}: {name} must be a number ≥ 0; got {width!r}")
        if self.spread is not None and self.standard_error is not None:
            raise ValueError(f"claim {self.id!r}: give spread or standard_error, not both")
        if self.n is not None:
            if not isinstance(self.n, numbers.Integral) or self.n < 1:
                raise ValueError(f"claim {self.id!r}: n must be a positive integer; got {self.n!r}")
            object.__setattr__(self, "n", int(self.n))
        if self.holds is not None and self.holds not in ("undecided", "vacuous"):
            if not (isinstance(self.holds, bool) or type(self.holds).__name__ in ("bool_", "bool")):
                raise TypeError(
                    f"claim {self.id!r}: holds must be True, False, None, 'undecided' or 'vacuous'; got "
                    f"{self.holds!r}"
                )
            object.__setattr__(self, "holds", bool(self.holds))
        if self.scale not in SCALES:
            raise ValueError(
                f"claim {self.id!r}: scale must be one of {', '.join(SCALES)}; got {self.scale!r}"
            )
        if self.same_as is not None and not re.fullmatch(r"\d\d_[a-z0-9_]+/[a-z0-9-]+", self.same_as):
            raise ValueError(f"claim {self.id!r}: same_as must be 'chapter/id'; got {self.same_as!r}")

    @property
    def verdict(self):
        """str: one of `VERDICTS`."""
        return VERDICTS[self.holds]

    @property
    def measured(self):
        """str: our value with its spread and number of runs, as the table shows it."""
        width = self.spread if self.standard_error is None else self.standard_error
        text = "–" if self.value is None else format_number(self.value, width)
        notes = [] if self.standard_error is None else ["standard error"]
        notes += [] if self.n is None else [f"n = {self.n}"]
        return f"{text} ({', '.join(notes)})" if notes else text

    @property
    def published(self):
        """str: the paper's value, as the table shows it."""
        return format_number(self.paper)


def _plain(claim, name):
    value = getattr(claim, name)
    if value is None and name != "paper":
        return None
    if isinstance(value, str):
        if not value.strip():
            raise ValueError(f"claim {claim.id!r}: {name} is an empty text")
        return value
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"claim {claim.id!r}: {name} must be a number or a short text; got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"claim {claim.id!r}: {name} is {value}; a claim shows finite numbers only")
    return float(value)


def format_number(value, spread=None):
    """Write a number with three significant digits, and its spread with one.

    Parameters
    ----------
    value : str or int or float
        Text is returned as it is; an ``int`` is written in full.
    spread : float, optional
        Standard deviation or error, in the unit of ``value``.

    Returns
    -------
    str

    Examples
    --------
    >>> format_number(22.9671), format_number(0.176, 0.0041), format_number(1620000), format_number(3.2e-15)
    ('23.0', '0.176 ± 0.004', '1,620,000', '3.20 × 10⁻¹⁵')
    """
    if isinstance(value, str):
        return value
    text = f"{value:,}" if isinstance(value, int) else _significant(value, 3)
    return text if spread is None else f"{text} ± {_significant(spread, 1)}"


def _significant(value, digits):
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    exponent = int(exponent)
    if not -4 <= exponent < 5:
        return f"{mantissa} × 10{str(exponent).translate(_SUPERSCRIPT)}"
    rounded = float(f"{mantissa}e{exponent}")
    return f"{rounded:,.{max(digits - 1 - exponent, 0)}f}"


class Report:
    """What `report` returns: shown by a notebook as a table, read by the scorecard as data.

    Attributes
    ----------
    chapter : str
        Name of the chapter's notebook without its ending.
    claims : tuple of Claim
        The claims in the order in which they are shown.
    profile : str
        ``"quick"`` or ``"paper"``.
    """

    def __init__(self, chapter, claims, profile="quick"):
        if not isinstance(chapter, str) or not re.fullmatch(r"\d\d_[a-z0-9_]+", chapter):
            raise ValueError(
                f"chapter {chapter!r}: expected the notebook's name without .ipynb, like '01_long_tail'"
            )
        if profile not in SCALES:
            raise ValueError(f"profile must be one of {', '.join(SCALES)}; got {profile!r}")
        self.chapter, self.claims, self.profile = chapter, tuple(claims), profile
        if not self.claims:
            raise ValueError(f"chapter {chapter!r} reports no claim; every chapter ends with at least one")
        for claim in self.claims:
            if not isinstance(claim, Claim):
                raise TypeError(f"chapter {chapter!r}: expected Claim objects; got {claim!r}")
        ids = [claim.id for claim in self.claims]
        twice = sorted({i for i in ids if ids.count(i) > 1})
        if twice:
            raise ValueError(f"chapter {chapter!r}: claim ids must be unique; twice: {', '.join(twice)}")

    def as_data(self):
        """Return the claims as a list of dicts, ready for JSON, numbers rounded as they are shown.

        Returns
        -------
        list of dict
            The fields of each `Claim` (``standard_error`` where it has one), plus ``chapter``, ``profile``,
            ``verdict``, ``measured`` and ``published`` (the last three as shown).
        """
        return [
            {
                "chapter": self.chapter,
                "profile": self.profile,
                **{
                    k: _rounded(v)
                    for k, v in asdict(claim).items()
                    if k not in ("standard_error", "same_as") or v is not None
                },
                "verdict": claim.verdict,
                "measured": claim.measured,
                "published": claim.published,
            }
            for claim in self.claims
        ]

    def __repr__(self):
        lines = [f"Claims of chapter {self.chapter} ({self.profile} profile)"]
        for claim in self.claims:
            lines += [
                "",
                f"[{claim.verdict}] {claim.id} ({claim.source})",
                *textwrap.wrap(claim.statement, 100, initial_indent="  ", subsequent_indent="  "),
                f"  paper: {claim.published}   ours: {claim.measured}",
            ]
        return "\n".join(lines)

    def _repr_mimebundle_(self, include=None, exclude=None):
        data = {"text/plain": repr(self), "text/html": _html_table(self)}
        return data, {"memcomp_claims": self.as_data()}


def _rounded(value):
    return float(f"{value:.2e}") if isinstance(value, float) else value


def _unbroken(text):
    """Keep a value, its spread and its n each on one line of a narrow column."""
    for mark in (" ± ", "n = ", " × 10"):
        text = text.replace(mark, mark.replace(" ", "\u00a0"))
    return text


def _html_table(report):
    rows = []
    for claim in report.claims:
        mark = MARKS[claim.verdict]
        rows.append(
            f'<tr id="claim-{report.chapter}-{claim.id}" class="{mark}">'
            f'<th scope="row"><span class="statement">{typeset(claim.statement)}</span> '
            f'<span class="source">{typeset(claim.source)}</span></th>'
            f'<td data-label="Paper">{typeset(_unbroken(claim.published))}</td>'
            f'<td data-label="Ours">{typeset(_unbroken(claim.measured))}</td>'
            f'<td data-label="Verdict"><span class="verdict {mark}">{claim.verdict}</span></td></tr>'
        )
    errors = any(claim.standard_error is not None for claim in report.claims)
    exception = ", or the standard error where it says so" if errors else ""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Claim", "Paper", "Ours", "Verdict"))
    return (
        f'<table class="memcomp-claims"><caption>Claims of this chapter, {report.profile} profile. '
        f"± is one standard deviation over n runs{exception}.</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table>"
    )


class Chapter:
    """Collects a chapter's claims as they are measured; its report is the chapter's last table.

    Parameters
    ----------
    name : str
        Name of the notebook without its ending, for example ``"01_long_tail"``.
    profile : str
        The notebook's profile; the scale of every claim that does not name its own.

    Examples
    --------
    >>> chapter = Chapter("09_omniglot")
    >>> chapter.add("ood", "Table 1", "Sum composes", paper=0.176, value=0.182, n=5, holds=True)
    >>> chapter.claims[0].measured
    '0.182 (n = 5)'
    """

    def __init__(self, name, profile="quick"):
        self.name, self.profile, self.claims = name, profile, []

    def add(self, id, source, statement, *, decided=..., **more):
        """Add a claim.

        Parameters
        ----------
        id, source, statement, **more
            See `Claim`.
        decided : bool or None
            In place of ``holds``, what :func:`memcomp.stats.decide` answers: None is *undecided*.
        """
        if decided is not ...:
            more["holds"] = "undecided" if decided is None else decided
        self.claims.append(Claim(id, source, statement, **{"scale": self.profile, **more}))

    def report(self):
        """Return the table of all claims, see `report`."""
        return report(self.name, self.claims, self.profile)


def report(chapter, claims, profile="quick"):
    """Show the claims of a chapter, each with its verdict.

    With another profile than ``"quick"`` the claims are also stored, in
    ``results/PROFILE/claims/CHAPTER.json``, where the scorecard finds them; a quick run leaves nothing behind
    but its notebook.

    Parameters
    ----------
    chapter : str
        Name of the notebook without its ending, for example ``"01_long_tail"``.
    claims : iterable of Claim
        At least one; ids unique.
    profile : {"quick", "narrow", "paper"}
        The notebook's profile.

    Returns
    -------
    Report
        Displayed as a table, with the metadata ``{"memcomp_claims": [...]}``.

    Raises
    ------
    ValueError
        For a malformed chapter name or profile, no claim, or an id used twice.
    TypeError
        If an element is not a `Claim`.
    """
    result = Report(chapter, claims, profile)
    if profile != "quick":
        folder = records.results_root() / profile / "claims"
        folder.mkdir(parents=True, exist_ok=True)
        content = {"chapter": chapter, "profile": profile, "claims": result.as_data()}
        content["provenance"] = records.provenance()
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        records.write_atomically(os.fspath(folder / f"{chapter}.json"), text)
    return result
