"""Augmentation of training images, for a whole batch at once and on its device."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from mnist_lab.data.batches import upload

HALF = 14  # pixels in half the side of an image, which is the unit of torch's sampling grids

_Values = Tensor | float
_Pixels = Annotated[float, Field(ge=0, le=14)]


class Distortion:
    """Random distortions of each training image, drawn anew at every step. An amount of 0 switches one off.

    All but the cutout are one resampling of the image, so all of them cost little more than one.

    Args:
        shift: maximum horizontal and vertical shift, in pixels of a 28-pixel image.
        degrees: maximum rotation in either direction.
        scale: maximum change of size: 0.1 means 0.9 to 1.1 times.
        shear: maximum angle in degrees by which upright strokes are slanted to either side.
        crop: maximum number of pixels cut off: a random square with a side of 28 - crop to 28 pixels, at a random
            place, is resized to the whole image.
        elastic: standard deviation in pixels of the random displacements of a grid of points, between which pixels
            move smoothly (Simard, Steinkraus and Platt, "Best Practices for Convolutional Neural Networks Applied to
            Visual Document Analysis", 2003, displace each pixel and smooth the displacements).
        elastic_points: number of points on each side of that grid.
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
        """Distort normalised images, (B, 1, S, S), by amounts from a generator; fill edges with the background, black.

        A generator of the CPU draws the same amounts for every device.
        """
        amounts = self.draw(len(images), images.shape[-1], generator)
        return self.apply(images, upload(amounts, images), black)

    def draw(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """Draw the amounts by which `apply` distorts images of a size in pixels, (count, A)."""
        angle, zoom, x, y = torch.rand(4, count, generator=generator) * 2 - 1
        slant, cut, left, top = torch.rand(4, count, generator=generator) * 2 - 1
        side = 1 - (1 + cut) / 2 * (self.crop / 28)  # image sides
        x = x * (self.shift / HALF) + left * (1 - side)
        y = y * (self.shift / HALF) + top * (1 - side)
        angle, slant = torch.deg2rad(angle * self.degrees), torch.deg2rad(slant * self.shear).tan()
        amounts = [affine_matrix(angle, 1 + zoom * self.scale, x, y, slant, side).flatten(1)]
        if self.elastic:
            points = torch.randn(count, 2 * self.elastic_points**2, generator=generator)
            amounts.append(points * (self.elastic / HALF))
        if self.cutout:
            start = torch.randint(size, (2, count), generator=generator) - self._cutout_side(size) // 2
            amounts.append(start.T)
        return torch.cat(amounts, dim=1)

    def apply(self, images: Tensor, amounts: Tensor, black: float) -> Tensor:
        """Distort normalised images, (B, 1, S, S), by amounts on their device, (B, A)."""
        count, size = len(images), images.shape[-1]
        matrix, points, start = amounts.tensor_split([6, amounts.shape[1] - 2 * bool(self.cutout)], dim=1)
        displacement = self._displace(points, size) if self.elastic else 0.0
        images = resample(images, matrix.reshape(count, 2, 3), black, displacement)
        if self.cutout:
            places = torch.arange(size, device=images.device) - start[:, :, None]  # (B, 2, S), from the square's corner
            rows, columns = ((places >= 0) & (places < self._cutout_side(size))).unbind(1)
            images = images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], black)
        return images

    def _displace(self, points: Tensor, size: int) -> Tensor:
        """Return smooth displacements, (B, S, S, 2), from those of the points, (B, 2 P P), all in half image sides."""
        points = points.view(len(points), 2, self.elastic_points, self.elastic_points)
        return F.interpolate(points, (size, size), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)

    def _cutout_side(self, size: int) -> int:
        return round(self.cutout * size / 28)


def affine_matrix(
    angle: Tensor, zoom: _Values = 1.0, x: _Values = 0.0, y: _Values = 0.0, slant: _Values = 0.0, side: _Values = 1.0
) -> Tensor:
    """Return the matrices, (B, 2, 3), for torch's affine_grid, which map places of the new images to those to sample.

    Arguments are (B,): the rotation in radians, anticlockwise; the scale factor; the shift in half image sides, to
    the left and up; the columns moved for each row; the side of the part that becomes the whole image, in image sides.
    """
    sine, cosine = angle.sin() / zoom, angle.cos() / zoom
    a, b, c, d = cosine, cosine * slant - sine, sine, sine * slant + cosine
    right, down = a * x + b * y, c * x + d * y  # torch shifts before it rotates and scales.
    return torch.stack([a * side, b * side, right, c * side, d * side, down], dim=1).reshape(-1, 2, 3)


def resample(images: Tensor, matrix: Tensor, black: float, displacement: Tensor | float = 0.0) -> Tensor:
    """Return images, (B, 1, S, S), sampled at the places of an affine_matrix plus a displacement, (B, S, S, 2)."""
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False) + displacement
    return F.grid_sample(images - black, grid, align_corners=False) + black
