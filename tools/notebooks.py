"""Execute the notebooks, keep what they printed, and say what is wrong with a stored one.

    python -m tools.notebooks [PATH ...]           execute what has changed, keep the outputs for the book
    python -m tools.notebooks --write [PATH ...]   the same, and store the outputs in the notebooks
    python -m tools.notebooks --check [PATH ...]   execute nothing; list every defect of the stored notebooks

Without a path, every notebook of the folder `notebooks`. Outputs are kept in `_build/executed`, under a hash
of everything that an output can depend on: see `fingerprint`.
"""

import argparse
import copy
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import nbformat

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


# --- one notebook, in a process of its own ---------------------------------------------------------------


def execute_here(path, root, threads, timeout):
    """Execute one notebook in this process; return its outputs, or what failed, as a JSON-able dict."""
    from nbclient import NotebookClient

    for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM"):
        os.environ[f"{library}_NUM_THREADS"] = str(threads)
    os.environ.pop("MPLBACKEND", None)  # the kernel's own backend turns figures into outputs
    os.environ["PYTHONHASHSEED"] = "0"
    # This checkout's memcomp, whichever one the environment has installed.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))

    stored = read(path)
    position = {}

    def note(cell, cell_index):
        position.update(index=cell_index, cell=cell)

    for last_try in (False, True):
        notebook = copy.deepcopy(stored)
        for cell in code_cells(notebook):
            cell.outputs, cell.execution_count = [], None
        position.clear()
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=timeout,
            startup_timeout=120,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(path.parent)}},
            on_cell_execute=note,
        )
        started = time.monotonic()
        try:
            client.execute()
        except Exception as error:  # a failing cell, a dead kernel, a port that was taken: all are reported
            if not position and not last_try:
                continue  # the kernel did not start: two kernels may have raced for one port
            return {"error": describe(error, stored, position)}
        seconds = time.monotonic() - started
        return {"seconds": seconds, "outputs": [cell.outputs for cell in code_cells(notebook)]}


def describe(error, notebook, position):
    """Say which cell failed, how it begins and why."""
    if not position:
        return f"the kernel did not start, twice: {type(error).__name__}: {error}"
    index, cell = position["index"], position["cell"]
    lines = cell.source.strip().splitlines()
    quoted = "".join(f"\n    | {line}" for line in lines[:6])
    if len(lines) > 6:
        quoted += f"\n    | … {len(lines) - 6} more lines"
    reason = f"{type(error).__name__}: {error}"
    if hasattr(error, "ename"):
        reason = f"{error.ename}: {error.evalue}"
        trace = re.sub(r"\x1b\[[0-9;]*m", "", str(error.traceback)).strip().splitlines()
        reason += "".join(f"\n    {line}" for line in ["", *trace[-25:]])
    return (
        f"cell {index + 1} of {len(notebook.cells)} (id '{cell.get('id', '?')}') failed{quoted}\n    {reason}"
    )


def execute_apart(path, root, threads, timeout):
    """Execute one notebook in a new process; return its outputs and seconds or raise NotebookError."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        task = json.dumps([str(path), str(root), threads, timeout, str(answer)])
        here = Path(__file__).resolve().parents[1]
        process = subprocess.run([sys.executable, "-m", "tools.notebooks", "--worker", task], cwd=here)
        if not answer.exists():
            reason = f"exit status {process.returncode}"
            if process.returncode < 0:
                reason = f"signal {signal.Signals(-process.returncode).name}; was there enough memory?"
            raise NotebookError(f"{path.name}: the process that executed it ended early ({reason})")
        result = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in result:
        raise NotebookError(f"{path.name}: {result['error']}")
    return result


# --- all notebooks ---------------------------------------------------------------------------------------


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
    threads = max(1, cores // jobs)
    lock = threading.Lock()
    failures, done = [], 0

    def run(path):
        nonlocal done
        with lock:
            say(f"  {path.stem:<28} started")
        started = time.monotonic()
        try:
            result = execute_apart(path, root, threads, timeout)
            entry = {
                "key": key(notebooks[path], surroundings),
                "seconds": round(result["seconds"], 1),
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "outputs": result["outputs"],
            }
            finish(notebooks[path], entry["outputs"], path)
        except NotebookError as error:
            with lock:
                done += 1
                failures.append(str(error))
                say(f"  {path.stem:<28} FAILED after {time.monotonic() - started:.1f} s")
            return
        write_atomically(kept_path(path, root), json.dumps(entry))
        with lock:
            done += 1
            kept[path] = {**entry, "from_cache": False}
            say(f"  {path.stem:<28} done in {time.monotonic() - started:.1f} s ({done} of {len(todo)})")

    with ThreadPoolExecutor(jobs) as pool:
        # The longest first, so that it does not start when the others have ended.
        for future in [pool.submit(run, path) for _, path in sorted(todo)]:
            future.result()
    if failures:
        raise NotebookError("\n".join(failures))
    if todo and fingerprint(root) != surroundings:
        say(
            "  note: memcomp, a profile or a record changed while the notebooks ran; the next build will\n"
            "  execute them again. If they computed missing records, `git status` shows them under results/."
        )
    return [
        Executed(
            path,
            finish(notebooks[path], kept[path]["outputs"], path),
            kept[path]["seconds"],
            kept[path]["created"],
            kept[path].get("from_cache", True),
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
    write(finish(current, outputs, executed.path), executed.path)


def kept_path(path, root):
    """Return where a notebook's outputs are kept."""
    return Path(root) / "_build" / "executed" / f"{path.stem}.json"


def load_kept(path, root):
    """Return what is kept of a notebook, or None."""
    try:
        return json.loads(kept_path(path, root).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def finish(notebook, outputs, path):
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
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        path, root, threads, timeout, answer = json.loads(options.worker)
        result = execute_here(Path(path), Path(root), threads, timeout)
        write_atomically(answer, json.dumps(result))
        return 0
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
