"""Normalise images by a mean and a standard deviation, one for all images or each by its own."""

from __future__ import annotations

from torch import Tensor

MIN_STD = 1 / 255  # of an image, so that a blank one has no infinite values


def normalise_pixels(pixels: Tensor, mean: float | None, std: float | None, *, inplace: bool = False) -> Tensor:
    """Return (pixels - mean) / std.

    Args:
        pixels: images from 0 to 1, (B, 1, S, S).
        mean: of all images; None for each image's own mean and standard deviation.
        std: likewise.
        inplace: whether the result may overwrite pixels.
    """
    if mean is not None and std is not None:  # torchvision's Normalize, to the last bit
        return (pixels.sub_(mean) if inplace else pixels.sub(mean)).div_(std)
    centred = pixels - pixels.mean((-2, -1), keepdim=True)
    return centred / centred.square().mean((-2, -1), keepdim=True).sqrt().clamp_min(MIN_STD)
