"""One small JSON file per computed point, and `collect`, which computes only what is missing.

An experiment is a plain function from a config to a dict of metrics, named by the decorator `experiment`.
`collect` runs it over a grid of configs and keeps each result as a *record* in
``results/PROFILE/EXPERIMENT/KEY.json``. Resuming, spreading over machines and rendering a page from stored
results are therefore the same call.

What holds whatever happens to the processes:

- The process that computed a point writes its record, under a temporary name, flushed to disk, then renamed.
  A record is there whole or not at all, and nobody has to survive for a finished one to be kept.
- While a point is computed, a lock file keeps every other process from computing it too. The operating
  system drops the lock when its holder dies. Where a file system has no locks the price is a point computed
  twice, never a damaged record.
- A record names its own key and checksum. One that was cut, edited or renamed is refused by name.

Examples
--------
>>> import tempfile
>>> from memcomp import records
>>> @records.experiment("squares", version=1)
... def run(config):
...     return {"square": config["x"] ** 2}
>>> folder = tempfile.TemporaryDirectory()
>>> found = records.collect(run, [{"x": 2}, {"x": 3}], root=folder.name, workers=0, progress=False)
>>> [record["metrics"]["square"] for record in found]
[4, 9]
>>> folder.cleanup()
"""

import asyncio
import concurrent.futures
import contextlib
import copy
import dataclasses
import datetime
import errno
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import logging
import math
import os
import pathlib
import pickle
import platform
import re
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
import warnings
from collections.abc import Iterable

import numpy as np
from tqdm import tqdm

FIELDS = (
    *("key", "experiment", "profile", "version", "config", "given"),
    *("metrics", "data", "provenance", "checksum"),
)
"""Fields of a record, in the order in which they are written."""

_CONFIGS = {}  # the class of an experiment's configs, by the experiment's name

_NAME = r"[a-z][a-z0-9_]*"


class RecordError(Exception):
    """A stored record cannot be trusted: damaged, renamed, or of several versions at once."""


class PointsFailed(Exception):
    """Some points could not be computed; all others are stored.

    Attributes
    ----------
    failures : list of (dict, str, str)
        For each failed point its config, the error in one line, and the traceback ("" if its process died).
    records : list of dict
        The records of the points that are there.
    """

    def __init__(self, experiment, failures, found):
        self.failures, self.records = failures, found
        total = len(failures) + len(found)
        lines = [f"{len(failures)} of {total} points of {experiment!r} failed; the others are stored:"]
        lines += [f"  {_canonical_json(config)}: {error}" for config, error, _ in failures]
        super().__init__("\n".join(lines))


# ----------------------------------------------------------------------------------------------------
# Experiments, configs and keys


def experiment(name, version, config=None):
    """Make a function from config to metrics an experiment that `collect` can run.

    Parameters
    ----------
    name : str
        Folder of its records: lower case, digits, underscores.
    version : int
        Part of every key. Raise it when the meaning of a config or a metric changes: records of another
        version are then never taken for results of this one.
    config : type, optional
        The dataclass of its configs. The function then receives an instance of it, and a key depends only on
        the fields that differ from their defaults: a field added later, with a default that means what was
        done before, leaves all keys as they are.

    Returns
    -------
    callable
        A decorator that returns the function itself with the attributes ``experiment`` and ``version``.

    Notes
    -----
    The function takes one config and returns a dict of metrics: finite numbers, texts, booleans, None, and
    lists and dicts of them. An entry ``"data"``, ``{"source": …, "sha256": …}``, says what data the point
    was computed from, and goes to the record's field of that name.
    """
    if not isinstance(name, str) or not re.fullmatch(_NAME, name) or name == "claims":
        raise ValueError(
            f"experiment name {name!r}: expected lower case, digits and underscores, and not 'claims'"
        )
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"version of experiment {name!r} must be a positive integer; got {version!r}")
    if config is not None and not (isinstance(config, type) and dataclasses.is_dataclass(config)):
        raise TypeError(f"config of experiment {name!r} must be a dataclass; got {config!r}")

    def decorate(function):
        function.experiment, function.version = name, version
        _CONFIGS.pop(name, None)
        if config is not None:
            _CONFIGS[name] = config
        return function

    return decorate


def plain_config(config):
    """Turn a config into the plain dict that is stored and hashed.

    Parameters
    ----------
    config : dict or dataclass instance
        Keys are texts; values are numbers, texts, booleans, None, and lists, tuples and dicts of them.
        Tuples become lists; NumPy scalars become Python's.

    Returns
    -------
    dict

    Raises
    ------
    TypeError
        If the config or a value in it has another type; the message names the entry.
    ValueError
        If a number is not finite, or a text is an absolute path, which would tie the record to one machine.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        config = dataclasses.asdict(config)
    if not isinstance(config, dict):
        raise TypeError(
            f"a config must be a dict or a dataclass instance; got {type(config).__name__}: {config!r}"
        )
    return _plain(config, "config", arrays=False)


def _plain(value, where, arrays=True):
    """Copy ``value`` as JSON-able Python objects; ``where`` names the entry in error messages."""
    if value is None or isinstance(value, bool | np.bool_):
        return None if value is None else bool(value)
    if isinstance(value, str):
        if os.path.isabs(value):
            raise ValueError(
                f"{where} is an absolute path, {value!r}: it would tie the record to one machine. Give paths "
                "to the run function with functools.partial or an environment variable"
            )
        return str(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {float(value)}; only finite numbers are stored")
        return float(value)
    if isinstance(value, dict):
        wrong = [key for key in value if not isinstance(key, str)]
        if wrong:
            raise TypeError(f"{where} has the key {wrong[0]!r}; keys must be texts")
        return {str(key): _plain(item, f"{where}.{key}", arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]", arrays) for i, item in enumerate(value)]
    if arrays and hasattr(value, "tolist"):  # NumPy's arrays, torch's tensors
        return _plain(value.tolist(), where)
    expected = "a number, text, bool, None, list or dict" + (" or an array" if arrays else "")
    raise TypeError(f"{where} is of type {type(value).__name__}; expected {expected}")


def _canonical_json(value):
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _integral(value):
    """Write 1.0 as 1: configs that are equal in Python are the same point."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {key: _integral(item) for key, item in value.items()}
    return [_integral(item) for item in value] if isinstance(value, list) else value


def _as_config(name, config):
    """Return a config as the run function takes it: of the experiment's class, where it has one."""
    kind = _CONFIGS.get(name)
    return kind(**config) if kind is not None and isinstance(config, dict) else config


def _given(config):
    """Return the names of a config's entries that say which point it is: those that are not defaults."""
    plain = _integral(plain_config(config))
    if isinstance(config, dict):
        return sorted(plain)
    defaults = _integral(plain_config(defaults_of(type(config))))
    return sorted(name for name in plain if name not in defaults or plain[name] != defaults[name])


def defaults_of(kind):
    """Return the defaults of a dataclass's fields.

    Parameters
    ----------
    kind : type

    Returns
    -------
    dict
    """
    found = {}
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return found


def _hash(experiment, version, config, given):
    content = {"experiment": experiment, "version": version, "config": {name: config[name] for name in given}}
    return hashlib.sha256(_canonical_json(_integral(content)).encode()).hexdigest()[:16]


def key_of(experiment, version, config):
    """Return the key of a point: a short hash of the experiment, its version and what its config sets.

    Parameters
    ----------
    experiment : str
    version : int
    config : dict or dataclass instance
        Of a dataclass, fields that have their default do not count. The order of entries does not matter; 1
        and 1.0 are the same.

    Returns
    -------
    str
        The first 16 hexadecimal digits of a SHA-256.

    Examples
    --------
    >>> key_of("toy", 1, {"a": 1, "b": (2, 3)}) == key_of("toy", 1, {"b": [2, 3], "a": 1.0})
    True
    >>> key_of("toy", 1, {"a": 1}) == key_of("toy", 2, {"a": 1})
    False
    """
    config = _as_config(experiment, config)
    return _hash(experiment, version, plain_config(config), _given(config))


# ----------------------------------------------------------------------------------------------------
# Files


def results_root():
    """Return the folder of all records.

    Returns
    -------
    pathlib.Path
        ``$MEMCOMP_RESULTS`` if it is set; else ``results`` in the repository that holds this package; else,
        for a package installed elsewhere, ``results`` in the working directory.
    """
    if os.environ.get("MEMCOMP_RESULTS"):
        return pathlib.Path(os.environ["MEMCOMP_RESULTS"]).absolute()
    repository = _repository()
    return (repository or pathlib.Path.cwd()) / "results"


def _repository():
    folder = pathlib.Path(__file__).resolve().parents[1]
    return folder if (folder / "pyproject.toml").is_file() else None


def write_atomically(path, text):
    """Write a text file so that a reader sees it whole or not at all, even after a crash or a power cut.

    Parameters
    ----------
    path : str or pathlib.Path
        Replaced if it exists. Its folder must exist.
    text : str
    """
    folder, name = os.path.split(os.path.abspath(path))
    handle, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=folder)
    try:
        with open(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)  # mkstemp's files are private; records are for everybody
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)  # makes the new name last, not only the content
    finally:
        os.close(directory)


def _checksum(record):
    content = {name: record[name] for name in FIELDS if name != "checksum"}
    return hashlib.sha256(_canonical_json(content).encode()).hexdigest()


def _write_record(path, record):
    lines = (
        f" {json.dumps(name)}: {json.dumps(record[name], ensure_ascii=False, allow_nan=False)}"
        for name in FIELDS
    )
    write_atomically(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read(path):
    """Read one record and check that it is whole and stands under its own name.

    Parameters
    ----------
    path : str or pathlib.Path

    Returns
    -------
    dict
        With the fields `FIELDS`.

    Raises
    ------
    RecordError
        If the file is no record, was changed after it was written, or has another point's name. The message
        names the file, what is wrong with it and how to mend it.
    FileNotFoundError
        If there is no such file.
    """
    path = pathlib.Path(path)
    content = path.read_bytes()
    try:
        record = json.loads(content)
        problem = _problem(record, path)
    except ValueError as error:  # no UTF-8, no JSON
        problem = f"it is not readable as JSON ({error})"
    if problem:
        shown = _shown(path)
        raise RecordError(
            f"damaged record {shown}: {problem}. Delete the file to have the point computed again, or "
            f"restore it with: git checkout -- {shown}"
        )
    return record


def _problem(record, path):
    if not isinstance(record, dict):
        return "it is not a JSON object"
    missing, unknown = [f for f in FIELDS if f not in record], [f for f in record if f not in FIELDS]
    if missing or unknown:
        return " and ".join(
            f"{what} {', '.join(map(repr, fields))}"
            for what, fields in (("it lacks the field", missing), ("it has the unknown field", unknown))
            if fields
        )
    try:
        if record["checksum"] != _checksum(record):
            return "its checksum does not match its content"
        key = _hash(record["experiment"], record["version"], record["config"], record["given"])
    except (TypeError, ValueError, KeyError) as error:
        return f"its content is not that of a record ({error})"
    if record["key"] != key or path.stem != key:
        return f"its content belongs to the key {key}, not to this file name"
    if path.parent.name != record["experiment"] or path.parent.parent.name != record["profile"]:
        return f"it belongs to {record['profile']}/{record['experiment']}, not to this folder"
    return None


def _shown(path):
    """Path as a person would type it from the working directory, where that is possible."""
    try:
        return path.absolute().relative_to(pathlib.Path.cwd()).as_posix()
    except ValueError:
        return str(path)


def load(experiment, profile="quick", root=None, version=None):
    """Read all stored records of an experiment.

    Parameters
    ----------
    experiment : str
        Name of the experiment.
    profile : str
        Name of the profile.
    root : str or pathlib.Path, optional
        Folder of all records; `results_root` by default.
    version : int, optional
        Take the records of this version only.

    Returns
    -------
    list of dict
        Ordered by key; empty if nothing is stored.

    Raises
    ------
    RecordError
        If a record is damaged, or if records of several versions lie side by side and none was asked for.
    """
    folder = _folder(root, profile, experiment)
    found = _read_all(sorted(folder.glob("[!.]*.json")))
    versions = sorted({record["version"] for record in found})
    if version is None and len(versions) > 1:
        raise RecordError(
            f"{_shown(folder)} holds records of versions {', '.join(map(str, versions))}; they must not be "
            "mixed: pass version=…, or delete the outdated ones"
        )
    return [record for record in found if version is None or record["version"] == version]


def _read_all(paths):
    """Read records, with the defaults of fields that are younger; report all damaged ones at once."""
    found, problems = [], []
    for path in paths:
        try:
            record = read(path)
            if kind := _CONFIGS.get(record["experiment"]):
                record["config"] = plain_config(defaults_of(kind)) | record["config"]
            found.append(record)
        except RecordError as error:
            problems.append(str(error))
    if problems:
        raise RecordError("\n".join(problems))
    return found


def _folder(root, profile, name):
    for what, text in (("profile", profile), ("experiment", name)):
        if not isinstance(text, str) or not re.fullmatch(_NAME, text):
            raise ValueError(f"{what} {text!r}: expected lower case, digits and underscores")
    return pathlib.Path(root or results_root()).absolute() / profile / name


@contextlib.contextmanager
def _lock(path):
    """Yield True while this process alone holds the lock ``path``; yield False if another one has it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                os.close(handle)
                yield False
                return
            # No locks on this file system: a point may be computed twice, and nothing worse.
            warnings.warn(f"cannot lock in {os.path.dirname(path)}: {error.strerror}", stacklevel=2)
        if os.fstat(handle).st_nlink:
            break
        os.close(handle)  # the holder before us removed the file between our opening and locking it
    try:
        yield True
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.close(handle)


# ----------------------------------------------------------------------------------------------------
# One point


@dataclasses.dataclass(frozen=True)
class _Job:
    """What is the same for all points of one `collect`."""

    experiment: str
    version: int
    profile: str
    folder: str
    recompute: bool
    code: dict
    threads: int | None


def _compute(run, config, key, job):
    """Compute one point and store it, in whatever process this is called.

    Returns
    -------
    tuple of str, object
        ``("done", record)``, ``("busy", None)`` if another process is computing the point, or
        ``("failed", (error, traceback))``. Errors travel as text: an exception may be of a class that the
        client cannot load.
    """
    path = os.path.join(job.folder, f"{key}.json")
    shared = os.path.isdir(job.folder)  # a worker on another machine may not see the client's folder
    try:
        with (
            _lock(os.path.join(job.folder, f".{key}.lock"))
            if shared
            else contextlib.nullcontext(True) as mine
        ):
            if not mine:
                return "busy", None
            if shared and not job.recompute and os.path.exists(path):
                return "done", read(path)  # finished by another process since the client looked
            record = _run_point(run, config, key, job)
            if shared:
                _remove_leftovers(job.folder, key)
                _write_record(path, record)
            return "done", record
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return "failed", (reason, traceback.format_exc())


def _remove_leftovers(folder, key):
    """Delete what a process left that was killed between writing this point's file and renaming it."""
    for path in pathlib.Path(folder).glob(f".{key}.json.*.tmp"):
        path.unlink(missing_ok=True)


def _run_point(run, config, key, job):
    with _arithmetic(job.threads):
        start = time.perf_counter()
        result = run(copy.deepcopy(config))
        seconds = time.perf_counter() - start
        threads = _torch().get_num_threads()
    if not isinstance(result, dict):
        raise TypeError(f"{job.experiment} returned {type(result).__name__}; expected a dict of metrics")
    data = result.get("data")
    if data is not None and not (isinstance(data, dict) and isinstance(data.get("source"), str)):
        raise TypeError(f"{job.experiment} returned data={data!r}; expected {{'source': …, 'sha256': …}}")
    metrics = {name: value for name, value in result.items() if name != "data"}
    if not metrics:
        raise ValueError(f"{job.experiment} returned no metrics")
    record = {
        "key": key,
        "experiment": job.experiment,
        "profile": job.profile,
        "version": job.version,
        "config": plain_config(config),
        "given": _given(config),
        "metrics": _plain(metrics, "metrics"),
        "data": _plain(data, "data"),
        "provenance": {
            **provenance(job.code),
            "device": _device(config),
            "threads": threads,
            "seconds": round(seconds, 3),
        },
    }
    return {**record, "checksum": _checksum(record)}


@contextlib.contextmanager
def _arithmetic(threads):
    """Fix what changes the bits or the speed of a point: number of threads, subnormal numbers."""
    torch = _torch()
    before = torch.get_num_threads()
    # Under weight decay, weights shrink into the subnormal range, where a CPU is ten times slower.
    torch.set_flush_denormal(True)
    if threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)


def _torch():
    import torch  # takes seconds, and a page that only loads records does without

    return torch


@functools.cache
def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device(config):
    """Name of the processor that did the work: the GPU if one was used, else the CPU's model."""
    asked = config.get("device") if isinstance(config, dict) else getattr(config, "device", None)
    return device_name("cuda" if _torch().cuda.is_initialized() and asked != "cpu" else "cpu")


def device_name(kind="cpu"):
    """Return the name of a device of this machine, as it stands in the provenance of records.

    Parameters
    ----------
    kind : str
        ``"cpu"``, or a CUDA device.

    Returns
    -------
    str
    """
    return _cpu_model() if kind == "cpu" else _torch().cuda.get_device_name(kind)


@functools.cache
def _cpu_model():
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        name = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
        if name:
            return name
    return platform.machine()


def provenance(code=None):
    """Say when, with which code and with which libraries something is computed.

    Parameters
    ----------
    code : dict, optional
        ``commit`` and ``dirty`` if they are known already.

    Returns
    -------
    dict
        ``created`` (UTC), ``commit`` and ``dirty`` of the repository that holds this package (None without
        one; only changes of the package count), ``python`` and ``versions``.
    """
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **(code or _code_state()),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("memcomp", "numpy", "scipy", "torch", "torchvision")},
    }


def _code_state():
    """Commit of the repository that holds the package, and whether the package differs from it."""
    repository = _repository()
    if repository is not None and (repository / ".git").exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            git = functools.partial(
                subprocess.run, cwd=repository, capture_output=True, text=True, check=True, timeout=60
            )
            commit = git(["git", "rev-parse", "HEAD"]).stdout.strip()
            changed = git(
                ["git", "--no-optional-locks", "status", "--porcelain", "--", "memcomp"]
            ).stdout.strip()
            return {"commit": commit, "dirty": bool(changed)}
    return {"commit": None, "dirty": None}


# ----------------------------------------------------------------------------------------------------
# A grid of points


def collect(
    run, grid, client=None, *, profile="quick", root=None, workers=None, recompute=False, progress=True
):
    """Return one record for each config of a grid, computing those that are not stored yet.

    Parameters
    ----------
    run : callable
        An experiment (see `experiment`), or a ``functools.partial`` of one whose further arguments do not
        belong to the point, such as the device or the folder of the data.
    grid : iterable of dict or dataclass instance
        The configs. One that occurs twice is computed once.
    client : dask.distributed.Client, optional
        Cluster that computes the missing points. By default they are computed on this machine.
    profile : str
        Folder under ``root``: ``"quick"``, ``"paper"``, or a name of your own.
    root : str or pathlib.Path, optional
        Folder of all records; `results_root` by default.
    workers : int, optional
        How many one-thread worker processes to use on this machine; by default one per available core.
        With 0 the points are computed one after another in this process, which suits a debugger. Not with
        ``client``.
    recompute : bool
        Compute every point again and replace what is stored.
    progress : bool
        Show a progress bar on standard error when there is something to compute.

    Returns
    -------
    list of dict
        The records, in the order of the grid.

    Raises
    ------
    RecordError
        If a stored record of this grid is damaged (unless ``recompute``). Nothing is computed then.
    PointsFailed
        After all other points are stored, if some failed: by an error, a metric that is not finite, or a
        process that died again and again.
    TypeError, ValueError
        If ``run`` is no experiment, or a config cannot be stored.

    Notes
    -----
    A worker process that dies is replaced, and its point tried again, three times in all.
    """
    name, version = identify(run)
    if client is not None and workers is not None:
        raise ValueError("give workers or client, not both: a client's cluster has its own workers")
    if workers is not None and (not isinstance(workers, int) or workers < 0):
        raise ValueError(f"workers must be an integer ≥ 0; got {workers!r}")
    if not isinstance(grid, Iterable) or isinstance(grid, dict):
        raise TypeError(
            f"grid must be a list of configs; got {type(grid).__name__}. For one point pass [config]"
        )
    configs = [_as_config(name, config) for config in grid]
    folder = _folder(root, profile, name)
    keys = [key_of(name, version, config) for config in configs]
    points = dict(zip(reversed(keys), reversed(configs)))  # the first of equal configs is the one that runs
    points = {key: points[key] for key in dict.fromkeys(keys)}

    found = {}
    if not recompute:
        stored = [path for key in points if (path := folder / f"{key}.json").exists()]
        found = {record["key"]: record for record in _read_all(stored)}
    missing = {key: config for key, config in points.items() if key not in found}
    failures = []
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        threads = 1 if client is None else None
        job = _Job(name, version, profile, str(folder), recompute, _code_state(), threads)
        bar = tqdm(
            total=len(points),
            initial=len(found),
            desc=name,
            unit="point",
            disable=not progress,
            file=sys.stderr,
        )
        with bar, contextlib.closing(_outcomes(run, missing, job, client, workers)) as outcomes:
            for key, status, content in outcomes:
                if status == "done":
                    found[key] = content
                    if not (folder / f"{key}.json").exists():  # the worker had no access to our folder
                        _write_record(folder / f"{key}.json", content)
                else:
                    failures.append((plain_config(points[key]), *content))
                    bar.set_postfix_str(f"{len(failures)} failed")
                bar.update()
    if failures:
        raise PointsFailed(name, failures, [found[key] for key in points if key in found])
    return [found[key] for key in keys]


def identify(run):
    """Return the name and version of an experiment.

    Parameters
    ----------
    run : callable
        An experiment, or a ``functools.partial`` of one.

    Returns
    -------
    name : str
    version : int

    Raises
    ------
    TypeError
        If it is neither.
    """
    function = run
    while isinstance(function, functools.partial):
        function = function.func
    name, version = getattr(function, "experiment", None), getattr(function, "version", None)
    if not callable(run) or name is None or version is None:
        raise TypeError(
            f'{run!r} is not an experiment: put @records.experiment("name", version=1) above the function'
        )
    return name, version


def _outcomes(run, missing, job, client, workers):
    """Compute the missing points; yield key, status and content of each as it ends."""
    if client is not None:
        yield from _on_cluster(run, missing, job, client)
    elif workers == 0:
        yield from _in_rounds(missing, lambda todo: ((k, *_compute(run, c, k, job)) for k, c in todo.items()))
    else:
        with _local_cluster(min(workers or _cores(), len(missing))) as local:
            yield from _on_cluster(run, missing, job, local)


def _cores():
    from dask.system import CPU_COUNT  # knows about affinity and containers, which os.cpu_count does not

    return CPU_COUNT


DASK = {
    # A worker that dies is replaced and its point tried again, three times in all.
    "distributed.scheduler.allowed-failures": 2,
    # Dask has the C library give back memory at once, and every step of training asks for it again: a third
    # of a small network's time.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
}
"""Settings of Dask for clusters that compute records.

:meta hide-value:
"""


@contextlib.contextmanager
def _local_cluster(n_workers):
    """Yield a client of one-thread worker processes on this machine; they end with it or with us."""
    import dask
    from dask.distributed import Client, LocalCluster

    with contextlib.ExitStack() as stack:
        settings = dict(DASK)
        if (repository := _repository()) is not None:  # else Dask's workers leave their folders in /tmp
            settings["temporary-directory"] = str(repository / "runs")
        stack.enter_context(dask.config.set(settings))
        try:
            cluster = LocalCluster(
                n_workers=n_workers,
                threads_per_worker=1,
                memory_limit=0,  # else Dask kills a worker by an estimate of its memory
                dashboard_address=None,
                # Without dashboard the scheduler still serves HTTP, on a fixed port that may be taken.
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                silence_logs=logging.CRITICAL,
            )
        except RuntimeError as error:
            raise RuntimeError(
                "the worker processes did not start. A script that calls collect must do so under "
                '`if __name__ == "__main__":`, because each worker imports the script'
            ) from error
        yield stack.enter_context(Client(stack.enter_context(cluster)))


def _compute_pickled(call):
    try:
        run, config, key, job = pickle.loads(call)
    except Exception as error:
        return "failed", (f"the worker cannot load the experiment: {error}", traceback.format_exc())
    return _compute(run, config, key, job)


def _on_cluster(run, missing, job, client):
    import cloudpickle
    from dask.distributed import wait

    run_id = uuid.uuid4().hex[:8]  # so that no scheduler takes this point for one that it has seen before

    def compute(todo):
        queue, flying = list(todo.items()), {}
        try:
            while queue or flying:
                # One point per thread and none waiting behind it: when a worker dies, the scheduler blames
                # every point that it had been given, and would give up on those that never began.
                while queue and len(flying) < max(1, sum(client.nthreads().values())):
                    key, config = queue.pop(0)
                    name = f"{job.experiment}-{key}-{run_id}"
                    # As bytes, so that the scheduler need not import the module of the experiment.
                    call = cloudpickle.dumps((run, config, key, job))
                    flying[client.submit(_compute_pickled, call, key=name, pure=False)] = key
                try:
                    done = wait(list(flying), timeout=5, return_when="FIRST_COMPLETED").done
                except TimeoutError:
                    continue  # look again how many workers there are
                for future in done:
                    key = flying.pop(future)
                    if future.status == "finished":
                        yield key, *future.result()
                    elif future.status == "error":
                        yield key, "failed", (_death_notice(future), "")
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

    yield from _in_rounds(missing, compute)


def _death_notice(future):
    error = future.exception()
    if type(error).__name__ == "KilledWorker":
        return "its worker process died at every attempt: killed, or out of memory"
    return f"{type(error).__name__}: {error}"


def _in_rounds(missing, compute):
    """Come back to the points that another process is computing until each is stored, or free again."""
    todo = missing
    while todo:
        busy = {}
        for key, status, content in compute(todo):
            if status == "busy":
                busy[key] = missing[key]
            else:
                yield key, status, content
        todo = busy
        if todo:
            time.sleep(0.5)


# ----------------------------------------------------------------------------------------------------
# Reading records


def describe(records):
    """Say in one sentence where records come from, for display on a page that uses them.

    Parameters
    ----------
    records : list of dict
        At least one.

    Returns
    -------
    str
        Number, dates, devices and commits.
    """
    if not records:
        raise ValueError("no records to describe")
    origins = [record["provenance"] for record in records]
    days = sorted({origin["created"][:10] for origin in origins})
    devices = sorted({f"{o['device']} ({o['threads']} thread{'s' * (o['threads'] != 1)})" for o in origins})
    commits = sorted({_commit_text(origin) for origin in origins})
    noun = "record" if len(records) == 1 else "records"
    when = f"on {days[0]}" if len(days) == 1 else f"from {days[0]} to {days[-1]}"
    return (
        f"{len(records)} stored {noun}, computed {when} on {' and '.join(devices)}, "
        f"{'commit' if len(commits) == 1 else 'commits'} {', '.join(commits)}."
    )


def _commit_text(origin):
    if origin["commit"] is None:
        return "unknown"
    return origin["commit"][:10] + (" with uncommitted changes" if origin["dirty"] else "")
