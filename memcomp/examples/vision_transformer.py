"""torchvision's vision transformer: a token holds the same 7×7 patch of all three images."""

from torch import nn
from torchvision.models import VisionTransformer


def build(width, seed):
    """Return a network from (B, 3, 28, 28) to (B,)."""
    transformer = VisionTransformer(
        image_size=28,
        patch_size=7,
        num_layers=4,
        num_heads=4,
        hidden_dim=8 * width,
        mlp_dim=16 * width,
        num_classes=1,
    )
    return nn.Sequential(transformer, nn.Flatten(0))
