"""Outputs and mean squared errors of a trained network on triplets.

Where the three images meet only in a sum, a test set is evaluated as it is composed: each image is encoded
once, and a triplet is three additions. A network that has ``encode`` and ``join`` is evaluated likewise, with
one call of ``join`` in place of the additions. Any other sees every triplet.
"""

import contextlib
import contextvars
import copy

import numpy as np
import torch
from tqdm import tqdm

from memcomp.models import Composing
from memcomp.training import checked_images, checked_targets, one_each, scaled
from memcomp.values import check_whole, indices

_CHUNK = 1 << 22  # numbers held at a time
_SHOWN = contextvars.ContextVar("progress", default=False)


@contextlib.contextmanager
def progress(shown=True):
    """Show how far an evaluation is that takes more than a second, and the time left, while this is entered.

    Parameters
    ----------
    shown : bool
    """
    before = _SHOWN.set(shown)
    try:
        yield
    finally:
        _SHOWN.reset(before)


def predict(model, images, triplets, factorised=True):
    """Return the output of a network for every triplet, in evaluation mode.

    Parameters
    ----------
    model : torch.nn.Module
        From :func:`memcomp.models.build`; evaluated on the device that it is on.
    images : ndarray, uint8 (N, 28, 28) or float32 (N, dim)
        The pool. Bytes are divided by 255.
    triplets : ndarray, int, shape (M, 3)
        Indices into the pool. Another number than 3 where the architecture takes it.
    factorised : bool
        Encode each image once where the architecture allows. ``False`` runs every triplet through the model.

    Returns
    -------
    ndarray, float32, shape (M,)

    Raises
    ------
    TypeError, ValueError
        If the images or triplets are not what they should be, there are none, or the network returns another
        shape than (B,).

    Notes
    -----
    A network may offer, in evaluation mode,

    - ``encode(images)``, from single images, float32 (N, 28, 28) from 0 to 1, to a tensor (N, …) of features
      of any shape, where those of an image depend on it alone;
    - ``join(features)``, from the features of the three images of each triplet, (B, 3, …), in their order, to
      the outputs (B,);

    such that ``join(encode(x.flatten(0, 1)).unflatten(0, (-1, 3)))`` is what it makes of a batch ``x`` of
    triplets. Then each image of the pool that occurs is encoded once, and their features are held together.
    """
    device = next(model.parameters()).device
    images = checked_images(images)
    triplets = indices("triplets", triplets, len(images), (None, None))
    output = torch.empty(len(triplets))
    with _evaluating(model):
        if factorised and isinstance(model, Composing) and triplets.shape[1] == 3:
            used = np.zeros(len(images), dtype=bool)
            used[triplets] = True
            parts = _parts(model, torch.as_tensor(images[used]).to(device))
            places = torch.as_tensor((np.cumsum(used) - 1)[triplets]).to(device)
            for rows in torch.arange(len(triplets)).split(max(1, _CHUNK // parts.shape[-1])):
                total = sum(parts[position, places[rows, position]] for position in range(3))
                output[rows] = model.finish(total).cpu()
        elif factorised and hasattr(model, "encode") and hasattr(model, "join"):
            used, places = np.unique(triplets, return_inverse=True)
            pool = torch.as_tensor(images[used]).to(device)
            features = torch.cat([model.encode(scaled(chunk)) for chunk in pool.split(1024)])
            places = torch.as_tensor(places.reshape(triplets.shape)).to(device)
            size = max(1, min(4096, _CHUNK // (triplets.shape[1] * features[0].numel())))
            for rows in _batches(len(triplets), size):
                output[rows] = model.join(features[places[rows]]).cpu()
        else:
            pool = torch.tensor(images, device=device)
            for rows in _batches(len(triplets), 1024):
                index = torch.as_tensor(triplets[rows.numpy()].astype(np.int64)).to(device)
                output[rows] = one_each(model(scaled(pool[index])), len(rows)).cpu()
    return output.numpy()


def _batches(number, size):
    """Return the numbers of triplets in batches; where progress is shown, with a bar once it takes long."""
    batches = torch.arange(number).split(size)
    return tqdm(batches, "evaluating", unit="batch", delay=1, leave=False, disable=not _SHOWN.get())


def mse(model, images, triplets, targets, factorised=True):
    """Return the mean squared error of a network on triplets, in evaluation mode.

    Parameters
    ----------
    model, images, triplets, factorised
        As in :func:`predict`.
    targets : ndarray, shape (M,)

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        As :func:`predict`, or if the targets are not one finite number for each triplet.

    Examples
    --------
    >>> from memcomp.models import build
    >>> pool = np.zeros((4, 28, 28), np.uint8)
    >>> mse(build("sum", width=1), pool, np.array([[0, 1, 2], [1, 2, 3]]), np.zeros(2)) >= 0
    True
    """
    images = checked_images(images)
    triplets = indices("triplets", triplets, len(images), (None, None))
    targets = checked_targets(targets, len(triplets))
    if not np.isfinite(targets).all():
        raise ValueError("targets must be finite: the loss would not be a number")
    error = predict(model, images, triplets, factorised).astype(np.float64) - targets
    return float(np.mean(error**2))


def predict_in_training_mode(model, images, triplets, batch_size):
    """Return the outputs that a network has while it is trained: batches normalized by their own statistics.

    Parameters
    ----------
    model, images, triplets
        As in :func:`predict`. The model is not changed.
    batch_size : int
        Size of a batch, to within what divides the triplets evenly. Batches are taken in order, so shuffle
        the triplets if the batches shall be mixed.

    Returns
    -------
    ndarray, float32, shape (M,)
    """
    check_whole(1, batch_size=batch_size)
    images = checked_images(images)
    triplets = indices("triplets", triplets, len(images), (None, None)).astype(np.int64)
    model = copy.deepcopy(model).train()  # whose running statistics may move
    device = next(model.parameters()).device
    pool = torch.tensor(images, device=device)
    batches = np.array_split(triplets, max(1, len(triplets) // batch_size))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.inference_mode():
        torch.manual_seed(0)  # for what a network drops at random
        outputs = [
            one_each(model(scaled(pool[torch.as_tensor(batch).to(device)])), len(batch)).cpu()
            for batch in batches
        ]
    return torch.cat(outputs).numpy()


def contributions(model, images, base, factorised=True):
    """Return what each image adds to the output of a network, measured against given partners.

    The contribution of an image at a position is the mean output over ``base`` with that image put there,
    less the mean output over ``base`` itself. It is defined for every architecture; for ``sum`` it is the
    output for the image less that for the image replaced.

    Parameters
    ----------
    model : torch.nn.Module
        From :func:`memcomp.models.build`.
    images : ndarray, shape (N, …)
        The pool.
    base : ndarray, int, shape (B, 3)
        Triplets that serve as surroundings.
    factorised : bool
        As in :func:`predict`.

    Returns
    -------
    ndarray, float64, shape (3, N)
        One row for each position.
    """
    images = checked_images(images)
    base = indices("base", base, len(images), (None, 3))
    plain = predict(model, images, base, factorised).mean(dtype=np.float64)
    placed = np.tile(base, (3, len(images), 1, 1))  # (3, N, B, 3)
    for position in range(3):
        placed[position, :, :, position] = np.arange(len(images))[:, None]
    outputs = predict(model, images, placed.reshape(-1, 3), factorised)
    return outputs.reshape(3, len(images), len(base)).mean(2, dtype=np.float64) - plain


def _parts(model, images):
    """Encode images (N, …) to what each adds to the sum at each position, (3, N, H)."""
    parts = [model.parts(model.encode(scaled(chunk))) for chunk in images.split(1024)]
    return torch.cat(parts, 1)


@contextlib.contextmanager
def _evaluating(model):
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)
