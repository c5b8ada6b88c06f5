"""Read a user's image files with Pillow, and convert them to greyscale. Imports neither torch nor Lightning."""

import os
import warnings
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mnist_lab.errors import LabError

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM")  # Some of Pillow's other formats run programs.
UNSUPPORTED = {".heic", ".heif"}  # Telephones write these, and Pillow does not read them.
MAX_PIXELS = 120_000_000  # All are decoded before the image is shrunk, with up to four bytes each.
MAX_SCANS = 100  # A progressive JPEG has about ten, each of which goes through all pixels.
# The images of a command may have FREE_PIXELS, and PIXELS_A_BYTE more for each byte of their files.
FREE_PIXELS, PIXELS_A_BYTE = 400_000_000, 20
MAX_ASPECT_RATIO = 50  # In an image that is narrower, no digit is large enough.
SIDE = 28  # pixels; the side of MNIST's images, and of those made from other files
BRIGHT, DARK = 170, 85  # A background from BRIGHT on is clearly light, and one below DARK clearly dark.
MAX_SIDE, MIN_SIDE = 640, 112  # pixels of the longer side; larger images are shrunk, and smaller ones enlarged.


class UnreadableImage(LabError, ValueError):
    """A file is not an image, is damaged or is too large."""


class PixelBudget:
    """Bounds the pixels of all images that a command reads, since decoding those of small files could take minutes."""

    def __init__(self) -> None:
        self.pixels_left, self.sizes = FREE_PIXELS, set[tuple[int, ...]]()

    def spend(self, size: tuple[int, int], file_size: int) -> None:
        """Count the pixels of an image, before it is decoded, and the bytes of its file."""
        self.sizes.add(size)
        self.pixels_left += PIXELS_A_BYTE * file_size - size[0] * size[1]
        if self.pixels_left < 0:
            raise UnreadableImage("too many pixels in all for files of their size; shrink the images")


def open_image(path: Path, budget: PixelBudget | None = None) -> Image.Image:
    """Read the image at a path; raise UnreadableImage, whose message does not name the path, if there is none."""
    if not path.is_file():
        raise UnreadableImage("not an image file" if path.exists() else "file not found")
    try:
        with path.open("rb") as file:
            return read_image(file, budget)
    except PermissionError as error:
        raise UnreadableImage(f"cannot be read ({error.strerror})") from error


def read_image(file: IO[bytes], budget: PixelBudget | None = None) -> Image.Image:
    """Read an image, the first of several, and shrink a large one; raise UnreadableImage for any other file."""
    Image.init()
    with warnings.catch_warnings():
        # Pillow warns of damage that it repairs, and of sizes that _check_size refuses.
        warnings.simplefilter("ignore")
        try:
            image = Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
            _check_size(image, file)
            (budget or PixelBudget()).spend(image.size, file.seek(0, os.SEEK_END))
            image.draft(None, (2 * MAX_SIDE, 2 * MAX_SIDE))  # Pillow decodes a JPEG no finer than that.
            image.load()
            factor = max(image.size) // (3 * MAX_SIDE)
            if factor > 1:  # Copies of a large image would take much memory.
                ImageOps.exif_transpose(image, in_place=True)
                return _convert(image).reduce(factor)
            return image
        except (Image.DecompressionBombError, MemoryError):
            raise UnreadableImage(f"too many pixels; shrink it to {MAX_PIXELS:,}") from None
        except UnidentifiedImageError:
            raise UnreadableImage(f"unknown image format; save it as {' or '.join(FORMATS[:2])}") from None
        except UnreadableImage:
            raise
        except Exception as error:  # Decoders raise anything for damaged files.
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UnreadableImage(f"corrupt or incomplete ({reason})") from error


def _check_size(image: Image.Image, file: IO[bytes]) -> None:
    """Raise UnreadableImage for an image, not decoded yet, of too many pixels or scans, or with no room for a digit."""
    width, height = image.size
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height) > 0:
        raise UnreadableImage(f"too narrow ({width} x {height} pixels); crop it")
    if width * height > MAX_PIXELS:
        raise UnreadableImage(f"too many pixels ({width} x {height}); shrink it to {MAX_PIXELS:,}")
    file.seek(0)
    if image.format in ("JPEG", "MPO") and file.read().count(b"\xff\xda") > MAX_SCANS:
        raise UnreadableImage(f"more than {MAX_SCANS} scans; save it anew")


def _convert(image: Image.Image) -> Image.Image:
    """Convert an image to mode F (more than 8 bits), L, RGBA (if it may have transparent parts) or RGB."""
    if image.mode.startswith(("I", "F")):
        return image.convert("F")
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in ("1", "L"):
        return image.convert("L")
    return (image.getchannel(0) if image.mode == "LAB" else image).convert("RGB")


def image_suffixes() -> set[str]:
    """Return the suffixes of image files, in lower case."""
    return {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS} | UNSUPPORTED


def brightness(image: Image.Image) -> np.ndarray:
    """Return the brightness, (H, W) floats from 0 to 255, of an image turned upright and resized."""
    image = _turn_upright(image)
    if image.mode in ("F", "L"):
        return np.asarray(_resize(image), np.float32)
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert("RGB")
    colours = _fill_transparency(np.asarray(_resize(image), np.float32))
    # The first principal component of the colours makes red on green visible, too.
    deviations = (colours - colours.mean(axis=(0, 1))).reshape(-1, 3)
    axis = np.linalg.eigh(deviations.T @ deviations)[1][:, -1]
    axis = axis * (np.sign(axis.sum()) or 1) / np.abs(axis).sum()
    grey: np.ndarray = colours @ axis + 255 * np.clip(-axis, 0, None).sum()
    return grey.astype(np.float32)


def fit_image(image: Image.Image, background: int | None = None) -> np.ndarray:
    """Return an image of any size and mode as a grey one of 28x28 pixels, (28, 28) bytes.

    It keeps its aspect ratio: a rectangle is extended to a square in the brightness of its edges. The background, from
    0 to 255, is the brightness that its edges should have: light edges are inverted for a dark one, and the reverse.
    """
    grey = np.asarray(_to_grey(image))
    if background is not None:
        edges = border_brightness(grey[None])
        if (background < DARK and edges > BRIGHT) or (background > BRIGHT and edges < DARK):
            grey = 255 - grey
    return fit_pixels(grey)


def fit_pixels(image: np.ndarray) -> np.ndarray:
    """Return a grey image, (H, W) bytes, extended to a square in the brightness of its edges and resized to 28x28."""
    if image.shape == (SIDE, SIDE):
        return image.copy()
    height, width = image.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.full((side, side), border_brightness(image[None]), np.uint8)
    square[top : top + height, left : left + width] = image
    return np.array(Image.fromarray(square).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def border_brightness(images: np.ndarray) -> int:
    """Return the median brightness, from 0 to 255, of the outermost pixels of images, (N, H, W) bytes."""
    edges = [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]]
    return int(np.median(np.concatenate(edges, axis=1)))


def _to_grey(image: Image.Image) -> Image.Image:
    """Return an image of any mode, turned upright, in 256 shades of grey by luminance (ITU-R BT.601)."""
    image = _turn_upright(image)
    if image.mode == "F":
        return Image.fromarray(np.asarray(image).astype(np.uint8))
    if image.mode == "RGBA":
        image = image.reduce(max(image.size) // MAX_SIDE or 1)  # Its floats would take a gigabyte.
        image = Image.fromarray(_fill_transparency(np.asarray(image, np.float32)).round().astype(np.uint8))
    return image.convert("L")


def _turn_upright(image: Image.Image) -> Image.Image:
    """Turn an image upright and convert it; values of mode F are scaled to 0 to 255."""
    image = _convert(ImageOps.exif_transpose(image))
    if image.mode != "F":
        return image
    values = np.nan_to_num(np.asarray(image), posinf=0, neginf=0)
    values = values - min(0, values.min())
    return Image.fromarray(values * np.float32(255 / (values.max() or 1)))


def _resize(image: Image.Image) -> Image.Image:
    """Shrink an image whose longer side is above MAX_SIDE, and enlarge one whose longer side is below MIN_SIDE."""
    longer = max(image.size)
    factor = min(1, MAX_SIDE / longer) * max(1, MIN_SIDE / longer)
    width, height = (max(1, round(factor * side)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3)


def _fill_transparency(pixels: np.ndarray) -> np.ndarray:
    """Fill transparent parts with the median colour or, if only ink is opaque, with black or white, which contrasts."""
    if pixels.shape[-1] == 3:
        return pixels
    colours, alpha = pixels[..., :3], pixels[..., 3:] / 255
    opaque = alpha[..., 0] > 0.5
    if opaque.mean() > 0.5:
        paper = np.median(colours[opaque], axis=0)
    else:
        paper = np.full(3, 255 if not opaque.any() or colours[opaque].mean() < 128 else 0)
    filled: np.ndarray = colours * alpha + paper * (1 - alpha)
    return filled.astype(np.float32)
