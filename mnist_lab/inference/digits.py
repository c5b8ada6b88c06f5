"""Find digits in an image and bring them into MNIST's form. Imports neither torch nor Lightning."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from mnist_lab.data.images import SIDE, brightness
from mnist_lab.errors import LabError

MAX_STROKE = 0.25  # Anything wider than this share of the image's shorter side is paper, shadow or table.
MIN_LENGTH = 0.04  # Anything smaller than this share of the image's longer side is dust.
MAX_GAP = 0.3  # Components within this share of a digit's longer side may be parts of the digit.
MIN_FRAMED = 0.4  # A line around something of this share of the line's longer side is a frame.
MIN_PIXELS = 6  # The longer side of a digit has at least so many.
MIN_CONTRAST = 0.08  # Ink is darker than the paper by this share of the paper's brightness.
# Elongation is outline times length by area: 5 for a dot, 6.8 to 57 for MNIST's digits, 20 or more for half of them.
MIN_ELONGATION, LINE_ELONGATION = 6, 16
MIN_STROKE = 1.6  # pixels of 20; thinner strokes are thickened, since 9 in 10 of MNIST's digits have 1.3 to 3.1.
EDGE_WIDTH = 4  # pixels
MIN_EDGE_CONTRAST = 0.25  # The edges of strokes have this share of their mean ink.
# Components whose heights and amounts of ink have these ratios are two digits; side by side, lower ratios are enough.
MIN_HEIGHT_RATIO, MIN_MASS_RATIO = 0.6, 0.2
MIN_HEIGHT_RATIO_IN_ROW, MIN_MASS_RATIO_IN_ROW = 0.5, 0.03
MIN_GAP_IN_ROW = 0.1  # heights
BOX = 20  # pixels; the side of the square that a digit fills
SMOOTHING = np.outer([1, 2, 1], [1, 2, 1]) / 16  # It removes the noise of single pixels.

Box = tuple[float, float, float, float]  # left, top, right and bottom as fractions of width and height


class NoDigit(LabError, ValueError):
    """The image contains nothing that could be a digit."""


class NetworkInput(NamedTuple):
    """What a network is given of an image: a digit found in it, or the whole of it."""

    pixels: np.ndarray  # (28, 28) bytes; the background of a digit is 0, as in MNIST.
    box: Box = (0, 0, 1, 1)  # place in the upright image
    candidates: int = 1  # number of digits that the image seems to contain


class _Components(NamedTuple):
    """The connected components of a mask, with their measures, each (count,) except the first three."""

    labels: np.ndarray  # (H, W), from 1 on
    start: np.ndarray  # (2, count), first row and column of each component's box
    stop: np.ndarray  # (2, count)
    mass: np.ndarray  # amount of ink
    inside: np.ndarray  # from 0, along the image's edge, to 1
    is_stroke: np.ndarray
    is_frame: np.ndarray
    score: np.ndarray  # likelihood of being a digit


class _Digit(NamedTuple):
    """Components that may be a digit, with a margin around them."""

    top: int
    left: int
    margin: int  # pixels around the components
    mask: np.ndarray  # (H, W)
    ink: np.ndarray  # (H, W)


class _Candidate(NamedTuple):
    """The components of an image that may be its digits, for dark or for light ink."""

    score: float  # sum over the first digit and those beside it
    is_framed: bool
    digits: list[_Digit]  # the most likely one first


def find_digit(image: Image.Image) -> NetworkInput:
    """Find the clearest digit in an image of any size and mode: dark on light or light on dark, shaded or not.

    The digit is the connected component with the most ink that does not look like a frame, together with components
    close to it that could not be separate digits. It is prepared as NIST's digits were for MNIST (LeCun, Cortes and
    Burges, "The MNIST database"): scaled into 20 x 20 pixels with its aspect ratio kept and its edges antialiased, then
    placed in 28 x 28 pixels with its centre of mass in the middle.

    Raises:
        NoDigit: nothing is large and clear enough.
    """
    return next(_find_digits(image))


def find_number(image: Image.Image) -> list[NetworkInput]:
    """Find the row of digits that contains the clearest digit of an image, from left to right.

    Each is prepared as `find_digit` prepares one.

    Raises:
        NoDigit: nothing is large and clear enough.
    """
    first, *others = _find_digits(image)
    row, rest = [first], {other.box: other for other in others}
    for digit in row:  # The row grows meanwhile, so a tilted row is followed to its ends.
        row += [rest.pop(box) for box in list(rest) if _are_side_by_side(digit.box, box)]
    return sorted(row, key=lambda digit: digit.box[0])


def _are_side_by_side(box: Box, other: Box) -> bool:
    """Return whether two boxes overlap by at least half the height of the lower one."""
    overlap = min(box[3], other[3]) - max(box[1], other[1])
    return overlap >= 0.5 * min(box[3] - box[1], other[3] - other[1])


def _find_digits(image: Image.Image) -> Iterator[NetworkInput]:
    """Yield the digits of an image, the clearest first."""
    grey = ndimage.correlate(brightness(image), SMOOTHING, mode="nearest")
    candidates = [found for values in (grey, 255 - grey) if (found := _find_candidate(values))]
    if not candidates:
        raise NoDigit("no digit found: the image is blank, or nothing in it is large and clear enough")
    digits = max(candidates, key=lambda candidate: (candidate.is_framed, candidate.score)).digits
    height, width = grey.shape
    for digit in digits:
        strokes = _extract_strokes(digit)
        rows, columns = _find_bounds(strokes > 0.5)
        strokes = strokes[rows, columns]
        longest = max(strokes.shape) * max(image.size) / max(grey.shape)
        if longest >= MIN_PIXELS:
            x, y = ((digit.left + columns.start) / width, (digit.top + rows.start) / height)
            box = (x, y, x + strokes.shape[1] / width, y + strokes.shape[0] / height)
            yield NetworkInput(_centre(strokes), box, len(digits))
        elif digit is digits[0]:
            raise NoDigit(f"no digit found: the clearest mark is only {longest:.0f} pixels long")


def _find_candidate(grey: np.ndarray) -> _Candidate | None:
    """Find dark strokes, first in the darker half of the ink, which leaves out ruled lines and faint marks."""
    width = int(MAX_STROKE * min(grey.shape)) | 1
    paper = ndimage.grey_closing(grey, (width, width), mode="nearest")  # Closing keeps the edges of shadows.
    ink = (paper - grey) / np.maximum(paper, 32)
    low, median = np.percentile(ink, (16, 50))
    noise = max(4 * (median - low), MIN_CONTRAST)  # four standard deviations of the half without strokes
    ink = np.clip(ink - np.float32(median), 0, 1)
    if not (ink > noise).any():
        return None
    clear = ink > otsu_threshold(ink[ink > noise])
    found = _choose_digits(grey, ink, clear) or _choose_digits(grey, ink, ink > noise)
    if found is None:
        return None
    # Paper is even, even if shaded. It is uneven if the light between dark digits was taken for the digits.
    darkest, brightest = np.percentile(paper, (5, 95))
    evenness = 1 - (brightest - darkest) / max(brightest, 32)
    return found._replace(score=found.score * max(evenness, 0.01))


def _measure_components(grey: np.ndarray, ink: np.ndarray, mask: np.ndarray) -> _Components:
    """Return the components of a mask, (H, W)."""
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    start, stop = np.array([[(side.start, side.stop) for side in box] for box in ndimage.find_objects(labels)]).T
    size = stop - start
    length = size.max(0)
    area, mass = (np.bincount(labels[mask], weights)[1:] for weights in (None, ink[mask]))
    outline, contrast = _measure_edges(grey, labels, count)
    border = np.ones(mask.shape, bool)
    border[1:-1, 1:-1] = False
    touching = np.bincount(labels[border], minlength=count + 1)[1:]
    spans = (size > 0.6 * np.array(mask.shape)[:, None]).all(0) & (touching < 0.35 * border.sum())
    # A digit may be cropped closely or cut off; a mark along the edge is the end of the paper, a shadow or a table.
    inside = np.select([touching == 0, spans, touching < 0.5 * length], [1, 0.5, 0.2], 0)
    elongation = outline * length / area
    sharpness = (contrast * area / np.maximum(mass, 1e-6)).clip(0, 1)
    is_stroke = (
        (length >= MIN_LENGTH * max(mask.shape)) & (elongation >= MIN_ELONGATION) & (sharpness > MIN_EDGE_CONTRAST)
    )
    # Strokes are long and narrow, unlike the hole of a 0, the notch of a 4 and a patch of light.
    score = is_stroke * mass * inside * sharpness * elongation.clip(max=LINE_ELONGATION) ** 4
    is_frame = np.zeros(count, bool)
    for line in (is_stroke & (elongation >= LINE_ELONGATION)).nonzero()[0]:
        within = (start > start[:, [line]]).all(0) & (stop < stop[:, [line]]).all(0)
        is_frame[line] = (within & (score > 0) & (length >= MIN_FRAMED * length[line])).any()
    score[is_frame] = 0
    return _Components(labels, start, stop, mass, inside, is_stroke, is_frame, score)


def _choose_digits(grey: np.ndarray, ink: np.ndarray, mask: np.ndarray) -> _Candidate | None:
    """Return the components of a mask, (H, W), that are most likely digits, each with its parts."""
    labels, start, stop, mass, inside, is_stroke, is_frame, score = _measure_components(grey, ink, mask)
    main = int(score.argmax())
    if not score[main]:
        return None
    size = stop - start
    heights = size[0] / size[0, main]
    overlap = np.minimum(stop[0], stop[0, main]) - np.maximum(start[0], start[0, main])
    is_beside = overlap >= 0.5 * np.minimum(size[0], size[0, main])
    gap = _measure_gaps(start, stop, main)
    in_row = is_beside & (gap >= MIN_GAP_IN_ROW * size[0, main])
    is_similar = np.minimum(heights, 1 / heights) >= np.where(in_row, MIN_HEIGHT_RATIO_IN_ROW, MIN_HEIGHT_RATIO)
    is_similar &= mass >= np.where(in_row, MIN_MASS_RATIO_IN_ROW, MIN_MASS_RATIO) * mass[main]
    is_visible = (inside >= inside[main]) & ~is_frame
    others = (is_visible & is_stroke & is_similar).nonzero()[0]
    digits, gaps = [main], [gap]
    for other in others[np.argsort(-mass[others], kind="stable")]:
        if all(each[other] >= 0 for each in gaps):
            digits.append(other)
            gaps.append(_measure_gaps(start, stop, other))
    nearest = np.argmin(gaps, axis=0)  # (count,), places among the digits
    margin = max(mask.shape) // 20 + 5  # The edges of a digit and thicker strokes need it.
    found = []
    for place, digit in enumerate(digits):
        is_near = (nearest == place) & (gaps[place] < MAX_GAP * size[:, digit].max())
        parts = is_visible & is_near & (mass >= 0.03 * mass[digit])
        top, left = (start[:, parts].min(1) - margin).clip(0).tolist()
        bottom, right = (stop[:, parts].max(1) + margin).tolist()
        crop = labels[top:bottom, left:right]
        found.append(_Digit(top, left, margin, np.isin(crop, 1 + parts.nonzero()[0]), ink[top:bottom, left:right]))
    return _Candidate(float(score[[digit for digit in digits if is_beside[digit]]].sum()), bool(is_frame.any()), found)


def _measure_gaps(start: np.ndarray, stop: np.ndarray, component: int) -> np.ndarray:
    """Return how far all boxes, (2, count), are from one component's, (count,); below 0 if they overlap."""
    gaps: np.ndarray = np.maximum(start - stop[:, [component]], start[:, [component]] - stop).max(0)
    return gaps


def _measure_edges(grey: np.ndarray, labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the length of each component's outline, (count,), and its contrast: how much brighter the outside is.

    At the end of a shadow, where the estimate of the paper is wrong, ink ends without a change of brightness.
    """
    width = grey.shape[1] + 2 * EDGE_WIDTH
    grey, labels = np.pad(grey, EDGE_WIDTH).ravel(), np.pad(labels, EDGE_WIDTH, constant_values=-1).ravel()
    steps = (1, -1, width, -width)
    open_sides = (labels > 0) * np.sum([np.roll(labels, -step) <= 0 for step in steps], axis=0, dtype=np.int8)
    edge = open_sides.nonzero()[0]
    label, outline = labels[edge], np.bincount(labels[edge], open_sides[edge])
    paper, contrast = np.zeros((2, count + 1))
    for step in steps:
        outside = edge + EDGE_WIDTH * step
        is_paper = labels[outside] == 0
        paper += np.bincount(label, is_paper)
        contrast += np.bincount(label, is_paper * (grey[outside] - grey[edge]) / np.maximum(grey[outside], 32))
    return outline[1:], contrast[1:] / np.maximum(paper[1:], 1)


def _extract_strokes(digit: _Digit) -> np.ndarray:
    """Return only the digit's strokes, (H, W) from 0 to 1 with edges at one half; thicken thin strokes."""
    with_edges = ndimage.maximum_filter(digit.mask, digit.margin // 5 * 2 + 1)
    full = np.percentile(digit.ink[digit.mask], 75)
    strokes: np.ndarray = with_edges * np.clip(2 * digit.ink / full - 0.5, 0, 1)
    solid = strokes > 0.5
    outline = sum(np.diff(solid, axis=axis).sum() for axis in (0, 1))
    length = max(side.stop - side.start for side in _find_bounds(solid))
    missing = MIN_STROKE * length / BOX - 2 * solid.sum() / outline
    return ndimage.maximum_filter(strokes, 2 * round(missing / 2) + 1) if missing > 0 else strokes


def _find_bounds(mask: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns of a mask's bounding box."""
    return ndimage.find_objects(mask.astype(np.int8))[0]  # type: ignore[no-any-return]


def _centre(strokes: np.ndarray) -> np.ndarray:
    """Scale strokes, (H, W) from 0 to 1, into a box of 20 x 20, and centre it by mass in 28 x 28 bytes."""
    height, width = (max(1, round(BOX * side / max(strokes.shape))) for side in strokes.shape)
    scaled = Image.fromarray((255 * strokes).astype(np.uint8)).resize((width, height), Image.Resampling.BOX)
    pixels = np.asarray(scaled, np.float64)
    pixels *= 255 / pixels.max()
    centre = ndimage.center_of_mass(pixels)
    top, left = (
        min(max(round(SIDE / 2 - place), 0), SIDE - side) for place, side in zip(centre, pixels.shape, strict=True)
    )
    centred = np.zeros((SIDE, SIDE), np.uint8)
    centred[top : top + height, left : left + width] = pixels.round()
    return centred


def otsu_threshold(values: np.ndarray) -> float:
    """Return the threshold that separates values best into two groups (Otsu, "A threshold selection method", 1979)."""
    if np.ptp(values) < 1e-4:  # There is one group, above the threshold.
        return float(values.min()) - 1e-4
    counts, edges = np.histogram(values, 64)
    below, sums = counts.cumsum(), (counts * (edges[:-1] + edges[1:]) / 2).cumsum()
    separation = (sums * below[-1] - sums[-1] * below) ** 2 / np.maximum(below * (below[-1] - below), 1)
    return float(edges[1 + separation.argmax()])
