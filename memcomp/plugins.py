"""Networks of the reader's own, from a file or a module that names what builds them.

Wherever an architecture is named, ``path/to/file.py:build`` and ``package.module:build`` are taken too: a
callable ``build(width, seed)`` that returns a network for triplets. What it returns is tried before it is
trained, so that an error is about the network and not about the middle of an experiment. Such a file is
code, and building its network runs it.

A file is found and read once, where its name is typed; the text goes with the name to whatever process builds
the network. So a worker elsewhere runs what was read, also when the file has changed since, and needs neither
the file nor its path. A module is imported where the network is built.
"""

import contextlib
import hashlib
import importlib.util
import inspect
import pkgutil
import re
import sys
import traceback
import types
from pathlib import Path

import torch
from torch import nn

from memcomp import paths
from memcomp.lookup import nearest

EXPECTED = "expected a callable build(width, seed) that returns a torch.nn.Module"
_SHAPE = 3, 28, 28
_RECORDED = re.compile(r".+:\w+@[0-9a-f]{12}")


class Plugin(str):
    """The name of a reader's network as it stands in a config: ``my_net.py:build@0123456789ab``.

    Behind the name of the file, or of the module, and of the callable stand the first digits of the SHA-256
    of the source, so that an edited file is another point. What else is known of it stays out of records.

    Attributes
    ----------
    source : str
        Text of the file, or of the module's.
    is_file : bool
        Whether that text is executed; a module is imported by its name.
    path : str
        Of the file, for tracebacks.
    """

    source: str
    is_file: bool
    path: str

    @property
    def label(self):
        """str: the name without the digits, for a page."""
        return self.rpartition("@")[0]


def absolute(architecture):
    """Return a reader's file with its absolute path, for a process with another working folder.

    Parameters
    ----------
    architecture : str
        As :func:`named` takes it. What is no path is returned as it is.

    Returns
    -------
    str

    Examples
    --------
    >>> absolute("sum"), absolute("package.module:build")
    ('sum', 'package.module:build')
    >>> absolute("my_net.py:build") == f"{Path.cwd()}/my_net.py:build"
    True
    """
    where, _, name = architecture.rpartition(":")
    return f"{paths.typed(where, architecture)}:{name}" if _is_path(where) else architecture


def named(architecture):
    """Return what a config holds for an architecture that a person typed.

    Nothing is executed, but the parents of a module are imported.

    Parameters
    ----------
    architecture : str
        A name in :data:`memcomp.models.ARCHITECTURES`; ``path/to/file.py:build``, where a relative path means
        the working folder; ``package.module:build``; or the name of a reader's network in a record.

    Returns
    -------
    str
        A :class:`Plugin` for a file or a module, else what was given.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a file of Python or a module that can be found, or no callable is named.
    """
    if isinstance(architecture, Plugin) or not isinstance(architecture, str):
        return architecture
    where, colon, name = architecture.rpartition(":")
    if not colon and _is_path(architecture):
        raise ValueError(f"{architecture} names a file and nothing in it; write {architecture}:build")
    if not colon or _RECORDED.fullmatch(architecture):
        return architecture
    if not name.isidentifier():
        raise ValueError(f"{architecture!r} does not end in the name of a callable; write {where}:build")
    if _is_path(where):
        path = paths.typed(where, architecture)
        return _plugin(f"{path.name}:{name}", path, is_file=True)
    return _plugin(f"{where}:{name}", _origin(where), is_file=False)


def build(architecture, width, seed):
    """Build a reader's network, and try it on a few triplets.

    Parameters
    ----------
    architecture : str
        A file or a module and its callable, see :func:`named`.
    width : int
        What the callable is given as ``width``; what it makes of it is its own.
    seed : int
        What it is given as ``seed``, and what PyTorch's generator starts from when it is called.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`named`; if the file does not run, or its callable does not return a network as described in
        :func:`check`, or not the same again for the same seed.
    """
    plugin = named(architecture)
    if not isinstance(plugin, Plugin):
        raise ValueError(
            f"{plugin} is the name that a record gives a network; to build the network give the path of its "
            "file, path/to/file.py:build"
        )
    make, label = _callable(plugin), plugin.label
    try:
        inspect.signature(make).bind(width=width, seed=seed)
    except TypeError as error:
        raise ValueError(
            f"{label}{inspect.signature(make)} cannot be called with width and seed ({error}); {EXPECTED}"
        ) from None
    except ValueError:
        pass  # some callables of compiled modules do not tell what they take
    models = []
    with torch.random.fork_rng(devices=[]):
        for _ in range(2):
            torch.manual_seed(seed)
            with _blaming(f"{label}, called with width={width} and seed={seed},", plugin):
                models.append(make(width=width, seed=seed))
        tried, model = models
        check(tried, label)
    if tried is model:
        raise ValueError(f"{label} returned the same network twice; it must make a new one at every call")
    weights = [list(one.parameters()) for one in models]
    if len(weights[0]) != len(weights[1]) or not all(map(torch.equal, *weights)):
        raise ValueError(
            f"{label} made two different networks of seed={seed}; draw at random from PyTorch's generator, "
            "which starts from the seed, or from a generator that you seed with it"
        )
    return model


def check(model, label="the network"):
    """Refuse a network that cannot be trained and evaluated on triplets as ours are.

    Parameters
    ----------
    model : torch.nn.Module
        Takes (B, 3, 28, 28), float32 from 0 to 1, to (B,), float32, in training mode for B > 1 and in
        evaluation mode for any B; there, the output for a triplet depends on that triplet alone. For
        ``encode`` and ``join`` see :func:`memcomp.evaluation.predict`. What it keeps from batch to batch,
        like running means, is changed.
    label : str
        What messages call it.

    Raises
    ------
    ValueError
        The message says what was found, and what is expected.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"{label} returned {_kind(model)}; {EXPECTED}")
    parameters = list(model.parameters())
    if any(nn.parameter.is_lazy(one) for one in [*parameters, *model.buffers()]):
        raise ValueError(f"{label} has a lazy layer without a shape; run the network once in build")
    if not any(one.requires_grad for one in parameters):
        raise ValueError(f"{label} returned a network without parameters to train")
    batch = torch.rand(4, *_SHAPE).to(parameters[0].device)
    with torch.no_grad():
        model.eval()
        output = _output(model, batch, label, "in evaluation mode")
        alone = _output(model, batch[:1], label, "in evaluation mode")
        if not _same(output[:1], alone):
            raise ValueError(
                f"{label} answers a triplet with {float(alone):.4g} alone and {float(output[0]):.4g} among "
                "others in evaluation mode; expected one answer, whatever else is in the batch and without "
                "chance"
            )
        if _joins(model):
            _check_join(model, batch, output, label)
    model.train()
    output = _output(model, batch, label, "in training mode, while that of evaluation mode is right")
    if not output.requires_grad:
        raise ValueError(f"{label} has an output without gradient in training mode; nothing can be trained")


def _check_join(model, batch, output, label):
    """Refuse ``encode`` and ``join`` that do not make up the network."""
    step = f"{label}: encode, given 12 images of shape (12, 28, 28),"
    with _blaming(step):
        features = model.encode(batch.flatten(0, 1))
    if not isinstance(features, torch.Tensor) or features.shape[:1] != (12,):
        raise ValueError(f"{step} returned {_kind(features)}; expected a tensor of shape (12, …)")
    features = features.unflatten(0, (4, 3))
    joined = _output(model.join, features, f"{label}: join", "in evaluation mode")
    if not _same(output, joined):
        worst = float((output - joined).abs().max())
        raise ValueError(
            f"{label}: join(encode(…)) differs from the network's output by up to {worst:.4g} in evaluation "
            "mode; expected the same, or other names for these two methods"
        )


def _output(function, batch, label, mode):
    """Return what a network makes of a batch, or refuse it."""
    taken = tuple(batch.shape)
    with _blaming(f"{label}, given a batch of shape {taken} {mode.partition(',')[0]},"):
        output = function(batch)
    wanted = f"expected a float32 tensor of shape ({len(batch)},)"
    if not isinstance(output, torch.Tensor) or output.shape != (len(batch),) or output.dtype != torch.float32:
        raise ValueError(f"{label} takes {taken} to {_kind(output)} {mode}; {wanted}")
    if not output.isfinite().all():
        raise ValueError(f"{label} has NaN or infinite numbers in its output {mode}; {wanted}, all finite")
    return output


def _joins(model):
    return callable(getattr(model, "encode", None)) and callable(getattr(model, "join", None))


def _same(one, other):
    # Rounding depends on the size of a batch; a network that looks at its batch is much farther off.
    return torch.allclose(one, other, rtol=1e-3, atol=1e-3 * max(1.0, float(one.abs().max())))


def _kind(value):
    if isinstance(value, torch.Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    return f"an object of type {type(value).__name__}"


# ----------------------------------------------------------------------------------------------------
# Files and modules


def _is_path(where):
    return where.endswith(".py") or "/" in where


def _plugin(label, path, is_file):
    """Return the name of a network, with the digits of the source that is at a path now."""
    try:
        content = path.read_bytes()
        source = content.decode()
    except FileNotFoundError:
        raise FileNotFoundError(f"{label}: there is no file {path}; {EXPECTED} in it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{label}: {path} cannot be read as Python ({error}); {EXPECTED} in it") from None
    plugin = Plugin(f"{label}@{hashlib.sha256(content).hexdigest()[:12]}")
    plugin.source, plugin.is_file, plugin.path = source, is_file, str(path)
    return plugin


def _origin(name):
    """Return the file of a module, without importing the module itself."""
    hint = f"; is it installed? A file is named by its path, {name.replace('.', '/')}.py"
    try:
        spec = importlib.util.find_spec(name)
    except Exception as error:  # a parent package can raise anything
        raise ValueError(f"the module {name} cannot be found ({_told(error)}){hint}") from error
    if spec is None:
        raise ValueError(f"there is no module {name}{hint}")
    if not (spec.origin or "").endswith(".py"):
        raise ValueError(f"the module {name} has no source in Python; {EXPECTED} in a file of Python")
    return Path(spec.origin)


def _callable(plugin):
    """Return the callable that a name means; its file or module is executed unless it was before."""
    where, _, name = plugin.label.rpartition(":")
    with _blaming(where, plugin):
        module = _executed(plugin) if plugin.is_file else _imported(where, plugin)
    there = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
    if not hasattr(module, name):
        raise ValueError(f"{where} has no {name!r}{nearest(name, there)}; {EXPECTED}")
    found = getattr(module, name)
    if not callable(found):
        raise ValueError(f"{plugin.label} is {_kind(found)}; {EXPECTED}")
    return found


def _executed(plugin):
    """Return the module that a file's text makes; the same text is executed once."""
    alias = f"memcomp_plugin_{plugin.rpartition('@')[2]}"
    if alias not in sys.modules:
        module = types.ModuleType(alias)
        module.__file__ = plugin.path
        sys.modules[alias] = module  # where dataclasses and pickle look for what the file defines
        try:
            exec(compile(plugin.source, plugin.path, "exec"), vars(module))
        except BaseException:
            del sys.modules[alias]
            raise
    return sys.modules[alias]


_IMPORTED = {}  # the first name by which each module was asked for, which tells the source that was imported


def _imported(name, plugin):
    """Return a module, which must still be the one that a name was made for."""
    module = pkgutil.resolve_name(f"{name}:")
    digits = plugin.rpartition("@")[2]
    here = _plugin(plugin.label, _origin(name), is_file=False).rpartition("@")[2]
    if _IMPORTED.setdefault(name, here) != digits or here != digits:
        raise ImportError(
            "its source here is not the one that was read for this network, or was edited after it had been "
            "imported: install the same version everywhere, and start Python anew"
        )
    return module


@contextlib.contextmanager
def _blaming(step, plugin=None):
    """Turn whatever the reader's code raises into an error that names the step, and the line of the file."""
    try:
        yield
    except (Exception, SystemExit) as error:
        hint = ""
        if plugin and isinstance(error, ModuleNotFoundError):
            hint = (
                "; such a file can import what is installed, not what lies beside it: write one file, or a "
                "package that is installed, package.module:build"
            )
        where = _line(error, plugin.path) if plugin else ""
        raise ValueError(f"{step} stopped with {_told(error)}{where}{hint}") from error


def _line(error, path):
    """Say which line of a file an error comes from, if it comes from there."""
    lines = [one.lineno for one in traceback.extract_tb(error.__traceback__) if one.filename == path]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    return f" (line {lines[-1]} of {Path(path).name})" if lines else ""


def _told(error):
    text = " ".join(str(getattr(error, "msg", None) or error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
