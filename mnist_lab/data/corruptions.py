"""Seven ways in which images come worse than those a network was trained on, each in five strengths.

After MNIST-C (Mu and Gilmer, "MNIST-C: A Robustness Benchmark for Computer Vision", 2019), which has most of these
kinds, and the five severities of Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", 2019. The amounts are our own: results are not to be compared with theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mnist_lab.data.augmentation import HALF, affine_transform

SEED = 0  # of all that is drawn: which way an image is shifted or turned, its noise, what is hidden of it
WHITE = 255.0
SIDES = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


@dataclass(frozen=True)
class Corruption:
    """One kind of change.

    Attributes:
        amounts: of the strengths 1 to 5.
        unit: what they are amounts of.
        change: (images (N, 1, 28, 28) from 0 to 255, amount, generator) to such images.
    """

    amounts: tuple[float, ...]
    unit: str
    change: Callable[[Tensor, float, torch.Generator], Tensor]


def shifted(images: Tensor, pixels: float, generator: torch.Generator) -> Tensor:
    """Each by so many pixels to one of the four sides; what comes in is black."""
    x, y = SIDES[torch.randint(4, (len(images),), generator=generator)].T * (pixels / HALF)
    return affine_transform(images, torch.zeros_like(x), torch.ones_like(x), x, y, 0)


def turned(images: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Each by so many degrees about its middle, one way or the other; what comes in is black."""
    ways = torch.randint(2, (len(images),), generator=generator) * 2 - 1
    nothing = torch.zeros(len(images))
    return affine_transform(images, ways * math.radians(degrees), nothing + 1, nothing, nothing, 0)


def shrunk(images: Tensor, percent: float, generator: torch.Generator) -> Tensor:
    """By so many per cent of width and height, towards the middle; what comes in is black."""
    nothing = torch.zeros(len(images))
    return affine_transform(images, nothing, nothing + 1 - percent / 100, nothing, nothing, 0)


def noisy(images: Tensor, percent: float, generator: torch.Generator) -> Tensor:
    """With Gaussian noise of its own in each pixel, its standard deviation in per cent of white."""
    return images + torch.randn(images.shape, generator=generator) * (WHITE * percent / 100)


def blurred(images: Tensor, pixels: float, generator: torch.Generator) -> Tensor:
    """By a Gaussian of such a standard deviation in pixels, cut at three of them; black beyond the edges."""
    reach = math.floor(3 * pixels)
    bell = (-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * pixels**2)).exp()
    # A row for each pixel, with the bell at its place: two products are quicker than convolutions of one channel.
    diagonals = [weight.expand(28 - abs(k)).diag(k) for k, weight in enumerate(bell / bell.sum(), start=-reach)]
    weights = torch.stack(diagonals).sum(0)
    return weights @ images @ weights


def inverted(images: Tensor, percent: float, generator: torch.Generator) -> Tensor:
    """Mixed with so many per cent of their negative: 50 is an even grey, 100 the negative itself."""
    return images + (WHITE - 2 * images) * (percent / 100)


def occluded(images: Tensor, side: float, generator: torch.Generator) -> Tensor:
    """Behind a black square of such a side in pixels, its middle anywhere in the box of 20x20 that a digit fills."""
    middle = 4 + 20 * torch.rand(2, len(images), 1, generator=generator)
    rows, columns = ((torch.arange(28) + 0.5 - middle).abs() < side / 2).unbind()  # (N, 28) each
    return images.masked_fill((rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1), 0)


CORRUPTIONS = {
    "shift": Corruption((1, 2, 3, 4, 5), "pixels", shifted),
    "rotation": Corruption((10, 20, 30, 45, 60), "degrees", turned),
    "scale": Corruption((10, 20, 30, 40, 50), "% smaller", shrunk),
    "noise": Corruption((10, 20, 30, 40, 50), "% of white (σ)", noisy),
    "blur": Corruption((0.5, 1, 1.5, 2, 2.5), "pixels (σ)", blurred),
    "inversion": Corruption((20, 40, 60, 80, 100), "% negative", inverted),
    "occlusion": Corruption((4, 6, 8, 10, 12), "pixels a side", occluded),
}


def corrupt(images: Tensor, name: str, strength: int) -> Tensor:
    """Images of bytes, (N, 28, 28), corrupted in a strength from 1 to 5, or in 0, which leaves them as they are.

    It is a function of its arguments: an image is changed alike for every network, and the same way in every strength.
    """
    if strength == 0:
        return images
    corruption = CORRUPTIONS[name]
    generator = torch.Generator().manual_seed(SEED)
    changed = corruption.change(images.unsqueeze(1).float(), corruption.amounts[strength - 1], generator)
    return changed.squeeze(1).round().clamp(0, WHITE).to(torch.uint8)
