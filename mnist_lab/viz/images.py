"""Sheets of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from mnist_lab.viz.style import COLOURS, styled

INK = LinearSegmentedColormap.from_list("ink", [(0, 0, 0, 0), (0, 0, 0, 1)])  # on paper of any colour


@styled
def plot_images(
    images: Tensor | np.ndarray,
    truths: Sequence[int],
    predictions: Sequence[int] | None = None,
    probabilities: Tensor | None = None,
    *,
    columns: int = 3,
) -> Figure:
    """Plot a grid of images, each below its true class or, if given, its predicted class.

    A wrong prediction is red, with the true class beside it; if given, both with their probabilities.

    Args:
        images: (N, 1, S, S) or (N, S, S).
        truths: the true classes.
        predictions: the predicted classes.
        probabilities: class probabilities, (N, 10).
        columns: images in a row.
    """
    side = images.shape[-1]
    pixels = np.asarray(images).reshape(len(truths), side, side)
    lines = 1 if probabilities is None else 2
    rows, cell, head = -(-len(truths) // columns), int(1.2 * side), int((0.2 + 0.16 * lines) * side)
    sheet = np.full((rows * (cell + head), columns * cell), pixels.min())
    figure = Figure(figsize=(1.2 * columns, 1.2 * rows * (cell + head) / cell))
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
            shares = [format_probability(probabilities[i, digit].item()) for digit in named.values()]
            words = [f"{word}: {share}" for word, share in zip(words, shares, strict=True)]
        text, colour = (", " if lines == 1 else "\n").join(words), COLOURS["ink" if right else "bad"]
        axes.text(left + side / 2, top - 2, text, ha="center", va="bottom", fontsize=8.5, color=colour)
    axes.imshow(sheet, cmap=INK, interpolation="none", aspect="auto")
    return figure


def format_probability(share: float) -> str:
    """Return a probability in percent; one that is not certain does not look so."""
    return "> 99.9%" if 0.9995 <= share < 1 else "< 0.1%" if 0 < share < 0.0005 else f"{share:.1%}"


def tile_images(pictures: np.ndarray, columns: int, *, gap: int = 0, fill: float = 0) -> np.ndarray:
    """Return pictures, (N, height, width), as one, row by row; gaps and places after the last are fill."""
    count, height, width = pictures.shape
    rows = -(-count // columns)
    sheet = np.full((rows, height + gap, columns, width + gap), fill, dtype=pictures.dtype)
    for i, picture in enumerate(pictures):
        sheet[i // columns, :height, i % columns, :width] = picture
    sheet = sheet.reshape(rows * (height + gap), columns * (width + gap))
    return sheet[: sheet.shape[0] - gap, : sheet.shape[1] - gap]
