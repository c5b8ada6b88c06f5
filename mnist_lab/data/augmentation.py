"""Augmentation of training images, for a whole batch at once and on its device."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

HALF = 14  # pixels of 28: half the side of an image, and the unit in which torch's grids reckon


class Affine:
    """Shifts, turns and scales each image by amounts of its own, drawn anew at every step.

    Args:
        shift: pixels of 28, at most, to either side and up or down, whatever the turn and the scale.
        degrees: of the turn, at most, either way.
        scale: growth or shrinkage at most: 0.1 is 0.9 to 1.1 times the size.
    """

    def __init__(
        self,
        *,
        shift: Annotated[float, Field(ge=0, le=14)] = 2.0,
        degrees: Annotated[float, Field(ge=0, le=180)] = 10.0,
        scale: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        self.shift, self.degrees, self.scale = shift, degrees, scale

    def __call__(self, images: Tensor, generator: torch.Generator, black: float) -> Tensor:
        """Images, (B, 1, S, S), changed; black is the value of what comes in at their edges."""
        drawn = torch.rand(4, len(images), generator=generator) * 2 - 1  # on the CPU: the same on every device
        angle, zoom = torch.deg2rad(drawn[0] * self.degrees), 1 + drawn[1] * self.scale
        x, y = drawn[2:] * (self.shift / HALF)
        return affine_transform(images, angle, zoom, x, y, black)


def affine_transform(images: Tensor, angle: Tensor, zoom: Tensor, x: Tensor, y: Tensor, black: float) -> Tensor:
    """Images, (B, 1, S, S), each turned about its middle, scaled and shifted by amounts of its own.

    Args:
        images: the images.
        angle: of the turn, in radians, (B,), anticlockwise where positive.
        zoom: growth, (B,): 2 doubles the size.
        x, y: of the shift, which comes last, in half sides of the image, (B,), to the left and up where positive.
        black: the value of what comes in at the edges.
    """
    sine, cosine = angle.sin() / zoom, angle.cos() / zoom
    right, down = cosine * x - sine * y, sine * x + cosine * y  # the shift, as it was before turn and scale
    places = torch.stack([cosine, -sine, right, sine, cosine, down], dim=1).reshape(-1, 2, 3)  # where pixels come from
    grid = F.affine_grid(places.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images - black, grid, align_corners=False) + black
