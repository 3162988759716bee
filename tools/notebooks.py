"""Execute the notebooks, keep what they printed, and say what is wrong with a stored one.

    python -m tools.notebooks [PATH ...]           execute what has changed, keep the outputs for the book
    python -m tools.notebooks --write [PATH ...]   the same, and store the outputs in the notebooks
    python -m tools.notebooks --check [PATH ...]   execute nothing; list every defect of the stored notebooks

Without a path, every notebook of the folder `notebooks`. Outputs are kept in `_build/executed`, under a hash
of everything that an output can depend on: see `fingerprint`.
"""

import argparse
import asyncio
import copy
import hashlib
import json
import os
import re
import signal
import sys
import textwrap
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from memcomp.records import write_atomically

ROOT = Path(__file__).resolve().parents[1]

KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "pygments_lexer": "ipython3",
}
# What a notebook may carry besides its sources and outputs; editors and runners leave much more.
NOTEBOOK_METADATA = {"kernelspec", "language_info", "mystnb"}
CELL_METADATA = {"mystnb", "tags"}


class NotebookError(Exception):
    """A notebook that could not be executed to its end."""


@dataclass
class Executed:
    """A notebook with the outputs of its last execution."""

    path: Path
    notebook: nbformat.NotebookNode
    seconds: float
    created: str
    from_cache: bool


# --- what an output depends on ---------------------------------------------------------------------------


def results_folder(root):
    """Return the folder of records that the notebooks of `root` read."""
    return Path(os.environ.get("MEMCOMP_RESULTS") or root / "results")


def fingerprint(root=ROOT):
    """Hash everything except its own cells that a notebook's output can depend on.

    That is: the package's files, the locked versions of the packages below it, the profiles, every record,
    modules beside the notebooks, the Python version, and where the data sets are looked for. All records
    count for all notebooks: which of them a notebook reads is known only by executing it.
    """
    folders = [
        (root / "memcomp", "**/*"),
        (root / "profiles", "**/*"),
        (results_folder(root), "**/*.json"),
        (root / "notebooks", "*.py"),
        (root, "requirements.lock"),
    ]
    digest = hashlib.sha256()
    digest.update(f"python {sys.version_info[:3]} data {os.environ.get('MEMCOMP_DATA', '')}".encode())
    for folder, pattern in folders:
        for path in sorted(folder.glob(pattern)):
            if "__pycache__" in path.parts or path.name.startswith(".") or not path.is_file():
                continue
            digest.update(f"\0{folder.name}/{path.relative_to(folder).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def key(notebook, surroundings):
    """Return the key under which a notebook's outputs are kept: its code cells and `fingerprint`'s answer."""
    cells = [[cell.source, sorted(cell.metadata.get("tags", []))] for cell in code_cells(notebook)]
    return hashlib.sha256(json.dumps([surroundings, cells]).encode()).hexdigest()


def code_cells(notebook):
    """Return a notebook's code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def read(path):
    """Read a notebook, with an error that names the file."""
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise NotebookError(f"{path}: there is no such notebook") from None
    except Exception as error:
        raise NotebookError(f"{path}: this is not a readable notebook ({error})") from None


def write(notebook, path):
    """Write a notebook in one piece: a reader sees the old one or the new one."""
    write_atomically(path, nbformat.writes(notebook, version=nbformat.NO_CONVERT).rstrip("\n") + "\n")


# --- execution -------------------------------------------------------------------------------------------


async def execute_one(path, notebook, root, threads, timeout):
    """Execute a copy of one notebook in a kernel of its own; return seconds and each code cell's outputs.

    Raises
    ------
    NotebookError
        Naming the cell that failed and why.
    """
    notebook, running, loop = copy.deepcopy(notebook), [], asyncio.get_running_loop()

    def leave_signals(notebook):
        """Undo that nbclient takes an interrupt as meant for one kernel: it is meant for the whole run."""
        for one in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(one)

    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=timeout,
        startup_timeout=120,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
        on_notebook_start=leave_signals,
        on_cell_execute=lambda cell, cell_index: running.append((cell_index, cell)),
    )
    libraries = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM")
    environment = os.environ | {f"{library}_NUM_THREADS": str(threads) for library in libraries}
    environment.pop("MPLBACKEND", None)  # the kernel's own backend turns figures into outputs
    # This checkout's memcomp, whichever one the environment has installed.
    folders = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    started = time.monotonic()
    try:
        await client.async_execute(env=environment | {"PYTHONHASHSEED": "0", "PYTHONPATH": folders})
    except Exception as error:  # a failing cell, a dead kernel, a kernel that did not start: all are reported
        where = "the kernel did not start"
        if running:
            index, cell = running[-1]
            where = f"cell {index + 1} of {len(notebook.cells)} (id '{cell.get('id', '?')}') failed"
        reason = re.sub(r"\x1b\[[0-9;]*m", "", f"{type(error).__name__}: {error}")
        raise NotebookError(f"{path.name}: {where}\n{textwrap.indent(reason, '    ')}") from None
    seconds = round(time.monotonic() - started, 1)
    return {"seconds": seconds, "outputs": [cell.outputs for cell in code_cells(notebook)]}


def execute(paths, root=ROOT, *, fresh=False, jobs=None, timeout=1800, say=print):
    """Execute those notebooks whose outputs are not kept; return all as `Executed`, in the order given.

    Parameters
    ----------
    paths : list of Path
        The notebooks.
    root : Path
        The checkout that they belong to; outputs are kept in its ``_build/executed``.
    fresh : bool
        Execute also what is kept.
    jobs : int or None
        Notebooks executed at once; None is one per core, at most four for the sake of memory. The cores are
        shared out among them as threads.
    timeout : int
        Seconds that a single cell may take.
    say : callable
        Receives one line when a notebook starts and one when it has finished.

    Raises
    ------
    NotebookError
        Naming every notebook that failed, with the cell and its error. The others have been executed and
        kept.
    """
    root = Path(root)
    surroundings = fingerprint(root)
    (root / "_build" / "executed").mkdir(parents=True, exist_ok=True)
    kept, todo, notebooks = {}, [], {}
    for path in paths:
        notebooks[path] = read(path)
        entry = load_kept(path, root)
        if entry and not fresh and entry["key"] == key(notebooks[path], surroundings):
            kept[path] = entry
            say(f"  {path.stem:<28} unchanged ({entry['seconds']:.1f} s when executed)")
        else:
            todo.append((-entry["seconds"] if entry else -float("inf"), path))

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = max(1, min(jobs or min(cores, 4), len(todo) or 1))

    async def run(path, places):
        async with places:
            say(f"  {path.stem:<28} started")
            try:
                result = await execute_one(path, notebooks[path], root, max(1, cores // jobs), timeout)
            except NotebookError:
                say(f"  {path.stem:<28} FAILED")
                raise
        created = datetime.now(UTC).isoformat(timespec="seconds")
        kept[path] = {"key": key(notebooks[path], surroundings), "created": created} | result
        write_atomically(kept_path(path, root), json.dumps(kept[path]))
        say(f"  {path.stem:<28} done in {result['seconds']:.1f} s ({len(kept)} of {len(paths)})")

    async def run_all():
        places = asyncio.Semaphore(jobs)
        # The longest first, so that it does not start when the others have ended.
        tasks = [run(path, places) for _, path in sorted(todo)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    unchanged = set(kept)
    failures = [error for error in asyncio.run(run_all()) if error]
    for error in failures:
        if not isinstance(error, NotebookError):
            raise error
    if failures:
        raise NotebookError("\n".join(map(str, failures)))
    if todo and fingerprint(root) != surroundings:
        say(
            "  note: memcomp, a profile or a record changed while the notebooks ran; the next build will\n"
            "  execute them again. If they computed missing records, `git status` shows them under results/."
        )
    return [
        Executed(
            path,
            finish(notebooks[path], kept[path]["outputs"]),
            kept[path]["seconds"],
            kept[path]["created"],
            path in unchanged,
        )
        for path in paths
    ]


def store(executed):
    """Write an executed notebook's outputs into the notebook, as it is now.

    Raises
    ------
    NotebookError
        If its code has been changed since it was read for execution.
    """
    current = read(executed.path)
    sources, executed_sources = (
        [cell.source for cell in code_cells(notebook)] for notebook in (current, executed.notebook)
    )
    if sources != executed_sources:
        raise NotebookError(
            f"{executed.path.name}: its code was changed while it was executed; nothing is stored"
        )
    outputs = [cell.outputs for cell in code_cells(executed.notebook)]
    write(finish(current, outputs), executed.path)


def kept_path(path, root):
    """Return where a notebook's outputs are kept."""
    return Path(root) / "_build" / "executed" / f"{path.stem}.json"


def load_kept(path, root):
    """Return what is kept of a notebook, or None."""
    try:
        return json.loads(kept_path(path, root).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def finish(notebook, outputs):
    """Return the notebook with these outputs and nothing that a second execution would change."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata = nbformat.from_dict(
        {name: value for name, value in notebook.metadata.items() if name in NOTEBOOK_METADATA}
        | {"kernelspec": KERNELSPEC, "language_info": LANGUAGE}
    )
    for cell in notebook.cells:
        kept = {name: value for name, value in cell.metadata.items() if name in CELL_METADATA}
        cell.metadata = nbformat.from_dict(kept)
    for count, (cell, cell_outputs) in enumerate(zip(code_cells(notebook), outputs, strict=True), start=1):
        cell.execution_count = count
        cell.outputs = []
        for output in nbformat.from_dict(cell_outputs):
            if output.output_type == "stream":
                if output.name == "stderr" and "remove-stderr" in cell.metadata.get("tags", []):
                    continue
                # What a terminal would show: of a line that was written over, the last state.
                output.text = re.sub(r"^.*\r(?=[^\n])", "", output.text, flags=re.MULTILINE)
            elif output.output_type == "execute_result":
                output.execution_count = count
            output.pop("transient", None)
            cell.outputs.append(output)
    return notebook


# --- command line ----------------------------------------------------------------------------------------


def main(arguments=None):
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks", description=__doc__.split("\n\n")[0])
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="notebooks (default: all)")
    parser.add_argument("--write", action="store_true", help="store the outputs in the notebooks")
    parser.add_argument("--check", action="store_true", help="execute nothing; list what is wrong")
    parser.add_argument("--fresh", action="store_true", help="execute also what has not changed")
    parser.add_argument(
        "--jobs", type=int, help="notebooks executed at once (default: one per core, at most 4)"
    )
    parser.add_argument(
        "--timeout", type=int, default=1800, help="seconds that one cell may take (%(default)s)"
    )
    options = parser.parse_args(arguments)
    paths = [path.resolve() for path in options.paths] or sorted((ROOT / "notebooks").glob("*.ipynb"))
    if options.check:
        from tools.checks import problems, repeated_figure_names

        found = [problem for path in paths for problem in problems(path, ROOT)]
        found += repeated_figure_names(sorted((ROOT / "notebooks").glob("*.ipynb")))
        print("\n".join(found) or f"{len(paths)} notebooks: nothing wrong")
        return 1 if found else 0
    try:
        started = time.monotonic()
        executed = execute(
            paths, ROOT, fresh=options.fresh, jobs=options.jobs, timeout=options.timeout, say=tell
        )
        if options.write:
            for one in executed:
                store(one)
        tell(f"{len(executed)} notebooks in {time.monotonic() - started:.1f} s")
    except NotebookError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


def tell(line):
    """Print a line of progress at once, also into a pipe."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
