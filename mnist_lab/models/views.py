"""Test-time augmentation: a network's answer is the mean over several views of an image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from mnist_lab.data.augmentation import affine_matrix


class Views:
    """The image itself, and turned to either side, smaller and larger: five views; three where an amount is 0.

    Args:
        degrees: rotation of the turned views.
        scale: change of size: 0.08 means 0.92 and 1.08 times.
    """

    def __init__(
        self,
        *,
        degrees: Annotated[float, Field(ge=0, le=180)] = 8.0,
        scale: Annotated[float, Field(ge=0, lt=1)] = 0.08,
    ) -> None:
        self.degrees, self.scale = degrees, scale
        angles = sorted({-math.radians(degrees), math.radians(degrees)})
        zooms = sorted({1 - scale, 1 + scale})
        self.changes = list(itertools.product(angles, zooms))  # rotation in radians, and zoom

    def __call__(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the views of images, each (B, 1, S, S). What comes in at an edge is as bright as the edge."""
        yield images
        batch, *shape = images.shape  # not len(images), which torch.export takes for a constant
        for grid in self.grids(shape, images.device).to(images):  # (S, S, 2)
            places = grid.expand(batch, -1, -1, -1)
            yield F.grid_sample(images, places, padding_mode="border", align_corners=False)

    def grids(self, shape: Sequence[int], device: torch.device | None = None) -> Tensor:
        """Return where each changed view takes its pixels from, (V, S, S, 2), for images of a shape, (1, S, S)."""
        angle, zoom = torch.tensor(self.changes, device=device).T
        still = torch.zeros_like(angle)
        return F.affine_grid(affine_matrix(angle, zoom, still, still), [len(angle), *shape], align_corners=False)
