r"""An executed chapter as one HTML file to send to somebody (``memcomp run … --html``).

The file holds its pictures, and its formulas as MathML, so that it needs nothing else to be read. Code is
folded. References to other pages of the book become plain text, and paths of this machine file names.
"""

import html
import importlib.util
import os
import re
import tempfile
from pathlib import Path

import nbformat

from memcomp import chapters, paths, records

# What the book's own directives and roles become where there is no book.
_THEOREM = re.compile(r"^(`{3,})\{prf:(\w+)\} *(.*)\n(?::label:.*\n)?", re.M)
_CITATION = re.compile(r" ?\{cite\}`[^`]*`")
_ROLE = re.compile(r"\{(?:term|ref|numref|doc|prf:ref)\}`([^`<]*?)(?:\s*<[^`>]*>)?`")
_API = re.compile(r"\{(?:py:)?(?:mod|func|class)\}(`)~?(?=[^`<]*`)")
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)[^)]*\)")
_SIZE = re.compile(r"\\[bB]igg?[lrm]?(?![a-zA-Z])")  # of brackets, which MathML stretches by itself
_DOTS = re.compile(r"\\dots(?![a-zA-Z])")  # which docutils knows by another name
_TYPED_PATH = re.compile(r"([\"'])~?/(?:(?:(?!\1).)*/)?((?:(?!\1)[^/\n])*)\1")
_TABLE_MATHS = re.compile(r'<span class="math">\\\((.*?)\\\)</span>', re.S)


def check_target(path, names):
    """Refuse a report that could not be written, before anything is computed for it.

    Parameters
    ----------
    path : str
        As typed; a relative path means the working folder. A file that is there will be replaced.
    names : sequence of str
        Chapters that are asked for.

    Returns
    -------
    pathlib.Path
        Absolute.

    Raises
    ------
    ValueError
        If there is more than one chapter, the path is a folder or does not end in ``.html``, its folder
        cannot be written to, or what makes the page is not installed.
    FileNotFoundError
        If the file's folder does not exist.
    """
    target = paths.typed(path, "--html")
    if len(names) != 1:
        raise ValueError(f"--html writes one chapter to one file, and {len(names)} chapters are asked for")
    if target.is_dir():
        raise ValueError(f"--html is {path}, which is a folder; expected a file, such as report.html")
    if target.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--html is {path}; expected a name that ends in .html")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"--html is {path}, and there is no folder {target.parent}; make it first")
    if not os.access(target.parent, os.W_OK):
        raise ValueError(f"--html is {path}, and the folder {target.parent} cannot be written to")
    if importlib.util.find_spec("myst_nb") is None:
        raise ValueError('--html needs the package myst-nb: python -m pip install "memcomp[book]"')
    return target


def write(notebook, target, command=""):
    """Write an executed notebook as one HTML file.

    Parameters
    ----------
    notebook : str or pathlib.Path
        An executed chapter.
    target : str or pathlib.Path
        The file; replaced if it exists.
    command : str
        What made the notebook, for the last line.
    """
    cells = nbformat.read(notebook, as_version=4)
    for cell in cells.cells:
        if figure := cell.metadata.get("mystnb", {}).get("figure"):
            figure["caption"] = _without_book(figure["caption"])
        if cell.cell_type == "markdown":
            cell.source = _without_book(cell.source)
        elif {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", [])):
            cell.source = _TYPED_PATH.sub(r"\1\2\1", cell.source)
    title = re.search(r"^# (.*)$", cells.cells[0].source, re.M)
    page = _published(nbformat.writes(cells), title[1] if title else Path(notebook).stem)
    page = _TABLE_MATHS.sub(_as_mathml, page).replace("</body>", f"{_origin(command)}\n</body>")
    records.write_atomically(target, chapters.without_paths(page))


def _without_book(text):
    """Return a text without what only the book can resolve."""
    text = _THEOREM.sub(lambda m: f"{m[1]}{{admonition}} {m[2].capitalize()}{m[3] and f': {m[3]}'}\n", text)
    text = _API.sub(r"\1", _DOTS.sub(r"\\ldots", _SIZE.sub("", text)))
    return _LINK.sub(r"\1", _ROLE.sub(r"\1", _CITATION.sub("", text)))


def _published(source, title):
    """Return a notebook as a page, by myst-nb and docutils."""
    from docutils import core, nodes
    from myst_nb.docutils_ import Parser
    from pygments.formatters import HtmlFormatter

    with tempfile.TemporaryDirectory() as folder:
        style = Path(folder, "report.css")
        own = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
        style.write_text(HtmlFormatter().get_style_defs(".code") + "\n" + own, encoding="utf-8")
        settings = {
            "myst_enable_extensions": ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"],
            "nb_builder_name": "html",
            "nb_execution_mode": "off",
            "nb_output_folder": folder,
            "nb_output_stderr": "remove",
            "nb_merge_streams": True,
            "nb_append_css": False,
            "title": title,
            "math_output": "MathML",
            "image_loading": "embed",
            "stylesheet_path": [str(style)],
            "embed_stylesheet": True,
            "report_level": 2,
            "halt_level": 2,  # what this cannot show is an error and not a gap in the page
            "output_encoding": "unicode",
        }
        page = core.publish_doctree(source, parser=Parser(), settings_overrides=settings)
        for cell in list(page.findall(nodes.container)):
            if "cell_input" in cell["classes"]:
                cell.insert(0, nodes.raw("", "<details><summary>Code</summary>", format="html"))
                cell.append(nodes.raw("", "</details>", format="html"))
        return core.publish_from_doctree(page, writer_name="html5", settings_overrides=settings)


def _as_mathml(found):
    from docutils.utils.math import latex2mathml

    return latex2mathml.tex2mathml(html.unescape(found[1]))


def _origin(command):
    """Return the last lines of a page: what made it."""
    made = records.provenance()
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    commit = (made["commit"] or "unknown")[:10] + " with uncommitted changes" * bool(made["dirty"])
    by = f" by <code>{html.escape(command)}</code>" if command else ""
    return (
        f"<footer><p>Made{by} on {made['created'][:10]}, commit {commit}; Python {made['python']}, "
        f"{versions}; {html.escape(records.device_name())}.</p></footer>"
    )
