"""What can be wrong with a stored notebook, apart from its results.

nbval executes a notebook again and compares; it passes over a cell that was never executed, knows nothing of
figures and their texts, and cannot tell whether a chapter is complete. `problems` does.
"""

import ast
import re
from dataclasses import dataclass, field
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


@dataclass
class Findings:
    """The defects of one notebook."""

    name: str
    found: list = field(default_factory=list)

    def add(self, text, cell=None, index=None):
        """Note a defect, and the cell that has it."""
        where = "" if cell is None else f"cell {index} (id '{cell.get('id', '?')}'): "
        self.found.append(f"{self.name}: {where}{text}")


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
    notes = Findings(path.name)
    try:
        notebook = read(path)
        nbformat.validate(notebook)
    except (NotebookError, nbformat.ValidationError) as error:
        notes.add(f"not a valid notebook: {error}")
        return notes.found
    if (notebook.nbformat, notebook.nbformat_minor) < (4, 5):
        notes.add("older than notebook format 4.5, which gives every cell an id")
    expected = finish(notebook, [cell.outputs for cell in code_cells(notebook)], path)
    if nbformat.writes(expected).strip() != path.read_text(encoding="utf-8").strip():
        notes.add("not in the stored form; `python -m tools.notebooks --write` stores it")

    check_title(notebook, notes)
    check_parameters(notebook, path, Path(root), notes)
    cells = list(enumerate(notebook.cells, start=1))
    counted = [(index, cell) for index, cell in cells if cell.cell_type == "code"]
    names = {}
    for count, (index, cell) in enumerate(counted, start=1):
        check_execution(cell, index, count, notes)
        check_shown(cell, index, notes)
        check_outputs(cell, index, notes)
        name = check_figure(cell, index, notes)
        if name in names:
            notes.add(f"the figure name {name} is taken by cell {names[name]}", cell, index)
        elif name:
            names[name] = index
        tags = cell.metadata.get("tags", [])
        if "remove-stderr" in tags and "nbval-ignore-output" not in tags:
            notes.add(
                "tagged remove-stderr, which needs nbval-ignore-output too: nbval compares stderr",
                cell,
                index,
            )
        if "nbval-ignore-output" in tags and not any(asserts(later) for _, later in counted[count:]):
            notes.add("its output is not compared, and no later cell asserts anything about it", cell, index)
    claims = [
        output
        for _, cell in counted
        for output in cell.outputs
        if output.get("metadata", {}).get("memcomp_claims")
    ]
    if len(claims) != 1:
        notes.add(f"{len(claims)} cells report claims; every chapter ends with one claims.report(…)")
    return notes.found


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


def check_title(notebook, notes):
    """Check that the chapter starts with its one title."""
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not re.match(r"(\(.*\)=\n)?# \S", first.source):
        notes.add("does not start with a title (# …)")
    titles = 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"^(`{3,}|~{3,}|:{3,}).*?^\1", "", cell.source, flags=re.MULTILINE | re.DOTALL)
            titles += len(re.findall(r"^# \S", prose, flags=re.MULTILINE))
    if titles > 1:
        notes.add(f"has {titles} titles (# …); use ## for the sections")


def check_parameters(notebook, path, root, notes):
    """Check that the first code cell holds the parameters and that the paper profile sets no others."""
    tagged = [cell for cell in code_cells(notebook) if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1 or tagged[0] is not code_cells(notebook)[0]:
        notes.add("the first code cell, and no other, must have the tag `parameters`")
        return
    parameters = {}
    for statement in ast.parse(tagged[0].source).body:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        try:
            parameters[target.id] = ast.literal_eval(statement.value)
        except (AttributeError, ValueError):
            notes.add(f"the parameters cell holds more than NAME = literal: {ast.unparse(statement)}")
    profile = root / "profiles" / "paper" / f"{path.stem}.yaml"
    if not profile.exists():
        notes.add(f"has no profiles/paper/{profile.name}")
        return
    values = yaml.safe_load(profile.read_text(encoding="utf-8")) or {}
    for name in sorted(set(values) - set(parameters)):
        notes.add(f"profiles/paper/{profile.name} sets `{name}`, which is no parameter of the notebook")
    if values.get("profile") != "paper":
        notes.add(f"profiles/paper/{profile.name} does not set `profile: paper`")
    if parameters.get("profile") != "quick":
        notes.add("the parameters cell does not set `profile` to 'quick'")


def check_execution(cell, index, count, notes):
    """Check that the cell was executed, in order, and has the output that its code announces."""
    if not cell.source.strip():
        notes.add("is empty", cell, index)
        return
    if cell.execution_count != count:
        notes.add(f"execution count {cell.execution_count}, where {count} was expected", cell, index)
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
        notes.add("prints, but has no output", cell, index)
    last = tree.body[-1]
    shows = isinstance(last, ast.Expr) and not cell.source.rstrip().endswith(";")
    if shows and not isinstance(last.value, ast.Call | ast.Constant) and not cell.outputs:
        notes.add(f"ends with the expression {ast.unparse(last)}, but has no output", cell, index)


def check_shown(cell, index, notes):
    """Check that what a reader sees is the idea, fits the page, and that tables are tables."""
    tree, lines = parse(cell.source), cell.source.splitlines()
    for output in cell.outputs:
        if output.output_type == "stream" and re.search(r"\S {3,}\S", output.text):
            notes.add("prints columns; memcomp.tables.Table shows a table", cell, index)
            break
    if tree is None or FOLDED & set(cell.metadata.get("tags", [])):
        return
    if max(map(len, lines), default=0) > WIDEST_LINE:
        notes.add(f"a shown line has more than {WIDEST_LINE} characters, the page cuts it", cell, index)
    if len(lines) > TALLEST_CELL:
        notes.add(f"shows {len(lines)} lines; fold it, or call what is heavy", cell, index)
    if any(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body):
        notes.add("imports are folded: tag the cell hide-input", cell, index)
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    if any(ast.unparse(call).split(".")[-1] == "report" for call in calls):
        notes.add("claims are folded: tag the cell hide-input", cell, index)
    told = [ast.unparse(node).startswith(("assert", "print(")) for node in tree.body]
    if told and all(told) and any(isinstance(node, ast.Assert) for node in tree.body):
        notes.add("only asserts and prints: tag the cell hide-input", cell, index)


def check_outputs(cell, index, notes):
    """Check for errors, for traces of this machine, for what needs a network or a widget."""
    for output in cell.outputs:
        if output.output_type == "error":
            notes.add(f"stopped with {output.ename}: {output.evalue}", cell, index)
            continue
        if output.output_type == "stream":
            if output.name == "stderr":
                notes.add(f"writes to stderr: {output.text.strip()[:200]!r}", cell, index)
            texts = {"stream": output.text}
        else:
            texts = {kind: text for kind, text in output.data.items() if isinstance(text, str)}
            for kind in set(output.data) - SHOWN:
                notes.add(f"has an output of type {kind}, which the book does not show", cell, index)
        for kind, text in texts.items():
            if kind == "image/png":
                continue
            for pattern, what in ((ADDRESS, "a memory address"), (LOCAL_PATH, "a path of this machine")):
                if match := pattern.search(text):
                    notes.add(f"its output holds {what}: {match.group()}", cell, index)
            if re.search(r"<script|https?://[^\s\"'<>]*\.(?:js|css)", text):
                notes.add("its output holds a script", cell, index)


def check_figure(cell, index, notes):
    """Check that a picture has a name, a caption and a text for those who cannot see it; return the name."""
    pictures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
    settings = cell.metadata.get("mystnb", {})
    figure = settings.get("figure")
    if not pictures and not figure:
        return None
    if len(pictures) != 1:
        notes.add(f"{len(pictures)} pictures in a cell; a figure's cell shows exactly one", cell, index)
    if not figure:
        notes.add("shows a picture without metadata mystnb.figure (caption and name)", cell, index)
        return None
    name, caption = str(figure.get("name", "")), str(figure.get("caption", ""))
    alt = str(settings.get("image", {}).get("alt", ""))
    if not re.fullmatch(r"fig-[a-z0-9-]+", name):
        notes.add(f"the figure's name is {name!r}; it should look like fig-loss-by-alpha", cell, index)
    if len(caption) < SHORTEST_CAPTION:
        notes.add(f"the figure's caption says too little: {caption!r}", cell, index)
    if len(alt) < SHORTEST_ALT or alt.strip() == caption.strip() or re.search(r"\.(png|svg)$", alt):
        notes.add(f"the alt text does not say what the picture shows: {alt!r}", cell, index)
    return name


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
