"""Make or complete `.venv` from requirements.lock, with one line of progress.

Run by make through tools/venv.sh; safe to run again after any interruption, and several times at once. It
needs nothing but Python's own library. `TORCH_INDEX` names a package index to take PyTorch from: the locked
one brings CUDA along on Linux. What pip says is kept in `.venv/install.log`.
"""

import contextlib
import csv
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK, PROJECT = ROOT / "requirements.lock", ROOT / "pyproject.toml"
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
STATE, LOG, TEMPORARY = (ENVIRONMENT / name for name in ("installed", "install.log", "tmp"))

TESTED = ((3, 11), (3, 12), (3, 13))
# GiB to download, on disk afterwards, and on disk while wheels are unpacked.
SIZES = {"cuda": (3, 6.5, 12), "cpu": (0.6, 2, 4)}
INTERRUPTED = "\nInterrupted; the same command goes on from here."
WITH_CUDA = re.compile(r"(torch|torchvision|triton|nvidia-[a-z0-9-]*|cuda-[a-z0-9-]*)==[^ ;\\]*")


class Failed(Exception):
    """The environment cannot be made; the message says why and what to do."""


def say(line):
    """Print a line at once."""
    print(line, file=sys.stderr, flush=True)


def main():
    """Make or complete the environment; return the exit status."""
    for one in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, lambda number, frame: sys.exit(128 + number))
    sys.unraisablehook = leave
    try:
        if not complete():
            with alone() as lock:
                if not complete():  # another make may have done it meanwhile
                    install(lock)
    except Failed as error:
        say(f"Nothing was built: {error}")
        return 1
    except OSError as error:
        say(f"Nothing was built: {error.filename or ENVIRONMENT}: {error.strerror}")
        return 1
    except KeyboardInterrupt:
        say(INTERRUPTED)
        return 130
    return 0


def leave(lost):
    """End at once where a signal came in a destructor, which would print its exception and go on."""
    if lost.exc_type is KeyboardInterrupt:
        say(INTERRUPTED)
        os._exit(130)
    if lost.exc_type is SystemExit:
        os._exit(lost.exc_value.code)
    sys.__unraisablehook__(lost)


def install(lock):
    """Make the environment where there is none to go on with, and install what it lacks."""
    started = time.monotonic()
    plan = wanted()
    index, place = plan["torch_index"], plan.get("place")
    check_machine(index)
    moved = place and state().get("place") not in (None, place)
    if moved:
        say("This folder was moved, and the commands in .venv lead to where it was")
    if moved or not reusable() or state().get("torch_index") != index:
        untested = "" if sys.version_info[:2] in TESTED else ", which memcomp was not tested with"
        say(f"Making .venv with Python {platform.python_version()}{untested}")
        make()
    # For a later call, should this one be interrupted.
    STATE.write_text(json.dumps({"torch_index": index, "place": place}))
    remove(unfinished())
    # Downloads wait beside the environment, so that one disk has to be large enough, not two.
    shutil.rmtree(TEMPORARY, ignore_errors=True)
    TEMPORARY.mkdir()
    LOG.write_text("")
    download, kept, _ = sizes(index)
    say(f"Installing memcomp's packages: about {download} GiB to download, {kept} GiB on disk in the end")
    packages = re.split(r"\n(?=\S)", LOCK.read_text().strip())
    if index:
        torch = [WITH_CUDA.match(package) for package in packages]
        torch = [match.group() for match in torch if match and match[1] in ("torch", "torchvision")]
        packages = [package for package in packages if not WITH_CUDA.match(package)]
    requirements = TEMPORARY / "requirements.txt"
    requirements.write_text("\n".join(packages) + "\n")
    pip(lock, "--only-binary=:all:", "--require-hashes", "--requirement", requirements)
    if index:
        pip(lock, "--only-binary=:all:", "--index-url", index, *torch)
        check_torch(index)
    pip(lock, "--no-build-isolation", "--editable", ".")
    # Relative: Python below 3.13 stops at once at an umlaut in it where the locale is C.
    (path,) = ENVIRONMENT.glob("lib/python3.*/site-packages/memcomp.pth")
    path.write_text("../../../..\n")
    shutil.rmtree(TEMPORARY)
    STATE.write_text(json.dumps(plan | {"python": version()}, indent=1) + "\n")
    say(f"Installed in {time.monotonic() - started:.0f} s")


# --- what is there ---------------------------------------------------------------------------------------


def wanted():
    """Return what `.venv/installed` must say for nothing to be left to do."""
    told = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (LOCK, PROJECT)}
    if not ENVIRONMENT.is_symlink():
        told["place"] = str(ROOT)  # its commands hold the path
    # An environment without CUDA remains one when the lock changes.
    told["torch_index"] = os.environ.get("TORCH_INDEX") or state().get("torch_index")
    if os.environ.get("PYTHON"):
        told["python"] = list(sys.version_info[:2])
    return told


def state():
    """Return what `.venv/installed` says; {} where nothing can be read."""
    try:
        return dict(json.loads(STATE.read_text()))
    except (OSError, ValueError):
        return {}


def complete():
    """Return whether the environment has a Python and all that is wanted."""
    found = state()
    return os.access(PYTHON, os.X_OK) and all(found.get(name) == one for name, one in wanted().items())


def version():
    """Return the environment's version of Python as [3, minor], or None if it does not run or has no pip."""
    program = "import pip, sys; print(*sys.version_info[:2])"
    try:
        done = subprocess.run([PYTHON, "-I", "-c", program], capture_output=True, text=True)
    except OSError:
        return None
    return [int(part) for part in done.stdout.split()] or None


def reusable():
    """Return whether there is an environment to go on with."""
    known = [[*one] for one in (*TESTED, (3, 14))]
    asked = [[*sys.version_info[:2]]] if os.environ.get("PYTHON") else known
    return version() in asked and not any(path.name.startswith("pip-") for path in unfinished())


def unfinished():
    """Return the folders of packages that an interrupted pip left behind incomplete."""
    found = []
    for folder in ENVIRONMENT.glob("lib/python3.*/site-packages"):
        found += folder.glob("~*")  # pip's name for what it is about to remove
        found += [info for info in folder.glob("*.dist-info") if not is_whole(info)]
    return found


def is_whole(info):
    """Return whether all files of a package exist with the sizes that its list tells."""
    try:
        rows = list(csv.reader((info / "RECORD").read_text(encoding="utf-8").splitlines()))
        for name, _, size in rows:
            if name.endswith(".pyc"):  # which Python writes by itself
                continue
            there = (info.parent / name).stat().st_size
            if size and int(size) != there:
                return False
    except (OSError, ValueError):
        return False
    return bool(rows)


def sizes(index):
    """Return the GiB to download, on disk afterwards, and on disk meanwhile."""
    return SIZES["cpu" if index or platform.system() == "Darwin" else "cuda"]


# --- what is done ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def alone():
    """Let one process at a time change the environment; yield the descriptor that holds the lock."""
    with open(LOCK, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another make is installing in this checkout; waiting for it to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def check_machine(index):
    """Refuse a machine for which PyTorch is not published, or one with too little disk space."""
    if (platform.system(), platform.machine()) == ("Darwin", "x86_64"):
        raise Failed("PyTorch is no longer published for Intel Macs; use Linux, or a Mac with Apple silicon")
    free = shutil.disk_usage(ROOT).free / 2**30
    held = sum(path.lstat().st_size for path in ENVIRONMENT.rglob("*")) / 2**30
    *_, needed = sizes(index)
    if free + held < needed:
        raise Failed(
            f"too little disk space. Installing memcomp's packages takes up to {needed} GiB in this folder, "
            f"and {free:.0f} GiB are free. Free some space, clone onto a larger disk, or install PyTorch "
            f"without CUDA as README.md says, which takes {SIZES['cpu'][2]} GiB"
        )


def make():
    """Make an environment with nothing in it but pip."""
    folder = ENVIRONMENT.resolve()  # venv follows no link
    if folder.exists() and not folder.is_dir():
        raise Failed(".venv is a file and no folder; move it away")
    done = subprocess.run(
        [sys.executable, "-I", "-m", "venv", "--clear", folder], capture_output=True, text=True
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        hint = ""
        if "ensurepip is not available" in said:
            hint = " On Debian and Ubuntu, install the package python3-venv."
        elif shutil.disk_usage(ROOT).free < 50 * 2**20:  # which venv does not tell
            hint = " The disk is full."
        raise Failed(f"{sys.executable} could not make a virtual environment.{hint} It said:\n{said}")


def remove(paths):
    """Remove files and folders."""
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def pip(lock, *arguments):
    """Run pip's install quietly; show all that it said if it fails.

    It holds the lock too, so that no other make interferes should this process be killed and pip live on.
    """
    command = [
        PYTHON,
        "-I",
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-cache-dir",
        "--no-deps",
    ]
    # A setting that sends packages to the home folder does not go together with an environment.
    settings = os.environ | {"TMPDIR": str(TEMPORARY), "PIP_USER": "0", "PIP_PROGRESS_BAR": "off"}
    begin = LOG.stat().st_size
    with open(LOG, "a") as log:
        process = subprocess.Popen(
            [*command, *arguments], stdout=log, stderr=log, cwd=ROOT, env=settings, pass_fds=[lock]
        )
    try:
        follow(process, begin)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if process.returncode:
        say(LOG.read_text()[begin:])
        raise Failed(
            "pip could not install the packages; what it said is above and in .venv/install.log. If the "
            "network or the package index was out of reach, the same command tries again"
        )


def follow(process, begin):
    """Show in one line what pip is doing, until it ends."""
    started, terminal = time.monotonic(), sys.stderr.isatty()
    every, shown = (1 if terminal else 30), 0
    while process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=min(every, 1))
        seconds = time.monotonic() - started
        if seconds < shown + every or process.returncode is not None:
            continue
        shown = seconds
        line = f"  {seconds:4.0f} s  {doing(LOG.read_text()[begin:])}"
        if terminal:
            line = line[: shutil.get_terminal_size().columns - 1]
            print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)
        else:
            say(line)
    if terminal and shown:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def doing(text):
    """Return in a few words what pip is doing, from what it said so far."""
    if "Installing collected packages" in text:
        return "unpacking the packages, a minute or two"
    wheels = re.findall(r"^ *Downloading \S*?([^/\s]+?)(?:-py\d|-cp\d)\S*\.whl (\(.*\))", text, re.MULTILINE)
    if not wheels:
        return f"looking up: {len(re.findall('^Collecting ', text, re.MULTILINE))} packages so far"
    return f"downloading: {len(wheels)} packages so far, now {' '.join(wheels[-1])}"


def check_torch(index):
    """Refuse a PyTorch that does not run, such as one that needs CUDA's libraries."""
    done = subprocess.run([PYTHON, "-I", "-c", "import torch, torchvision"], capture_output=True, text=True)
    if done.returncode:
        raise Failed(
            f"the PyTorch of TORCH_INDEX={index} does not run: {done.stderr.strip().rpartition(chr(10))[2]}. "
            "Name an index of builds for the CPU"
        )


if __name__ == "__main__":
    sys.exit(main())
