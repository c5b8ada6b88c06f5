"""A person's picture files, read by Pillow, and how bright they are. Imports neither torch nor Lightning."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from mnist_lab.errors import LabError

FORMATS = (
    "JPEG",
    "PNG",
    "GIF",
    "BMP",
    "TIFF",
    "WEBP",
    "AVIF",
    "PPM",
)  # no others: some run programs
MOST = 120_000_000  # pixels of a file, which are decoded before they are shrunk, in 4 bytes each at most
MOST_HELD_TWICE = 30_000_000  # pixels where the decoder and Pillow hold the picture several times at once
HELD_TWICE = ("WEBP", "AVIF")
NARROWEST = 50  # the longer side by the shorter one; what is narrower cannot hold a digit that is large enough
# Larger pictures are shrunk and smaller ones enlarged, until the longer side has so many pixels.
LONGEST, SHORTEST = 640, 112
UNREAD = {".heic", ".heif"}  # pictures of telephones that Pillow does not read


class Unreadable(LabError, ValueError):
    """A file that is no picture, or a damaged one, or far too large."""


def opened(path: Path) -> Image.Image:
    """A picture by its path; Unreadable, without the path, if there is none."""
    if not path.is_file():
        raise Unreadable("not a file" if path.exists() else "no such file")
    try:
        with path.open("rb") as file:
            return read(file)
    except PermissionError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from error


def read(file: IO[bytes], most: int = MOST, formats: Sequence[str] = FORMATS) -> Image.Image:
    """Read a picture, the first one of several in a file; a large one is shrunk, as `brightness` would shrink it.

    Args:
        file: open, at its beginning.
        most: pixels, at most; few bytes can be a picture that fills the memory.
        formats: those of FORMATS that are accepted.

    Raises:
        Unreadable: it is none, or damaged, or larger.
    """
    Image.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what Pillow mends by itself, and of sizes that we look at
        try:
            picture = Image.open(file, formats=[name for name in formats if name in Image.OPEN])
            _refuse_size(picture, most)
            picture.draft(None, (2 * LONGEST, 2 * LONGEST))  # a JPEG is decoded no finer than it is looked at
            picture.load()
            return _shrunk(picture)
        except (Image.DecompressionBombError, MemoryError):
            raise Unreadable(f"has too many pixels; shrink it to {most:,}") from None
        except UnidentifiedImageError:
            raise Unreadable(f"not a picture of a known format; save it as {' or '.join(FORMATS[:2])}") from None
        except Unreadable:
            raise
        except Exception as error:  # a decoder that meets damage raises anything, such as RuntimeError for AVIF
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise Unreadable(f"damaged or cut short ({reason})") from error


def _refuse_size(picture: Image.Image, most: int) -> None:
    """Raise Unreadable, before a picture is decoded, if that would take too much memory or be of no use."""
    width, height = picture.size
    if picture.format in HELD_TWICE:
        most = min(most, MOST_HELD_TWICE)
    if max(width, height) > NARROWEST * min(width, height) > 0:
        raise Unreadable(f"{width} x {height} pixels are too narrow for a digit; cut it out")
    if width * height > most:
        raise Unreadable(f"{width} x {height} pixels are too many; shrink it to {most:,}")


def _shrunk(picture: Image.Image) -> Image.Image:
    """Shrink a decoded picture to three times LONGEST, or return it as it is if it is no larger.

    It is done band by band: to convert 100 million pixels at once takes a gigabyte.
    """
    factor = max(picture.size) // (3 * LONGEST)
    if factor < 2:
        return picture
    width, height = (-(-side // factor) for side in picture.size)
    rows = factor * max(1, 4_000_000 // (factor * picture.width))
    small = None
    for top in range(0, picture.height, rows):
        band = _plain(picture.crop((0, top, picture.width, min(top + rows, picture.height)))).reduce(factor)
        small = small or Image.new(band.mode, (width, height))
        small.paste(band, (0, top // factor))
    assert small is not None
    small.getexif()[ExifTags.Base.Orientation] = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return small


def _plain(picture: Image.Image) -> Image.Image:
    """Convert a picture of any mode to F (more than 8 bits), L, RGBA (if parts may be transparent) or RGB."""
    if picture.mode.startswith(("I", "F")):
        return picture.convert("F")
    if picture.has_transparency_data:
        return picture.convert("RGBA")
    if picture.mode in ("1", "L"):
        return picture.convert("L")
    return (picture.getchannel(0) if picture.mode == "LAB" else picture).convert("RGB")


def suffixes() -> set[str]:
    """How the names of pictures end, in small letters."""
    return {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS} | UNREAD


def brightness(picture: Image.Image) -> np.ndarray:
    """How bright an upright picture of any mode is, (H, W) from 0 to 255, with LONGEST pixels or fewer to a side.

    It is measured along the colours that differ most, so that a red digit is seen on green, too.
    """
    picture = _plain(ImageOps.exif_transpose(picture))
    if picture.mode == "F":  # what is white only the picture can say
        values = np.nan_to_num(np.asarray(picture), posinf=0, neginf=0)
        values = values - min(0, values.min())
        return np.asarray(_sized(Image.fromarray(values * np.float32(255 / (values.max() or 1)))))
    if picture.mode == "L":
        return np.asarray(_sized(picture), np.float32)
    if picture.mode == "RGBA" and picture.getchannel("A").getextrema() != (255, 255):
        pixels = np.asarray(_sized(picture), np.float32)
        colours = _on_paper(pixels[..., :3], pixels[..., 3:] / 255)
    else:
        colours = np.asarray(_sized(picture.convert("RGB")), np.float32)
    apart = (colours - colours.mean(axis=(0, 1))).reshape(-1, 3)
    axis = np.linalg.eigh(apart.T @ apart)[1][:, -1]  # the first principal component
    axis = axis * (np.sign(axis.sum()) or 1) / np.abs(axis).sum()
    grey: np.ndarray = colours @ axis + 255 * np.clip(-axis, 0, None).sum()
    return grey.astype(np.float32)


def _sized(picture: Image.Image) -> Image.Image:
    longer = max(picture.size)
    factor = min(1, LONGEST / longer) * max(1, SHORTEST / longer)
    width, height = (max(1, round(factor * side)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3)


def _on_paper(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """What is transparent, filled: with the colour of most of the rest or, if that is ink alone, with its contrary."""
    opaque = alpha[..., 0] > 0.5
    if opaque.mean() > 0.5:
        paper = np.median(colours[opaque], axis=0)
    else:
        paper = np.full(3, 255 if not opaque.any() or colours[opaque].mean() < 128 else 0)
    filled: np.ndarray = colours * alpha + paper * (1 - alpha)
    return filled.astype(np.float32)
