"""Two layers on the sum of the features of the images (Zaheer et al., 2017); it has encode and join."""

from torch import nn

from memcomp import models


class DeepSets(nn.Module):
    """The network that is registered as ``deep_sets``."""

    def __init__(self, width):
        super().__init__()
        self.encoder = models.encoder(width)
        self.first = nn.Linear(8 * width, 8 * width)
        self.last = nn.Linear(8 * width, 1)

    def forward(self, x):
        """Take triplets (B, 3, 28, 28) to outputs (B,)."""
        features = self.encode(x.flatten(0, 1))
        return self.join(features.unflatten(0, (-1, 3)))

    def encode(self, images):
        """Take single images (N, 28, 28) to features (N, F)."""
        return self.encoder(images.unsqueeze(1))

    def join(self, features):
        """Take the features of triplets, (B, 3, F), to outputs (B,)."""
        return self.last(self.first(features.sum(1)).relu()).squeeze(-1)


def build(width, seed):
    """Return a network from (B, 3, 28, 28) to (B,)."""
    return DeepSets(width)
