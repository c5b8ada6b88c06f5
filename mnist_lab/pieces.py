"""Arrays of brightness taken apart: what is brightest around, which level parts two groups, what hangs together."""

from __future__ import annotations

import numpy as np


def most_around(values: np.ndarray, width: int) -> np.ndarray:
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


def level_between(values: np.ndarray) -> float:
    """The level that parts values into two groups best (Otsu, "A threshold selection method", 1979)."""
    if np.ptp(values) < 1e-4:  # one group, all above the level
        return float(values.min()) - 1e-4
    counts, edges = np.histogram(values, 64)
    below, sums = counts.cumsum(), (counts * (edges[:-1] + edges[1:]) / 2).cumsum()
    apart = (sums * below[-1] - sums[-1] * below) ** 2 / np.maximum(below * (below[-1] - below), 1)
    return float(edges[1 + apart.argmax()])


def connected(mask: np.ndarray) -> np.ndarray:
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
