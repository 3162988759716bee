"""What can be wrong with a stored notebook, apart from its results.

nbval executes a notebook again and compares; it passes over a cell that was never executed, knows nothing of
figures and their texts, and cannot tell whether a chapter is complete. `problems` does.
"""

import ast
import re
from pathlib import Path

import nbformat
import yaml

from tools.notebooks import ROOT, NotebookError, code_cells, finish, read

ADDRESS = re.compile(r"\b0x[0-9a-f]{8,}\b")
LOCAL_PATH = re.compile(r"(?:/(?:home|root|Users|tmp|work)/|[A-Z]:\\\\?Users)[\w.-]*")
SHOWN = {"text/plain", "text/html", "text/latex", "text/markdown", "image/png"}
SHORTEST_ALT, SHORTEST_CAPTION = 40, 40
WIDEST_LINE, TALLEST_CELL = 79, 25  # of code that is shown unfolded: the page's width, a screen
FOLDED = {"hide-input", "remove-input", "hide-cell"}


def problems(path, root=ROOT):
    """List what is wrong with a stored notebook, as sentences that name the cell.

    Parameters
    ----------
    path : Path
        The notebook.
    root : Path
        The checkout; its ``profiles/paper`` holds the notebook's parameters at paper scale.

    Returns
    -------
    list of str
        Empty for a notebook that is executed, complete and in the stored form.
    """
    path = Path(path)
    try:
        notebook = read(path)
        nbformat.validate(notebook)
    except (NotebookError, nbformat.ValidationError) as error:
        return [f"{path.name}: not a valid notebook: {error}"]
    found = [*check_whole(notebook, path), *check_title(notebook), *check_parameters(notebook, path, root)]
    count, names = 0, set()
    for index, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code":
            count += 1
            of_cell = [*check_execution(cell, count), *check_shown(cell), *check_outputs(cell)]
            of_cell += [*check_figure(cell, names), *check_tags(cell, notebook.cells[index:])]
            found += [f"cell {index} (id '{cell.get('id', '?')}'): {text}" for text in of_cell]
    return [f"{path.name}: {text}" for text in found]


def repeated_figure_names(paths):
    """List the figure names that several notebooks use; the book needs each once."""
    users = {}
    for path in paths:
        for cell in read(path).cells:
            name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
            users.setdefault(name, set()).add(path.name)
    return [
        f"{', '.join(sorted(names))}: the figure name {name} is used in each"
        for name, names in users.items()
        if name and len(names) > 1
    ]


def check_whole(notebook, path):
    """Check the file's form, and that the chapter reports its claims."""
    if (notebook.nbformat, notebook.nbformat_minor) < (4, 5):
        yield "older than notebook format 4.5, which gives every cell an id"
    expected = finish(notebook, [cell.outputs for cell in code_cells(notebook)])
    if nbformat.writes(expected).strip() != path.read_text(encoding="utf-8").strip():
        yield "not in the stored form; `python -m tools.notebooks --write` stores it"
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    claims = sum(bool(output.get("metadata", {}).get("memcomp_claims")) for output in outputs)
    if claims != 1:
        yield f"{claims} cells report claims; every chapter ends with one claims.report(…)"


def check_title(notebook):
    """Check that the chapter starts with its one title."""
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not re.match(r"(\(.*\)=\n)?# \S", first.source):
        yield "does not start with a title (# …)"
    texts = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    prose = re.sub(r"^(`{3,}|~{3,}|:{3,}).*?^\1", "", texts, flags=re.MULTILINE | re.DOTALL)
    titles = len(re.findall(r"^# \S", prose, flags=re.MULTILINE))
    if titles > 1:
        yield f"has {titles} titles (# …); use ## for the sections"


def check_parameters(notebook, path, root):
    """Check that the first code cell holds the parameters and that the paper profile sets no others."""
    tagged = [cell for cell in code_cells(notebook) if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1 or tagged[0] is not code_cells(notebook)[0]:
        yield "the first code cell, and no other, must have the tag `parameters`"
        return
    parameters = {}
    for statement in ast.parse(tagged[0].source).body:
        try:
            (target,) = statement.targets
            parameters[target.id] = ast.literal_eval(statement.value)
        except (AttributeError, ValueError):
            yield f"the parameters cell holds more than NAME = literal: {ast.unparse(statement)}"
    if parameters.get("profile") != "quick":
        yield "the parameters cell does not set `profile` to 'quick'"
    profile = Path(root) / "profiles" / "paper" / f"{path.stem}.yaml"
    if not profile.exists():
        yield f"has no profiles/paper/{profile.name}"
        return
    values = yaml.safe_load(profile.read_text(encoding="utf-8")) or {}
    for name in sorted(values.keys() - parameters.keys()):
        yield f"profiles/paper/{profile.name} sets `{name}`, which is no parameter of the notebook"
    if values.get("profile") != "paper":
        yield f"profiles/paper/{profile.name} does not set `profile: paper`"


def check_tags(cell, later):
    """Check that nbval passes over no output that nothing else looks at."""
    tags = cell.metadata.get("tags", [])
    if "remove-stderr" in tags and "nbval-ignore-output" not in tags:
        yield "tagged remove-stderr, which needs nbval-ignore-output too: nbval compares stderr"
    if "nbval-ignore-output" in tags and not any(asserts(one) for one in later if one.cell_type == "code"):
        yield "its output is not compared, and no later cell asserts anything about it"


def check_execution(cell, count):
    """Check that the cell was executed, in order, and has the output that its code announces."""
    if not cell.source.strip():
        yield "is empty"
        return
    if cell.execution_count != count:
        yield f"execution count {cell.execution_count}, where {count} was expected"
    tree = parse(cell.source)
    if tree is None or not tree.body:
        return
    prints = any(
        ast.unparse(node.func) == "print" and "file" not in {keyword.arg for keyword in node.keywords}
        for statement in tree.body
        if isinstance(statement, ast.Expr | ast.For | ast.With)
        for node in ast.walk(statement)
        if isinstance(node, ast.Call)
    )
    if prints and not any(output.output_type == "stream" for output in cell.outputs):
        yield "prints, but has no output"
    last = tree.body[-1]
    shows = isinstance(last, ast.Expr) and not cell.source.rstrip().endswith(";")
    if shows and not isinstance(last.value, ast.Call | ast.Constant) and not cell.outputs:
        yield f"ends with the expression {ast.unparse(last)}, but has no output"


def check_shown(cell):
    """Check that what a reader sees is the idea, fits the page, and that tables are tables."""
    tree, lines = parse(cell.source), cell.source.splitlines()
    for output in cell.outputs:
        if output.output_type == "stream" and re.search(r"\S {3,}\S", output.text):
            yield "prints columns; memcomp.tables.Table shows a table"
            break
    if tree is None or FOLDED & set(cell.metadata.get("tags", [])):
        return
    if max(map(len, lines), default=0) > WIDEST_LINE:
        yield f"a shown line has more than {WIDEST_LINE} characters, the page cuts it"
    if len(lines) > TALLEST_CELL:
        yield f"shows {len(lines)} lines; fold it, or call what is heavy"
    if any(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body):
        yield "imports are folded: tag the cell hide-input"
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    if any(ast.unparse(call).split(".")[-1] == "report" for call in calls):
        yield "claims are folded: tag the cell hide-input"
    told = [ast.unparse(node).startswith(("assert", "print(")) for node in tree.body]
    if told and all(told) and any(isinstance(node, ast.Assert) for node in tree.body):
        yield "only asserts and prints: tag the cell hide-input"


def check_outputs(cell):
    """Check for errors, for traces of this machine, for what needs a network or a widget."""
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"stopped with {output.ename}: {output.evalue}"
            continue
        if output.output_type == "stream":
            if output.name == "stderr":
                yield f"writes to stderr: {output.text.strip()[:200]!r}"
            texts = {"stream": output.text}
        else:
            texts = {kind: text for kind, text in output.data.items() if isinstance(text, str)}
            for kind in set(output.data) - SHOWN:
                yield f"has an output of type {kind}, which the book does not show"
        for kind, text in texts.items():
            if kind == "image/png":
                continue
            for pattern, what in ((ADDRESS, "a memory address"), (LOCAL_PATH, "a path of this machine")):
                if match := pattern.search(text):
                    yield f"its output holds {what}: {match.group()}"
            if re.search(r"<script|https?://[^\s\"'<>]*\.(?:js|css)", text):
                yield "its output holds a script"


def check_figure(cell, names):
    """Check that a picture has a name of its own, a caption and a text for those who cannot see it."""
    pictures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
    settings = cell.metadata.get("mystnb", {})
    figure = settings.get("figure")
    if (pictures or figure) and len(pictures) != 1:
        yield f"{len(pictures)} pictures in a cell; a figure's cell shows exactly one"
    if pictures and not figure:
        yield "shows a picture without metadata mystnb.figure (caption and name)"
    if not figure:
        return
    name, caption = str(figure.get("name", "")), str(figure.get("caption", ""))
    alt = str(settings.get("image", {}).get("alt", ""))
    if not re.fullmatch(r"fig-[a-z0-9-]+", name):
        yield f"the figure's name is {name!r}; it should look like fig-loss-by-alpha"
    if name in names:
        yield f"the figure name {name} is taken by a cell above"
    names.add(name)
    if len(caption) < SHORTEST_CAPTION:
        yield f"the figure's caption says too little: {caption!r}"
    if len(alt) < SHORTEST_ALT or alt.strip() == caption.strip() or re.search(r"\.(png|svg)$", alt):
        yield f"the alt text does not say what the picture shows: {alt!r}"


def asserts(cell):
    """Tell whether a cell whose output is compared contains an assertion."""
    tree = parse(cell.source)
    return tree is not None and any(isinstance(node, ast.Assert) for node in ast.walk(tree))


def parse(source):
    """Return the syntax tree of a cell, or None where it holds magics."""
    try:
        return ast.parse(source)
    except SyntaxError:
        return None
