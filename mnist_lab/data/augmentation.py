"""Augmentation of training images, for a whole batch at once and on its device."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

HALF = 14  # pixels of 28: half the side of an image, and the unit in which torch's grids reckon


class Affine:
    """Random shift, rotation and scale of each training image, drawn anew at every step.

    Args:
        shift: maximum horizontal and vertical shift, in pixels of a 28-pixel image.
        degrees: maximum rotation in either direction.
        scale: maximum change of size: 0.1 means 0.9 to 1.1 times.
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
        """Return the transformed images, (B, 1, S, S).

        Args:
            images: normalised images, (B, 1, S, S).
            generator: draws the amounts, on the CPU.
            black: value of the background, which fills the edges.
        """
        drawn = torch.rand(4, len(images), generator=generator) * 2 - 1  # on the CPU: the same on every device
        angle, zoom = torch.deg2rad(drawn[0] * self.degrees), 1 + drawn[1] * self.scale
        x, y = drawn[2:] * (self.shift / HALF)
        return affine_transform(images, angle, zoom, x, y, black)


def affine_transform(images: Tensor, angle: Tensor, zoom: Tensor, x: Tensor, y: Tensor, black: float) -> Tensor:
    """Rotate each image about its centre, scale it, and shift it.

    Args:
        images: (B, 1, S, S).
        angle: rotation in radians, (B,); positive is anticlockwise.
        zoom: scale factor, (B,).
        x, y: shift in half image sides, (B,); positive is to the left and up.
        black: value that fills the edges.

    Returns:
        The transformed images, (B, 1, S, S).
    """
    sine, cosine = angle.sin() / zoom, angle.cos() / zoom
    right, down = cosine * x - sine * y, sine * x + cosine * y  # the shift before rotation and scale
    places = torch.stack([cosine, -sine, right, sine, cosine, down], dim=1).reshape(-1, 2, 3)  # of the pixels to sample
    grid = F.affine_grid(places.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images - black, grid, align_corners=False) + black
