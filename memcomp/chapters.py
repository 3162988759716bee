"""Run chapters with papermill, with the checks that papermill lacks (``memcomp run``)."""

import ast
import os
import re
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml

import memcomp
from memcomp import paths, values
from memcomp.lookup import nearest

# What a kernel prints when it lost the race for a port or did not come up; seen with several kernels at once.
KERNEL_DID_NOT_START = re.compile(
    r"Address already in use|Kernel died before replying to kernel_info|Kernel didn't respond in \d+ seconds"
)


@dataclass(frozen=True)
class Outcome:
    """What came of one chapter.

    Attributes
    ----------
    chapter : str
        Name of the notebook without its ending.
    error : str or None
        The last line of what went wrong, None if all went well.
    seconds : float
        Wall-clock time.
    notebook, log : pathlib.Path
        The executed notebook and what papermill and the kernel printed.
    """

    chapter: str
    error: str | None
    seconds: float
    notebook: Path
    log: Path


def project():
    """Return the folder of the checkout: the one that holds ``notebooks/`` and ``profiles/``.

    Returns
    -------
    pathlib.Path
        The folder that holds the package if it is a checkout, else the working folder if that is one.

    Raises
    ------
    FileNotFoundError
        If neither is.
    """
    for folder in (Path(memcomp.__file__).resolve().parents[1], Path.cwd()):
        if (folder / "notebooks").is_dir() and (folder / "profiles").is_dir():
            return folder
    raise FileNotFoundError(
        "no notebooks/ and profiles/ here: clone the repository and run memcomp inside it "
        "(pip installs the package without its notebooks)"
    )


def notebooks():
    """Return the notebooks by name, in reading order: a dict of str to pathlib.Path."""
    return {path.stem: path for path in sorted((project() / "notebooks").glob("[0-9][0-9]_*.ipynb"))}


def find(name):
    """Return the chapters that `name` means.

    Parameters
    ----------
    name : str
        ``"all"``, a chapter's name (``"08_mnist_sum"``), its number (``"08"``, ``"8"``) or its words
        (``"mnist_sum"``).

    Returns
    -------
    list of str
        Chapter names.

    Raises
    ------
    ValueError
        If there is no such chapter; the message names the nearest.
    """
    known = notebooks()
    if name == "all":
        return list(known)
    spellings = {}
    for chapter in known:
        number, words = chapter.split("_", 1)
        spellings |= {chapter: chapter, number: chapter, str(int(number)): chapter, words: chapter}
    if name in spellings:
        return [spellings[name]]
    raise ValueError(
        f"no chapter {name!r}{nearest(name, spellings)}; the chapters are {', '.join(known)}, or all"
    )


def parameters(chapter, profile="quick", given=()):
    """Return what papermill should hand to a chapter, checked against the chapter's own parameters.

    Parameters
    ----------
    chapter : str
        Name of a notebook.
    profile : str
        ``"quick"`` for the notebook's own defaults, else the name of a folder in ``profiles/``.
    given : mapping of str to str, or sequence of pairs of them
        Further parameters as typed; see :func:`memcomp.values.read`. A relative path in them or in the
        profile means the working folder.

    Returns
    -------
    dict
        Parameters that differ from the notebook's defaults.

    Raises
    ------
    ValueError
        If there is no such profile, the notebook has no such parameter, or a value is not what the parameter
        may be (:data:`memcomp.values.PARAMETERS`). papermill itself would warn and run the defaults, or hand
        over what the notebook cannot use.
    FileNotFoundError
        If the profile has no file for this chapter.
    """
    known = defaults(chapter)
    set_there = {}
    profiles = ["quick", *sorted(one.name for one in (project() / "profiles").iterdir() if one.is_dir())]
    if profile not in profiles:
        raise ValueError(
            f"no profile {profile!r}{nearest(profile, profiles)}; the profiles are {', '.join(profiles)}"
        )
    if profile != "quick":
        path = project() / "profiles" / profile / f"{chapter}.yaml"
        name = f"profiles/{profile}/{chapter}.yaml"
        if not path.exists():
            there = sorted(one.stem for one in path.parent.glob("*.yaml"))
            raise FileNotFoundError(
                f"profile {profile!r} has no file for {chapter}: expected {name}; "
                f"it has {', '.join(there) or 'none at all'}"
            )
        set_there = _checked(values.read_file(path, name), known, name, chapter)
    pairs = list(given.items() if isinstance(given, dict) else given)
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"-p gives {', '.join(twice)} twice; give one value")
    if "profile" in names:
        raise ValueError("-p cannot set the profile, which is a file of values: give --profile NAME")
    if empty := [name for name, text in pairs if not text.strip()]:
        raise ValueError(f"-p gives {', '.join(empty)} no value; null stands for the profile's own")
    typed = {name: values.read(text, f"-p {name}") for name, text in pairs}
    return set_there | _checked(typed, known, "-p", chapter)


def run(names, profile="quick", given=()):
    """Execute chapters one after the other, each in a process of its own.

    Executed notebooks and logs go to a new folder ``runs/TIME-PROFILE/``. A chapter that fails does not stop
    the next. A kernel that did not start is given one more chance.

    Parameters
    ----------
    names : sequence of str
        Chapters, as from `find`.
    profile, given
        As for `parameters`. All are checked before the first chapter starts.

    Yields
    ------
    Outcome
        One for each chapter, as it ends.
    """
    todo = {name: parameters(name, profile, given) for name in names}
    folder = Path("runs") / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}Z-{profile}"
    (project() / folder).mkdir(parents=True)
    for name, chosen in todo.items():
        yield _run_one(name, chosen, folder)


def _run_one(chapter, parameters, folder):
    root = project()
    notebook, log, chosen = (folder / f"{chapter}{end}" for end in (".ipynb", ".log", ".yaml"))
    (root / chosen).write_text(yaml.safe_dump(parameters))
    # Relative paths, so that neither the log nor the notebook tells where this machine keeps things.
    command = [sys.executable, "-m", "papermill", f"notebooks/{chapter}.ipynb", str(notebook)]
    command += ["-f", str(chosen), "--cwd", "notebooks", "--log-output", "--no-progress-bar"]
    started = time.perf_counter()
    for attempt in (1, 2):
        code, text = _follow(command, root, root / log)
        if code == 0 or attempt == 2 or not KERNEL_DID_NOT_START.search(text):
            break
    last = text.strip().rpartition("\n")[2].strip()
    error = None if code == 0 else last or f"papermill ended with status {code}"
    return Outcome(chapter, error, time.perf_counter() - started, root / notebook, root / log)


def _follow(command, root, log):
    """Run `command`, copy what it prints to `log` without this machine's paths; return status and text."""
    text = ""
    # What IPython, Jupyter and Matplotlib would keep in the home folder stays in runs/.
    kept = dict.fromkeys(("IPYTHONDIR", "MPLCONFIGDIR", "JUPYTER_RUNTIME_DIR"), str(root / "runs" / ".cache"))
    environment = os.environ | kept | {"PYTHONUNBUFFERED": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    environment.pop("MPLBACKEND", None)  # the kernel's own backend turns figures into outputs
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with (
        open(log, "a", buffering=1) as file,
        subprocess.Popen(command, cwd=root, env=environment, **pipes) as process,
    ):
        for line in process.stdout:
            file.write(without_paths(line))
            text += without_paths(line)
    return process.returncode, text


def without_paths(text):
    """Return `text` with this checkout's path written ``.`` and the home folder ``~``, as logs keep it."""
    home = Path.home()
    return paths.shortened(text, {project(): ".", home: "~", home.resolve(): "~"})


def defaults(chapter):
    """Return the parameters of a chapter with their defaults.

    Parameters
    ----------
    chapter : str
        Name of a notebook.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If the notebook has no cell tagged ``parameters``.
    """
    import papermill

    path = notebooks()[chapter]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # papermill only warns if the parameters cell is missing
        inferred = papermill.inspect_notebook(str(path))
    if not inferred:
        raise ValueError(
            f"{path.name} has no parameters: its first code cell must carry the tag 'parameters'"
        )
    return {name: ast.literal_eval(one["default"]) for name, one in inferred.items()}


def _checked(found, known, where, chapter):
    """Return values as they are used, or refuse them by name."""
    for name in found:
        if name not in known:
            raise ValueError(
                f"{chapter} has no parameter {name!r} ({where}){nearest(name, known)}; "
                f"its parameters are {', '.join(known)}"
            )
    checked = {
        name: values.rule(name, chapter, known[name])(value, f"{chapter}: parameter {name!r} ({where})")
        for name, value in found.items()
    }
    if checked.get("glyphs"):
        from memcomp import images  # of a folder, what the process of a notebook understands, too

        checked["glyphs"] = images.absolute(checked["glyphs"])
    return checked
