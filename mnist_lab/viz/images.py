"""Sheets of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor


def plot_images(
    images: Tensor | np.ndarray,
    truths: Sequence[int],
    predictions: Sequence[int] | None = None,
    probabilities: Tensor | None = None,
    *,
    columns: int = 3,
) -> Figure:
    """A grid of images, (N, 1, S, S) or (N, S, S), each below its ground truth or, if given, its prediction.

    A wrong prediction is red, with the truth beside it; given the classes' probabilities, (N, 10), with theirs.
    """
    side = images.shape[-1]
    pixels = np.asarray(images).reshape(len(truths), side, side)
    lines = 1 if probabilities is None else 2
    rows, cell, head = -(-len(truths) // columns), int(1.15 * side), int((0.2 + 0.1 * lines) * side)
    sheet = np.full((rows * (cell + head), columns * cell), pixels.min())
    figure = Figure(figsize=(1.4 * columns, 1.4 * rows * (cell + head) / cell))
    axes = figure.add_axes((0, 0, 1, 1))  # one picture for all: a set of axes for each takes ten times as long
    axes.axis("off")
    for i, (image, truth) in enumerate(zip(pixels, truths, strict=True)):
        top, left = i // columns * (cell + head) + head, i % columns * cell + (cell - side) // 2
        sheet[top : top + side, left : left + side] = image
        named = {"truth": truth} if predictions is None else {"predicted": predictions[i]}
        right = predictions is None or predictions[i] == truth
        if not right:
            named["is"] = truth
        words = [f"{word} {digit}" for word, digit in named.items()]
        if probabilities is not None:
            shares = [f"{probabilities[i, digit].item():.1%}" for digit in named.values()]
            words = [f"{word}: {share}" for word, share in zip(words, shares, strict=True)]
        text, colour = (", " if lines == 1 else "\n").join(words), "black" if right else "tab:red"
        axes.text(left + side / 2, top - 2, text, ha="center", va="bottom", fontsize=9, color=colour)
    axes.imshow(sheet, cmap="gray_r", interpolation="nearest", aspect="auto")
    return figure


def tile_images(pictures: np.ndarray, columns: int, *, gap: int = 0, fill: float = 0) -> np.ndarray:
    """Pictures, (N, height, width), in one, row by row; between them and after the last it has the value fill."""
    count, height, width = pictures.shape
    rows = -(-count // columns)
    sheet = np.full((rows, height + gap, columns, width + gap), fill, dtype=pictures.dtype)
    for i, picture in enumerate(pictures):
        sheet[i // columns, :height, i % columns, :width] = picture
    sheet = sheet.reshape(rows * (height + gap), columns * (width + gap))
    return sheet[: sheet.shape[0] - gap, : sheet.shape[1] - gap]
