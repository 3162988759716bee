"""Where work runs: worker processes on this machine, a running Dask scheduler, or Slurm jobs."""

import asyncio
import atexit
import concurrent.futures
import contextlib
import functools
import inspect
import logging
import multiprocessing.resource_tracker
import multiprocessing.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import psutil
from tqdm import tqdm

from memcomp import values
from memcomp.lookup import nearest

SETTINGS = {
    # A worker that dies is replaced and its point tried again, three times in all.
    "distributed.scheduler.allowed-failures": 2,
    # Dask has the C library give back memory at once, and every step of training asks for it again: a third
    # of a small network's time.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
}
DEATH_NOTICE = "its worker process died at every attempt: killed, or out of memory"
RESUBMIT_SECONDS = 30  # how often it is looked whether a Slurm job has ended
LOOK_SECONDS = 5  # how often it is looked how many workers there are
PATIENCE_SECONDS = 60  # after which it is told what is waited for


class Waiting:
    """Says on standard error what is waited for: after a minute, then ever more rarely, at last each hour."""

    def __init__(self, clock=time.monotonic):
        self.clock, self.since, self.pause = clock, clock(), PATIENCE_SECONDS
        self.due = self.since + self.pause

    def tell(self, words):
        """Say it if it is time to.

        Parameters
        ----------
        words : str or callable
            What is waited for and where to look, or a function that returns it.
        """
        now = self.clock()
        if now < self.due:
            return
        minutes = round((now - self.since) / 60)
        text = words() if callable(words) else words
        tqdm.write(f"waiting for {minutes} min: {text}", file=sys.stderr)  # not across a progress bar
        self.pause = min(2 * self.pause, 3600)
        self.due = now + self.pause


@contextlib.contextmanager
def told(words):
    """Say by a thread of its own, see `Waiting`, what a call that gives no sign waits for.

    Parameters
    ----------
    words : str or callable
        As for `Waiting.tell`.

    Yields
    ------
    threading.Event
        To be set if the wait ends before the block does.
    """
    over, waiting = threading.Event(), Waiting()

    def watch():
        while not over.wait(1):
            waiting.tell(words)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield over
    finally:
        over.set()
        thread.join()


_OUTSIDE = []  # what is to be called so that work elsewhere ends too


@contextlib.contextmanager
def _nothing_said():
    """Let what this process, or one that it starts, says on standard error go nowhere."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _kill_children():
    """Kill all children but Python's tracker, also one that is being started, which multiprocessing hides."""
    tracker = multiprocessing.resource_tracker._resource_tracker._pid
    for child in psutil.Process().children():
        if child.pid != tracker:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


@contextlib.contextmanager
def ending_at_once(words):
    """At Ctrl-C, `kill` or the end of the terminal say `words` and end this process and its workers at once.

    Dask closes its workers in good order, which takes long on a busy machine and, while they start, ends in
    tracebacks. Records need no good order: each is there whole or not at all. A signal that is ignored when
    this begins, as under ``nohup``, stays so.

    Parameters
    ----------
    words : str
        One sentence.
    """

    def leave(number, _):
        for one in before:
            signal.signal(one, signal.SIG_IGN)  # the second Ctrl-C must not leave half of it undone
        os.write(sys.stderr.fileno(), f"\nmemcomp: {words}\n".encode())
        _kill_children()
        for end in _OUTSIDE:
            end()
        with _nothing_said():  # the end of a terminal ends the tracker, too; the next one knows no semaphore
            multiprocessing.util._run_finalizers()
            _kill_children()
            os._exit(128 + number)

    with _nothing_said():  # Python's tracker, which would tell of each semaphore of a worker that was killed
        multiprocessing.resource_tracker.ensure_running()
    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {one: signal.getsignal(one) for one in wanted if signal.getsignal(one) != signal.SIG_IGN}
    for one in before:
        signal.signal(one, leave)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def gpus():
    """Return the number of GPUs that this process can see, without taking hold of one."""
    import torch

    return torch.cuda.device_count()


def cores():
    """Return the number of cores that this process may use."""
    from dask.system import CPU_COUNT  # knows about affinity and containers, which os.cpu_count does not

    return CPU_COUNT


def default_workers(workers=None, per_gpu=1):
    """Return the number of worker processes that `connect` starts on this machine.

    Parameters
    ----------
    workers, per_gpu
        As for `connect`.

    Returns
    -------
    int
    """
    return workers or gpus() * per_gpu or cores()


@contextlib.contextmanager
def connect(workers=None, scheduler=None, slurm=None, *, per_gpu=1, folder=None):
    """Yield a Dask client; what was started for it ends with it.

    Parameters
    ----------
    workers : int, optional
        Worker processes on this machine. Default: ``per_gpu`` for each GPU, or one for each core if there is
        no GPU.
    scheduler : str, optional
        Address of a running scheduler, ``tcp://…``, to use its workers instead.
    slurm : path-like, optional
        YAML file of options for ``dask_jobqueue.SLURMCluster``, and ``jobs``, the number of jobs.
    per_gpu : int
        Workers that share one GPU. Each worker sees only its own GPU; with 0 all see what this process sees.
    folder : path-like, optional
        For what workers write besides their results, such as the logs of Slurm jobs. By default a temporary
        folder; Slurm jobs need one.

    Yields
    ------
    dask.distributed.Client

    Raises
    ------
    ValueError
        If the file of options is not what it should be.
    OSError
        If no scheduler answers at the address.
    RuntimeError
        If a script starts workers that import it, and would start workers again.
    """
    import dask
    from dask.distributed import Client

    settings = SETTINGS | ({"temporary-directory": str(folder)} if folder else {})
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        if scheduler:
            address, look = scheduler, f"`dask worker {scheduler}` starts one"
        elif slurm:
            address = stack.enter_context(_slurm(slurm, Path(folder)))
            look = f"`squeue --me` says what the Slurm jobs wait for; what they printed is in {folder}/slurm"
        else:
            # A sweep that was stopped, by Ctrl-Z for instance, goes on with the workers that it has.
            stack.enter_context(dask.config.set({"distributed.scheduler.worker-ttl": None}))
            count = default_workers(workers, per_gpu)
            with told(
                f"the {count} worker processes of this machine are starting; it may be busy with others"
            ):
                address = stack.enter_context(_local(count, per_gpu and gpus()))
            look = "all worker processes of this machine have died; is there memory left?"
        client = stack.enter_context(Client(address, timeout="15s"))
        client.where_to_look = look  # for `each`, which knows only the client
        yield client


def _local(workers, devices):
    """Return a Dask cluster of one-thread workers on this machine, which share its GPUs one each."""
    from dask.distributed import Nanny, Scheduler, SpecCluster

    # Else Dask kills a worker by an estimate of its memory.
    options = {"nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    spec = {}
    for number in range(workers):
        sees = {"CUDA_VISIBLE_DEVICES": _visible(number % devices)} if devices else {}
        spec[number] = {"cls": Nanny, "options": options | {"env": sees}}
    address = {"host": "127.0.0.1", "port": 0, "dashboard": True, "dashboard_address": "127.0.0.1:0"}
    try:
        return SpecCluster(spec, {"cls": Scheduler, "options": address}, silence_logs=logging.CRITICAL)
    except RuntimeError as error:
        raise RuntimeError(
            "the worker processes did not start. A script that computes on several of them must do so "
            'under `if __name__ == "__main__":`, because each worker imports the script'
        ) from error


def _visible(number):
    """Return the name of the number-th GPU that this process may use."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return allowed.split(",")[number] if allowed else str(number)


@contextlib.contextmanager
def _slurm(path, folder):
    """Yield a Dask cluster of Slurm jobs; a job that ends before the cluster does is followed by another."""
    import dask
    from distributed.deploy.spec import ProcessInterface
    from tornado.ioloop import PeriodicCallback

    # The import copies a file of settings to where Dask keeps its own, into the user's ~/.config, and makes
    # Ctrl-C end this process with status 0 and without a word.
    kept, dask.config.PATH = dask.config.PATH, str(folder)
    interrupted = signal.getsignal(signal.SIGINT)
    try:
        from dask_jobqueue import SLURMCluster
        from dask_jobqueue.core import Job, JobQueueCluster
        from dask_jobqueue.slurm import SLURMJob
    finally:
        dask.config.PATH = kept
        signal.signal(signal.SIGINT, interrupted)

    options = values.slurm_options(path)
    jobs = options.pop("jobs")
    known = [name for kind in (SLURMJob, Job, JobQueueCluster) for name in inspect.signature(kind).parameters]
    for name in options:
        if name not in known:
            raise ValueError(f"{path}: SLURMCluster has no option {name!r}{nearest(name, known)}")
    logs = folder / "slurm"
    logs.mkdir(parents=True, exist_ok=True)
    # The dashboard stays on this machine; look at it through a tunnel.
    scheduler = {"dashboard_address": "127.0.0.1:0"} | options.pop("scheduler_options", {})
    options = {"cores": 1, "processes": 1, "log_directory": str(logs)} | options
    # What `SETTINGS` does for workers on this machine; a job reads its own settings of Dask.
    keep = "export MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_MMAP_THRESHOLD_=33554432"
    options["job_script_prologue"] = [keep, *options.get("job_script_prologue", ())]
    if not shutil.which("sbatch"):
        raise FileNotFoundError("no command sbatch here: --slurm is for the login node of a Slurm cluster")
    refusals = []

    class Submitted(SLURMJob):
        async def start(self):
            try:
                await super().start()
            except RuntimeError as error:  # which Dask would log, and wait for ever
                refusals.append(str(error).strip().splitlines()[-1])
                await ProcessInterface.start(self)  # so that it can be closed

    with SLURMCluster(scheduler_options=scheduler, **{"job_cls": Submitted} | options) as running:
        running.scale(jobs=jobs)
        with told("sbatch does not answer"):
            while not refusals and not any(job.job_id for job in list(running.workers.values())):
                time.sleep(0.1)
        if refusals:
            raise RuntimeError(f"{path}: Slurm takes no such job: {refusals[0]}")
        # Dask forgets a worker that is gone, but submits a new job only when it is asked for workers again.
        ask = PeriodicCallback(lambda: running.scale(jobs=jobs), 1000 * RESUBMIT_SECONDS)
        running.loop.add_callback(ask.start)

        def cancel():
            ids = [job.job_id for job in running.workers.values() if job.job_id]
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(["scancel", *ids], stdout=subprocess.DEVNULL, timeout=10, check=False)

        _OUTSIDE.append(cancel)
        try:
            yield running
        finally:
            _OUTSIDE.remove(cancel)
            running.loop.add_callback(ask.stop)


def each(client, function, calls, label):
    """Run a function on a cluster for each of some calls; yield what comes of each as it ends.

    Parameters
    ----------
    client : dask.distributed.Client
    function : callable
        Importable by the workers.
    calls : dict of str to tuple
        Arguments of each call, by a name.
    label : str
        What the dashboard shows for them.

    Yields
    ------
    name : str
    error : str or None
        Why the call did not end, because its workers died or for want of what it needs.
    result : object
        What the function returned.

    Raises
    ------
    ConnectionError
        If the scheduler is lost.
    """
    from dask.distributed import wait

    look = getattr(client, "where_to_look", "look at the cluster's dashboard")
    waiting = Waiting()
    run_id = uuid.uuid4().hex[:8]  # so that no scheduler takes this call for one that it has seen before
    queue, flying = list(calls.items()), {}
    try:
        while queue or flying:
            # One call per thread and none waiting behind it: when a worker dies, the scheduler blames
            # every call that it had been given, and would give up on those that never began.
            threads = sum(client.nthreads().values())
            if threads:
                waiting = Waiting()
            else:
                waiting.tell(f"no worker has come to compute {label}, {len(calls)} points in all; {look}")
            while queue and len(flying) < max(1, threads):
                name, arguments = queue.pop(0)
                flying[client.submit(function, *arguments, key=f"{label}-{name}-{run_id}", pure=False)] = name
            try:
                done = wait(list(flying), timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                continue  # look again how many workers there are
            for future in done:
                name = flying.pop(future)
                if future.status == "finished":
                    yield name, None, future.result()
                elif future.status == "error":
                    error = future.exception()
                    died = type(error).__name__ == "KilledWorker"
                    yield name, DEATH_NOTICE if died else f"{type(error).__name__}: {error}", None
                else:
                    raise ConnectionError(f"the scheduler dropped a point ({future.status})")
                future.release()
    except (OSError, concurrent.futures.CancelledError, asyncio.CancelledError) as error:
        reason = " ".join(str(error).split())
        raise ConnectionError(
            f"lost the Dask scheduler ({reason}). Finished points are stored; call again to go on"
        ) from error
    finally:
        client.cancel(list(flying), force=True)


@functools.cache
def _kept(workers, folder):
    """Return a client of worker processes that stay until this process ends."""
    stack = contextlib.ExitStack()
    client = stack.enter_context(connect(workers, per_gpu=0, folder=folder))
    atexit.register(stack.close)
    return client


def in_order(function, items, workers=None, folder=None):
    """Return what a function makes of each item, computed in worker processes that stay for the next call.

    Parameters
    ----------
    function : callable
        Importable by the workers.
    items : sequence
        The costly ones first, so that none starts when the others have ended.
    workers : int, optional
        By default one per core.
    folder : path-like, optional
        As for `connect`.

    Returns
    -------
    list
        In the order of the items.
    """
    client = _kept(workers or cores(), folder)
    parts = -(-len(items) // 4)  # a call for each item would cost as much as a small item does
    dealt = [items[part::parts] for part in range(parts)]
    found = [None] * len(items)
    calls = client.map(functools.partial(_all, function), dealt, pure=False)
    for part, done in enumerate(client.gather(calls)):
        found[part::parts] = done
    return found


def _all(function, items):
    return [function(item) for item in items]
