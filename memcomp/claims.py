"""The table that ends each chapter: what the paper says, what we measured, and whether it holds.

A chapter builds one `Claim` per statement and shows `report`. The table's output carries the claims as
metadata as well, under ``"memcomp_claims"``; the scorecard reads them from the executed notebooks.
"""

import json
import math
import re
import textwrap
from dataclasses import asdict, dataclass, fields

import numpy as np
import pandas as pd

from memcomp import records, stats
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
        def require(condition, message, error=ValueError):
            if not condition:
                raise error(f"claim {self.id!r}: {message}")

        for field in fields(self):  # NumPy's scalars compare and print differently and are no JSON
            if isinstance(value := getattr(self, field.name), np.generic):
                object.__setattr__(self, field.name, value.item())
        words = isinstance(self.id, str) and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.id)
        require(words, "its id must be lower-case words joined by hyphens, like 'rate-at-2'")
        for name in ("source", "statement"):
            text = getattr(self, name)
            require(isinstance(text, str) and text.strip(), f"{name} must be a non-empty text; got {text!r}")
        for name in ("source", "statement", "paper", "value"):
            text = getattr(self, name)
            paired = not isinstance(text, str) or text.count("$") % 2 == 0
            require(paired, f"a dollar sign is missing in its {name}, {text!r}")
        for name in ("paper", "value", "spread", "standard_error"):
            value = getattr(self, name)
            if isinstance(value, str):
                require(value.strip(), f"{name} is an empty text")
            elif value is not None or name == "paper":
                number = isinstance(value, int | float) and not isinstance(value, bool)
                require(number, f"{name} must be a number or a short text; got {value!r}", TypeError)
                require(math.isfinite(value), f"{name} is {value}; a claim shows finite numbers only")
        for name in ("spread", "standard_error"):
            width = getattr(self, name)
            wide = width is None or (not isinstance(width, str) and width >= 0)
            require(wide, f"{name} must be a number ≥ 0; got {width!r}")
        one = self.spread is None or self.standard_error is None
        require(one, "give spread or standard_error, not both")
        number = isinstance(self.n, int) and not isinstance(self.n, bool)
        counted = self.n is None or (number and self.n >= 1)
        require(counted, f"n must be a positive integer; got {self.n!r}")
        known = self.holds in (None, "undecided", "vacuous") or isinstance(self.holds, bool)
        expected = "True, False, None, 'undecided' or 'vacuous'"
        require(known, f"holds must be {expected}; got {self.holds!r}", TypeError)
        require(self.scale in SCALES, f"scale must be one of {', '.join(SCALES)}; got {self.scale!r}")
        where = self.same_as is None or re.fullmatch(r"\d\d_[a-z0-9_]+/[a-z0-9-]+", str(self.same_as))
        require(where, f"same_as must be 'chapter/id'; got {self.same_as!r}")

    @property
    def verdict(self):
        """str: one of `VERDICTS`."""
        return VERDICTS[self.holds]

    @property
    def measured(self):
        """str: our value with its spread and number of runs, as the table shows it."""
        return self.measured_on(self.scale)

    def measured_on(self, scale):
        """Return the same for a page that is about one scale, with the claim's own where it is another.

        Parameters
        ----------
        scale : str

        Returns
        -------
        str
        """
        width = self.spread if self.standard_error is None else self.standard_error
        text = "–" if self.value is None else format_number(self.value, width)
        notes = [] if self.standard_error is None else ["standard error"]
        notes += [] if self.n is None else [f"n = {self.n}"]
        notes += [] if scale == self.scale or self.value is None else [f"{self.scale} scale"]
        return f"{text} ({', '.join(notes)})" if notes else text

    @property
    def published(self):
        """str: the paper's value, as the table shows it."""
        return format_number(self.paper)


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


def _rounded(value):
    return float(f"{value:.2e}") if isinstance(value, float) else value


def _unbroken(text):
    """Keep a value, its spread and its n each on one line of a narrow column."""
    for mark in (" ± ", "n = ", " × 10"):
        text = text.replace(mark, mark.replace(" ", "\u00a0"))
    return text


class Chapter:
    """Collects a chapter's claims; its report is the chapter's last table.

    A notebook shows it as a table, the scorecard reads it as data: the output's metadata is
    ``{"memcomp_claims": [...]}``.

    Parameters
    ----------
    name : str
        Name of the notebook without its ending, for example ``"01_long_tail"``.
    profile : {"quick", "narrow", "paper"}
        The notebook's profile; the scale of every claim that does not name its own.
    **shared
        Fields that the claims have in common unless they say otherwise, such as ``n``.

    Attributes
    ----------
    claims : list of Claim
        In the order in which they are shown.

    Raises
    ------
    ValueError
        For a malformed name, or another profile.

    Examples
    --------
    >>> chapter = Chapter("09_omniglot", n=5)
    >>> chapter.add("ood", "Table 1", "Sum composes", paper=0.176, value=0.182, holds=True)
    >>> chapter.state('''
    ... decay | Table 1 | far above 1
    ...     weight decay spoils it:
    ...     factor on the test loss
    ... ''')
    >>> chapter.judge("decay", 8.01, True)
    >>> [(claim.id, claim.statement, claim.measured) for claim in chapter.claims]  # doctest: +ELLIPSIS
    [('ood', ..., '0.182 (n = 5)'), ('decay', '...: factor on the test loss', '8.01 (n = 5)')]
    """

    def __init__(self, name, profile="quick", **shared):
        if not isinstance(name, str) or not re.fullmatch(r"\d\d_[a-z0-9_]+", name):
            raise ValueError(
                f"chapter {name!r}: expected the notebook's name without .ipynb, like '01_long_tail'"
            )
        if profile not in SCALES:
            raise ValueError(f"profile must be one of {', '.join(SCALES)}; got {profile!r}")
        self.name, self.profile, self.claims = name, profile, []
        self.shared, self.stated = {"scale": profile, **shared}, {}

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
        self.claims.append(Claim(id, source, statement, **{**self.shared, **more}))

    def state(self, text):
        """State claims in words, to be judged by `judge` once they are measured.

        Parameters
        ----------
        text : str
            For each claim a line ``id | source | the paper's value``, and indented below it the statement.

        Raises
        ------
        ValueError
            If a claim's first line has not these three parts, or its id was stated before.
        """
        for block in re.split(r"\n(?=\S)", text.strip()):
            head, *statement = block.split("\n")
            parts = [part.strip() for part in head.split("|")]
            if len(parts) != 3:
                raise ValueError(
                    f"chapter {self.name!r}: a stated claim begins with 'id | source | paper'; got {head!r}"
                )
            if parts[0] in self.stated:
                raise ValueError(f"chapter {self.name!r}: claim {parts[0]!r} is stated twice")
            words = " ".join(" ".join(statement).split())
            self.stated[parts[0]] = {"source": parts[1], "statement": words, "paper": parts[2]}

    def judge(self, id, value, decided, **more):
        """Add a claim that was stated, with the value measured for it.

        Parameters
        ----------
        id : str
        value, **more
            See `Claim`.
        decided : bool or None
            As in `add`.

        Raises
        ------
        ValueError
            If no such claim was stated.
        """
        if id not in self.stated:
            raise ValueError(
                f"chapter {self.name!r} states no claim {id!r}; stated: {', '.join(self.stated)}"
            )
        self.add(id, value=value, decided=decided, **{**self.stated[id], **more})

    def report(self):
        """Check the claims together, and store them if the profile is not ``"quick"``.

        Raises
        ------
        ValueError
            If a claim was stated and not judged, or there is none.
        """
        if left := [id for id in self.stated if id not in {claim.id for claim in self.claims}]:
            raise ValueError(f"chapter {self.name!r} states and does not judge: {', '.join(left)}")
        if not self.claims:
            raise ValueError(f"chapter {self.name!r} reports no claim; every chapter ends with at least one")
        for claim in self.claims:
            if not isinstance(claim, Claim):
                raise TypeError(f"chapter {self.name!r}: expected Claim objects; got {claim!r}")
        ids = [claim.id for claim in self.claims]
        twice = sorted({i for i in ids if ids.count(i) > 1})
        if twice:
            raise ValueError(f"chapter {self.name!r}: claim ids must be unique; twice: {', '.join(twice)}")
        if self.profile != "quick":
            folder = records.results_root() / self.profile / "claims"
            folder.mkdir(parents=True, exist_ok=True)
            content = {"chapter": self.name, "profile": self.profile, "claims": self.as_data()}
            content["provenance"] = records.provenance()
            text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
            records.write_atomically(folder / f"{self.name}.json", text)
        return self

    def as_data(self):
        """Return the claims as a list of dicts, ready for JSON, numbers rounded as they are shown.

        Returns
        -------
        list of dict
            The fields of each `Claim` (``standard_error`` where it has one), plus ``chapter``, ``profile``,
            ``verdict``, ``measured`` and ``published`` (the last three as shown).
        """
        found = []
        for claim in self.claims:
            values = {name: _rounded(value) for name, value in asdict(claim).items()}
            for name in ("standard_error", "same_as"):
                if values[name] is None:
                    del values[name]
            shown = {name: getattr(claim, name) for name in ("verdict", "measured", "published")}
            found.append({"chapter": self.name, "profile": self.profile, **values, **shown})
        return found

    @property
    def _common(self):
        """str: the scale that a line need not name, since all have it, or since it is that of the page."""
        scales = {claim.scale for claim in self.claims if claim.value is not None}
        return scales.pop() if len(scales) == 1 else self.profile

    @property
    def _all_at(self):
        return "" if self._common == self.profile else f", all at {self._common} scale"

    def __repr__(self):
        lines = [f"Claims of chapter {self.name} ({self.profile} profile{self._all_at})"]
        for claim in self.claims:
            lines += [
                "",
                f"[{claim.verdict}] {claim.id} ({claim.source})",
                *textwrap.wrap(claim.statement, 100, initial_indent="  ", subsequent_indent="  "),
                f"  paper: {claim.published}   ours: {claim.measured_on(self._common)}",
            ]
        return "\n".join(lines)

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/plain": repr(self), "text/html": self._html()}, {"memcomp_claims": self.as_data()}

    def _html(self):
        rows = []
        for claim in self.claims:
            mark = MARKS[claim.verdict]
            rows.append(
                f'<tr id="claim-{self.name}-{claim.id}" class="{mark}">'
                f'<th scope="row"><span class="statement">{typeset(claim.statement)}</span> '
                f'<span class="source">{typeset(claim.source)}</span></th>'
                f'<td data-label="Paper">{typeset(_unbroken(claim.published))}</td>'
                f'<td data-label="Ours">{typeset(_unbroken(claim.measured_on(self._common)))}</td>'
                f'<td data-label="Verdict"><span class="verdict {mark}">{claim.verdict}</span></td></tr>'
            )
        errors = any(claim.standard_error is not None for claim in self.claims)
        exception = ", or the standard error where it says so" if errors else ""
        head = "".join(f'<th scope="col">{name}</th>' for name in ("Claim", "Paper", "Ours", "Verdict"))
        return (
            '<table class="memcomp-claims">'
            f"<caption>Claims of this chapter, {self.profile} profile{self._all_at}. "
            f"± is one standard deviation over n runs{exception}.</caption>\n"
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table>"
        )


def across(networks, profile, stored, recipes, free):
    """Join the networks of a page with those of the same experiment that are stored at larger scales.

    Parameters
    ----------
    networks : pandas.DataFrame
        From :func:`memcomp.records.frame`: those of the page.
    profile : str
        Their scale, one of `SCALES`.
    stored : dict of str to list of dict
        All records of the experiment, by scale. Those of ``profile`` are not looked at.
    recipes : dict of str to dataclass instance or dict
        By scale, a config of which the networks differ only in ``free`` and in their seed.
    free : sequence of str
        Entries of the config, ``"epochs"`` among them.

    Returns
    -------
    pandas.DataFrame
        A row for each network, without the metric ``along``, with the column ``scale``: the scale, and after
        a comma the epochs, for those of one scale may differ in them. It is a categorical from small to
        large, and for `largest` it is a scale as good as another.
    """
    parts = [networks.assign(scale=profile)]
    for scale, records_there in stored.items():
        if scale != profile and records_there:
            table = records.frame(records_there, without=["along"])
            parts.append(records.like(table, recipes[scale], free=free).assign(scale=scale))
    found = pd.concat(parts)
    number = found.scale.map(SCALES.index)
    found["scale"] = found.scale + ", " + found.epochs.astype(str) + " epochs"
    order = found.scale.iloc[np.lexsort([found.epochs, number])].unique()
    return found.assign(scale=pd.Categorical(found.scale, order))


def largest(networks, by, lines):
    """Return the largest scale at which some lines of a table have enough draws to be judged.

    Parameters
    ----------
    networks : pandas.DataFrame
        A row for each network, with the columns ``seed``, ``scale``, a categorical from small to large, and
        those of ``by``; for example from `across`.
    by : list of str
        Columns that tell the lines apart.
    lines : list of tuple
        Values of these columns, one tuple for each line.

    Returns
    -------
    scale : str
        If no scale has ``memcomp.stats.FEWEST`` seeds that all lines share, the one with most of them, and
        among equals the largest.
    networks : pandas.DataFrame
        Those of the lines at this scale, of the seeds that all lines share, in the order of the lines.

    Raises
    ------
    ValueError
        If no scale has a network on each of the lines, with one seed.
    """
    found = {}
    for scale, there in networks.groupby("scale", observed=True):
        parts = dict([*there.groupby(by, observed=True)])
        seeds = [set(parts[line].seed) if line in parts else set() for line in lines]
        if shared := set.intersection(*seeds):
            chosen = [parts[line][parts[line].seed.isin(shared)].sort_values("seed") for line in lines]
            found[scale] = min(len(shared), stats.FEWEST), pd.concat(chosen)
    if not found:
        raise ValueError(f"no scale has networks of one seed for each of {', '.join(map(str, lines))}")
    scale = max(reversed(found), key=lambda name: found[name][0])
    return scale, found[scale][1]


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
    Chapter
        Displayed as a table, with the metadata ``{"memcomp_claims": [...]}``.

    Raises
    ------
    ValueError
        For a malformed chapter name or profile, no claim, or an id used twice.
    TypeError
        If an element is not a `Claim`.
    """
    collected = Chapter(chapter, profile)
    collected.claims += claims
    return collected.report()
