"""Augmentation of training images, for a whole batch at once and on its device."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

HALF = 14  # pixels of 28: half the side of an image, and the unit in which torch's grids reckon

_Values = Tensor | float
_Pixels = Annotated[float, Field(ge=0, le=14)]


class Distortion:
    """Random distortions of each training image, drawn anew at every step. An amount of 0 switches one off.

    All but the cutout are one resampling of the image, so together they cost little more than one of them.

    Args:
        shift: maximum horizontal and vertical shift, in pixels of a 28-pixel image.
        degrees: maximum rotation in either direction.
        scale: maximum change of size: 0.1 means 0.9 to 1.1 times.
        shear: maximum angle in degrees by which upright strokes are slanted to either side.
        crop: maximum number of pixels cut off: a random square with a side of 28 - crop to 28 pixels, at a random
            place, is resized to the whole image.
        elastic: standard deviation in pixels of the random displacements of a grid of points, between which pixels
            move smoothly (Simard, Steinkraus and Platt, "Best Practices for Convolutional Neural Networks Applied to
            Visual Document Analysis", 2003, have one for each pixel, smoothed).
        elastic_points: the points on each side of that grid.
        cutout: side in pixels of a square that is filled with the background, around a random pixel (DeVries and
            Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017).
    """

    def __init__(
        self,
        *,
        shift: _Pixels = 0.0,
        degrees: Annotated[float, Field(ge=0, le=180)] = 0.0,
        scale: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        shear: Annotated[float, Field(ge=0, le=45)] = 0.0,
        crop: _Pixels = 0.0,
        elastic: _Pixels = 0.0,
        elastic_points: Annotated[int, Field(ge=2, le=28)] = 5,
        cutout: Annotated[int, Field(ge=0, le=28)] = 0,
    ) -> None:
        self.shift, self.degrees, self.scale, self.shear, self.crop = shift, degrees, scale, shear, crop
        self.elastic, self.elastic_points, self.cutout = elastic, elastic_points, cutout

    def __call__(self, images: Tensor, generator: torch.Generator, black: float) -> Tensor:
        """Distort normalised images, (B, 1, S, S), by amounts from a generator; black, the background, fills edges."""
        # The generator is the CPU's, so that the amounts are the same on every device.
        angle, zoom, *moved = torch.rand(4, len(images), generator=generator) * 2 - 1
        slant, cut, left, top = torch.rand(4, len(images), generator=generator) * 2 - 1
        side = 1 - (1 + cut) / 2 * (self.crop / 28)  # of the square that is kept, in image sides
        x, y = (place * (self.shift / HALF) + edge * (1 - side) for place, edge in zip(moved, (left, top), strict=True))
        angle, slant = torch.deg2rad(angle * self.degrees), torch.deg2rad(slant * self.shear).tan()
        matrix = affine_matrix(angle, 1 + zoom * self.scale, x, y, slant, side)
        distorted = resample(images, matrix, black, self._displacement(images, generator) if self.elastic else 0.0)
        return self._cut_out(distorted, generator, black) if self.cutout else distorted

    def _displacement(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw smooth displacements, (B, S, S, 2), in half image sides."""
        count, size = len(images), images.shape[-1]
        points = torch.randn(count, 2, self.elastic_points, self.elastic_points, generator=generator)
        points = (points * (self.elastic / HALF)).to(images)
        smooth = F.interpolate(points, (size, size), mode="bicubic", align_corners=True)
        return smooth.permute(0, 2, 3, 1)

    def _cut_out(self, images: Tensor, generator: torch.Generator, black: float) -> Tensor:
        """Fill a random square of each image with the background."""
        count, size = len(images), images.shape[-1]
        side, places = round(self.cutout * size / 28), torch.arange(size)
        first = torch.randint(size, (2, count, 1), generator=generator) - side // 2
        rows, columns = ((places >= first) & (places < first + side)).to(images.device)
        return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], black)


def affine_matrix(
    angle: Tensor, zoom: _Values = 1.0, x: _Values = 0.0, y: _Values = 0.0, slant: _Values = 0.0, side: _Values = 1.0
) -> Tensor:
    """Return the matrices, (B, 2, 3), that map places of the new images to the places to sample, as torch has them.

    Arguments are (B,): the rotation in radians, anticlockwise; the scale factor; the shift in half image sides, to
    the left and up; the columns moved for each row; the side of the part that becomes the whole image, in image sides.
    """
    sine, cosine = angle.sin() / zoom, angle.cos() / zoom
    a, b, c, d = cosine, cosine * slant - sine, sine, sine * slant + cosine
    right, down = a * x + b * y, c * x + d * y  # the shift before rotation and scale
    return torch.stack([a * side, b * side, right, c * side, d * side, down], dim=1).reshape(-1, 2, 3)


def resample(images: Tensor, matrix: Tensor, black: float, displacement: Tensor | float = 0.0) -> Tensor:
    """Return images, (B, 1, S, S), sampled at the places of an affine_matrix plus a displacement, (B, S, S, 2)."""
    grid = F.affine_grid(matrix.to(images), list(images.shape), align_corners=False) + displacement
    return F.grid_sample(images - black, grid, align_corners=False) + black
