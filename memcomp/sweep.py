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
import os
import sys
import time
from dataclasses import dataclass

from memcomp import chapters, cluster, experiments, records

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
        return str(self.run.keywords.get("device")).startswith("cuda") and not cluster.gpus()

    def folder(self):
        """Return the folder of this grid's records."""
        return records.results_root() / self.profile / self.experiment

    def missing(self):
        """Return the keys of the points that are not stored."""
        return [key for key in self.configs if not (self.folder() / f"{key}.json").exists()]

    def first(self, count, fresh=False):
        """Return a grid of the first points that are not stored, or of all points if ``fresh``."""
        keys = list(self.configs) if fresh else self.missing()
        return dataclasses.replace(self, configs={key: self.configs[key] for key in keys[:count]})


def grids(chapter, profile="quick", given=()):
    """Return the grids of a chapter: exactly the points that its notebook collects.

    Parameters
    ----------
    chapter : str
        Name of a notebook.
    profile, given
        As for `memcomp.chapters.parameters`.

    Returns
    -------
    list of Grid
        Empty for a chapter that trains nothing.

    Raises
    ------
    ValueError
        As `memcomp.chapters.parameters`, or if a grid has no points.
    """
    values = chapters.defaults(chapter) | {"profile": profile} | chapters.parameters(chapter, profile, given)
    found = []
    for module_name in experiments.CHAPTERS.get(chapter, ()):
        module = importlib.import_module(f"memcomp.experiments.{module_name}")
        run = functools.partial(module.run, **_accepted(module.run, values))
        configs = module.grid(**_accepted(module.grid, values))
        name, version = records.identify(run)
        points = {records.key_of(name, version, config): config for config in configs}
        if not points:
            raise ValueError(f"the grid of {name} in {chapter} has no points; look at its parameters")
        found.append(Grid(name, values["profile"], run, points, module.work))
    return found


def _accepted(function, values):
    """Return those of a chapter's parameters that a function takes."""
    return {name: values[name] for name in inspect.signature(function).parameters if name in values}


def sweep(grid, client, fresh=False, retry_failed=False):
    """Compute the missing points of a grid on a cluster.

    What a point prints goes to ``runs/sweep/PROFILE/EXPERIMENT/KEY.log``, and the list of the points that
    failed to ``failed.json`` beside it. A point on that list is left out until ``retry_failed`` is given.

    Parameters
    ----------
    grid : Grid
        From `grids`.
    client : dask.distributed.Client
        From `memcomp.cluster.connect`.
    fresh : bool
        Compute every point again, also those stored or failed.
    retry_failed : bool
        Try again what failed before.

    Returns
    -------
    stored, computed : int
        How many points were stored before, and how many were computed now.
    failed : list of dict
        ``key``, ``config`` and ``error`` of each point that failed, now or, if it was left out, before.

    Raises
    ------
    memcomp.records.RecordError
        If a stored record is damaged; nothing is computed then.
    """
    logs = chapters.project() / "runs" / "sweep" / grid.profile / grid.experiment
    logs.mkdir(parents=True, exist_ok=True)
    listed = logs / "failed.json"
    missing = set(grid.configs if fresh else grid.missing())
    failed = {}
    if listed.exists() and not (fresh or retry_failed):
        failed = {one["key"]: one for one in _read_list(listed) if one["key"] in missing}
    todo = [config for key, config in grid.configs.items() if key not in failed]
    try:
        run = _logging(grid.run, logs)
        records.collect(run, todo, client, profile=grid.profile, recompute=fresh)
    except records.PointsFailed as error:
        for key, (config, reason, trace) in zip(error.keys, error.failures):
            failed[key] = {"key": key, "config": config, "error": reason}
            if trace:
                with open(logs / f"{key}.log", "a") as log:
                    log.write(chapters.without_paths(trace))
    records.write_atomically(listed, json.dumps(list(failed.values()), indent=1) + "\n")
    return len(grid.configs) - len(missing), len(missing) - len(failed), list(failed.values())


def _read_list(path):
    """Read the points that failed before."""
    try:
        listed = json.loads(path.read_bytes())
        whole = all(one.keys() >= {"key", "config", "error"} for one in listed)
    except (ValueError, AttributeError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise ValueError(f"{path} is not a list of failed points; delete it, or try them with --retry-failed")
    return listed


def _logging(run, folder):
    """Return `run` with what it prints sent to the log of its point."""
    name, version = records.identify(run)

    @functools.wraps(run.func)  # `collect` asks what it is given and what it takes
    def logged(config, **more):
        key = records.key_of(name, version, config)
        # The folder exists on this machine; a worker elsewhere that does not share it keeps its own log.
        target = folder / f"{key}.log" if folder.is_dir() else os.devnull
        with (
            open(target, "a", buffering=1) as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            return run(config, **more)

    return functools.partial(logged, **run.keywords)


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
    todo = [grid.configs[key] for key in grid.missing()]
    if not todo:
        return 0.0, "nothing is missing"
    if grid.lacks_gpu():
        return None, NO_GPU
    here = records.device_name("cuda" if cluster.gpus() else "cpu")
    # Of this profile only: others have other networks.
    known = records.load(grid.experiment, grid.profile, version=records.identify(grid.run)[1])
    known = [one for one in known if one["provenance"]["device"] == here]
    if known:
        # The fastest, because a machine that was busy with something else makes a record slow.
        rate = min(one["provenance"]["seconds"] / grid.work(type(todo[0])(**one["config"])) for one in known)
        return rate * sum(map(grid.work, todo)), f"the fastest of {len(known)} records of this device"
    if not hasattr(todo[0], "epochs"):
        print(f"{grid.experiment}: computing the first point to measure", file=sys.stderr, flush=True)
        _, once = (_seconds(grid.run, todo[0]) for _ in range(2))  # the first run loads libraries and data
        return once * sum(map(grid.work, todo)) / grid.work(todo[0]), "the first point"
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
