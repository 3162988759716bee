"""What a long run needs: a word every ten seconds, one run at a time, and an end without remains.

However a run ends early, it says so in one sentence, its status is not zero, and its children end with it.
"""

import asyncio
import concurrent.futures
import contextlib
import errno
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

import filelock
import psutil

from memcomp import paths

REASONS = {
    signal.SIGINT: "it was interrupted",
    signal.SIGTERM: "it was asked to end",
    signal.SIGHUP: "its terminal went away",
}
FULL = 16 * 2**20  # bytes: with less than this left, a failure is the disk's


class Failure(Exception):
    """Something that a person can mend; the message says what."""


class Stopped(BaseException):
    """A signal that ends the run."""

    def __init__(self, number):
        super().__init__(number)
        self.number = signal.Signals(number)


# --- the end ---------------------------------------------------------------------------------------------


def complete(work, build, failed):
    """Do some work; return the exit status, after one sentence on the terminal if the work ended early.

    Parameters
    ----------
    work : callable
        Without arguments. It may raise `Failure`.
    build : Path
        The folder that it writes to.
    failed : str
        What is not there if it fails: the beginning of the sentence.
    """
    status = 1
    try:
        with stoppable():
            work()
        return 0
    except Stopped as stop:
        reason, status = REASONS[stop.number], 128 + stop.number
        reason += ". What was executed is kept; the next run goes on from there."
    except Failure as error:
        reason = str(error)
    except shutil.Error as error:  # of copying a folder: one line a file
        reason = str(error.args[0][0][-1])
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}" if error.filename else str(error)
    if status == 1 and disk_is_full(build, reason):
        reason = f"the disk that holds {build} is full. Free some space and run it again."
    with contextlib.suppress(OSError):
        print(f"\n{failed}: {reason}", file=sys.stderr, flush=True)
    return status


def disk_is_full(build, reason):
    """Tell whether a failure comes from a full disk, by its text or by what is left."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(build).free < FULL:
            return True
    return any(os.strerror(one) in reason for one in (errno.ENOSPC, errno.EDQUOT))


@contextlib.contextmanager
def stoppable():
    """Raise `Stopped` in the main thread at a signal that ends the run; then end all children.

    A signal that is ignored, as by nohup, stays so. While the children end, further signals are ignored.
    """
    before = {number: signal.getsignal(number) for number in REASONS}
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}

    def stop(number, frame):
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        raise Stopped(number)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    except Stopped:
        end_children()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_children():
    """Kill all processes that this one started, and theirs."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(children, timeout=10)


# --- a word ----------------------------------------------------------------------------------------------


def tell(line):
    """Print a line of progress at once, also into a pipe; without a reader, the run ends."""
    try:
        print(line, flush=True)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        heard = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
        signal.pthread_kill(threading.main_thread().ident, signal.SIGHUP if heard else signal.SIGTERM)


class Progress:
    """Say lines, and after each silence what is at work; use it in a with-block.

    Parameters
    ----------
    say : callable
        Takes a line.
    status : callable
        Returns a line that tells what is at work now, or nothing.
    silence : float
        Seconds.
    """

    def __init__(self, say, status, silence=10):
        self.say, self.status, self.silence = say, status, silence
        self.last, self.over = time.monotonic(), threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __call__(self, line):
        """Say a line."""
        self.last = time.monotonic()
        self.say(line)

    def watch(self):
        """Break each silence."""
        while not self.over.wait(min(1, self.silence)):
            if time.monotonic() - self.last >= self.silence:
                self.last = time.monotonic()
                if line := self.status():
                    self.say(line)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.over.set()
        self.thread.join()


def roughly(seconds):
    """Return a duration as people say it.

    Examples
    --------
    >>> roughly(42), roughly(70), roughly(230), roughly(9000)
    ('40 s', '1 minute', '4 minutes', '2.5 hours')
    """
    if seconds < 55:
        return f"{max(10, round(seconds, -1)):.0f} s"
    if seconds < 90 * 60:
        count = round(seconds / 60)
        return f"{count} minute{'s' if count > 1 else ''}"
    return f"{seconds / 3600:.1f} hours"


# --- one run at a time, in folders of its own ------------------------------------------------------------


@contextlib.contextmanager
def alone(root, say=tell):
    """Let one run at a time execute the notebooks of a checkout and render its pages.

    Its processes get folders of their own for what programs keep in a person's home folder, which may be read
    only or hold settings that change an output, and for temporary files, which are removed at the end.
    """
    build = Path(root) / "_build"
    build.mkdir(parents=True, exist_ok=True)
    with alone_with(build / ".lock", say), scratch(build) as temporary:
        kept = {name: build / "home" / name.lower() for name in ("IPYTHONDIR", "MPLCONFIGDIR")}
        own = kept | {"TMPDIR": temporary, "JUPYTER_RUNTIME_DIR": temporary / "jupyter"}
        for folder in own.values():
            folder.mkdir(parents=True, exist_ok=True)
        # A relative path is meant from here; the kernels work in another folder.
        try:
            own |= {
                name: paths.typed(os.environ[name], name) for name in paths.VARIABLES if os.environ.get(name)
            }
        except (ValueError, FileNotFoundError) as error:
            raise Failure(f"{error}.") from None
        before = {name: os.environ.get(name) for name in own}
        os.environ.update({name: str(folder) for name, folder in own.items()})
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def alone_with(path, say=tell, patience=60):
    """Hold a lock; say that it is waited for, at first and then each minute."""
    lock, started = filelock.FileLock(path), time.monotonic()
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        say("Another build is at work in this checkout; waiting for it to end.")
        while not lock.is_locked:
            try:
                lock.acquire(timeout=patience)
            except filelock.Timeout:
                say(f"Still waiting for the other build, for {roughly(time.monotonic() - started)} now.")
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def scratch(build):
    """Make a folder for temporary files; remove what a run that was killed has left of its own.

    It lies in the system's one, because the paths of sockets have to be short.
    """
    link, prefix = build / "temporary", f"memcomp-{zlib.crc32(bytes(build.resolve())):08x}-"
    if link.is_symlink():
        if link.readlink().name.startswith(prefix):
            shutil.rmtree(link.readlink(), ignore_errors=True)
        link.unlink()
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        link.symlink_to(folder)
        try:
            yield Path(folder)
        finally:
            link.unlink(missing_ok=True)


def run_apart(work):
    """Run a coroutine function in a thread: in the main one, nbclient would take the signals for its own.

    Whatever ends the wait for it early ends it too, and all children.
    """
    begun, done = concurrent.futures.Future(), concurrent.futures.Future()

    async def whole():
        begun.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        return await work()

    def target():
        try:
            done.set_result(asyncio.run(whole()))
        except BaseException as error:
            done.set_exception(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    try:
        return done.result()
    except BaseException:
        if not done.done():
            loop, task = begun.result()
            loop.call_soon_threadsafe(task.cancel)
            end_children()
            thread.join(timeout=20)
        raise
