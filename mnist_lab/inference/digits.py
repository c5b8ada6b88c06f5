"""The digit in a person's picture, made into an image as MNIST has them. Imports neither torch nor Lightning."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from mnist_lab.errors import LabError
from mnist_lab.inference.images import brightness

STROKE = 0.25  # of the picture's shorter side; what is wider is no stroke, but paper, shadow or table
SMALLEST = 0.04  # of the longer side; what is smaller is dust
FEWEST = 6  # pixels of the digit's longer side; fewer cannot show one
FAINTEST = 0.08  # of the paper's brightness; what differs less from it is paper
NEAR = 0.3  # of the digit's longer side; pieces no further away than this may be its own
NARROW = (6, 16)  # outline times length by area: of a dot 5, of MNIST's digits 6.8 to 57, of half of them 20 or more
THINNEST = 1.6  # pixels of 20; thinner strokes are thickened to it, since 9 in 10 of MNIST's digits have 1.3 to 3.1
EDGE = 4  # pixels, of strokes' edges in the picture that is looked at
CLEAR = 0.25  # of a piece's ink; where less of it is seen to begin at its outline, there is none
THIN = 16  # outline times length by area; of a line around something, it is more
INSIDE = 0.4  # of a line's longer side; what it surrounds, and is as long as this, is what matters
AS_HIGH = 0.6  # of two heights, the lower by the higher; pieces apart that are so alike are digits of their own
BOX, SIDE = 20, 28  # pixels


class NoDigit(LabError, ValueError):
    """A picture that holds nothing that could be a digit."""


class Digit(NamedTuple):
    """What was found in a picture.

    pixels: as MNIST has them, (28, 28) bytes, 0 being the background.
    box: where it was; left, top, right and bottom in shares of the upright picture's width and height.
    candidates: how many digits the picture seems to hold, this one included.
    """

    pixels: np.ndarray
    box: tuple[float, float, float, float]
    candidates: int = 1


class _Piece(NamedTuple):
    """What hangs together, and how likely it is the digit: of no unit, to compare."""

    weight: float
    mask: np.ndarray  # (H, W)
    ink: np.ndarray  # (H, W), of the whole picture
    candidates: int
    framed: bool  # whether a line surrounds it, such as a box around a digit


def find_digit(picture: Image.Image) -> Digit:
    """The digit in a picture of any size and mode, dark on light or light on dark, shaded or not.

    Of the pieces that hang together, the one with the most ink that does not look like a frame is the digit, together
    with pieces close to it that could not be digits of their own. It is treated as NIST's digits were for MNIST (LeCun,
    Cortes and Burges, "The MNIST database"): scaled into 20 x 20 pixels, the aspect kept and edges antialiased, and put
    into 28 x 28 pixels with its centre of mass at their centre.

    Raises:
        NoDigit: there is none.
    """
    grey = _smoothed(brightness(picture))
    found = [piece for piece in (_likeliest(grey), _likeliest(255 - grey)) if piece]
    if not found:
        raise NoDigit("no digit in it: it is blank, or nothing in it is large and clear enough")
    piece = max(found, key=lambda piece: (piece.framed, piece.weight))
    strokes = _strokes(piece)
    (top, bottom), (left, right) = _extent(strokes > 0.5)
    height, width = strokes.shape
    longest = max(bottom - top, right - left) * max(picture.size) / max(strokes.shape)
    if longest < FEWEST:
        raise NoDigit(f"no digit in it: what stands out most is {longest:.0f} pixels long")
    box = (left / width, top / height, right / width, bottom / height)
    return Digit(_as_mnist(strokes[top:bottom, left:right]), box, piece.candidates)


def _smoothed(grey: np.ndarray) -> np.ndarray:
    """Less noise of single pixels."""
    grey = np.pad(grey, 1, "edge")
    grey = (grey[:-2] + 2 * grey[1:-1] + grey[2:]) / 4
    smoothed: np.ndarray = (grey[:, :-2] + 2 * grey[:, 1:-1] + grey[:, 2:]) / 4
    return smoothed


def _ink(grey: np.ndarray) -> tuple[np.ndarray, float]:
    """What part of the paper's brightness is missing, (H, W) from 0 to 1, in shade or light; how much is noise."""
    width = int(STROKE * min(grey.shape)) | 1
    paper = -max_filter(-max_filter(grey, width), width)  # a closing: strokes are filled, shadows keep their edges
    ink = (paper - grey) / np.maximum(paper, 32)
    ink -= np.median(ink)
    noise = -4 * float(np.percentile(ink, 16))  # four standard deviations, of the half that has no strokes
    return np.clip(ink, 0, 1), max(noise, FAINTEST)


def _likeliest(grey: np.ndarray) -> _Piece | None:
    """The digit, if there is one: first of the darker half of the ink, without lines and marks that are fainter."""
    ink, noise = _ink(grey)
    if not (ink > noise).any():
        return None
    return _piece(grey, ink, ink > otsu_threshold(ink[ink > noise])) or _piece(grey, ink, ink > noise)


def _piece(grey: np.ndarray, ink: np.ndarray, mask: np.ndarray) -> _Piece | None:
    """The piece of a mask, (H, W), that is most likely the digit, with those close to it."""
    pieces = label_components(mask)
    label = pieces[mask]
    count = int(pieces.max()) + 1
    mass = np.bincount(label, ink[mask], count)
    low, high = np.full((2, count), max(mask.shape)), np.full((2, count), -1)
    for axis, place in enumerate(mask.nonzero()):
        np.minimum.at(low[axis], label, place)
        np.maximum.at(high[axis], label, place)
    size = high - low + 1
    area = np.maximum(np.bincount(label, minlength=count), 1)
    outline, rise = _outlines(grey, pieces, count)
    clear = (rise / np.maximum(mass / area, 1e-6)).clip(0, 1)
    ring = np.concatenate([pieces[0], pieces[-1], pieces[1:-1, 0], pieces[1:-1, -1]])
    touching = np.bincount(ring, minlength=count)
    spans = (size > 0.6 * np.array(mask.shape)[:, None]).all(0) & (touching < 0.35 * len(ring))
    # A digit may be cropped closely, or cut off; what runs along the edge is paper's end, shadow or table.
    likely = np.select([touching == 0, spans, touching < 0.5 * size.max(0)], [1, 0.5, 0.2], 0)
    # Strokes are long and narrow; the hole of a 0, the notch of a 4 and a patch of light are not.
    narrow = outline * size.max(0) / area
    strokes = (size.max(0) >= SMALLEST * max(mask.shape)) & (narrow >= NARROW[0]) & (clear > CLEAR)
    weight = np.where(strokes, mass * likely * clear * narrow.clip(max=NARROW[1]) ** 4, 0)
    weight[0] = 0
    frames = _frames(low, high, weight > 0, strokes & (narrow >= THIN))
    weight[frames] = 0
    main = weight.argmax()
    if not weight[main]:
        return None
    gap = np.maximum(low - high[:, [main]], low[:, [main]] - high).max(0)
    equal = (likely >= likely[main]) & ~frames
    equal[0] = False
    alike = np.minimum(size[0], size[0, main]) >= AS_HIGH * np.maximum(size[0], size[0, main])
    others = equal & strokes & (gap > 0) & alike & (mass >= 0.2 * mass[main])
    own = equal & ~others & (gap <= NEAR * size[:, main].max()) & (mass >= 0.03 * mass[main])
    return _Piece(weight[main], own[pieces], ink, 1 + int(others.sum()), bool(frames.any()))


def _frames(low: np.ndarray, high: np.ndarray, digits: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Tell which lines surround something that could be a digit, (count,).

    Args:
        low, high: the pieces' first and last rows and columns, (2, count).
        digits: which pieces could be digits, (count,).
        lines: which pieces are thin, (count,).
    """
    longest = (high - low + 1).max(0)
    frames = np.zeros_like(lines)
    for line in lines.nonzero()[0]:
        inside = (low > low[:, [line]]).all(0) & (high < high[:, [line]]).all(0)
        frames[line] = (inside & digits & (longest >= INSIDE * longest[line])).any()
    return frames


def _outlines(grey: np.ndarray, pieces: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The length of each piece's outline, (count,), and by what part of its brightness paper is brighter beyond it.

    Where paper was guessed wrongly, as at the end of a shadow, ink ends though brightness goes on.
    """
    mask = pieces > 0
    inside = np.pad(mask, 1).astype(np.int8)
    open_sides = 4 - inside[:-2, 1:-1] - inside[2:, 1:-1] - inside[1:-1, :-2] - inside[1:-1, 2:]
    rows, columns = (mask & (open_sides > 0)).nonzero()
    label = pieces[rows, columns]
    outline = np.bincount(label, open_sides[rows, columns], count)
    places, rises = np.zeros((2, count))
    for down, right in ((-EDGE, 0), (EDGE, 0), (0, -EDGE), (0, EDGE)):
        beyond = (rows + down).clip(0, mask.shape[0] - 1), (columns + right).clip(0, mask.shape[1] - 1)
        rise = (grey[beyond] - grey[rows, columns]) / np.maximum(grey[beyond], 32)
        places += np.bincount(label, ~mask[beyond], count)
        rises += np.bincount(label, np.where(mask[beyond], 0, rise), count)
    return outline, rises / np.maximum(places, 1)


def _strokes(piece: _Piece) -> np.ndarray:
    """The digit alone, (H, W) from 0 to 1, its edges at one half."""
    own = max_filter(piece.mask, 2 * (max(piece.mask.shape) // 100) + 3)  # with its edges
    full = np.percentile(piece.ink[piece.mask], 75)
    strokes: np.ndarray = np.where(own, np.clip(2 * piece.ink / full - 0.5, 0, 1), 0)
    solid = strokes > 0.5
    outline = sum(int(np.diff(solid, axis=axis).sum()) for axis in (0, 1))
    size = max(end - start for start, end in _extent(solid))
    missing = THINNEST * size / BOX - 2 * solid.sum() / outline
    return max_filter(strokes, 2 * round(missing / 2) + 1) if missing > 0 else strokes


def _extent(mask: np.ndarray) -> list[tuple[int, int]]:
    """First row and the one after the last, and columns likewise, of what is set in a mask."""
    return [(int(places.min()), int(places.max()) + 1) for places in mask.nonzero()]


def _as_mnist(strokes: np.ndarray) -> np.ndarray:
    """Strokes cut out closely, (H, W) from 0 to 1, in a box of 20 x 20 in 28 x 28 bytes, centred by mass."""
    height, width = (max(1, round(BOX * side / max(strokes.shape))) for side in strokes.shape)
    picture = Image.fromarray((255 * strokes).astype(np.uint8)).resize((width, height), Image.Resampling.BOX)
    pixels = np.asarray(picture, np.float64)
    pixels = pixels * (255 / pixels.max())
    corner = []
    for axis, side in enumerate(pixels.shape):
        centre = pixels.sum(1 - axis) @ np.arange(side) / pixels.sum()
        corner.append(min(max(round(SIDE / 2 - centre), 0), SIDE - side))
    framed = np.zeros((SIDE, SIDE), np.uint8)
    framed[corner[0] : corner[0] + height, corner[1] : corner[1] + width] = pixels.round()
    return framed


def max_filter(values: np.ndarray, width: int) -> np.ndarray:
    """The greatest value in the square of that odd width around each, found by doubling."""
    for axis in (0, 1):
        values = np.moveaxis(values, axis, 0)
        edge = np.full((width // 2, values.shape[1]), values.min(), values.dtype)
        most, reach = np.concatenate([edge, values, edge]), 1
        while reach < width:
            step = min(reach, width - reach)
            most, reach = np.maximum(most[:-step], most[step:]), reach + step
        values = np.moveaxis(most, 0, axis)
    return values


def otsu_threshold(values: np.ndarray) -> float:
    """The level that parts values into two groups best (Otsu, "A threshold selection method", 1979)."""
    if np.ptp(values) < 1e-4:  # one group, all above the level
        return float(values.min()) - 1e-4
    counts, edges = np.histogram(values, 64)
    below, sums = counts.cumsum(), (counts * (edges[:-1] + edges[1:]) / 2).cumsum()
    apart = (sums * below[-1] - sums[-1] * below) ** 2 / np.maximum(below * (below[-1] - below), 1)
    return float(edges[1 + apart.argmax()])


def label_components(mask: np.ndarray) -> np.ndarray:
    """The pieces of a mask, (H, W), that hang together, corners included: their numbers from 1 on, and 0 elsewhere."""
    width = mask.shape[1] + 2
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    row, start = (edges == 1).nonzero()
    end = (edges == -1).nonzero()[1]  # of runs in a row, in the order of reading, as places of one long line
    first = np.searchsorted(row * width + end, (row + 1) * width + start)
    last = np.searchsorted(row * width + start, (row + 1) * width + end, side="right")
    touching = np.maximum(last - first, 0)  # so many runs of the next row, from the first on
    one = np.repeat(np.arange(len(row)), touching)
    other = np.arange(len(one)) + np.repeat(first - (touching.cumsum() - touching), touching)
    root = np.arange(len(row))
    while (root[one] != root[other]).any():
        np.minimum.at(root, np.maximum(root[one], root[other]), np.minimum(root[one], root[other]))
        while (root != root[root]).any():
            root = root[root]
    pieces = np.zeros(mask.shape, np.int64)
    pieces[mask] = 1 + np.repeat(np.unique(root, return_inverse=True)[1], end - start)
    return pieces
