"""The parts of the book that Sphinx does not bring along.

- MathJax out of a Python package instead of from another server.
- ``memcomp-scorecard``: all claims of all chapters in one table.
- ``memcomp-status``: what the pages were made with.
- ``memcomp-figure``: a picture that a chapter drew, on another page.
- ``memcomp-chapters``: the chapters of a part that exist, with a line about each.
- The page of the package: every module, function and class, from the docstrings.
- Numbers of figures and theorems that follow the notebooks' names: chapter 06 holds Figure 6.1.
- Pages that no longer exist disappear from the output.
"""

import ast
import base64
import hashlib
import html
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import ClassVar

import nbformat
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from memcomp.claims import MARKS, SCALES
from memcomp.tables import typeset

logger = logging.getLogger(__name__)

CHAPTER = re.compile(r"notebooks/(\d\d)_\w+$")
VERDICTS = tuple(MARKS)
PACKAGES = ("numpy", "scipy", "matplotlib", "torch", "torchvision", "mlxtend", "jupyter-book", "sphinx")


def setup(app):
    """Register everything with Sphinx."""
    app.add_config_value("comments_config", {}, "")  # Jupyter Book sets it; sphinx_comments is left out
    app.add_directive("memcomp-scorecard", Scorecard)
    app.add_directive("memcomp-findings", Findings)
    app.add_directive("memcomp-status", Status)
    app.add_directive("memcomp-figure", ChapterFigure)
    app.add_directive("memcomp-chapters", Chapters)
    app.connect("config-inited", use_local_mathjax)
    app.connect("env-get-outdated", pages_with_other_sources)
    app.connect("source-read", list_modules)
    app.connect("autodoc-process-docstring", keep_bars)
    app.connect("doctree-read", number_chapter, priority=100)  # before Sphinx takes down the titles
    app.connect("doctree-read", tell_proofs_apart)
    app.connect("env-get-updated", number_by_chapter, priority=900)  # after Sphinx has numbered
    app.connect("env-before-read-docs", note_changes)
    app.connect("env-updated", write_every_page)
    app.connect("html-page-context", load_mathjax, priority=100)  # before Sphinx decides
    app.connect("html-page-context", drop_second_ids)
    app.connect("build-finished", remove_leftovers)
    # A changed extension or style sheet makes every page anew.
    sources = [Path(__file__), *sorted((Path(__file__).parents[1] / "_static").glob("*"))]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources))
    return {"version": "1", "env_version": int(digest.hexdigest()[:12], 16), "parallel_read_safe": True}


# --- MathJax ---------------------------------------------------------------------------------------------


def use_local_mathjax(app, config):
    """Copy MathJax into the book and let the pages load that copy."""
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    if package is None:
        raise RuntimeError("the package sphinx-mathjax-offline is missing; `make book` installs it")
    script = Path(package.origin).parent / "static" / "mathjax" / "tex-svg-full.js"
    config.html_static_path.append(str(script))
    config.mathjax_path = script.name


# --- what the pages show of the chapters -----------------------------------------------------------------


def chapters(env):
    """Return the book's notebooks as (document name, path), in order."""
    found = sorted(name for name in env.found_docs if CHAPTER.match(name))
    paths = [(name, Path(env.doc2path(name))) for name in found]
    return [(name, path) for name, path in paths if path.suffix == ".ipynb"]


def repository(env):
    """Return the checkout that the pages belong to: the sources may be a copy inside its _build."""
    for folder in (Path(env.srcdir), *Path(env.srcdir).parents):
        if (folder / "pyproject.toml").exists():
            return folder
    raise RuntimeError(f"no pyproject.toml above {env.srcdir}: cannot find the results folder")


def results_folder(env):
    """Return the folder of records."""
    return Path(os.environ.get("MEMCOMP_RESULTS") or repository(env) / "results")


def source_state(env):
    """Hash everything that the scorecard, the status page and the pictures are made from."""
    paths = [path for _, path in chapters(env)]
    paths += sorted(results_folder(env).glob("*/*/*.json"))
    paths += [Path(env.srcdir) / "execution.json"]
    digest = hashlib.sha256(" ".join(modules(env)).encode())
    for path in paths:
        if path.exists():
            digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def pages_with_other_sources(app, env, added, changed, removed):
    """Have the pages read again whose directives read files that have changed."""
    app.memcomp_removed = bool(removed)
    state = source_state(env)
    stale = getattr(env, "memcomp_state", None) != state
    env.memcomp_state = state
    return sorted(getattr(env, "memcomp_pages", set())) if stale else []


class BookDirective(SphinxDirective):
    """A directive whose page depends on the chapters' outputs and on the records."""

    def run(self):
        """Remember the page, then build its nodes."""
        if not hasattr(self.env, "memcomp_pages"):
            self.env.memcomp_pages = set()
        self.env.memcomp_pages.add(self.env.docname)
        return self.build()

    def table(self, title, header, rows, classes=()):
        """Return a table node; a cell is a text or a list of inline nodes."""
        table = nodes.table(classes=["memcomp-table", *classes])
        if title:
            table += nodes.title("", title)
        group = nodes.tgroup(cols=len(header))
        table += group
        for _ in header:
            group += nodes.colspec(colwidth=1)
        for section, lines in ((nodes.thead(), [header]), (nodes.tbody(), rows)):
            group += section
            for line in lines:
                row = nodes.row()
                section += row
                for cell in line:
                    content = [nodes.Text(cell)] if isinstance(cell, str) else cell
                    row += nodes.entry("", nodes.paragraph("", "", *content))
        return table

    def link(self, docname, text=None, fragment=""):
        """Return a link to a page of the book."""
        here = self.env.app.builder.get_relative_uri(self.env.docname, docname)
        title = text or chapter_title(self.env, docname)
        return nodes.reference("", title, internal=True, refuri=here + fragment)


def chapter_title(env, docname):
    """Return a chapter's title, from its source: its page may not have been read yet."""
    notebook = nbformat.read(env.doc2path(docname), as_version=4)
    title = re.search(r"^# (.+)$", notebook.cells[0].source, flags=re.MULTILINE).group(1).strip()
    return numbered(docname, title)


def numbered(docname, title):
    """Put the chapter's number before its title, unless its author did."""
    return title if title[:1].isdigit() else f"{int(CHAPTER.match(docname).group(1))}. {title}"


def claims_of(path):
    """Return the claims that a notebook's outputs carry."""
    notebook = nbformat.read(path, as_version=4)
    return [
        claim
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        for claim in output.get("metadata", {}).get("memcomp_claims", [])
    ]


class Scorecard(BookDirective):
    """Every claim of every chapter, what was measured at quick scale beside what was measured at the paper's.

    A chapter that is cheap enough measures at the paper's scale with its quick profile already.

    With ``:sources:`` or ``:chapters:``, texts and numbers separated by commas, only the claims whose source
    holds one of the texts, or whose chapter is one of those.
    """

    option_spec: ClassVar = {"sources": directives.unchanged, "chapters": directives.unchanged}

    def build(self):
        """Gather the claims, count the verdicts, write the table."""
        scores = self.chosen(self.scores())
        if not scores:
            return [nodes.paragraph("", "No chapter has reported such a claim yet.")]
        if self.options:
            return [nodes.raw("", self.counts(scores) + self.body(scores), format="html")]
        parts = self.glance(scores), self.counts(scores), self.filters(scores), self.body(scores)
        return [nodes.raw("", f'<div class="memcomp-card">{"".join(parts)}</div>', format="html")]

    def scores(self):
        """Return all claims: (chapter, id) to the claim at each scale, and one that gives the statement."""
        scores = {}  # "any" is the claim that gives the statement
        for docname, path in chapters(self.env):
            for claim in claims_of(path):
                scores[docname, claim["id"]] = {claim["scale"]: claim, "any": claim, "on page": True}
        for path in sorted(results_folder(self.env).glob("*/claims/*.json")):
            docname = f"notebooks/{path.stem}"
            if docname in self.env.found_docs:
                for claim in json.loads(path.read_text(encoding="utf-8"))["claims"]:
                    score = scores.setdefault((docname, claim["id"]), {"any": claim})
                    score[claim["scale"]] = claim
        return scores

    def chosen(self, scores):
        """Return those of the claims that the options ask for; without options all."""
        sources, numbers = (
            [part.strip() for part in self.options.get(name, "").split(",") if part.strip()]
            for name in ("sources", "chapters")
        )
        if not self.options:
            return scores
        if not all(re.fullmatch(r"\d\d", number) for number in numbers):
            raise self.error(f"memcomp-scorecard: chapters are numbers of two digits, got {numbers}")
        return {
            (docname, identity): score
            for (docname, identity), score in scores.items()
            if CHAPTER.match(docname).group(1) in numbers
            or any(source in score["any"]["source"] for source in sources)
        }

    def glance(self, scores):
        """Return all claims as one mark each, by chapter and scale: linked, and named for screen readers."""
        rows = []
        for docname, claims in self.by_chapter(scores):
            number, cells = CHAPTER.match(docname).group(1), []
            for scale in self.scales(scores):
                marks = "".join(
                    f'<a class="mark {MARKS[name]}" href="#claim-{score["any"]["chapter"]}-{identity}" '
                    f'title="{identity}: {name}" aria-label="{identity}: {name}"></a>'
                    for identity, score in claims
                    if (name := verdict(score, scale)) not in (None, "not run")
                )
                cells.append(f'<td data-label="{scale} scale">{marks}</td>')
            title = html.escape(chapter_title(self.env, docname))
            rows.append(f'<tr><th scope="row"><span>{number}</span> {title}</th>{"".join(cells)}</tr>')
        head = "".join(f'<th scope="col">{scale} scale</th>' for scale in self.scales(scores))
        legend = " ".join(f'<span><i class="mark {MARKS[name]}"></i> {name}</span>' for name in VERDICTS)
        return (
            f'<p class="memcomp-legend">{legend}</p><table class="memcomp-glance"><caption>Every claim as '
            f'one mark, by chapter and scale.</caption><thead><tr><th scope="col">Chapter</th>{head}</tr>'
            "</thead>"
            f"<tbody>{''.join(rows)}</tbody></table>"
        )

    def scales(self, scores):
        """Return the scales at which something was measured."""
        return [scale for scale in SCALES if any(scale in score for score in scores.values())]

    def by_chapter(self, scores):
        """Return (docname, list of (id, score)) of each chapter, in reading order."""
        groups = defaultdict(list)
        for (docname, identity), score in scores.items():
            groups[docname].append((identity, score))
        return sorted(groups.items())

    def counts(self, scores):
        """Return the verdicts counted, per scale; a claim that another chapter tells again counts once."""
        names, rows = (*VERDICTS, "not run"), []
        once = [score for score in scores.values() if not score["any"].get("same_as")]
        for scale in self.scales(scores):
            tally = Counter(verdict(score, scale) for score in once)
            cells = "".join(f'<td data-label="{name}">{tally[name]}</td>' for name in names)
            rows.append(f'<tr><th scope="row">{scale} scale</th>{cells}</tr>')
        head = "".join(f'<th scope="col">{name}</th>' for name in ("", *names))
        again = len(scores) - len(once)
        caption = "Verdicts, counted." + (f" {again} claims that are told twice count once." if again else "")
        return (
            f'<table class="memcomp-claims memcomp-counts"><caption>{caption}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        )

    def filters(self, scores):
        """Return buttons that leave only some rows of the table; they need no script."""
        chosen = [
            (
                "chapter",
                [
                    (f"c{CHAPTER.match(d).group(1)}", CHAPTER.match(d).group(1))
                    for d, _ in self.by_chapter(scores)
                ],
            ),
            ("verdict", [(f"v-{MARKS[name]}", name) for name in VERDICTS]),
            ("source", [("s-paper", "the paper"), ("s-book", "this book")]),
        ]
        parts, rules = [], []
        for group, options in chosen:
            buttons = [f'<label><input type="radio" name="{group}" checked> all</label>']
            for mark, name in options:
                buttons.append(f'<label><input type="radio" name="{group}" id="only-{mark}"> {name}</label>')
                rules.append(f".memcomp-card:has(#only-{mark}:checked) tr.claim:not(.{mark}){{display:none}}")
            parts.append(f"<fieldset><legend>{group}</legend>{''.join(buttons)}</fieldset>")
        return f'<style>{"".join(rules)}</style><form class="memcomp-filter">{"".join(parts)}</form>'

    def body(self, scores):
        """Return the table of claims, one group of rows per chapter."""
        scales, parts = self.scales(scores), []
        for docname, claims in self.by_chapter(scores):
            page = self.env.app.builder.get_relative_uri(self.env.docname, docname)
            title = html.escape(chapter_title(self.env, docname))
            parts.append(
                f'<tbody><tr class="chapter"><th colspan="{2 + len(scales)}" scope="rowgroup">'
                f'<a href="{page}">{title}</a></th></tr>'
            )
            for identity, score in claims:
                claim = score["any"]
                anchor = f"claim-{claim['chapter']}-{identity}"
                target = f"{page}#{anchor}" if "on page" in score else page
                cells = "".join(self.cell(score, scale) for scale in scales)
                marks = {f"v-{MARKS[verdict(score, scale)]}" for scale in scales if scale in score}
                book = any(word in claim["source"] for word in ("this book", "beyond"))
                marks |= {"claim", f"c{claim['chapter'][:2]}", "s-book" if book else "s-paper"}
                marks |= {"again"} if claim.get("same_as") else set()
                parts.append(
                    f'<tr id="{anchor}" class="{" ".join(sorted(marks))}"><th scope="row">'
                    f'<span class="statement">{typeset(claim["statement"])}</span> '
                    f'<a class="source" href="{target}">{typeset(claim["source"])}</a></th>'
                    f'<td data-label="Paper">{typeset(claim["published"])}</td>{cells}</tr>'
                )
            parts.append("</tbody>")
        head = "".join(
            f'<th scope="col">{name}</th>'
            for name in ("Claim", "Paper", *(f"Ours, {scale} scale" for scale in scales))
        )
        return (
            '<table class="memcomp-claims memcomp-scorecard"><caption>Claims, their published values, our '
            "values and verdicts. ± is one standard deviation over n runs, if it says nothing else.</caption>"
            f"<thead><tr>{head}</tr></thead>{''.join(parts)}</table>"
        )

    def cell(self, score, scale):
        """Return one cell: a value and its verdict."""
        label = f"Ours, {scale} scale"
        name = verdict(score, scale)
        if name is None:
            return f'<td data-label="{label}" class="elsewhere">at paper scale</td>'
        mark = MARKS.get(name, "untested")
        value = f"{typeset(score[scale]['measured'])} " if scale in score else ""
        return f'<td data-label="{label}">{value}<span class="verdict {mark}">{name}</span></td>'


class Findings(BookDirective):
    """A numbered list of results, each with the number that its chapter measured and a link to the claim.

    A line of its content is ``CHAPTER/ID: sentence``.
    """

    has_content = True

    def build(self):
        """Look up each claim in its chapter's outputs."""
        found = nodes.enumerated_list()
        for line in filter(None, map(str.strip, self.content)):
            place, _, text = line.partition(": ")
            chapter, _, identity = place.partition("/")
            docname = f"notebooks/{chapter}"
            claims = [c for name, path in chapters(self.env) if name == docname for c in claims_of(path)]
            claim = next((one for one in claims if one["id"] == identity), None)
            if claim is None:
                raise self.error(f"memcomp-findings: no chapter reports the claim {place}")
            link = self.link(docname, f"chapter {int(chapter[:2])}", f"#claim-{chapter}-{identity}")
            value = nodes.strong("", f"{claim['measured']}")
            tail = nodes.Text(f", {claim['verdict']}; {claim['scale']} scale, ")
            found += nodes.list_item("", nodes.paragraph("", f"{text} ", value, tail, link))
        return [found]


def verdict(score, scale):
    """Return a claim's verdict at a scale; None at quick scale when the paper's is measured right away."""
    if scale in score:
        return score[scale]["verdict"]
    return None if scale == "quick" and "paper" in score else "not run"


class Status(BookDirective):
    """What the pages were made with: versions, device, execution times, records, data."""

    def build(self):
        """Write one table per question."""
        return [*self.execution(), *self.records(), *self.stored_claims(), *self.environment()]

    def execution(self):
        """When and how long each chapter was executed."""
        path = Path(self.env.srcdir) / "execution.json"
        if not path.exists():
            text = "This copy was rendered from the outputs that the notebooks store; nothing was executed."
            return [nodes.paragraph("", text)]
        runs = json.loads(path.read_text(encoding="utf-8"))
        rows = []
        for docname, _ in chapters(self.env):
            run = runs["notebooks"].get(docname)
            if run:
                rows.append([[self.link(docname)], f"{run['seconds']:.1f} s", date(run["created"])])
        total = sum(run["seconds"] for run in runs["notebooks"].values())
        rows.append(["All", f"{total:.1f} s", ""])
        header = ["Chapter", "Execution time", "Executed (UTC)"]
        return [self.table("Execution of the chapters", header, rows, ["times"])]

    def records(self):
        """How many stored records there are, from when and from which devices and data."""
        rows, sources = [], defaultdict(set)
        for folder in sorted(results_folder(self.env).glob("*/*")):
            if not folder.is_dir() or folder.name == "claims":
                continue
            found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
            if not found:
                continue
            days = sorted(record["provenance"]["created"][:10] for record in found)
            devices = sorted({record["provenance"]["device"] for record in found})
            span = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
            rows.append([folder.parent.name, folder.name, str(len(found)), span, ", ".join(devices)])
            for record in found:
                if record.get("data"):
                    sources[record["data"]["source"]].add(record["data"]["sha256"])
        if not rows:
            return [nodes.paragraph("", "No records are stored: every number was computed during execution.")]
        header = ["Profile", "Experiment", "Records", "Computed", "Device"]
        tables = [self.table("Stored records", header, rows, ["records"])]
        if sources:
            rows = []
            for source, checksums in sorted(sources.items()):
                shown = [nodes.literal("", min(checksums)[:16] + "…")]
                rows.append([source, shown if len(checksums) == 1 else f"{len(checksums)} different ones"])
            tables.append(self.table("Data behind the records", ["Data set", "SHA-256"], rows, ["data"]))
        return tables

    def stored_claims(self):
        """When the claims at paper scale were stored, and by which code."""
        rows = []
        for path in sorted(results_folder(self.env).glob("*/claims/*.json")):
            docname = f"notebooks/{path.stem}"
            if docname in self.env.found_docs:
                origin = json.loads(path.read_text(encoding="utf-8"))["provenance"]
                commit = (origin["commit"] or "unknown")[:10] + (", changed" if origin["dirty"] else "")
                rows.append([[self.link(docname)], date(origin["created"]), [nodes.literal("", commit)]])
        if not rows:
            return []
        header = ["Chapter", "Stored (UTC)", "Commit"]
        return [self.table("Claims at paper scale", header, rows, ["claims"])]

    def environment(self):
        """Versions and device of this build."""
        rows = [["Processor", cpu_model()], ["Operating system", f"{platform.system()} {platform.machine()}"]]
        rows.append(["Python", platform.python_version()])
        rows += [[name, importlib.metadata.version(name)] for name in PACKAGES]
        return [self.table("Device and versions of this build", ["What", "Which"], rows, ["versions"])]


def date(moment):
    """Return a moment of ISO 8601 to the minute."""
    return moment[:16].replace("T", " ")


def cpu_model():
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        match = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), flags=re.MULTILINE)
        if match:
            return match.group(1).strip()
    return platform.processor() or platform.machine()


class ChapterFigure(BookDirective):
    """Show a picture that a chapter drew.

    ``{memcomp-figure} notebooks/06_linear fig-name`` with the caption as its content. ``:alt:`` is the text
    for those who cannot see it; without it, the chapter's own is taken.
    """

    required_arguments = 2
    option_spec: ClassVar = {"alt": directives.unchanged, "name": directives.unchanged}
    has_content = True

    def build(self):
        """Take the picture out of the executed notebook."""
        docname, wanted = self.arguments
        path = Path(self.env.srcdir) / f"{docname}.ipynb"
        if not path.exists():
            raise self.error(f"memcomp-figure: there is no notebook {docname}")
        for cell in nbformat.read(path, as_version=4).cells:
            settings = cell.metadata.get("mystnb", {})
            if settings.get("figure", {}).get("name") != wanted:
                continue
            for output in cell.get("outputs", []):
                if "image/png" in output.get("data", {}):
                    return [self.figure(docname, output.data["image/png"], settings)]
        raise self.error(f"memcomp-figure: no executed cell of {docname} has the figure {wanted}")

    def figure(self, docname, png, settings):
        """Store the picture beside those of the notebooks; return the figure."""
        data = base64.b64decode(png)
        folder = Path(self.env.app.outdir).parent / "jupyter_execute"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{hashlib.sha256(data).hexdigest()}.png"
        file.write_bytes(data)
        here = Path(self.env.doc2path(self.env.docname)).parent
        image = nodes.image(
            uri=os.path.relpath(file, here), alt=self.options.get("alt") or settings["image"]["alt"]
        )
        image["width"] = "100%"
        figure = nodes.figure("", image, align="default")
        if self.content:
            block = nodes.Element()
            self.state.nested_parse(self.content, self.content_offset, block)
            caption = nodes.caption("", "", *block[0].children)
            figure += caption
        if "name" in self.options:
            self.options["name"] = self.options["name"].strip()
            self.add_name(figure)
        return figure


class Chapters(BookDirective):
    """The existing ones among some chapters: the part as argument, then lines ``NAME: what it shows``."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def build(self):
        """Link each chapter's title and put the line behind it."""
        existing = {docname for docname, _ in chapters(self.env)}
        items = nodes.definition_list(classes=["memcomp-chapters"])
        for line in self.content:
            name, _, about = line.partition(":")
            docname = f"notebooks/{name.strip()}"
            if not CHAPTER.match(docname):
                raise self.error(f"memcomp-chapters: {line!r} should be NAME: what the chapter shows")
            if docname in existing:
                item = nodes.definition_list_item("", nodes.term("", "", self.link(docname)))
                item += nodes.definition("", nodes.paragraph("", about.strip()))
                items += item
        if not items.children:
            return []
        return [nodes.rubric("", self.arguments[0]), items]


# --- the page of the package -----------------------------------------------------------------------------

LAYERS = ["lookup", "linear", "theory", "data", "images", "triplets", "models", "training"]
LAYERS += ["evaluation", "memorization", "cluster", "records", "experiments", "stats", "tables", "figures"]
LAYERS += ["claims"]


def modules(env):
    """Return the public modules of memcomp and their files, lowest layer first."""
    package = repository(env) / "memcomp"
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if parts and not any(part.startswith("_") for part in parts):
            found[".".join(parts)] = path
    layers = {name: place for place, name in enumerate(LAYERS)}
    return dict(
        sorted(found.items(), key=lambda item: (layers.get(item[0].split(".")[0], len(layers)), item[0]))
    )


def list_modules(app, docname, source):
    """Write the sections of the package's page."""
    marker = "% modules of memcomp\n"
    if marker not in source[0]:
        return
    parts = []
    for name, path in modules(app.env).items():
        public = public_names(path)
        lines = [f"## memcomp.{name}", "", "```{eval-rst}", f".. automodule:: memcomp.{name}", ""]
        lines += [".. autosummary::", "", *(f"   {one}" for one in public), ""] if public else []
        for one, directive in public.items():
            lines += [f".. {directive}:: {one}", *(["   :members:"] if directive == "autoclass" else []), ""]
        lines += ["```", ""]
        parts.append("\n".join(lines))
    source[0] = source[0].replace(marker, "\n".join(parts))
    if not hasattr(app.env, "memcomp_pages"):
        app.env.memcomp_pages = set()
    app.env.memcomp_pages.add(docname)


def public_names(path):
    """Return a module's public names in the order of its file, each with autodoc's directive for it."""
    names = {}
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for node, following in zip(body, [*body[1:], None]):
        if isinstance(node, ast.FunctionDef):
            names[node.name] = "autofunction"
        elif isinstance(node, ast.ClassDef):
            error = any(re.search(r"(Error|Exception|Warning)$", ast.unparse(base)) for base in node.bases)
            names[node.name] = "autoexception" if error else "autoclass"
        elif isinstance(node, ast.Assign) and isinstance(
            following, ast.Expr
        ):  # a constant with its docstring
            names[ast.unparse(node.targets[0])] = "autodata"
    return {name: directive for name, directive in names.items() if not name.startswith("_")}


def keep_bars(app, what, name, obj, options, lines):
    """Let |x| in a docstring mean an absolute value; reStructuredText takes it for a substitution."""
    for number, line in enumerate(lines):
        if "|" in line and not line.lstrip().startswith((">>>", "...", "|", "+")):
            parts = re.split(r"(``.*?``|`[^`]*`)", line)
            lines[number] = "".join(
                part if part.startswith("`") else re.sub(r"(?<!\\)\|", r"\|", part) for part in parts
            )


# --- numbers ---------------------------------------------------------------------------------------------


def number_chapter(app, doctree):
    """Give a chapter's title its number, unless its author did."""
    docname = app.env.docname
    title = next(doctree.findall(nodes.title), None)
    if CHAPTER.match(docname) and title is not None and not title.astext()[:1].isdigit():
        title.insert(0, nodes.Text(numbered(docname, "")))


def tell_proofs_apart(app, doctree):
    """Give each proof of a page an identity of its own; sphinx-proof gives all the same."""
    seen = Counter()
    for node in doctree.findall(lambda node: isinstance(node, nodes.Element) and bool(node.get("ids"))):
        for place, one in enumerate(node["ids"]):
            if one in ("proof", "proof-content"):
                seen[one] += 1
                node["ids"][place] = f"{one}-{seen[one]}"


def drop_second_ids(app, pagename, templatename, context, doctree):
    """Take off the titles of unnumbered theorems the identity that their boxes carry already."""
    if "body" in context:
        title = '<p class="admonition-title"'
        context["body"] = re.sub(f'{title} id="[^"]*">', f"{title}>", context["body"])


def number_by_chapter(app, env):
    """Count figures, tables and theorems within their chapter, where Sphinx would count through the book.

    A chapter that does not exist yet leaves a gap in the numbers; Sphinx's own numbering has no gaps.
    """
    for docname, kinds in env.toc_fignumbers.items():
        match = CHAPTER.match(docname)
        for kind, numbers in kinds.items():
            for count, name in enumerate(sorted(numbers, key=numbers.get), start=1):
                if match:
                    numbers[name] = (int(match.group(1)), count)
                elif kind == "figure":  # else the front page would hold "Figure 1", which is the paper's
                    numbers[name] = (0, numbers[name][-1])
    return []


# --- a rebuilt book is a whole book ----------------------------------------------------------------------


def note_changes(app, env, docnames):
    """Take down whether this build changes anything."""
    app.memcomp_changed = bool(docnames) or getattr(app, "memcomp_removed", False)


def write_every_page(app, env):
    """Write all pages when one has changed: a label that moved or vanished shows on the others."""
    return sorted(env.found_docs) if app.memcomp_changed else []


def load_mathjax(app, pagename, templatename, context, doctree):
    """Let a page whose tables hold maths load MathJax; Sphinx looks for formulas in the text only."""
    if CHAPTER.match(pagename) or pagename in getattr(app.env, "memcomp_pages", ()):
        app.env.get_domain("math").data["has_equations"][pagename] = True


def remove_leftovers(app, error):
    """Remove pages, sources and pictures of documents that no longer exist."""
    if error or app.builder.name != "html":
        return
    out = Path(app.outdir)
    env = app.env
    pages = {f"{name}.html" for name in env.found_docs} | {"search.html", "index.html"}
    pages |= {f"{name}.html" for name, *_ in app.builder.domain_indices}
    for path in out.rglob("*.html"):
        name = path.relative_to(out).as_posix()
        if name not in pages and not name.startswith("_static/"):
            logger.info("removing the page %s, which is no longer part of the book", name)
            path.unlink()
    kept = {f"_sources/{os.path.relpath(env.doc2path(name), env.srcdir)}" for name in env.found_docs}
    kept |= {f"_images/{name}" for _, name in env.images.values()}
    for folder in ("_sources", "_images"):
        for path in (out / folder).rglob("*"):
            if path.is_file() and path.relative_to(out).as_posix() not in kept:
                path.unlink()
