"""The parts of the book that Sphinx does not bring along.

- MathJax out of a Python package instead of from another server.
- ``memcomp-scorecard``: all claims of all chapters in one table; ``memcomp-findings``: some, as sentences.
- ``memcomp-status``: what the pages were made with.
- ``memcomp-figure``: a picture that a chapter drew, on another page.
- The page of the package: a list of its names under each module's docstring.
- The table of the theory's statements: where each stands in the book and what its check found.
- Numbers of figures and theorems that follow the notebooks' names: chapter 06 holds Figure 6.1.
- A search that finds decimal numbers and the words of tables.

The directives read the chapters' outputs and the records, which Sphinx does not watch: a build starts afresh.
"""

import base64
import hashlib
import html
import importlib.metadata
import importlib.util
import json
import os
import re
from pathlib import Path
from typing import ClassVar

import nbformat
import pandas as pd
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.directives.patches import Figure
from sphinx.pycode import ModuleAnalyzer
from sphinx.search.en import SearchEnglish
from sphinx.util.docutils import SphinxDirective

from memcomp import stats
from memcomp.claims import MARKS, SCALES
from memcomp.tables import Table, typeset
from memcomp.theory import statements

CHAPTER = re.compile(r"notebooks/(\d\d)_\w+$")
FIRST_OF_NETWORKS = "07"  # chapters before it are exact or have as many draws as they want
RENDERERS = ("jupyter-book", "sphinx", "myst-nb", "sphinx-book-theme")


def setup(app):
    """Register everything with Sphinx."""
    app.add_config_value("comments_config", {}, "")  # Jupyter Book sets it; sphinx_comments is left out
    app.set_html_assets_policy("always")  # else no MathJax where only a table holds formulas
    app.add_directive("memcomp-scorecard", Scorecard)
    app.add_directive("memcomp-findings", Findings)
    app.add_directive("memcomp-status", Status)
    app.add_directive("memcomp-figure", ChapterFigure)
    app.connect("config-inited", use_local_mathjax)
    app.connect("autodoc-process-docstring", list_names)
    app.connect("source-read", list_statements)
    app.connect("autodoc-process-docstring", keep_bars)
    app.add_search_language(NumbersAndEnglish)
    app.connect("doctree-read", mend_ids)
    app.connect("doctree-read", part_cells)
    app.connect("env-get-updated", number_by_chapter, priority=900)  # after Sphinx has numbered
    app.connect("html-page-context", drop_second_ids)
    return {"version": "1", "parallel_read_safe": True}


def use_local_mathjax(app, config):
    """Copy MathJax into the book and let the pages load that copy: one file, which also works unserved."""
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    if package is None:
        raise RuntimeError("the package sphinx-mathjax-offline is missing; `make book` installs it")
    script = Path(package.origin).parent / "static" / "mathjax" / "tex-svg-full.js"
    config.html_static_path.append(str(script))
    config.mathjax_path = script.name


# --- what the pages show of the chapters -----------------------------------------------------------------


def chapters(env):
    """Return the book's notebooks, read, by their document names, in order."""
    names = sorted(name for name in env.found_docs if CHAPTER.match(name))
    return {name: nbformat.read(env.doc2path(name), as_version=4) for name in names}


def chapter_title(notebook):
    """Return a chapter's title from its source: its page may not have been read yet."""
    return re.search(r"^# (.+)$", notebook.cells[0].source, flags=re.MULTILINE).group(1).strip()


def results_folder(env):
    """Return the folder of records of the checkout; the sources may be a copy inside its _build."""
    if "MEMCOMP_RESULTS" in os.environ:
        return Path(os.environ["MEMCOMP_RESULTS"])
    for folder in (Path(env.srcdir), *Path(env.srcdir).parents):
        if (folder / "pyproject.toml").exists():
            return folder / "results"
    raise RuntimeError(f"no pyproject.toml above {env.srcdir}: cannot find the results folder")


def claims_on_page(notebook):
    """Return the claims that a notebook's outputs carry."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return [claim for output in outputs for claim in output.get("metadata", {}).get("memcomp_claims", [])]


def stored_claims(env):
    """Return (document name, content) of each file of claims that a larger profile left."""
    paths = sorted(results_folder(env).glob("*/claims/*.json"))
    found = [(f"notebooks/{path.stem}", path) for path in paths]
    return [(name, json.loads(path.read_text("utf-8"))) for name, path in found if name in env.found_docs]


class Scorecard(SphinxDirective):
    """Every claim of every chapter, what was measured at quick scale beside what was measured at the paper's.

    A chapter that is cheap enough measures at the paper's scale with its quick profile already.

    With ``:sources:`` or ``:chapters:``, texts and numbers separated by commas, only the claims whose source
    holds one of the texts, or whose chapter is one of those.
    """

    option_spec: ClassVar = {"sources": directives.unchanged, "chapters": directives.unchanged}

    def run(self):
        """Gather the claims, count the verdicts, write the table."""
        claims = self.gather()
        if not claims:
            return [nodes.paragraph("", "No chapter has reported such a claim yet.")]
        every = pd.DataFrame(claims)
        every["anchor"] = "claim-" + every["chapter"] + "-" + every["id"]
        first = every.drop_duplicates("anchor").sort_values("docname", kind="stable").set_index("anchor")
        latest = every.drop_duplicates(["anchor", "scale"], keep="last").set_index(["anchor", "scale"])
        scales = [scale for scale in SCALES if scale in set(every["scale"])]
        verdicts = latest["verdict"].unstack().reindex(index=first.index, columns=scales)
        elsewhere = verdicts.isna() & False
        if {"quick", "paper"} <= set(scales):  # the page itself measured at the paper's scale
            elsewhere["quick"] = verdicts["quick"].isna() & verdicts["paper"].notna()
        verdicts = verdicts.fillna("not run").mask(elsewhere, "")
        measured = latest["measured"].unstack().reindex_like(verdicts).fillna("")
        parts = [counts(first, verdicts), self.table(first, measured, verdicts)]
        if not self.options:
            parts = [self.glance(first, verdicts), parts[0], by_chance(latest), filters(first), parts[1]]
        return [nodes.raw("", f'<div class="memcomp-card">{"".join(parts)}</div>', format="html")]

    def gather(self):
        """Return the claims that the options ask for, without options all: those on the pages come first."""
        sources, numbers = (
            [part.strip() for part in self.options.get(name, "").split(",") if part.strip()]
            for name in ("sources", "chapters")
        )
        if not all(re.fullmatch(r"\d\d", number) for number in numbers):
            raise self.error(f"memcomp-scorecard: chapters are numbers of two digits, got {numbers}")
        self.titles, found = {}, []
        for name, notebook in chapters(self.env).items():
            self.titles[name] = html.escape(chapter_title(notebook))
            found += [claim | {"docname": name, "on_page": True} for claim in claims_on_page(notebook)]
        for name, stored in stored_claims(self.env):
            found += [claim | {"docname": name, "on_page": False} for claim in stored["claims"]]
        return [
            claim | {"same_as": claim.get("same_as"), "number": claim["chapter"][:2]}
            for claim in found
            if not self.options
            or claim["chapter"][:2] in numbers
            or any(source in claim["source"] for source in sources)
        ]

    def glance(self, claims, verdicts):
        """Return all claims as one mark each, by chapter and scale: linked, and named for screen readers."""

        def mark(anchor, verdict):
            if verdict not in MARKS:
                return ""
            name = f"{claims.at[anchor, 'id']}: {verdict}"
            return (
                f'<a class="mark {MARKS[verdict]}" href="#{anchor}" title="{name}" aria-label="{name}"></a>'
            )

        marks = pd.DataFrame(
            {f"{scale} scale": [mark(*item) for item in verdicts[scale].items()] for scale in verdicts},
            index=verdicts.index,
        )
        rows = marks.groupby(claims["docname"]).agg("".join).rename(index=self.titles)
        table = rows.rename_axis(None).style.set_caption("Every claim as one mark, by chapter and scale.")
        legend = " ".join(f'<span><i class="mark {mark}"></i> {name}</span>' for name, mark in MARKS.items())
        markup = table.to_html(doctype_html=False, exclude_styles=True)
        return f'<p class="memcomp-legend">{legend}</p><div class="memcomp-glance">{markup}</div>'

    def table(self, claims, measured, verdicts):
        """Return the table of claims, one group of rows per chapter."""
        parts = []
        for docname, group in claims.groupby("docname"):
            page = self.env.app.builder.get_relative_uri(self.env.docname, docname)
            parts.append(
                f'<tbody><tr class="chapter"><th colspan="{2 + len(verdicts.columns)}" scope="rowgroup">'
                f'<a href="{page}">{self.titles[docname]}</a></th></tr>'
            )
            for anchor, claim in group.iterrows():
                cells = "".join(
                    f'<td data-label="Ours, {scale} scale">{typeset(measured.at[anchor, scale])} '
                    + (
                        f'<span class="verdict {MARKS.get(name, "untested")}">{name}</span></td>'
                        if name
                        else '<span class="elsewhere">at paper scale</span></td>'
                    )
                    for scale, name in verdicts.loc[anchor].items()
                )
                marks = {f"v-{MARKS[name]}" for name in verdicts.loc[anchor] if name in MARKS}
                marks |= {"claim", f"c{claim['number']}", origin(claim["source"])}
                marks |= {"again"} if pd.notna(claim["same_as"]) else set()
                target = f"{page}#{anchor}" if claim["on_page"] else page
                parts.append(
                    f'<tr id="{anchor}" class="{" ".join(sorted(marks))}"><th scope="row">'
                    f'<span class="statement">{typeset(claim["statement"])}</span> '
                    f'<a class="source" href="{target}">{typeset(claim["source"])}</a></th>'
                    f'<td data-label="Paper">{typeset(claim["published"])}</td>{cells}</tr>'
                )
            parts.append("</tbody>")
        names = ["Claim", "Paper", *(f"Ours, {scale} scale" for scale in verdicts)]
        head = "".join(f'<th scope="col">{name}</th>' for name in names)
        return (
            '<table class="memcomp-claims memcomp-scorecard"><caption>Claims, their published values, our '
            "values and verdicts. ± is one standard deviation over n runs, if it says nothing else.</caption>"
            f"<thead><tr>{head}</tr></thead>{''.join(parts)}</table>"
        )


def counts(claims, verdicts):
    """Return the verdicts counted, per scale; a claim that another chapter tells again counts once."""
    once = verdicts[claims["same_as"].isna()]
    names = [*MARKS, "not run"]
    table = pd.DataFrame({f"{scale} scale": once[scale].value_counts() for scale in once})
    caption = "Verdicts, counted."
    if again := len(verdicts) - len(once):
        caption += f" {again} claims that repeat another chapter's count once."
    return f'<div class="memcomp-counts">{shown(table.reindex(names).fillna(0).astype(int), caption)}</div>'


def by_chance(claims):
    """Say how many of the verdicts on networks one would expect by chance alone."""
    networks = claims["chapter"].str[:2] >= FIRST_OF_NETWORKS
    decided = claims[networks & claims["verdict"].isin(["holds", "fails"]) & (claims["n"] >= stats.FEWEST)]
    expected = stats.by_chance(decided["n"]).sum()
    return (
        '<p class="memcomp-chance">Many verdicts are many chances to be wrong. From chapter '
        f"{int(FIRST_OF_NETWORKS)} on, {len(decided)} of the verdicts above are <em>holds</em> or "
        "<em>fails</em> and rest on three or more independent draws. If there were nothing to be found "
        f"behind any of them, a rule of {stats.ERRORS} standard errors would still decide about "
        f"{expected:.1f} of so "
        "many comparisons, by Student's distribution with n − 1 degrees of freedom; claims that share their "
        "networks can be wrong together.</p>"
    )


def filters(claims):
    """Return buttons that leave only some rows of the scorecard; they need no script."""
    chosen = {
        "chapter": {f"c{number}": number for number in sorted(set(claims["number"]))},
        "verdict": {f"v-{mark}": name for name, mark in MARKS.items()},
        "source": {"s-paper": "the paper", "s-book": "this book"},
    }
    parts, rules = [], []
    for group, options in chosen.items():
        buttons = [f'<label><input type="radio" name="{group}" checked> all</label>']
        for mark, name in options.items():
            buttons.append(f'<label><input type="radio" name="{group}" id="only-{mark}"> {name}</label>')
            rules.append(f".memcomp-card:has(#only-{mark}:checked) tr.claim:not(.{mark}){{display:none}}")
        parts.append(f"<fieldset><legend>{group}</legend>{''.join(buttons)}</fieldset>")
    return f'<style>{"".join(rules)}</style><form class="memcomp-filter">{"".join(parts)}</form>'


def origin(source):
    """Return the style of a claim by where it is made: in the paper or first in this book."""
    return "s-book" if any(word in source for word in ("this book", "beyond")) else "s-paper"


def shown(frame, caption):
    """Return a data frame as HTML, in the form of the chapters' tables."""
    return Table(frame, caption)._repr_mimebundle_()["text/html"]


class Findings(SphinxDirective):
    """A numbered list of results, each with the number that its chapter measured and a link to the claim.

    A line of its content is ``CHAPTER/ID: sentence``.
    """

    has_content = True

    def run(self):
        """Look up each claim in its chapter's outputs."""
        claims = [claim for notebook in chapters(self.env).values() for claim in claims_on_page(notebook)]
        by_place = {f"{claim['chapter']}/{claim['id']}": claim for claim in claims}
        found = nodes.enumerated_list()
        for line in filter(None, map(str.strip, self.content)):
            place, _, text = line.partition(": ")
            if place not in by_place:
                raise self.error(f"memcomp-findings: no chapter reports the claim {place}")
            claim, (chapter, identity) = by_place[place], place.split("/")
            page = self.env.app.builder.get_relative_uri(self.env.docname, f"notebooks/{chapter}")
            target = f"{page}#claim-{chapter}-{identity}"
            link = nodes.reference("", f"chapter {int(chapter[:2])}", internal=True, refuri=target)
            value = nodes.strong("", claim["measured"])
            tail = nodes.Text(f", {claim['verdict']}; {claim['scale']} scale, ")
            found += nodes.list_item("", nodes.paragraph("", f"{text} ", value, tail, link))
        return [found]


class Status(SphinxDirective):
    """What the pages were made with: versions, device, execution times, records, data."""

    def run(self):
        """Write one table per question."""
        tables = [*self.execution(), *self.records(), *self.claims(), self.rendering()]
        return [nodes.raw("", one, format="html") for one in tables]

    def execution(self):
        """When, how long and by what each chapter was executed: not always by what renders the pages."""
        path = Path(self.env.srcdir) / "execution.json"
        if not path.exists():
            return ["<p>Rendered from the outputs that the notebooks store; nothing was executed.</p>"]
        executed = json.loads(path.read_text(encoding="utf-8"))["notebooks"]
        runs = pd.DataFrame(executed).T.drop(columns="by")
        runs = runs.rename(index={name: chapter_title(book) for name, book in chapters(self.env).items()})
        runs.loc["All"] = {"seconds": runs["seconds"].sum(), "created": None}
        runs["seconds"] = runs["seconds"].map("{:.1f} s".format)
        runs["created"] = [minute(moment) for moment in runs["created"]]
        runs.columns = ["Execution time", "Executed (UTC)"]
        by = pd.DataFrame({name: run["by"] for name, run in executed.items()})
        found = by.apply(lambda row: ", ".join(sorted(set(row.dropna()))), axis=1)
        caption = "Device and versions that executed the chapters."
        return [
            shown(runs, "Execution of the chapters."),
            shown(found.to_frame("Version").loc[list(by.index)], caption),
        ]

    def records(self):
        """How many stored records there are, from when and from which devices and data."""
        rows = []
        for path in sorted(results_folder(self.env).glob("*/*/*.json")):
            if path.parent.name == "claims":
                continue
            record = json.loads(path.read_text(encoding="utf-8"))
            origin, data = record["provenance"], record.get("data") or {}
            rows.append(
                {
                    "Profile": path.parts[-3],
                    "Experiment": path.parts[-2],
                    "day": origin["created"][:10],
                    "device": origin["device"],
                    "source": data.get("source"),
                    "sha256": data.get("sha256"),
                }
            )
        if not rows:
            return ["<p>No records are stored: every number was computed during execution.</p>"]
        every = pd.DataFrame(rows)
        groups = every.groupby(["Profile", "Experiment"])
        table = pd.DataFrame(
            {
                "Records": groups.size(),
                "Computed": groups["day"].agg(lambda days: " to ".join(sorted({days.min(), days.max()}))),
                "Device": groups["device"].agg(lambda devices: ", ".join(sorted(set(devices)))),
            }
        )
        tables = [shown(table.reset_index(), "Stored records.")]
        sums = every.groupby("source")["sha256"].agg(
            lambda sums: (
                f"{sums.iloc[0][:16]}…" if sums.nunique() == 1 else f"{sums.nunique()} different ones"
            )
        )
        if len(sums):
            named = sums.rename("SHA-256").rename_axis("Data set").reset_index()
            tables.append(shown(named, "Data behind the records."))
        return tables

    def claims(self):
        """When the claims at larger scales were stored, and by which code."""
        titles = {name: chapter_title(notebook) for name, notebook in chapters(self.env).items()}
        rows = []
        for name, stored in stored_claims(self.env):
            origin = stored["provenance"]
            commit = (origin["commit"] or "unknown")[:10] + (", changed" if origin["dirty"] else "")
            rows.append((titles[name], stored["profile"], minute(origin["created"]), commit))
        table = pd.DataFrame(rows, columns=["Chapter", "Profile", "Stored (UTC)", "Commit"])
        return [shown(table, "Stored claims.")] if rows else []

    def rendering(self):
        """Versions of what renders the pages now."""
        rows = {name: importlib.metadata.version(name) for name in RENDERERS}
        return shown(pd.DataFrame({"Version": rows}), "Versions that rendered the pages.")


def minute(moment):
    """Return a moment of ISO 8601 to the minute; nothing for none."""
    return (moment or "")[:16].replace("T", " ")


class ChapterFigure(Figure):
    """Show a picture that a chapter drew.

    ``{memcomp-figure} notebooks/06_linear fig-name`` with the caption as its content. ``:alt:`` is the text
    for those who cannot see it; without it, the chapter's own is taken.
    """

    required_arguments = 2

    def run(self):
        """Take the picture out of the executed notebook and store it beside those of the notebooks."""
        env, (docname, wanted) = self.state.document.settings.env, self.arguments
        if docname not in env.found_docs:
            raise self.error(f"memcomp-figure: there is no notebook {docname}")
        for cell in nbformat.read(env.doc2path(docname), as_version=4).cells:
            settings = cell.metadata.get("mystnb", {})
            if settings.get("figure", {}).get("name") != wanted:
                continue
            for output in cell.get("outputs", []):
                if "image/png" in output.get("data", {}):
                    data = base64.b64decode(output.data["image/png"])
                    file = (
                        Path(env.app.outdir).parent
                        / f"jupyter_execute/{hashlib.sha256(data).hexdigest()}.png"
                    )
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(data)
                    self.arguments = [os.path.relpath(file, Path(env.doc2path(env.docname)).parent)]
                    self.options = {"alt": settings["image"]["alt"], "width": "100%"} | self.options
                    return super().run()
        raise self.error(f"memcomp-figure: no executed cell of {docname} has the figure {wanted}")


# --- the page of the package -----------------------------------------------------------------------------


def list_names(app, what, name, obj, options, lines):
    """Put a summary of the public names, in the order of the file, under a module's docstring."""
    if what != "module":
        return
    constants = {constant for _, constant in ModuleAnalyzer.for_module(name).find_attr_docs()}
    own = [
        one
        for one, value in vars(obj).items()
        if getattr(value, "__module__", None) == name or one in constants
    ]
    public = [f"   {one}" for one in own if not one.startswith("_")]
    lines += [".. autosummary::", "", *public, ""] if public else []


def keep_bars(app, what, name, obj, options, lines):
    """Let |x| in a docstring mean an absolute value; reStructuredText takes it for a substitution."""
    for number, line in enumerate(lines):
        if "|" in line and not line.lstrip().startswith((">>>", "...", "|", "+")):
            parts = re.split(r"(``.*?``|`[^`]*`)", line)
            lines[number] = "".join(
                part if part.startswith("`") else re.sub(r"(?<!\\)\|", r"\|", part) for part in parts
            )


# --- the page of the statements --------------------------------------------------------------------------


def list_statements(app, docname, source):
    """Write the rows of the table of statements."""
    marker = "% statements of the theory\n"
    if marker in source[0]:
        found = {
            (claim["chapter"], claim["id"]): claim
            for notebook in chapters(app.env).values()
            for claim in claims_on_page(notebook)
        }
        source[0] = source[0].replace(marker, statement_rows(found))


def statement_rows(found):
    """Return a row of a list-table for each statement of the theory: where and what it is, what was found.

    `found` holds the chapters' claims by chapter and id.
    """
    rows = []
    for chapter, part in statements.CHAPTERS.items():
        for one in part:
            claim = found[chapter, one.id]
            at_scale = f" *At the paper's scale:* {one.at_scale}." if one.at_scale else ""
            rows.append(
                f"* - {{prf:ref}}`{one.source} <{one.label}>`\n"
                f"  - {one.says}\n\n    *Condition:* {one.condition}. *Wording:* {one.wording}.{at_scale}\n"
                f"  - **{claim['verdict']}**: {claim['measured']}\n\n"
                f"    [Chapter {int(chapter[:2])}](../../notebooks/{chapter}.ipynb)\n"
            )
    return "".join(rows)


# --- search ----------------------------------------------------------------------------------------------


class NumbersAndEnglish(SearchEnglish):
    """English with 0.176 and 300,000 as words, also when they are searched for."""

    word = r"\d+(?:[.,]\d+)+|\w+"
    js_splitter_code = r"""
function splitQuery(query) {
  return query.match(/\p{Nd}+(?:[.,]\p{Nd}+)+|[\p{Letter}\p{Number}_]+/gu) || [];
}
"""

    def split(self, input):
        """Return the words of a text."""
        return re.findall(self.word, html.unescape(input))


def part_cells(app, doctree):
    """Put a line's end between the cells of tables: without its tags, a table would be one word."""
    for node in doctree.findall(nodes.raw):
        node[0] = nodes.Text(re.sub(r"(</(?:td|th|tr|caption|span|a|p|div)>)", r"\1\n", node.astext()))


# --- identities and numbers ------------------------------------------------------------------------------


def mend_ids(app, doctree):
    """Give every place an identity of its own, and leave the search only those that it can look up.

    sphinx-proof gives all proofs the same two. Sphinx's search takes the identities of index entries, and the
    first one of a title, for selectors, where the dots of a Python name would begin the names of classes. The
    book has no index, and the search knows the Python names without it.
    """
    for entry in list(doctree.findall(addnodes.index)):
        entry.parent.remove(entry)
    for node in doctree.findall(nodes.Element):
        own = [
            f"{one}-{app.env.new_serialno('proof')}" if one in ("proof", "proof-content") else one
            for one in node["ids"]
        ]
        node["ids"] = sorted(own, key=lambda one: "." in one)


def drop_second_ids(app, pagename, templatename, context, doctree):
    """Take off the titles of unnumbered theorems the identity that their boxes carry already."""
    if "body" in context:
        title = '<p class="admonition-title"'
        context["body"] = re.sub(f'{title} id="[^"]*">', f"{title}>", context["body"])


def number_by_chapter(app, env):
    """Count figures, tables and theorems within their chapter, where Sphinx would count through the book."""
    for docname, kinds in env.toc_fignumbers.items():
        match = CHAPTER.match(docname)
        for kind, numbers in kinds.items():
            for count, name in enumerate(sorted(numbers, key=numbers.get), start=1):
                if match:
                    numbers[name] = (int(match.group(1)), count)
                elif kind == "figure":  # else the front page would hold "Figure 1", which is the paper's
                    numbers[name] = (0, numbers[name][-1])
    return []
