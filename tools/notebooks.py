"""Execute the notebooks, keep what they printed, and say what is wrong with a stored one.

    python -m tools.notebooks [PATH ...]           execute what has changed, keep the outputs for the book
    python -m tools.notebooks --write [PATH ...]   the same, and store the outputs in the notebooks
    python -m tools.notebooks --check [PATH ...]   execute nothing; list every defect of the stored notebooks

Without a path, every notebook of the folder `notebooks`. Outputs are kept in `_build/executed`, with all that
they depend on: see `tools.dependencies`.
"""

import argparse
import asyncio
import copy
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

from memcomp.records import device_name, write_atomically
from tools.dependencies import Dependencies
from tools.running import Failure, Progress, alone, complete, roughly, run_apart, tell

ROOT = Path(__file__).resolve().parents[1]
# Seconds that each chapter took on two cores, for a first estimate.
DURATIONS = json.loads((Path(__file__).parent / "durations.json").read_text(encoding="utf-8"))

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
# Of what executed a chapter, what the book shows.
VERSIONS = ("Python", "numpy", "scipy", "matplotlib", "torch", "torchvision", "mlxtend")

# Bytes of the name of a folder for sockets: the system allows about 104 for a whole path.
LONGEST_PATH = 90


class NotebookError(Failure):
    """A notebook that could not be executed to its end."""


@dataclass
class Executed:
    """A notebook with the outputs of its last execution."""

    path: Path
    notebook: nbformat.NotebookNode
    seconds: float
    created: str
    by: dict
    from_cache: bool


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


async def execute_one(path, notebook, root, threads, timeout, at=lambda index: None):
    """Execute a copy of one notebook in a kernel of its own; return seconds and each code cell's outputs.

    `at` hears the index of each cell that begins.

    Raises
    ------
    NotebookError
        Naming the cell that failed and why.
    """
    notebook, running = copy.deepcopy(notebook), []
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None

    def begins(cell, cell_index):
        running.append((cell_index, cell))
        at(cell_index)

    private = tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR"), ignore_cleanup_errors=True)
    connection = {"transport": "tcp"}
    if len(private.name) < LONGEST_PATH:  # kernels that start at the same time race for ports, not for files
        connection = {"transport": "ipc", "connection_file": f"{private.name}/k.json"}
    client = NotebookClient(
        notebook,
        config=Config({"KernelManager": connection}),
        kernel_name="python3",
        timeout=timeout,
        startup_timeout=120,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_execute=begins,
    )
    libraries = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM")
    environment = os.environ | {f"{library}_NUM_THREADS": str(threads) for library in libraries}
    environment.pop("MPLBACKEND", None)  # the kernel's own backend turns figures into outputs
    # This checkout's memcomp, whichever one the environment has installed.
    folders = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    started = time.monotonic()
    with private, open(f"{private.name}/log", "w+", errors="replace") as log:
        try:
            await client.async_execute(
                env=environment | {"PYTHONHASHSEED": "0", "PYTHONPATH": folders}, stdout=log, stderr=log
            )
        except Exception as error:  # a failing cell, a dead kernel, a kernel that did not start
            where = "the kernel did not start"
            if running:
                index, cell = running[-1]
                where = f"cell {index + 1} of {len(notebook.cells)} (id '{cell.get('id', '?')}') failed"
            reason = re.sub(r"\x1b\[[0-9;]*m", "", f"{type(error).__name__}: {error}")
            if not isinstance(error, CellExecutionError):  # then the kernel may have said why
                log.seek(0)
                reason += "\n" + "".join(log.readlines()[-20:])
            raise NotebookError(f"{path.name}: {where}\n{textwrap.indent(reason, '    ')}") from None
    seconds = round(time.monotonic() - started, 1)
    return {"seconds": seconds, "outputs": [cell.outputs for cell in code_cells(notebook)]}


def execute(paths, root=ROOT, *, fresh=False, jobs=None, timeout=1800, say=print, silence=10):
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
        Receives one line when a notebook starts, one when it has finished, and one after each silence.
    silence : float
        Seconds.

    Raises
    ------
    NotebookError
        Naming every notebook that failed, with the cell and its error. The others have been executed and
        kept.
    """
    root = Path(root)
    notebooks = {path: read(path) for path in paths}
    depends = dependencies_of(notebooks, root)
    (root / "_build" / "executed").mkdir(parents=True, exist_ok=True)
    kept, todo = {}, {}  # entries, expected seconds
    for path in paths:
        entry = load_kept(path, root)
        changed = changes(entry, depends[path])
        if not (fresh or changed):
            kept[path] = entry
            say(f"  {path.stem:<28} unchanged ({entry['seconds']:.1f} s when executed)")
        else:
            if entry and changed:
                say(f"  {path.stem:<28} to be executed: {changed}")
            todo[path] = entry["seconds"] if entry else DURATIONS.get(path.stem, 60)
    unchanged = set(kept)
    if todo:
        execute_all(
            todo, kept, notebooks, depends, root, jobs=jobs, timeout=timeout, say=say, silence=silence
        )
        if dependencies_of(notebooks, root) != depends:
            say("  note: something changed that they depend on while they ran; the next build does it again.")
            say("  If they computed missing records, `git status` shows them under results/.")
    return [
        Executed(
            path,
            finish(notebooks[path], kept[path]["outputs"]),
            kept[path]["seconds"],
            kept[path]["created"],
            made_with(kept[path]),
            path in unchanged,
        )
        for path in paths
    ]


def execute_all(todo, kept, notebooks, depends, root, *, jobs, timeout, say, silence):
    """Execute notebooks, several at once, and keep what comes out; `todo` holds the seconds expected of each.

    The longest is first, so that it does not start when the others have ended.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = max(1, min(jobs or min(cores, 4), len(todo)))
    device = {"Processor": device_name(), "Operating system": f"{platform.system()} {platform.machine()}"}
    started, running, done = time.monotonic(), {}, {}

    def left():
        """Return the seconds that all will still take, by the speed of those that have ended."""
        speed = sum(done.values()) / sum(todo[path] for path in done) if done else 1
        each = [seconds * speed for path, seconds in todo.items() if path not in done]
        return max(max(each, default=0), sum(each) / jobs) - (0 if done else time.monotonic() - started)

    def status():
        cells = [f"{path.stem} in cell {index + 1} of {total}" for path, (index, total) in running.items()]
        return f"    at work: {', '.join(cells)}; about {roughly(left())} left" if cells else None

    async def run(path, places):
        async with places:
            progress(f"  {path.stem:<28} started")
            total = len(notebooks[path].cells)
            running[path] = (0, total)
            try:
                result = await execute_one(
                    *(path, notebooks[path], root, max(1, cores // jobs), timeout),
                    at=lambda index: running.update({path: (index, total)}),
                )
            except NotebookError:
                progress(f"  {path.stem:<28} FAILED")
                raise
            finally:
                del running[path]
        done[path] = result["seconds"]
        created = datetime.now(UTC).isoformat(timespec="seconds")
        kept[path] = {"depends": depends[path], "created": created, "device": device} | result
        write_atomically(kept_path(path, root), json.dumps(kept[path]))
        progress(f"  {path.stem:<28} done in {result['seconds']:.1f} s ({len(kept)} of {len(notebooks)})")

    async def run_all():
        places = asyncio.Semaphore(jobs)
        tasks = [run(path, places) for path in sorted(todo, key=lambda path: (-todo[path], path))]
        return await asyncio.gather(*tasks, return_exceptions=True)

    draw_up_fonts([depends[path] for path in todo])
    say(f"Executing {len(todo)} of {len(notebooks)} chapters, {jobs} at once: about {roughly(left())}")
    with Progress(say, status, silence) as progress:
        failures = [error for error in run_apart(run_all) if error]
    for error in failures:
        if not isinstance(error, NotebookError):
            raise error
    if failures:
        raise NotebookError("\n".join(map(str, failures)))


def draw_up_fonts(depends):
    """Let Matplotlib list the fonts: else each kernel would, and a slow one would say so on its page."""
    folder = os.environ.get("MPLCONFIGDIR")
    if folder and any("matplotlib" in one for one in depends) and not list(Path(folder).glob("fontlist*")):
        subprocess.run([sys.executable, "-c", "import matplotlib.font_manager"], stderr=subprocess.DEVNULL)


def dependencies_of(notebooks, root):
    """Return what the outputs of each notebook depend on, by path, as everything is now."""
    now = Dependencies(root)
    return {path: now.of(code_cells(notebook), path) for path, notebook in notebooks.items()}


def changes(entry, depends):
    """Say what changed since a notebook was executed; nothing if nothing did."""
    if not entry:
        return "it has not been executed yet"
    before = entry["depends"]
    names = sorted(name for name in before.keys() | depends.keys() if before.get(name) != depends.get(name))
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"{', '.join(names[:2])}{more} changed" if names else ""


def made_with(entry):
    """Return the device and the main versions that a kept execution was made with."""
    depends = entry["depends"]
    return entry["device"] | {name: depends[name] for name in VERSIONS if name in depends}


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
    """Return what is kept of a notebook, or None if it is nothing, damaged, or of an older form."""
    try:
        entry = json.loads(kept_path(path, root).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return entry if entry.keys() >= {"depends", "device", "created", "seconds", "outputs"} else None


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

    def work():
        started = time.monotonic()
        with alone(ROOT):
            executed = execute(
                paths, ROOT, fresh=options.fresh, jobs=options.jobs, timeout=options.timeout, say=tell
            )
            if options.write:
                for one in executed:
                    store(one)
        tell(f"{len(executed)} notebooks in {time.monotonic() - started:.1f} s")

    return complete(work, ROOT / "_build", "The notebooks were not all executed")


if __name__ == "__main__":
    sys.exit(main())
