"""One plain training loop, and a quicker one for the smallest network."""

import contextlib
import hashlib
import logging
import math
import os
import time

import numpy as np
import torch
from torch.nn.functional import mse_loss
from tqdm import tqdm

import memcomp

_LOG = logging.getLogger(__name__)


class NonFiniteLoss(FloatingPointError):
    """The training loss is infinite or not a number; the message names the run and the step."""


@contextlib.contextmanager
def flushing():
    """Flush subnormal numbers to zero on the CPU, and leave the process as it was found.

    Weights that decay towards zero pass through the range where a CPU is ten times slower.
    """
    before = float(torch.full((1,), 2.0**-140) * 0.5) == 0  # torch does not tell, so ask the processor
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def fit(
    model,
    images,
    triplets,
    targets,
    *,
    epochs,
    batch_size=256,
    lr=1e-4,
    optimizer="adam",
    weight_decay=0.0,
    decayed="all",
    schedule="constant",
    warmup=0,
    seed=0,
    device="cpu",
    mixed=False,
    cuda_graph=False,
    name="",
    progress=True,
    checkpoint=None,
    checkpoint_minutes=5.0,
    along=None,
):
    """Train a network on triplets by mean squared error.

    The pool of images goes to the device once, as it is; a batch is one gather from it. In every epoch the
    triplets are shuffled, and what does not fill a batch is left out.

    Parameters
    ----------
    model : torch.nn.Module
        From :func:`memcomp.models.build`; trained in place and moved to ``device``.
    images : ndarray, uint8 (N, 28, 28) or float32 (N, dim)
        The pool. Bytes are divided by 255.
    triplets : ndarray, int, shape (M, 3)
        Indices into the pool.
    targets : ndarray, float32, shape (M,)
    epochs, batch_size : int
        Appendix D.2: 300 and 256.
    lr : float
        Learning rate; appendix D.2: 1e-4.
    optimizer : {"adam", "adamw"}
        With ``adam``, weight decay is an L2 term in the gradient; with ``adamw`` it is decoupled.
    weight_decay : float
    decayed : {"all", "conv", "other"}
        Weights that decay: all of them, only those of convolutions (whose scale does not matter where batch
        normalization follows), or only the others.
    schedule : {"constant", "cosine"}
        Learning rate over the steps: constant, or a half cosine down to 0.
    warmup : int
        Steps over which the rate first rises linearly.
    seed : int
        Seed of the order of the triplets.
    device : str
        ``cpu``, ``cuda``, ``cuda:1``, …
    mixed : bool
        Encoder in bfloat16, head and loss in float32.
    cuda_graph : bool
        Record one step as a CUDA graph and replay it, which saves launching hundreds of small kernels a step.
        CUDA only.
    name : str
        What to call this run in the progress bar and in errors; for instance its config.
    progress : bool
        Show a bar with the loss and the time left.
    checkpoint : path-like, optional
        File that training goes on from if it was interrupted, and that it keeps while it runs; it stays when
        training has ended. One that belongs to another training, or to other versions of the libraries, is
        begun anew, with a warning in the log.
    checkpoint_minutes : float
        How often the file is written.
    along : callable, optional
        Takes the number of an epoch that has ended, from 1, and the network, to a dict of metrics or None.

    Returns
    -------
    dict
        ``loss``: mean training loss of each epoch (list of float); ``steps``: number of steps; ``seconds``,
        of all parts of an interrupted training; ``along``: the metrics from ``along``, each with its
        ``epoch``.

    Raises
    ------
    NonFiniteLoss
        If the loss overflows or becomes undefined.
    ValueError
        For an unknown optimizer, schedule or group of decayed weights, shapes that do not fit, or a batch
        larger than the data set.

    Notes
    -----
    The same seed gives the same bits on one CPU with one number of threads, interrupted or not. On the CPU,
    subnormal numbers are flushed to zero: weights that decay towards zero slow every step down otherwise.
    """
    rates = _rates(lr, schedule, warmup, epochs * _batches(images, triplets, targets, batch_size))
    device = torch.device(device)
    if cuda_graph and device.type != "cuda":
        raise ValueError(f"cuda_graph needs a CUDA device, not {device}")
    model = model.to(device).train()
    update = _optimizer(optimizer, _groups(model, weight_decay, decayed), lr, device)
    pool, triplets, targets = _to_device(images, triplets, targets, device)
    generator = torch.Generator().manual_seed(seed)

    def step(rows):
        update.zero_grad()
        x = scaled(pool[triplets[rows]])
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed, cache_enabled=not cuda_graph):
            output = model(x)
        loss = mse_loss(output, targets[rows])
        loss.backward()
        update.step()
        return loss.detach()

    if cuda_graph:
        step = _recorded(step, torch.zeros(batch_size, dtype=torch.int64, device=device), model, update)

    decides = (lr, schedule, warmup, epochs, batch_size, optimizer, weight_decay, decayed, seed, mixed)
    data = pool, triplets, targets
    state = _State(checkpoint, checkpoint_minutes, model.state_dict(), update, generator, data, decides)
    looks = along and (lambda epoch: along(epoch, model))
    return _loop(len(triplets), step, update, rates, epochs, batch_size, name, progress, state, looks)


def fit_additive(
    model,
    vectors,
    triplets,
    targets,
    *,
    epochs,
    batch_size=256,
    lr=1e-4,
    seed=0,
    name="",
    progress=True,
    checkpoint=None,
    checkpoint_minutes=5.0,
):
    """Train the additive two-layer network of appendix D.1 on the CPU, with its gradient written out.

    Does what :func:`fit` does with Adam at a constant rate, up to rounding, and two to three times as fast:
    without a graph to record, every intermediate result stays in the cache. That is also faster than training
    many networks at once as batched matrix products, whose intermediate results do not fit there.

    Parameters
    ----------
    model : torch.nn.Module
        ``build("gaussian", …)``; trained in place.
    vectors : ndarray, float32, shape (N, dim)
        The pool.
    triplets, targets, epochs, batch_size, lr, seed, name, progress, checkpoint, checkpoint_minutes
        As in :func:`fit`.

    Returns
    -------
    dict
        As from :func:`fit`.

    Raises
    ------
    NonFiniteLoss, ValueError
        As :func:`fit`.
    """
    rates = _rates(lr, "constant", 0, epochs * _batches(vectors, triplets, targets, batch_size))
    cpu = torch.device("cpu")
    pool, triplets, targets = _to_device(vectors, triplets, targets, cpu)
    pool = torch.nn.functional.pad(pool, (0, 1), value=1.0)  # a constant input carries the bias
    layer, last = model.encoder[0], model.first
    weights = torch.cat([layer.weight, layer.bias[:, None]], 1).detach()
    readout, offset = last.weight[0].detach().clone(), last.bias.detach().clone()
    for parameter in (weights, readout, offset):
        parameter.grad = torch.zeros_like(parameter)
    update = _optimizer("adam", (weights, readout, offset), lr, cpu)
    generator = torch.Generator().manual_seed(seed)
    x = torch.empty(3 * batch_size, pool.shape[1])
    units = torch.empty(3 * batch_size, len(readout))

    @torch.no_grad()
    def step(rows):
        torch.index_select(pool, 0, triplets[rows].flatten(), out=x)
        torch.mm(x, weights.T, out=units).relu_()
        error = (units @ readout).view(-1, 3).sum(1) + 3 * offset - targets[rows]
        slope = (2 / batch_size * error).repeat_interleave(3)  # of the loss in the output of each vector
        torch.mv(units.T, slope, out=readout.grad)
        torch.sum(slope, 0, keepdim=True, out=offset.grad)
        units.sign_().mul_(slope[:, None])  # the slope where a unit is active, 0 elsewhere
        torch.mm(units.T, x, out=weights.grad).mul_(readout[:, None])
        update.step()
        return error.square().mean()

    kept = {"weights": weights, "readout": readout, "offset": offset}
    decides, data = (lr, epochs, batch_size, seed), (pool, triplets, targets)
    state = _State(checkpoint, checkpoint_minutes, kept, update, generator, data, decides)
    history = _loop(len(triplets), step, update, rates, epochs, batch_size, name, progress, state)
    with torch.no_grad():
        layer.weight.copy_(weights[:, :-1])
        layer.bias.copy_(weights[:, -1])
        last.weight.copy_(readout[None])
        last.bias.copy_(offset)
    return history


def _loop(size, step, update, rates, epochs, batch_size, name, progress, state, along=None):
    batches = size // batch_size
    with flushing():
        bar = tqdm(range(epochs), desc=name or None, disable=not progress, unit="epoch", initial=state.epoch)
        while state.epoch < epochs:
            if state.order is None:
                state.order = torch.randperm(size, generator=state.generator)
            order = state.order.to(state.device)
            for batch in range(len(state.losses), batches):
                _set_rate(update, rates[state.epoch * batches + batch])
                state.losses.append(step(order[batch * batch_size : (batch + 1) * batch_size]))
                state.keep()
            losses = torch.stack(state.losses).cpu()  # in a whole epoch the only wait for the device
            if not losses.isfinite().all():
                where = int((~losses.isfinite()).nonzero()[0])
                raise NonFiniteLoss(
                    f"training {name or 'a network'} stopped: the loss is {losses[where]} at step "
                    f"{state.epoch * batches + where + 1} (epoch {state.epoch + 1}); a lower learning rate "
                    "may help"
                )
            state.next_epoch(float(losses.double().mean()))
            if along and (found := along(state.epoch)) is not None:
                state.along.append({"epoch": state.epoch} | {k: float(v) for k, v in found.items()})
            bar.update()
            bar.set_postfix_str(f"loss {losses.mean():.4g}")
        bar.close()
    state.keep(now=True)
    return {
        "loss": state.history,
        "steps": epochs * batches,
        "seconds": state.seconds(),
        "along": state.along,
    }


class _State:
    """Where a training is, and the file that it goes on from after an interruption.

    Parameters
    ----------
    path : path-like or None
    minutes : float
        Time between two versions of the file.
    tensors : dict of str to tensor
        All that training changes, besides the optimizer; restored in place.
    update : torch.optim.Optimizer
    generator : torch.Generator
        Of the order of the triplets.
    data : tuple of tensor
    decides : tuple
        What else decides the result.
    """

    def __init__(self, path, minutes, tensors, update, generator, data, decides):
        self.path, self.minutes = path and os.fspath(path), minutes
        self.tensors, self.update, self.generator = tensors, update, generator
        self.device = data[0].device
        self.epoch, self.order, self.losses, self.history, self.along, self.before = 0, None, [], [], [], 0.0
        self.started = self.written = time.perf_counter()
        if self.path is None:
            return
        versions = memcomp.__version__, torch.__version__, self.device.type
        digest = hashlib.sha256(repr((versions, decides, sorted(tensors))).encode())
        for tensor in (*data, *tensors.values()):
            digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
        self.identity = digest.hexdigest()
        if os.path.exists(self.path):
            self._restore()

    def next_epoch(self, loss):
        self.history.append(loss)
        self.epoch, self.order, self.losses = self.epoch + 1, None, []

    def seconds(self):
        return self.before + time.perf_counter() - self.started

    def keep(self, now=False):
        """Write the file, if it is time to."""
        if self.path is None or not (now or time.perf_counter() - self.written >= 60 * self.minutes):
            return
        content = {
            "identity": self.identity,
            "tensors": self.tensors,
            "optimizer": self.update.state_dict(),
            "generator": self.generator.get_state(),
            "order": self.order,
            "losses": self.losses,
            "seconds": self.seconds(),
            **{name: getattr(self, name) for name in ("epoch", "history", "along")},
        }
        temporary = f"{self.path}.{os.getpid()}.tmp"
        with open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)
        self.written = time.perf_counter()

    def _restore(self):
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            reason = None if content["identity"] == self.identity else "belongs to another training"
        except Exception as error:  # torch.load has many ways to say that a file is damaged
            reason = f"cannot be read ({type(error).__name__})"
        if reason:
            _LOG.warning("the checkpoint %s %s: training begins anew", os.path.basename(self.path), reason)
            return
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(content["tensors"][name])
            _restore_optimizer(self.update, content["optimizer"])
        self.generator.set_state(content["generator"])
        self.order, self.before = content["order"], content["seconds"]
        self.losses = [loss.to(self.device) for loss in content["losses"]]
        self.epoch, self.history, self.along = (content[name] for name in ("epoch", "history", "along"))


def _restore_optimizer(update, content):
    """Bring an optimizer's state back; in place where there is one, since a recorded graph points to it."""
    if not update.state:
        rates = [group["lr"] for group in update.param_groups]
        update.load_state_dict(content)
        for group, rate in zip(update.param_groups, rates):
            group["lr"] = rate
        return
    parameters = [parameter for group in update.param_groups for parameter in group["params"]]
    for parameter, saved in zip(parameters, content["state"].values()):
        for name, value in saved.items():
            update.state[parameter][name].copy_(value)


def _batches(images, triplets, targets, batch_size):
    """Check the shapes and return the number of batches in an epoch."""
    if triplets.ndim != 2 or triplets.shape[1] != 3 or targets.shape != triplets.shape[:1]:
        raise ValueError(
            f"triplets have shape {triplets.shape} and targets {targets.shape}; expected (M, 3) and (M,)"
        )
    if triplets.min() < 0 or triplets.max() >= len(images):
        raise ValueError(f"triplets point outside of the pool of {len(images)} images")
    if not 0 < batch_size <= len(triplets):
        raise ValueError(f"a batch of {batch_size} does not fit into {len(triplets)} triplets")
    return len(triplets) // batch_size


def _rates(lr, schedule, warmup, steps):
    if schedule not in ("constant", "cosine"):
        raise ValueError(f"unknown schedule {schedule!r}; choose 'constant' or 'cosine'")
    now = np.arange(steps)
    rates = np.full(steps, float(lr))
    if schedule == "cosine":
        rates *= 0.5 * (1 + np.cos(math.pi * now / steps))
    return rates * np.minimum(1, (now + 1) / (warmup + 1))


def _groups(model, weight_decay, decayed):
    """Return the model's parameters in groups, each with its weight decay."""
    if decayed not in ("all", "conv", "other"):
        raise ValueError(f"decayed is {decayed!r}; choose 'all', 'conv' or 'other'")
    if decayed == "all":
        return [{"params": list(model.parameters()), "weight_decay": weight_decay}]
    conv = [m.weight for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    chosen = {id(weight) for weight in conv}
    other = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    groups = {"conv": conv, "other": other}
    return [
        {"params": params, "weight_decay": weight_decay if name == decayed else 0.0}
        for name, params in groups.items()
    ]


def _optimizer(name, parameters, lr, device):
    if name not in ("adam", "adamw"):
        raise ValueError(f"unknown optimizer {name!r}; choose 'adam' or 'adamw'")
    kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    if device.type == "cuda":  # a rate on the device may change under a recorded graph
        lr = torch.tensor(lr, device=device)
    # AdamW's own default is a decay of 0.01.
    return kind(parameters, lr=lr, weight_decay=0.0, fused=True, capturable=device.type == "cuda")


def _set_rate(update, rate):
    for group in update.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = float(rate)


def _to_device(images, triplets, targets, device):
    return (
        torch.tensor(images, device=device),
        torch.tensor(triplets, dtype=torch.int64, device=device),
        torch.tensor(targets, dtype=torch.float32, device=device),
    )


def scaled(images):
    """Take bytes to floats from 0 to 1; vectors stay as they are."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def _recorded(step, rows, model, update):
    """Record ``step`` as a CUDA graph and return what replays it; the trials leave no trace."""
    saved = [value.clone() for value in model.state_dict().values()]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # libraries choose their algorithms and allocate before anything is recorded
            step(rows)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step(rows)
    for value, old in zip(model.state_dict().values(), saved):
        value.copy_(old)
    for state in update.state.values():
        for value in state.values():
            value.zero_()

    def replay(new):
        rows.copy_(new)
        graph.replay()
        return loss.clone()

    return replay
