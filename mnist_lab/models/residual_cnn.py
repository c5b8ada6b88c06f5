"""A small residual network with few operations an image, after Doucet's (github.com/ttdoucet/mnist, 2019)."""

from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mnist_lab.models.classifier import Classifier, Width

_Blocks = Annotated[int, Field(ge=0, le=100)]


class ResidualCNN(Classifier):
    """Three stages of residual blocks at 12, 6 and 3 pixels; 298,442 parameters (ten classes); gives logits.

    Doucet's first block works at 28 pixels, where it costs five times as much; his widths are 128, 256 and 512.

    Args:
        num_classes: K.
        widths: channels of the stages.
        blocks: residual blocks of the stages.
        kernel_size: side of the convolutions of the stages, an odd number.
    """

    image_size = 28
    loss = "cross_entropy"

    def __init__(
        self,
        num_classes: int = 10,
        *,
        widths: tuple[Width, Width, Width] = (32, 64, 128),
        blocks: tuple[_Blocks, _Blocks, _Blocks] = (2, 1, 1),
        kernel_size: Literal[1, 3, 5, 7, 9, 11] = 3,
    ) -> None:
        super().__init__(num_classes)
        self.stem = nn.Conv2d(1, widths[0], 5)
        self.stage1 = _stage(widths[0], blocks[0], kernel_size)
        self.widen1 = _widening(widths[0], widths[1], kernel_size)
        self.stage2 = _stage(widths[1], blocks[1], kernel_size)
        self.widen2 = _widening(widths[1], widths[2], kernel_size)
        self.stage3 = _stage(widths[2], blocks[2], kernel_size)
        self.norm = nn.BatchNorm2d(widths[2])
        self.fc = nn.Linear(widths[2], num_classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 28, 28)
        x = self.stage1(F.relu(F.max_pool2d(self.stem(x), 2)))  # (B, C1, 12, 12)
        x = self.stage2(self.widen1(x))  # (B, C2, 6, 6)
        x = self.stage3(self.widen2(x))  # (B, C3, 3, 3)
        logits: Tensor = self.fc(self.norm(x).mean((2, 3)))  # (B, K)
        return logits


class ResidualBlock(nn.Module):
    """Batch normalisation, then x + ReLU(convolution of x), of images with `width` channels."""

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, S, S)
        x = self.norm(x)
        return x + F.relu(self.conv(x))


def _stage(width: int, blocks: int, kernel_size: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width, kernel_size) for _ in range(blocks)))


def _widening(width: int, wider: int, kernel_size: int) -> nn.Sequential:
    """Return layers that halve the side and change the number of channels."""
    # Pooling before ReLU gives the same values from a quarter of the work.
    conv = nn.Conv2d(width, wider, kernel_size, padding=kernel_size // 2)
    return nn.Sequential(nn.BatchNorm2d(width), conv, nn.MaxPool2d(2), nn.ReLU())
