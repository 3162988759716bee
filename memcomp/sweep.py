"""Train every missing point of a chapter's grid on a Dask cluster (``memcomp sweep``).

The records are the only state: a point is done when its record is stored, whoever computed it, and a sweep
that was stopped in any way goes on when the same command is given again.
"""

import contextlib
import dataclasses
import functools
import importlib
import inspect
import json
import logging
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import yaml

from memcomp import batch, experiments, records

RESUBMIT_SECONDS = 30  # how often a sweep on Slurm looks whether one of its jobs has ended

NO_GPU = "device: cuda, and this machine shows no GPU"


@dataclass(frozen=True)
class Grid:
    """The points of one experiment that a chapter shows.

    Attributes
    ----------
    experiment : str
        Name of the experiment.
    profile : str
        Folder of its records.
    run : functools.partial
        What computes a point: the experiment with the chapter's parameters that do not belong to the point.
    configs : dict of str to config
        The points by key.
    work : callable
        Takes a config to a number that is proportional to its cost.
    """

    experiment: str
    profile: str
    run: object
    configs: dict
    work: object

    def lacks_gpu(self):
        """Return whether the points ask for a GPU and this machine shows none."""
        return str(self.run.keywords.get("device")).startswith("cuda") and not gpus()

    def folder(self):
        """Return the folder of this grid's records."""
        return records.results_root() / self.profile / self.experiment

    def missing(self):
        """Return the keys of the points that are not stored."""
        return [key for key in self.configs if not (self.folder() / f"{key}.json").exists()]


def grids(chapter, profile="quick", given=()):
    """Return the grids of a chapter: exactly the points that its notebook collects.

    Parameters
    ----------
    chapter : str
        Name of a notebook.
    profile, given
        As for `memcomp.batch.parameters`.

    Returns
    -------
    list of Grid
        Empty for a chapter that trains nothing.
    """
    values = batch.defaults(chapter) | {"profile": profile} | batch.parameters(chapter, profile, given)
    found = []
    for module_name in experiments.CHAPTERS.get(chapter, ()):
        module = importlib.import_module(f"memcomp.experiments.{module_name}")
        run = functools.partial(module.run, **_accepted(module.run, values))
        configs = module.grid(**_accepted(module.grid, values))
        name, version = records.identify(run)
        points = {records.key_of(name, version, config): config for config in configs}
        found.append(Grid(name, values["profile"], run, points, module.work))
    return found


def _accepted(function, values):
    """Return those of a chapter's parameters that a function takes."""
    return {name: values[name] for name in inspect.signature(function).parameters if name in values}


@contextlib.contextmanager
def cluster(workers=None, scheduler=None, slurm=None, per_gpu=1):
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
        Workers that share one GPU. Each worker sees only its own GPU.

    Yields
    ------
    dask.distributed.Client

    Raises
    ------
    ValueError
        If the file of options is not what it should be.
    OSError
        If no scheduler answers at the address.
    """
    import dask
    from dask.distributed import Client

    with contextlib.ExitStack() as stack:
        settings = records.DASK | {"temporary-directory": str(batch.project() / "runs")}  # not /tmp
        stack.enter_context(dask.config.set(settings))
        if scheduler:
            address = scheduler
        elif slurm:
            address = stack.enter_context(_slurm_cluster(Path(slurm)))
        else:
            address = stack.enter_context(_local_cluster(workers, per_gpu))
        yield stack.enter_context(Client(address, timeout="15s"))


def gpus():
    """Return the number of GPUs that this process can see, without taking hold of one."""
    import torch

    return torch.cuda.device_count()


def default_workers(workers=None, per_gpu=1):
    """Return the number of worker processes that `cluster` starts on this machine.

    Parameters
    ----------
    workers, per_gpu
        As for `cluster`.

    Returns
    -------
    int
    """
    from dask.system import CPU_COUNT  # knows about affinity and containers, which os.cpu_count does not

    return workers or gpus() * per_gpu or CPU_COUNT


def _local_cluster(workers, per_gpu):
    from dask.distributed import Nanny, Scheduler, SpecCluster

    devices = gpus()
    count = default_workers(workers, per_gpu)
    options = {"nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    spec = {}
    for number in range(count):
        sees = {"CUDA_VISIBLE_DEVICES": _visible(number % devices)} if devices else {}
        spec[number] = {"cls": Nanny, "options": options | {"env": sees}}
    address = {"host": "127.0.0.1", "port": 0, "dashboard": True, "dashboard_address": "127.0.0.1:0"}
    return SpecCluster(spec, {"cls": Scheduler, "options": address}, silence_logs=logging.CRITICAL)


def _visible(number):
    """Return the name of the number-th GPU that this process may use."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return allowed.split(",")[number] if allowed else str(number)


@contextlib.contextmanager
def _slurm_cluster(path):
    """Yield a Dask cluster of Slurm jobs; a job that ends before the cluster does is followed by another."""
    from tornado.ioloop import PeriodicCallback

    with patch("dask.config.ensure_file"):  # else the import writes a file of settings into ~/.config
        from dask_jobqueue import SLURMCluster
        from dask_jobqueue.core import Job, JobQueueCluster
        from dask_jobqueue.slurm import SLURMJob

    options = yaml.safe_load(path.read_text())
    if not isinstance(options, dict) or not isinstance(options.get("jobs"), int) or options["jobs"] < 1:
        raise ValueError(
            f"{path}: expected a YAML mapping with jobs: N, the number of Slurm jobs, beside the options of "
            "dask_jobqueue.SLURMCluster; profiles/slurm.example.yaml is one"
        )
    jobs = options.pop("jobs")
    known = [name for kind in (SLURMJob, Job, JobQueueCluster) for name in inspect.signature(kind).parameters]
    for name in options:
        if name not in known:
            raise ValueError(f"{path}: SLURMCluster has no option {name!r}{batch.nearest(name, known)}")
    logs = batch.project() / "runs" / "slurm"
    logs.mkdir(parents=True, exist_ok=True)
    # The dashboard stays on this machine; look at it through a tunnel.
    scheduler = {"dashboard_address": "127.0.0.1:0"} | options.pop("scheduler_options", {})
    options = {"cores": 1, "processes": 1, "log_directory": str(logs)} | options
    # What `records.DASK` does for workers on this machine; a job reads its own settings of Dask.
    keep = "export MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_MMAP_THRESHOLD_=33554432"
    options["job_script_prologue"] = [keep, *options.get("job_script_prologue", ())]
    with SLURMCluster(scheduler_options=scheduler, **options) as running:
        running.scale(jobs=jobs)
        # Dask forgets a worker that is gone, but submits a new job only when it is asked for workers again.
        ask = PeriodicCallback(lambda: running.scale(jobs=jobs), 1000 * RESUBMIT_SECONDS)
        running.loop.add_callback(ask.start)
        try:
            yield running
        finally:
            running.loop.add_callback(ask.stop)


@dataclass(frozen=True)
class Summary:
    """What a sweep did with one grid.

    Attributes
    ----------
    experiment : str
        Name of the experiment.
    points, stored, computed : int
        Points of the grid, how many were stored before, how many were computed now.
    failed : list of dict
        ``key``, ``config`` and ``error`` of each point that failed, now or, if it was left out, before.
    """

    experiment: str
    points: int
    stored: int
    computed: int
    failed: list


def sweep(grid, client, *, fresh=False, retry_failed=False, progress=True):
    """Compute the missing points of a grid on a cluster.

    What a point prints goes to ``runs/sweep/PROFILE/EXPERIMENT/KEY.log``, and the list of the points that
    failed to ``failed.json`` beside it. A point on that list is left out until ``retry_failed`` is given.

    Parameters
    ----------
    grid : Grid
        From `grids`.
    client : dask.distributed.Client
        From `cluster`.
    fresh : bool
        Compute every point again, also those stored or failed.
    retry_failed : bool
        Try again what failed before.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Summary

    Raises
    ------
    memcomp.records.RecordError
        If a stored record is damaged; nothing is computed then.
    """
    logs = batch.project() / "runs" / "sweep" / grid.profile / grid.experiment
    logs.mkdir(parents=True, exist_ok=True)
    listed = logs / "failed.json"
    failed = {one["key"]: one for one in json.loads(listed.read_text())} if listed.exists() else {}
    failed = {key: one for key, one in failed.items() if key in grid.configs}
    if fresh or retry_failed:
        failed = {}
    missing = set(grid.configs if fresh else grid.missing())
    failed = {key: one for key, one in failed.items() if key in missing}
    todo = {key: config for key, config in grid.configs.items() if key not in failed}
    computed = len(missing) - len(failed)
    try:
        records.collect(
            _logging(grid.run, logs),
            todo.values(),
            client,
            profile=grid.profile,
            recompute=fresh,
            progress=progress,
        )
    except records.PointsFailed as error:
        _, version = records.identify(grid.run)
        for config, reason, trace in error.failures:
            key = records.key_of(grid.experiment, version, config)
            failed[key] = {"key": key, "config": config, "error": reason}
            if trace:
                with open(logs / f"{key}.log", "a") as log:
                    log.write(batch.without_paths(trace))
        computed -= len(error.failures)
    records.write_atomically(listed, json.dumps(list(failed.values()), indent=1) + "\n")
    stored = len(grid.configs) - len(missing)
    return Summary(grid.experiment, len(grid.configs), stored, computed, list(failed.values()))


def _logging(run, folder):
    """Return `run` with what it prints sent to the log of its point."""
    name, version = records.identify(run)

    @records.experiment(name, version)
    def logged(config):
        key = records.key_of(name, version, config)
        # The folder exists on this machine; a worker elsewhere that does not share it keeps its own log.
        target = folder / f"{key}.log" if folder.is_dir() else os.devnull
        with (
            open(target, "a", buffering=1) as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            return run(config)

    return logged


def estimate(grid):
    """Estimate what the missing points of a grid cost on this device.

    Parameters
    ----------
    grid : Grid

    Returns
    -------
    seconds : float or None
        Of one worker; workers side by side share them. None if the points need a GPU and there is none here.
    source : str
        What the estimate rests on: stored records of this device, or short runs made for the purpose.
    """
    if grid.missing() and grid.lacks_gpu():
        return None, NO_GPU
    todo = [grid.configs[key] for key in grid.missing()]
    if not todo:
        return 0.0, "nothing is missing"
    here = records.device_name("cuda" if gpus() else "cpu")
    # Of this profile only: others have other networks.
    known = records.load(grid.experiment, grid.profile, version=records.identify(grid.run)[1])
    known = [one for one in known if one["provenance"]["device"] == here]
    if known:
        # The fastest, because a machine that was busy with something else makes a record slow.
        rate = min(one["provenance"]["seconds"] / grid.work(type(todo[0])(**one["config"])) for one in known)
        return rate * sum(map(grid.work, todo)), f"the fastest of {len(known)} records of this device"
    print(f"{grid.experiment}: training one and two epochs to measure", file=sys.stderr, flush=True)
    # The first run loads libraries and data; the difference of the others is what an epoch costs.
    first, second = (dataclasses.replace(todo[0], epochs=epochs) for epochs in (1, 2))
    _, once, twice = (_seconds(grid.run, config) for config in (first, first, second))
    epoch = max(twice - once, 0)
    trained = epoch * sum(map(grid.work, todo)) / grid.work(first)
    return trained + len(todo) * (once - epoch), "one and two epochs of the first point"


def _seconds(run, config):
    started = time.perf_counter()
    run(config)
    return time.perf_counter() - started
