"""Values that a person types: how they are read, and what each parameter of a chapter may be.

Option ``-p``, profiles and the file of options for Slurm are read by :func:`read`. Plain papermill reads for
itself; :func:`check_parameters`, in a cell of every notebook, holds what it hands over to the same rules.
Only what YAML 1.1 has changed before the notebook sees it stays hidden there: in a file that papermill is
given (``-f``) it takes ``010`` for 8, ``1:30`` for 90 and ``yes`` for true. ``memcomp run`` and ``memcomp
sweep`` refuse all three.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import yaml

from memcomp import paths
from memcomp.errors import MemcompError

_WHOLE = r"[-+]?(?:0|[1-9][0-9_]*)"
_NUMBER = rf"(?:{_WHOLE}(?:\.[0-9]*)?|[-+]?\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan"


class _Loader(yaml.SafeLoader):
    """YAML with the plain values of its version 1.2: ``1e-3`` is a number; ``010`` and ``yes`` are texts."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own way
    yaml_constructors = {  # noqa: RUF012 - no dates, sets or bytes, which no parameter is
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq", "map")
    }

    def construct_mapping(self, node, deep=False):
        names = [key.value for key, _ in node.value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise yaml.constructor.ConstructorError(None, None, f"{', '.join(twice)} is given twice")
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("null", r"~|null|None|", ["~", "n", "N", ""]),
    ("bool", r"true|True|false|False", list("tTfF")),
    ("int", _WHOLE, list("-+0123456789")),
    ("float", _NUMBER, list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


def read(text, where="the value"):
    """Read a value that a person typed, as YAML.

    Parameters
    ----------
    text : str
    where : str
        What is read, for the message.

    Returns
    -------
    None, bool, int, float, str, list or dict

    Raises
    ------
    ValueError
        If it is not YAML, asks for a Python object or gives an entry twice.

    Examples
    --------
    >>> [read(text) for text in ("1e-3", "10_000", "[0, 5e-2]", "true", "None")]
    [0.001, 10000, [0, 0.05], True, None]
    >>> [read(text) for text in ("010", "1:30", "yes", "2026-01-01")]
    ['010', '1:30', 'yes', '2026-01-01']
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark and "\n" in text.strip() else ""
        raise ValueError(f"{where} cannot be read as YAML{line}: {problem}") from None
    except RecursionError:
        raise ValueError(f"{where} cannot be read as YAML: it is nested too deeply") from None
    except (ValueError, TypeError) as error:  # a number of more digits than Python reads, a list for a key
        raise ValueError(f"{where} cannot be read as YAML: {error}") from None


def read_file(path, name=None):
    """Read a YAML file of named values.

    Parameters
    ----------
    path : pathlib.Path
    name : str, optional
        How messages call it; by default by its path.

    Returns
    -------
    dict
        Empty for an empty file.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is no file of text, or what it says is not YAML or has no names.
    """
    name = name or str(path)
    try:
        found = read(path.read_text(encoding="utf-8"), name)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {name}") from None
    except IsADirectoryError:
        raise ValueError(f"{name} is a folder; expected a file of lines of the form `name: value`") from None
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not a file of text in UTF-8") from None
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ValueError(f"{name} holds {type(found).__name__}; expected lines of the form `name: value`")
    return found


# ----------------------------------------------------------------------------------------------------
# What a value may be


class ParameterError(MemcompError, ValueError):
    """A parameter of a notebook is not what it may be."""


@dataclass(frozen=True)
class Rule:
    """What a value may be.

    Attributes
    ----------
    fits : callable
        Takes a value to whether it may be.
    expected : str
        The same in words.
    optional : bool
        Whether None may stand for "not given".
    settle : callable, optional
        Takes a value that fits, and the name for messages, to what is used.
    """

    fits: Callable
    expected: str
    optional: bool = False
    settle: Callable | None = None

    def __call__(self, value, what):
        """Return the value as it is used; raise ValueError, which names it, if it does not fit."""
        if value is None and self.optional:
            return None
        if not self.fits(value):
            raise ValueError(f"{what} is {_shown(value)}; expected {self.expected}")
        return self.settle(value, what) if self.settle else value


def _shown(value):
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}…"


def whole(low=0, high=None):
    """Return the rule of a whole number within bounds; a truth value is none, and neither is 8.0."""

    def fits(value):
        integral = isinstance(value, int | np.integer) and not isinstance(value, bool)
        return integral and low <= value and (high is None or value <= high)

    bounds = f", at least {low}" if high is None else f" from {low} to {high}"
    return Rule(fits, f"a whole number{bounds}")


def even(rule):
    """Return the rule of an even number, from the rule of a whole one."""
    return replace(
        rule, fits=lambda value: rule.fits(value) and value % 2 == 0, expected=f"{rule.expected}, and even"
    )


def number(low=None, above=False):
    """Return the rule of a finite number, if bounded at least ``low``, or above it."""

    def fits(value):
        real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        if not real or abs(value) > 1e300 or not math.isfinite(value):
            return False
        return low is None or value > low or (value == low and not above)

    bound = "" if low is None else f" above {low}" if above else f", at least {low}"
    return Rule(fits, f"a finite number{bound}")


def several(rule, least=1):
    """Return the rule of a list of at least so many elements, each of which fits a rule."""

    def fits(value):
        return isinstance(value, list | tuple) and len(value) >= least and all(map(rule.fits, value))

    return Rule(fits, f"a list{', not empty,' * (least > 0)} with each element {rule.expected}")


def optional(rule):
    """Return a rule by which None may stand for "not given"."""
    return replace(rule, expected=f"{rule.expected}, or null", optional=True)


def one_of(*names):
    """Return the rule of a text that is one of some names."""
    return Rule(lambda value: isinstance(value, str) and value in names, " or ".join(map(repr, names)))


def _is_device(value):
    import torch

    try:
        return isinstance(value, str) and bool(torch.device(value))
    except RuntimeError:
        return False


def _settled(architecture, _):
    from memcomp import plugins

    return plugins.absolute(architecture)


FLAG = Rule(lambda value: isinstance(value, bool), "true or false")
"""Rule of what is true or false.

:meta hide-value:
"""
NAME = Rule(lambda value: isinstance(value, str) and value.strip() != "", "a name")
"""Rule of a name.

:meta hide-value:
"""
PATH = Rule(
    lambda value: isinstance(value, str) and value != "",
    "the path of a folder",
    settle=lambda value, what: str(paths.typed(value, what)),
)
"""Rule of a path, which is settled to an absolute one.

:meta hide-value:
"""
ARCHITECTURE = Rule(
    NAME.fits,
    "the name of an architecture, path/to/file.py:build or package.module:build",
    settle=_settled,
)
"""Rule of an architecture; the path of a file is settled to an absolute one.

:meta hide-value:
"""
DEVICE = Rule(_is_device, "a device that PyTorch knows, such as cpu, cuda or cuda:1")
"""Rule of a device.

:meta hide-value:
"""

PARAMETERS = {
    "profile": NAME,
    "architecture": ARCHITECTURE,
    "dataset": NAME,
    "glyphs": optional(NAME),
    "data_root": optional(PATH),
    "device": DEVICE,
    "seeds": optional(whole(1, 10_000)),
    "epochs": optional(whole(1, 100_000)),
    "width": optional(whole(1, 10**8)),
    "live_epochs": whole(1, 100_000),
    **dict.fromkeys(("mixed", "cuda_graph", "recompute"), FLAG),
    "seed": whole(0, 2**32 - 1),
    **dict.fromkeys(("runs", "draws", "peak_runs", "peak_draws", "models"), whole(2, 10**6)),
    **dict.fromkeys(("n", "d", "test_samples", "largest_n", "steps"), whole(1, 10**9)),
    "t": whole(0, 10**9),
    "s": number(0, above=True),
    **dict.fromkeys(("alpha", "gamma", "sigma"), number(0)),
    "alphas": several(number(0, above=True)),
    "sigmas": several(number(0)),
    "shift": number(),
}
"""What a parameter may be, by the name that it has in every chapter.

:meta hide-value:
"""

NARROWER = {
    "04_noiseless": {"width": whole(1, 10**9)},
    "05_noisy": {"width": whole(1, 10**9)},
    "07_gaussian": {"dataset": one_of("gaussian"), "device": one_of("cpu")},
    "10_memorization_scores": {"seeds": optional(even(whole(4, 10_000)))},
    "11_when_memorization_hurts": {"seeds": optional(whole(2, 10_000))},
}
"""Where a chapter allows less, or means something else by a name.

:meta hide-value:
"""


def rule(name, chapter="", default=None):
    """Return what a parameter may be.

    Parameters
    ----------
    name : str
    chapter : str
        Name of a notebook.
    default : object
        For a name that is not in `PARAMETERS`: what the notebook sets, which tells the kind.

    Returns
    -------
    Rule
    """
    known = PARAMETERS | NARROWER.get(chapter, {})
    return known[name] if name in known else _like(default)


def _like(default):
    """Return the rule of values of the kind of a default."""
    if default is None:
        return Rule(lambda value: True, "anything", optional=True)
    if isinstance(default, list | tuple) and default:
        # A list of whole and other numbers is one of numbers.
        return several(_like(next((one for one in default if isinstance(one, float)), default[0])))
    kinds = {bool: FLAG, int: whole(-(2**63), 2**63 - 1), float: number()}
    kind = type(default)
    return kinds.get(
        kind, Rule(lambda value: isinstance(value, kind), f"a {kind.__name__} as {default!r} is")
    )


def check_parameters(namespace, chapter=""):
    """Hold the parameters of a running notebook to what they may be.

    For plain papermill, which checks nothing. A number that YAML 1.1 takes for a text, such as ``1e-3``, is
    put back as the number that it is, and a path as an absolute one.

    Parameters
    ----------
    namespace : dict
        The notebook's ``globals()``. Names that stand for no plain value, such as a module, are passed over.
    chapter : str
        Name of the notebook, where it has rules of its own.

    Raises
    ------
    ParameterError
        The message names the parameter, its value and what was expected.

    Examples
    --------
    >>> check_parameters({"seeds": 2.5})
    Traceback (most recent call last):
    ...
    memcomp.values.ParameterError: parameter 'seeds' is 2.5; expected a whole number from 1 to 10000, or null
    """
    for name in PARAMETERS:
        if isinstance(namespace.get(name, ...), None | bool | int | float | str | list | dict):
            value = _as_meant(namespace[name])
            try:
                namespace[name] = rule(name, chapter)(value, f"parameter {name!r}")
            except ValueError as error:
                raise ParameterError(error) from None


def _as_meant(value):
    """Read a text that is a number for `read` and not for YAML 1.1; what was in quotes stays a text."""
    if isinstance(value, list):
        return [_as_meant(one) for one in value]
    if isinstance(value, str) and re.fullmatch(_NUMBER, value) and isinstance(yaml.safe_load(value), str):
        return read(value)
    return value


def check_whole(low=0, /, **named):
    """Refuse arguments that are not whole numbers of at least ``low``; the message names the argument."""
    for name, value in named.items():
        whole(low)(value, name)


def check_number(low=None, /, **named):
    """Refuse arguments that are not finite numbers of at least ``low``; the message names the argument."""
    for name, value in named.items():
        number(low)(value, name)


# ----------------------------------------------------------------------------------------------------
# Arrays


def real_array(name, given):
    """Return an array of real numbers; refuse by name what NumPy would cut, mask or not understand.

    Parameters
    ----------
    name : str
        Of the argument.
    given : array_like

    Returns
    -------
    numpy.ndarray
        Of booleans, integers or floats, as they are.

    Raises
    ------
    TypeError
        If it holds something else: complex numbers, texts, objects, what only PyTorch can hold.
    ValueError
        If it is not rectangular, or has masked entries.
    """
    if np.ma.is_masked(given):
        raise ValueError(
            f"{name} has masked entries, and the mask would be lost: fill them, {name}.filled(…), or leave "
            "their rows out"
        )
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise ValueError(f"{name} must be a rectangular array of numbers: {error}") from None
    except (TypeError, RuntimeError) as error:
        raise TypeError(
            f"{name} has no form in NumPy ({str(error).splitlines()[0]}); of a tensor pass "
            f"{name}.detach().to_dense().double().cpu().numpy()"
        ) from None
    if array.dtype.kind not in "buif":
        hint = f"; of pandas' nullable numbers pass {name}.to_numpy(float)" if array.dtype == object else ""
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}{hint}")
    return array


def indices(name, given, size=None, shape=None):
    """Return an array of indices into a pool; refuse by name what would be cut or would wrap.

    Parameters
    ----------
    name : str
        Of the argument.
    given : array_like
    size : int, optional
        Size of the pool; by default it may be any.
    shape : tuple, optional
        Expected lengths; None stands for any but 0. By default any shape will do.

    Returns
    -------
    numpy.ndarray, int

    Raises
    ------
    TypeError
        If they are not whole numbers.
    ValueError
        If their shape is another or one points outside of the pool.
    """
    array = real_array(name, given)
    if shape is not None:
        fits = array.ndim == len(shape) and all(
            have > 0 if want is None else have == want for have, want in zip(array.shape, shape)
        )
        if not fits:
            wanted = ", ".join("M" if length is None else str(length) for length in shape)
            empty = ": there are none" if array.size == 0 else ""
            raise ValueError(
                f"{name} must have shape ({wanted}{',' * (len(shape) == 1)}), got {array.shape}{empty}"
            )
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold indices, which are whole numbers, got dtype {array.dtype}")
    if array.size and (array.min() < 0 or (size is not None and array.max() >= size)):
        wrong = array.min() if array.min() < 0 else array.max()
        pool = "" if size is None else f" of {size} images"
        raise ValueError(f"{name} must point into the pool{pool}, got the index {wrong}, outside of it")
    return array


# ----------------------------------------------------------------------------------------------------
# Slurm

_TEXT = Rule(lambda value: isinstance(value, str), "a text; put it in quotes")
_FOLDER = Rule(
    lambda value: isinstance(value, str) and value != "",
    "the path of a folder",
    # What the shell of a job fills in is not ours to complete.
    settle=lambda value, what: value if "$" in value else str(paths.typed(value, what)),
)
_TEXTS = several(_TEXT, 0)
_ANY = Rule(lambda value: True, "anything")
# Two numbers alone would be hours for a person, and minutes for Slurm.
_WALLTIME = r"\d+:\d\d:\d\d|\d+-\d\d(:\d\d){0,2}"

SLURM = {
    **dict.fromkeys(("jobs", "cores", "processes", "job_cpu"), whole(1, 100_000)),
    "memory": Rule(
        lambda value: (
            isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)? ?[kKMGTP]i?B?", value) is not None
        ),
        "a text with a unit, such as 16GB",
    ),
    "walltime": Rule(
        lambda value: isinstance(value, str) and re.fullmatch(_WALLTIME, value) is not None,
        "hours, minutes and seconds, such as 04:00:00, or days before them, such as 2-00:00:00",
    ),
    **dict.fromkeys(("job_extra_directives", "job_directives_skip", "job_extra", "header_skip"), _TEXTS),
    **dict.fromkeys(("job_script_prologue", "worker_extra_args", "env_extra", "extra"), _TEXTS),
    **dict.fromkeys(("queue", "account", "project", "interface", "job_name", "job_mem", "python"), _TEXT),
    **dict.fromkeys(("log_directory", "local_directory", "shared_temp_directory"), _FOLDER),
    "scheduler_options": Rule(lambda value: isinstance(value, dict), "a mapping of options"),
}
"""What an option of ``dask_jobqueue.SLURMCluster`` may be, beside ``jobs``.

:meta hide-value:
"""


def slurm_options(path):
    """Read the file of options for Slurm.

    Parameters
    ----------
    path : str or pathlib.Path

    Returns
    -------
    dict
        ``jobs``, the number of jobs, and options of ``dask_jobqueue.SLURMCluster``. Paths are absolute.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_file`, or if an option is not what it may be.
    """
    options = read_file(paths.typed(path, "--slurm"), str(path))
    if "jobs" not in options:
        raise ValueError(
            f"{path}: expected jobs: N, the number of Slurm jobs, beside the options of "
            "dask_jobqueue.SLURMCluster; profiles/slurm.example.yaml is an example"
        )
    return {name: SLURM.get(name, _ANY)(value, f"{path}: {name}") for name, value in options.items()}
