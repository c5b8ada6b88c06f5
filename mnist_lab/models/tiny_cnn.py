"""A network of few parameters: five small convolutions with batch normalisation."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from mnist_lab.models.classifier import Classifier, Width


class TinyCNN(Classifier):
    """Two convolutions at 24 pixels, two at 12, one at 6; 7,706 parameters (ten classes); gives logits.

    Args:
        num_classes: K.
        widths: channels after each convolution.
        pooling: how a map of the last convolution becomes one value: its mean, or a sum with a learned weight for each
            pixel (the global depthwise convolution of Chen et al., "MobileFaceNets", 2018), then batch normalisation.
    """

    image_size = 28
    loss = "cross_entropy"

    def __init__(
        self,
        num_classes: int = 10,
        *,
        widths: tuple[Width, Width, Width, Width, Width] = (8, 12, 16, 16, 16),
        pooling: Literal["mean", "learned"] = "mean",
    ) -> None:
        super().__init__(num_classes)
        first, second, third, fourth, fifth = widths
        self.layers1 = nn.Sequential(*_convolution(1, first, 5, padding=0), *_convolution(first, second))
        self.layers2 = nn.Sequential(*_convolution(second, third), *_convolution(third, fourth))
        self.layers3 = nn.Sequential(*_convolution(fourth, fifth))
        self.pool: nn.Sequential | None = None
        if pooling == "learned":
            weighted_sum = nn.Conv2d(fifth, fifth, 6, groups=fifth, bias=False)
            self.pool = nn.Sequential(weighted_sum, nn.BatchNorm2d(fifth))
        self.fc = nn.Linear(fifth, num_classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 28, 28)
        x = F.max_pool2d(self.layers1(x), 2)  # (B, C2, 12, 12)
        x = F.max_pool2d(self.layers2(x), 2)  # (B, C4, 6, 6)
        x = self.layers3(x)  # (B, C5, 6, 6)
        features = self.pool(x).flatten(1) if self.pool else x.mean((2, 3))  # (B, C5)
        logits: Tensor = self.fc(features)  # (B, K)
        return logits


def _convolution(channels: int, width: int, kernel: int = 3, *, padding: int = 1) -> tuple[nn.Module, ...]:
    """Return a convolution, batch normalisation, which has a bias already, and ReLU."""
    return nn.Conv2d(channels, width, kernel, padding=padding, bias=False), nn.BatchNorm2d(width), nn.ReLU()
