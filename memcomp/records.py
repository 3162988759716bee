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

import contextlib
import copy
import dataclasses
import datetime
import functools
import hashlib
import importlib.metadata
import inspect
import json
import os
import pathlib
import pickle
import platform
import re
import subprocess
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable

import filelock
import numpy as np
from tqdm import tqdm

from memcomp import cluster
from memcomp.errors import MemcompError
from memcomp.paths import typed

FIELDS = (
    *("key", "experiment", "profile", "version", "config", "given"),
    *("metrics", "data", "provenance", "checksum"),
)
"""Fields of a record, in the order in which they are written."""

_CONFIGS = {}  # the class of an experiment's configs or None, by the experiment's name
_DRAWN_BY = {}  # the fields of an experiment's configs that its data are drawn by, likewise

_NAME = r"[a-z][a-z0-9_]*"

SHOWN = 10  # points that one message names
LOOK_SECONDS = 0.5  # how often it is looked whether points that others compute are there


class RecordError(MemcompError):
    """A stored record cannot be trusted: damaged, renamed, or of several versions at once."""


class PointsFailed(MemcompError):
    """Some points could not be computed; all others are stored.

    Attributes
    ----------
    failures : list of (dict, str, str)
        For each failed point its config, the error in one line, and the traceback ("" if its process died).
    keys : list of str
        Of the failed points.
    records : list of dict
        The records of the points that are there.
    """

    def __init__(self, experiment, failed, found):
        failures = self.failures = list(failed.values())
        self.keys, self.records = list(failed), found
        total = len(failures) + len(found)
        lines = [f"{len(failures)} of {total} points of {experiment!r} failed; the others are stored:"]
        lines += [f"  {_canonical_json(config)}: {error}" for config, error, _ in failures[:SHOWN]]
        lines += [f"  and {len(failures) - SHOWN} more"] if len(failures) > SHOWN else []
        super().__init__("\n".join(lines))


# ----------------------------------------------------------------------------------------------------
# Experiments, configs and keys


def experiment(name, version, config=None, drawn_by=()):
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
    drawn_by : sequence of str
        Fields of the config that decide what data a point is computed from, for data that are drawn. By
        default all points with one source must have the same data.

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
        _CONFIGS[name], _DRAWN_BY[name] = config, tuple(drawn_by)
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
    if isinstance(value, np.generic) or (arrays and hasattr(value, "tolist")):
        value = value.tolist()  # NumPy's scalars and arrays, torch's tensors
    if isinstance(value, dict):
        wrong = [key for key in value if not isinstance(key, str)]
        if wrong:
            raise TypeError(f"{where} has the key {wrong[0]!r}; keys must be texts")
        return {str(key): _plain(item, f"{where}.{key}", arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]", arrays) for i, item in enumerate(value)]
    if isinstance(value, str) and os.path.isabs(value):
        raise ValueError(
            f"{where} is an absolute path, {value!r}: it would tie the record to one machine. Give paths "
            "to the run function with functools.partial or an environment variable"
        )
    if isinstance(value, float) and not np.isfinite(value):
        raise ValueError(f"{where} is {value}; only finite numbers are stored")
    if isinstance(value, str):
        return str(value)  # of a plugin's name only the text
    if value is None or isinstance(value, bool | int | float):
        return value
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
    defaults = {} if isinstance(config, dict) else _integral(plain_config(defaults_of(type(config))))
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
    none = type(dataclasses.MISSING)  # which is another object in a class that was sent by cloudpickle
    fields = dataclasses.fields(kind)
    plain = {field.name: field.default for field in fields if not isinstance(field.default, none)}
    made = {f.name: f.default_factory() for f in fields if not isinstance(f.default_factory, none)}
    return plain | made


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
    if chosen := os.environ.get("MEMCOMP_RESULTS"):
        return typed(chosen, "MEMCOMP_RESULTS")
    return (_repository() or pathlib.Path.cwd()) / "results"


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
    lines = (f" {json.dumps(name)}: {json.dumps(record[name], ensure_ascii=False)}" for name in FIELDS)
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
    try:
        record = json.loads(path.read_bytes(), object_pairs_hook=_without_doubles)
        problem = _problem(record, path)
    except FileNotFoundError:
        raise
    except OSError as error:
        problem = f"it cannot be read ({error.strerror})"
    except RecursionError:
        problem = "it is not readable as JSON (it is nested too deeply)"
    except ValueError as error:  # no UTF-8, no JSON
        problem = f"it is not readable as JSON ({error})"
    if problem:
        shown = os.path.relpath(path)  # as a person would type it
        raise RecordError(
            f"damaged record {shown}: {problem}. Delete the file to have the point computed again, or "
            f"restore it with: git checkout -- {shown}"
        )
    return record


def _without_doubles(pairs):
    """Make a JSON object a dict; of a name that stands twice the checksum would see only the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return found


_KINDS = {
    **dict.fromkeys(("key", "experiment", "profile"), str),
    **{"version": int, "config": dict, "given": list, "metrics": dict},
    **{"data": dict | None, "provenance": dict},
}
_DATA_KINDS = {"source": str}
_ORIGIN_KINDS = {
    **{"created": str, "commit": str | None, "dirty": bool | None},
    **{"device": str, "threads": int, "seconds": int | float},
}


def _misfit(content, kinds, where=""):
    """Name an entry that is missing or of another kind than what reads records expects; None if all fit."""
    for name, kind in kinds.items():
        if name not in content:
            return f"it lacks {where}{name}"
        value = content[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind not in (bool, bool | None)):
            shown = getattr(kind, "__name__", str(kind).replace("None", "null"))
            return f"{where}{name} is {json.dumps(value)[:40]} where {shown} was expected"
    return None


def _problem(record, path):
    if not isinstance(record, dict):
        return "it is not a JSON object"
    problems = [f"it lacks the field {name!r}" for name in FIELDS if name not in record]
    problems += [f"it has the unknown field {name!r}" for name in record if name not in FIELDS]
    if problems:
        return " and ".join(problems)
    try:
        if record["checksum"] != _checksum(record):
            return "its checksum does not match its content"
        misfit = (
            _misfit(record, _KINDS)
            or (record["data"] is not None and _misfit(record["data"], _DATA_KINDS, "data."))
            or _misfit(record["provenance"], _ORIGIN_KINDS, "provenance.")
        )
        if misfit or not record["metrics"]:
            return misfit or "it has no metrics"
        key = _hash(record["experiment"], record["version"], record["config"], record["given"])
    except (TypeError, ValueError, KeyError) as error:
        return f"its content is not that of a record ({error})"
    own = record["profile"], record["experiment"], key
    if (path.parent.parent.name, path.parent.name, path.stem) != own or record["key"] != key:
        return f"it belongs to the key {key} in {record['profile']}/{record['experiment']}, not to this file"
    return None


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
            f"{os.path.relpath(folder)} holds records of versions {', '.join(map(str, versions))}; they must "
            "not be mixed: pass version=…, or delete the outdated ones"
        )
    return [record for record in found if version is None or record["version"] == version]


def make_writable(folder, advice="set MEMCOMP_RESULTS to a folder that is"):
    """Make a folder and look whether it takes files, before anything is computed that could not be stored.

    Parameters
    ----------
    folder : pathlib.Path
    advice : str
        What to do besides making room or making it writable.

    Raises
    ------
    OSError
        If it does not; the message names the folder and the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(1 << 20))
    except OSError as error:
        raise OSError(
            f"nothing can be stored in {folder}: {error.strerror}. Make room or make it writable, or {advice}"
        ) from error


def _read_all(paths):
    """Read records, with the defaults of fields that are younger; report all damaged ones at once."""
    found, problems = [], []
    for path in paths:
        try:
            record = read(path)
            if kind := _CONFIGS.get(record["experiment"]):
                if unknown := record["config"].keys() - {field.name for field in dataclasses.fields(kind)}:
                    raise RecordError(
                        f"{os.path.relpath(path)} is of other code than this: configs of "
                        f"{record['experiment']} have no {', '.join(sorted(unknown))}. Use the "
                        "code that it was computed with, or move the file away"
                    )
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
    lock = filelock.FileLock(path, mode=0o644, fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        yield False
        return
    except OSError as error:
        # No locks on this file system: a point may be computed twice, and nothing worse.
        warnings.warn(f"cannot lock in {path.parent}: {error.strerror}", stacklevel=2)
    try:
        if lock.is_locked:
            # For whoever waits. On a full disk this fails, before a point is computed that cannot be stored.
            now = datetime.datetime.now(datetime.UTC).isoformat(sep=" ", timespec="minutes")
            path.write_text(f"process {os.getpid()} on {platform.node()} since {now}\n")
        yield True
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # while it is held, so that no other process can be holding this file
        lock.release()


def _holders(folder, keys):
    """Say which locks are waited for, and what their holders wrote into them."""
    lines = []
    for key in list(keys)[:SHOWN]:
        with contextlib.suppress(OSError):  # it is free by now
            path = folder / f".{key}.lock"
            lines.append(
                f"  {os.path.relpath(path)}: {path.read_text().strip() or 'a process that does not say'}"
            )
    more = [f"  and {len(keys) - SHOWN} more"] if len(keys) > SHOWN else []
    head = f"{len(keys)} points of this grid are being computed by other processes, which hold"
    last = "Their records will be taken; if such a process hangs, end it, and its point is computed here"
    return "\n".join([head, *lines, *more, last])


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
    folder = pathlib.Path(job.folder)
    path = folder / f"{key}.json"
    shared = folder.is_dir()  # a worker on another machine may not see the client's folder
    try:
        with _lock(folder / f".{key}.lock") if shared else contextlib.nullcontext(True) as mine:
            if not mine:
                return "busy", None
            if shared and not job.recompute and path.exists():
                return "done", read(path)  # finished by another process since the client looked
            if job.recompute:
                _remove_leftovers(folder, key)
            record = _run_point(run, config, key, job, str(folder / f".{key}.checkpoint") if shared else None)
            if shared:
                _write_record(path, record)
                _remove_leftovers(folder, key)
            return "done", record
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return "failed", (reason, traceback.format_exc())


def _remove_leftovers(folder, key):
    """Delete a point's checkpoint, and what a process left that was killed while it wrote."""
    for pattern in (f".{key}.json.*.tmp", f".{key}.checkpoint*"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def _run_point(run, config, key, job, checkpoint):
    more = {"checkpoint": checkpoint} if "checkpoint" in inspect.signature(run).parameters else {}
    with _arithmetic(job.threads) as threads:
        start = time.perf_counter()
        metrics = run(copy.deepcopy(config), **more)
        seconds = time.perf_counter() - start
    if not isinstance(metrics, dict):
        raise TypeError(f"{job.experiment} returned {type(metrics).__name__}; expected a dict of metrics")
    metrics = dict(metrics)
    data = metrics.pop("data", None)
    if data is not None and not (isinstance(data, dict) and isinstance(data.get("source"), str)):
        raise TypeError(f"{job.experiment} returned data={data!r}; expected {{'source': …, 'sha256': …}}")
    if not metrics:
        raise ValueError(f"{job.experiment} returned no metrics")
    run_on = {"device": _device(run), "threads": threads, "seconds": round(seconds, 3)}
    record = {
        "key": key,
        "experiment": job.experiment,
        "profile": job.profile,
        "version": job.version,
        "config": plain_config(config),
        "given": _given(config),
        "metrics": _plain(metrics, "metrics"),
        "data": _plain(data, "data"),
        "provenance": provenance(job.code) | run_on,
    }
    return {**record, "checksum": _checksum(record)}


@contextlib.contextmanager
def _arithmetic(threads):
    """Fix what changes the bits or the speed of a point: number of threads, which is yielded, subnormals."""
    import torch  # takes seconds, and a page that only loads records does without

    from memcomp.training import flushing

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with flushing():  # while it is trained and while it is evaluated
            yield threads or before
    finally:
        torch.set_num_threads(before)


@functools.cache
def _version(name):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)


def _device(run):
    """Name of the processor of a run: that of the argument ``device``, which the run function was given."""
    device = inspect.signature(run).parameters.get("device")  # of a partial, with what it was given
    return device_name("cpu" if device is None else str(device.default))


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
    if not kind.startswith("cuda"):
        return _cpu_model()
    import torch

    return torch.cuda.get_device_name(kind)


@functools.cache
def _cpu_model():
    if platform.system() == "Darwin":
        return subprocess.check_output(["sysctl", "-n", "machdep.cpu.brand_string"], text=True).strip()
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
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
    if repository and (repository / ".git").exists():
        git = functools.partial(
            subprocess.check_output, cwd=repository, stderr=subprocess.DEVNULL, text=True, timeout=60
        )
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            commit = git(["git", "rev-parse", "HEAD"]).strip()
            changed = git(["git", "--no-optional-locks", "status", "--porcelain", "--", "memcomp"])
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
        If a stored record of this grid is damaged (unless ``recompute``); nothing is computed then. If
        records of the grid name the same data source and come from different data, as soon as that shows.
    OSError
        If records cannot be stored; nothing is computed then.
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
    points = {}
    for key, config in zip(keys, configs):
        points.setdefault(key, config)  # the first of equal configs is the one that runs

    found = {}
    if not recompute:
        stored = [path for key in points if (path := folder / f"{key}.json").exists()]
        found = {record["key"]: record for record in _read_all(stored)}
    failures, seen = {}, {}
    _refuse(_different_data(found.values(), seen), folder)
    if missing := {key: config for key, config in points.items() if key not in found}:
        make_writable(folder)
        data_of = getattr(getattr(run, "func", run), "data_of", None)
        if found and data_of:
            # Before hours of training: do the points still missing come from the data of those stored?
            key, config = next(iter(missing.items()))
            planned = {"key": key, "experiment": name, "config": plain_config(config)}
            with contextlib.suppress(RuntimeError):  # the workers may see data that this machine does not
                planned["data"] = data_of(config, **getattr(run, "keywords", {}))
                _refuse(_different_data([planned], seen), folder)
        threads = 1 if client is None else None
        job = _Job(name, version, profile, str(folder), recompute, _code_state(), threads)
        bar = tqdm(total=len(points), initial=len(found), desc=name, unit="point", disable=not progress)
        with bar, contextlib.closing(_outcomes(run, missing, job, client, workers)) as outcomes:
            for key, status, content in outcomes:
                if status == "done":
                    found[key] = content
                    if not (folder / f"{key}.json").exists():  # the worker had no access to our folder
                        _write_record(folder / f"{key}.json", content)
                    _refuse(_different_data([content], seen), folder)
                else:
                    failures[key] = plain_config(points[key]), *content
                    bar.set_postfix_str(f"{len(failures)} failed")
                bar.update()
    if failures:
        raise PointsFailed(name, failures, [found[key] for key in points if key in found])
    return [found[key] for key in keys]


def _refuse(different, folder):
    """Raise if records of one grid do not belong together."""
    if different:
        raise RecordError(
            f"{different}. Give data_root=… or MEMCOMP_DATA the data that the stored records come from and "
            f"delete the others in {os.path.relpath(folder)}, keep the new ones under another profile, or "
            "compute all again (recompute=True). If each point draws its own data, name the fields that it "
            "draws by in @records.experiment(…, drawn_by=…)"
        )


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
    function = run.func if isinstance(run, functools.partial) else run
    if not hasattr(function, "experiment"):
        raise TypeError(
            f'{run!r} is not an experiment: put @records.experiment("name", version=1) above the function'
        )
    return function.experiment, function.version


def _outcomes(run, missing, job, client, workers):
    """Compute the missing points; yield key, status and content of each as it ends.

    Points that another process is computing are come back to until each is stored, or free again.
    """
    with contextlib.ExitStack() as stack:
        if client is None and workers != 0:
            count = min(workers or cluster.cores(), len(missing))
            client = stack.enter_context(cluster.connect(count, per_gpu=0, folder=runs_folder()))
        todo, waiting = missing, cluster.Waiting()
        while todo:
            busy = {}
            for key, status, content in _compute_all(run, todo, job, client):
                if status == "busy":
                    busy[key] = missing[key]
                else:
                    yield key, status, content
                    waiting = cluster.Waiting()
            todo = busy
            if todo:
                waiting.tell(functools.partial(_holders, pathlib.Path(job.folder), todo))
                time.sleep(LOOK_SECONDS)


def _compute_all(run, todo, job, client):
    if client is None:
        yield from ((key, *_compute(run, config, key, job)) for key, config in todo.items())
        return
    import cloudpickle

    # As bytes, so that the scheduler need not import the module of the experiment.
    calls = {key: (cloudpickle.dumps((run, config, key, job)),) for key, config in todo.items()}
    for key, error, result in cluster.each(client, _compute_pickled, calls, job.experiment):
        yield (key, "failed", (error, "")) if error else (key, *result)


def _compute_pickled(call):
    try:
        run, config, key, job = pickle.loads(call)
    except Exception as error:
        return "failed", (f"the worker cannot load the experiment: {error}", traceback.format_exc())
    return _compute(run, config, key, job)


def runs_folder():
    """Return where worker processes may leave files: ``runs`` in the checkout; None without one."""
    repository = _repository()
    return repository and repository / "runs"


# ----------------------------------------------------------------------------------------------------
# Reading records


def frame(records, without=()):
    """Return records as a table: one row each, config, metrics and origin as columns.

    Parameters
    ----------
    records : list of dict
        From `collect` or `load`.
    without : sequence of str
        Metrics to leave out, for instance those that have the name of a config's entry.

    Returns
    -------
    pandas.DataFrame
        Columns: each entry of the configs, then each metric, then ``key``, ``device``, ``commit``,
        ``created`` and ``seconds``. Lists become arrays, one in each cell; what a record lacks is missing.

    Raises
    ------
    ValueError
        If an entry of a config has the name of a metric or of the origin.

    Examples
    --------
    >>> one = {"key": "k", "config": {"x": 2}, "metrics": {"loss": 0.5}, "provenance": {"device": "CPU"}}
    >>> frame([one])[["x", "loss", "device"]].to_dict("list")
    {'x': [2], 'loss': [0.5], 'device': ['CPU']}
    """
    import pandas as pd

    origin = ("device", "commit", "created", "seconds")
    rows = []
    for record in records:
        config = record["config"]
        metrics = {name: value for name, value in record["metrics"].items() if name not in without}
        last = {"key": record["key"], **{name: record["provenance"].get(name) for name in origin}}
        twice = sorted((config.keys() & metrics.keys()) | ((config.keys() | metrics.keys()) & last.keys()))
        if twice:
            raise ValueError(
                f"{', '.join(twice)}: a config's entry, a metric and the origin need different names"
            )
        arrays = {name: np.array(v) if isinstance(v, list) else v for name, v in metrics.items()}
        rows.append(config | arrays | last)
    return pd.DataFrame(rows)


def like(table, config, free=()):
    """Choose the rows of a table whose config is a given one, in all but some entries.

    Parameters
    ----------
    table : pandas.DataFrame
        From `frame`.
    config : dataclass instance or dict
        Each of its entries must be a column.
    free : sequence of str
        Entries that may differ, beside ``seed``.

    Returns
    -------
    pandas.DataFrame

    Raises
    ------
    ValueError
        If the table lacks an entry of the config.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"width": [8, 8, 16], "seed": [0, 1, 0]})
    >>> like(table, {"width": 8, "seed": 0}).seed.tolist()
    [0, 1]
    """
    wanted = {name: v for name, v in plain_config(config).items() if name not in ("seed", *free)}
    if lacking := wanted.keys() - set(table.columns):
        raise ValueError(f"the table has no column {', '.join(sorted(lacking))} of the config")
    same = np.ones(len(table), bool)
    for name, value in wanted.items():
        # What is None in some rows is NaN in a column of numbers or texts.
        column = table[name]
        same &= np.array(column.isna() if value is None else [entry == value for entry in column], bool)
    return table[same]


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
    commits = sorted(
        {(o["commit"] or "unknown")[:10] + " with uncommitted changes" * bool(o["dirty"]) for o in origins}
    )
    when = f"on {days[0]}" if len(days) == 1 else f"from {days[0]} to {days[-1]}"
    different = _different_data(records)
    warning = f" They do not belong together: {different}." if different else ""
    return (
        f"{len(records)} stored record{'s' * (len(records) != 1)}, computed {when} "
        f"on {' and '.join(devices)}, commit{'s' * (len(commits) != 1)} {', '.join(commits)}.{warning}"
    )


def _different_data(found, seen=None):
    """Say which records of one source and the same draw were computed from different data; None if none.

    ``seen`` holds a record of each draw, and those of earlier calls with it.
    """
    seen = {} if seen is None else seen
    for record in found:
        data, fields = record["data"] or {}, _DRAWN_BY.get(record["experiment"])
        if "sha256" not in data or fields is None:
            continue
        draw = record["experiment"], data["source"], *(record["config"][name] for name in fields)
        first = seen.setdefault(draw, record)
        if first["data"]["sha256"] != data["sha256"]:
            return (
                f"{first['key']} and {record['key']} name the same source, {data['source']!r}, and "
                f"come from different data, SHA-256 {first['data']['sha256'][:10]}… and "
                f"{data['sha256'][:10]}…"
            )
    return None
