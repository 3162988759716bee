"""Networks that map three images to one number (section 5.2, appendix D.1).

``sum``, ``linear`` and ``two_layer`` look at each image on its own, through one shared encoder, and combine
what they find; ``cross_channel`` mixes the three images from its first convolution on. ``gaussian`` is the
additive two-layer network of appendix D.1, for vectors in place of images.

Beyond the paper: ``after_1`` to ``after_4`` mix the images between those two extremes, and ``deep_sets`` and
``attention`` are heads that learn how to join what was found. A network of the reader's own is named by its
file or module, see :mod:`memcomp.plugins`.
"""

import dataclasses
import inspect
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock

from memcomp import plugins, values
from memcomp.lookup import choose


def build(
    architecture,
    width=64,
    *,
    seed=0,
    stem="imagenet",
    hidden=None,
    normalise="together",
    rewrite=True,
    dim=100,
    vectors=False,
):
    """Build a network for triplets.

    Parameters
    ----------
    architecture : str
        A name in :data:`ARCHITECTURES`. ``sum`` adds three outputs of one ResNet-18; ``linear`` and
        ``two_layer`` put one linear layer, or two with a ReLU between, on the three concatenated feature
        vectors; ``cross_channel`` is a ResNet-18 with the three images as its colour channels; ``gaussian``
        adds three outputs of a two-layer network.

        ``after_1`` … ``after_4`` encode each image on its own up to that stage of a ResNet-18, join the three
        maps by a 1×1 convolution and go on together; ``deep_sets`` puts two layers on the sum of the feature
        vectors (Zaheer et al., 2017), ``attention`` a transformer layer on the set of them.

        Or ``path/to/file.py:build`` or ``package.module:build``, a callable that gets ``width`` and ``seed``,
        see :func:`memcomp.plugins.build`.
    width : int
        Channels of the first stage; torchvision's ResNet-18 has 64, and features are ``8 * width`` long. For
        ``gaussian``: number of hidden units, which the paper does not give.
    seed : int
        Seed of the initial weights.
    stem : {"imagenet", "small"}
        ``imagenet`` is torchvision's 7×7 convolution of stride 2 and max-pooling; ``small`` a 3×3 convolution
        of stride 1. The paper does not say; the first is what "standard ResNet-18" means.
    hidden : int, optional
        Hidden units, at least 1, of the heads ``two_layer`` and ``deep_sets``, and of no other; default
        ``8 * width``. The paper does not give it.
    normalise : {"together", "apart"}
        How batch normalization sees a batch of B triplets in training: ``together`` encodes the 3·B images in
        one call (statistics over all of them, one update of the running ones), ``apart`` in one call for each
        position (statistics over B images, three updates), which only the paper's composing heads and
        ``deep_sets`` can.
    rewrite : bool
        Compute convolutions on maps of one or two pixels as matrix products: the same function of the same
        parameters, up to rounding, and faster on a CPU.
    dim : int
        Length of a vector, for ``gaussian`` and ``vectors``.
    vectors : bool
        Take vectors in place of images, and encode them by one layer in place of a ResNet-18. Not for
        architectures that mix images before their head.

    Returns
    -------
    torch.nn.Module
        Takes (B, 3, 28, 28), or (B, 3, dim) for ``gaussian`` and ``vectors``, to (B,). ``sum``, ``deep_sets``
        and ``attention`` take any number of images in place of 3.

    Raises
    ------
    ValueError
        For an unknown architecture, stem or way to normalise, a width, ``hidden`` or ``dim`` that is not a
        whole number from 1 on, ``hidden``, ``apart`` or vectors where the architecture has no use for them.
        For a reader's network also as :func:`memcomp.plugins.build`, or for an option that it does not get.

    Examples
    --------
    >>> model = build("linear", width=4)
    >>> model(torch.zeros(2, 3, 28, 28)).shape
    torch.Size([2])
    """
    values.check_whole(1, width=width, dim=dim, **{} if hidden is None else {"hidden": hidden})
    values.check_whole(0, seed=seed)
    architecture = plugins.named(architecture)
    if ":" in str(architecture):
        own = {"stem": stem, "hidden": hidden, "normalise": normalise, "vectors": vectors, "rewrite": rewrite}
        usual = build.__kwdefaults__
        if given := [f"{name}={value!r}" for name, value in own.items() if value != usual[name]]:
            raise ValueError(f"{architecture} gets width and seed, and cannot be given {', '.join(given)}")
        return plugins.build(architecture, width, seed)
    entry = choose(ARCHITECTURES, architecture, "architecture")
    if normalise not in ("together", "apart"):
        raise ValueError(f"normalise is {normalise!r}; choose 'together' or 'apart'")
    used = inspect.signature(entry.build).parameters
    for name, value, usual in (("hidden", hidden, None), ("normalise", normalise, "together")):
        if value != usual and name not in used:
            raise ValueError(f"{architecture} has no use for {name}={value!r}; leave it out")
    if vectors and not entry.apart:
        raise ValueError(f"{architecture} mixes images before its head; it cannot take vectors")

    def own(channels=1):
        if vectors:
            return nn.Sequential(nn.Linear(dim, 8 * width), nn.ReLU())
        return encoder(width, channels, stem, rewrite)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return entry.build(own, width, hidden=hidden, normalise=normalise, dim=dim)


class Composing(nn.Module):
    """One encoder for every image, and a head in which the three images meet only in a sum.

    The output is ``finish(Σ_p parts(encode(image_p))[p])``, which is what makes a composed test set cheap:
    each image is encoded once (:mod:`memcomp.evaluation`).

    Parameters
    ----------
    encoder : torch.nn.Module
        Takes one image each, (N, 1, 28, 28), or one vector each, (N, dim), to features (N, F).
    features : int
        F.
    head : {"sum", "linear", "two_layer", "deep_sets"}
    hidden : int, optional
        Hidden units of ``two_layer`` and ``deep_sets``; default F.
    normalise : {"together", "apart"}
        See :func:`build`.
    """

    def __init__(self, encoder, features, head, hidden=None, normalise="together"):
        super().__init__()
        self.encoder = encoder
        self.normalise = normalise
        self.head = head
        self.symmetric = head in ("sum", "deep_sets")
        inputs = features if self.symmetric else 3 * features
        if head in ("two_layer", "deep_sets"):
            hidden = features if hidden is None else hidden
            self.first = nn.Linear(inputs, hidden)
            self.last = nn.Linear(hidden, 1)
        else:
            self.first = nn.Linear(inputs, 1)

    def forward(self, x):
        """Take triplets (B, 3, 28, 28), or (B, 3, dim), to outputs (B,)."""
        if self.normalise == "together":
            features = self.encode(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        else:
            features = torch.stack([self.encode(images) for images in x.unbind(1)], 1)
        # The head keeps the precision of its weights: sums up to 27 do not survive eight bits.
        with torch.autocast(x.device.type, enabled=False):
            features = features.to(self.first.weight.dtype)
            if self.head == "sum":
                return self.first(features.sum(1)).squeeze(-1) + (x.shape[1] - 1) * self.first.bias
            joined = features.sum(1) if self.symmetric else features.flatten(1)
            return self.finish(self.first(joined))

    def encode(self, images):
        """Take single images (N, 28, 28), or vectors (N, dim), to features (N, F)."""
        return self.encoder(images.unsqueeze(1) if images.dim() == 3 else images)

    def parts(self, features):
        """Return what each image adds to the sum at each position: (N, F) to (3, N, H)."""
        if self.head == "sum":
            return self.first(features).expand(3, -1, -1)
        if self.symmetric:
            return (features @ self.first.weight.T + self.first.bias / 3).expand(3, -1, -1)
        weights = self.first.weight.unflatten(1, (3, -1)).transpose(0, 1)
        return features @ weights.mT + self.first.bias / 3

    def finish(self, total):
        """Take the sum of three parts, (…, H), to the output (…)."""
        return (self.last(total.relu()) if hasattr(self, "last") else total).squeeze(-1)


class Attention(nn.Module):
    """One encoder for every image, and a head that attends to what it found.

    A learned query stands beside the feature vectors in one transformer layer and is read out by a linear
    layer. Positions are not marked, so the head sees a set. It averages where the other heads add.

    Parameters
    ----------
    encoder : torch.nn.Module
        As for :class:`Composing`.
    features : int
        F, divisible by four, the number of attention heads.
    """

    def __init__(self, encoder, features):
        super().__init__()
        self.encoder = encoder
        self.query = nn.Parameter(torch.randn(1, 1, features) / features**0.5)
        self.layer = nn.TransformerEncoderLayer(
            features, 4, 2 * features, dropout=0.0, batch_first=True, norm_first=True
        )
        self.first = nn.Linear(features, 1)

    def forward(self, x):
        """Take (B, q, 28, 28), or (B, q, dim), to outputs (B,), for any q."""
        return self.join(self.encode(x.flatten(0, 1)).unflatten(0, x.shape[:2]))

    def encode(self, images):
        """Take single images (N, 28, 28), or vectors (N, dim), to features (N, F)."""
        return self.encoder(images.unsqueeze(1) if images.dim() == 3 else images)

    def join(self, features):
        """Take the features of sets, (B, q, F), to outputs (B,)."""
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(self.first.weight.dtype)
            tokens = torch.cat([self.query.expand(len(features), -1, -1), features], 1)
            return self.first(self.layer(tokens)[:, 0]).squeeze(-1)


class Mixing(nn.Module):
    """ResNet-18 whose first stages see each image on its own, and whose other stages see all three.

    Parameters
    ----------
    encoder : torch.nn.Module
        From :func:`encoder`, for one channel.
    width : int
        Channels of its first stage.
    depth : {1, 2, 3, 4}
        Number of stages before the images meet. A 1×1 convolution with batch normalization and a ReLU takes
        the three maps to one of the same size: 3·4^(depth − 1)·width² weights, between 0.1 and 7 % of all.
    """

    def __init__(self, encoder, width, depth):
        super().__init__()
        self.encoder = encoder
        self.depth = depth
        channels = width * 2 ** (depth - 1)
        conv = nn.Conv2d(3 * channels, channels, 1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        self.mix = nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU())
        self.first = nn.Linear(8 * width, 1)

    def forward(self, x):
        """Take triplets (B, 3, 28, 28) to outputs (B,)."""
        return self.join(self.encode(x.flatten(0, 1)).unflatten(0, (-1, 3)))

    def encode(self, images):
        """Take single images (N, 28, 28) to the maps of stage ``depth``, (N, C, h, w)."""
        return self.encoder.before(images.unsqueeze(1), self.depth)

    def join(self, maps):
        """Take the maps of triplets, (B, 3, C, h, w), to outputs (B,)."""
        maps = maps.flatten(1, 2).contiguous(memory_format=torch.channels_last)
        features = self.encoder.after(self.mix(maps), self.depth)
        with torch.autocast(features.device.type, enabled=False):
            return self.first(features.to(self.first.weight.dtype)).squeeze(-1)


class CrossChannel(nn.Module):
    """ResNet-18 that sees the three images as colour channels, so that they meet in its first layer.

    Parameters
    ----------
    encoder : torch.nn.Module
        Takes (B, 3, 28, 28) to features (B, F).
    features : int
        F.
    """

    def __init__(self, encoder, features):
        super().__init__()
        self.encoder = encoder
        self.first = nn.Linear(features, 1)

    def forward(self, x):
        """Take triplets (B, 3, 28, 28) to outputs (B,)."""
        features = self.encoder(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.first(features.to(self.first.weight.dtype)).squeeze(-1)


def encoder(width=64, channels=1, stem="imagenet", rewrite=True):
    """Return torchvision's ResNet-18 without its last layer, at any width.

    Parameters
    ----------
    width : int
        Channels of the first stage.
    channels : int
        Channels of the input.
    stem : {"imagenet", "small"}
        See :func:`build`.
    rewrite : bool
        See :func:`build`.

    Returns
    -------
    torch.nn.Module
        Takes (N, channels, 28, 28) to (N, 8 · width). Its parameters have torchvision's names and shapes.
    """
    if stem not in ("imagenet", "small"):
        raise ValueError(f"stem is {stem!r}; choose 'imagenet' or 'small'")
    values.check_whole(1, width=width, channels=channels)
    net = _Encoder(width, channels, stem)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    for stage in list(net.children())[2:]:
        # Channels-last pays from the first stage on; a one-channel convolution loses a factor of four by it.
        stage.to(memory_format=torch.channels_last)
        for block in stage if rewrite else ():
            block.conv1, block.conv2 = _SmallMapConv.like(block.conv1), _SmallMapConv.like(block.conv2)
            if block.downsample is not None:
                block.downsample[0] = _SmallMapConv.like(block.downsample[0])
    return net


class _Encoder(nn.Module):
    """ResNet-18 from torchvision's blocks, without its last layer."""

    def __init__(self, width, channels, stem):
        super().__init__()
        kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.pool = stem == "imagenet"
        self.conv1 = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, 1)
        self.layer2 = _stage(width, 2 * width, 2)
        self.layer3 = _stage(2 * width, 4 * width, 2)
        self.layer4 = _stage(4 * width, 8 * width, 2)

    def forward(self, x):
        return self.after(self.before(x, 4), 4)

    def before(self, x, depth):
        """Take images to what the first ``depth`` stages make of them."""
        x = self.bn1(self.conv1(x)).contiguous(memory_format=torch.channels_last)
        if self.pool:
            x = functional.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        x = x.relu()  # after the pooling, which it commutes with, on a quarter of the pixels
        for stage in self._stages()[:depth]:
            x = stage(x)
        return x

    def after(self, x, depth):
        """Take what comes out of stage ``depth`` to features."""
        for stage in self._stages()[depth:]:
            x = stage(x)
        return x.mean((2, 3))

    def _stages(self):
        return self.layer1, self.layer2, self.layer3, self.layer4


def _stage(inputs, outputs, stride):
    down = None
    if stride > 1:
        down = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    return nn.Sequential(BasicBlock(inputs, outputs, stride, down), BasicBlock(outputs, outputs))


class _SmallMapConv(nn.Conv2d):
    """A convolution that is computed as a matrix product where its map is that small.

    On a map of one pixel a padded 3×3 convolution is its centre tap; on 2×2 pixels with stride 2 it sees four
    of its nine taps; a 1×1 convolution is a matrix product on any map.
    """

    @classmethod
    def like(cls, conv):
        shape = conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding
        new = nn.utils.skip_init(cls, *shape, bias=False)  # which would move the random generator on
        new.weight = conv.weight
        return new

    def forward(self, x):
        size, (kernel, _), (stride, _) = x.shape[-1], self.kernel_size, self.stride
        if x.device.type == "cpu":
            if kernel == 1:
                pixels = x[:, :, ::stride, ::stride].permute(0, 2, 3, 1)
                return functional.linear(pixels, self.weight[:, :, 0, 0]).permute(0, 3, 1, 2)
            if size == 1:
                return functional.linear(x.flatten(1), self.weight[:, :, 1, 1])[:, :, None, None]
            if size == 2 and stride == 2:
                return functional.linear(x.flatten(1), self.weight[:, :, 1:, 1:].flatten(1))[:, :, None, None]
        return super().forward(x)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What there is to know about an architecture.

    Attributes
    ----------
    build : callable
        ``build(own, width, **options)`` returns the network; ``own(channels=1)`` makes the encoder of one
        image, or of several as channels, and the options are ``hidden``, ``normalise`` and ``dim`` of
        :func:`build`. One that it does not take by name is refused when somebody sets it.
    label : str
        How pages call it.
    color, marker : str
        How figures show it.
    apart : bool
        Whether each image is encoded on its own, up to the head.
    """

    build: Callable
    label: str
    color: str
    marker: str
    apart: bool = True


def _composing(head):
    return lambda own, width, normalise, **_: Composing(own(), 8 * width, head, None, normalise)


def _two_layers(head):
    return lambda own, width, hidden, normalise, **_: Composing(own(), 8 * width, head, hidden, normalise)


def _mixing(depth):
    return lambda own, width, **_: Mixing(own(), width, depth)


def _gaussian(own, width, dim, **_):
    return Composing(nn.Sequential(nn.Linear(dim, width), nn.ReLU()), width, "sum")


ARCHITECTURES = {
    "sum": Architecture(_composing("sum"), "Sum", "#0072B2", "o"),
    "linear": Architecture(_composing("linear"), "Linear", "#117733", "s"),
    "two_layer": Architecture(_two_layers("two_layer"), "2-layer", "#CC79A7", "^"),
    "cross_channel": Architecture(
        lambda own, width, **_: CrossChannel(own(3), 8 * width), "Cross-channel", "#D55E00", "D", apart=False
    ),
    "gaussian": Architecture(_gaussian, "Additive", "#0072B2", "o"),
    "after_1": Architecture(_mixing(1), "after stage 1", "#7F3C00", "<", apart=False),
    "after_2": Architecture(_mixing(2), "after stage 2", "#8A6D00", ">", apart=False),
    "after_3": Architecture(_mixing(3), "after stage 3", "#5B7A00", "p", apart=False),
    "after_4": Architecture(_mixing(4), "after stage 4", "#00786B", "h", apart=False),
    "deep_sets": Architecture(_two_layers("deep_sets"), "Deep Sets", "#8B5A00", "v"),
    "attention": Architecture(
        lambda own, width, **_: Attention(own(), 8 * width), "Attention", "#555555", "P"
    ),
}
"""All architectures by name.

:meta hide-value:
"""
