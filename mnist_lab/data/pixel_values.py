"""Pixel values of arrays: find the scale that they are on, and convert them to bytes."""

from collections.abc import Mapping

import numpy as np

from mnist_lab.data.images import fit_pixels
from mnist_lab.errors import UsageError

Range = tuple[float, float]  # lowest and highest value; of a scale, black and white

SCALES = ((0, 1), (-0.5, 0.5), (-1, 1), (0, 16), (0, 255), (-128, 127), (0, 1023), (0, 4095), (0, 65535))
FEW = 0.01  # A share of the values other than 0; so few beyond a scale are errors.
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # Weights of red, green and blue (ITU-R BT.601).


def find_scale(images: np.ndarray) -> Range | None:
    """Return the first scale that has all values of images; None if there is none."""
    lowest, highest = images.min(), images.max()
    for scale in SCALES:
        least, most = _limits(images, scale)
        if least <= lowest and highest <= most:
            return scale
    return None


def _limits(images: np.ndarray, scale: Range) -> Range:
    """Return the least and the greatest value that images on a scale may have; resizing makes floats overshoot."""
    black, white = scale
    slack = 0.05 * (white - black) if images.dtype.kind == "f" else 0
    return black - slack, white + slack


def find_common_scale(sets: Mapping[str, np.ndarray]) -> tuple[Range, Range]:
    """Return the range of all values, and the one scale of all sets, of which each uses a quarter or more."""
    ranges = {split: (float(images.min()), float(images.max())) for split, images in sets.items()}
    if np.isnan([*ranges.values()]).any():
        raise UsageError("has a value that is no number (NaN); replace it")
    scale, *others = {find_scale(images) for images in sets.values()}
    narrowest = min(highest - lowest for lowest, highest in ranges.values())
    if others or scale is None or scale[1] - scale[0] > 4 * narrowest:
        found = ", ".join(f"{low:g} to {high:g} in the {split} set" for split, (low, high) in ranges.items())
        raise UsageError(
            f"has values from {found}; must be from 0 to 1, 0 to 255 or on another usual scale, one for all"
        )
    for split, images in sets.items():
        _refuse_outliers(images, scale, split)
    lowest, highest = zip(*ranges.values(), strict=True)
    return (min(lowest), max(highest)), scale


def _refuse_outliers(images: np.ndarray, scale: Range, split: str) -> None:
    """Raise UsageError if the images are on this scale only because of a few values, which would make them dark."""
    for black, white in SCALES[: SCALES.index(scale)]:
        least, most = _limits(images, (black, white))
        for part in (images[:: 1 + len(images) // 1000], images):  # A sample rules out most scales, in less time.
            is_beyond = (part < least) | (part > most)
            count = np.count_nonzero(is_beyond)
            if count >= FEW * np.count_nonzero(part):
                break
        else:
            place = np.unravel_index(is_beyond.argmax(), images.shape)
            found = f"{images[place]:g} in image {place[0]:,} (from 0) of the {split} set"
            raise UsageError(f"has the value {found}; all but {count:,} are from {black:g} to {white:g}; correct it")


def to_bytes(images: np.ndarray, scale: Range) -> np.ndarray:
    """Return images with values on a scale, (N, H, W) or (N, H, W, 3), as (N, 28, 28) bytes."""
    black, white = scale
    pixels: list[np.ndarray] = []
    # All images at once would take several times their memory.
    count = max(1, (1 << 24) // images[0].size)
    for start in range(0, len(images), count):
        values = (images[start : start + count].astype(np.float32) - black) * np.float32(255 / (white - black))
        grey = values @ LUMINANCE if values.ndim == 4 else values
        pixels += map(fit_pixels, np.rint(grey).clip(0, 255).astype(np.uint8))
    return np.stack(pixels)
