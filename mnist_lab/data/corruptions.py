"""Corrupt images in seven ways, each in five strengths.

After MNIST-C (Mu and Gilmer, "MNIST-C: A Robustness Benchmark for Computer Vision", 2019), which has most of these
kinds, and the five severities of Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", 2019. The amounts differ from theirs, so results cannot be compared with theirs.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mnist_lab.data.augmentation import HALF, affine_matrix, resample

SEED = 0  # All random choices are drawn from it.
WHITE = 255.0
SIDES = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


class Corruption(NamedTuple):
    """A kind of corruption: the amounts of the strengths 1 to 5, their unit, and the function that applies one."""

    amounts: tuple[float, ...]
    unit: str
    apply: Callable[[Tensor, float, torch.Generator], Tensor]  # Images are (N, 1, 28, 28), from 0 to 255.


def shift(images: Tensor, pixels: float, generator: torch.Generator) -> Tensor:
    """Shift each image to one of the four sides, filling with black."""
    x, y = SIDES[torch.randint(4, (len(images),), generator=generator)].T * (pixels / HALF)
    return resample(images, affine_matrix(torch.zeros_like(x), x=x, y=y), 0)


def rotate(images: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Rotate each image about its centre, in either direction, filling with black."""
    signs = torch.randint(2, (len(images),), generator=generator) * 2 - 1
    return resample(images, affine_matrix(signs * math.radians(degrees)), 0)


def shrink(images: Tensor, percent: float, generator: torch.Generator) -> Tensor:
    """Reduce width and height, keeping the centre and filling with black."""
    return resample(images, affine_matrix(torch.zeros(len(images)), 1 - percent / 100), 0)


def add_noise(images: Tensor, percent: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise to each pixel, with a standard deviation in per cent of white."""
    return images + torch.randn(images.shape, generator=generator) * (WHITE * percent / 100)


def blur(images: Tensor, pixels: float, generator: torch.Generator) -> Tensor:
    """Blur with a Gaussian, truncated at three standard deviations of so many pixels; beyond the edges is black."""
    radius = math.floor(3 * pixels)
    kernel = (-(torch.arange(-radius, radius + 1.0) ** 2) / (2 * pixels**2)).exp()
    # Two matrix products are faster than convolutions of one channel.
    diagonals = [weight.expand(28 - abs(k)).diag(k) for k, weight in enumerate(kernel / kernel.sum(), start=-radius)]
    weights = torch.stack(diagonals).sum(0)
    return weights @ images @ weights


def invert(images: Tensor, percent: float, generator: torch.Generator) -> Tensor:
    """Mix with the negative: 50 per cent give an even grey, 100 the negative itself."""
    return images + (WHITE - 2 * images) * (percent / 100)


def occlude(images: Tensor, side: float, generator: torch.Generator) -> Tensor:
    """Cover a square of so many pixels a side with black, centred anywhere in the 20x20 pixels that a digit fills."""
    centre = 4 + 20 * torch.rand(2, len(images), 1, generator=generator)
    rows, columns = ((torch.arange(28) + 0.5 - centre).abs() < side / 2).unbind()  # (N, 28)
    return images.masked_fill((rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1), 0)


CORRUPTIONS = {
    "shift": Corruption((1, 2, 3, 4, 5), "pixels", shift),
    "rotation": Corruption((10, 20, 30, 45, 60), "degrees", rotate),
    "scale": Corruption((10, 20, 30, 40, 50), "% smaller", shrink),
    "noise": Corruption((10, 20, 30, 40, 50), "% of white (σ)", add_noise),
    "blur": Corruption((0.5, 1, 1.5, 2, 2.5), "pixels (σ)", blur),
    "inversion": Corruption((20, 40, 60, 80, 100), "% negative", invert),
    "occlusion": Corruption((4, 6, 8, 10, 12), "pixels a side", occlude),
}


def corrupt(images: Tensor, name: str, strength: int) -> Tensor:
    """Return images, (N, 28, 28) bytes, corrupted alike for every network: unchanged for strength 0, or by 1 to 5."""
    if strength == 0:
        return images
    corruption = CORRUPTIONS[name]
    generator = torch.Generator().manual_seed(SEED)
    corrupted = corruption.apply(images.unsqueeze(1).float(), corruption.amounts[strength - 1], generator)
    return corrupted.squeeze(1).round().clamp(0, WHITE).to(torch.uint8)
