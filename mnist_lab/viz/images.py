"""Sheets of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from mnist_lab.data.image_source import DIGITS
from mnist_lab.formatting import shorten
from mnist_lab.viz.style import COLOURS, styled

MAX_NAME = 12  # characters of a class's name
CHARACTER = 0.07  # inches that one takes at most
INK = LinearSegmentedColormap.from_list("ink", [(0, 0, 0, 0), (0, 0, 0, 1)])  # on paper of any colour


@styled
def plot_images(
    images: Tensor | np.ndarray,
    truths: Sequence[int],
    predictions: Sequence[int] | None = None,
    probabilities: Tensor | None = None,
    *,
    classes: Sequence[str] = DIGITS,
    columns: int = 3,
    as_ink: bool = True,
) -> Figure:
    """Plot a grid of images, each below its true class or, if given, its predicted class.

    A wrong prediction is red, with the true class beside it; if given, both with their probabilities.

    Args:
        images: (N, 1, S, S) or (N, S, S).
        truths: the true classes.
        predictions: the predicted classes.
        probabilities: class probabilities, (N, K).
        classes: the names of the K classes.
        columns: images in a row.
        as_ink: whether bright pixels are drawn as ink on paper, as suits MNIST; else from black to white.
    """
    side = images.shape[-1]
    pixels = np.asarray(images).reshape(len(truths), side, side)
    lines = 1 if probabilities is None else 2
    longest = max(len(shorten(classes[label], MAX_NAME)) for label in {*truths, *(predictions or ())})
    names = 1 if predictions is None or probabilities is not None else 2  # in a line
    width = 1.2 + CHARACTER * names * (longest - 1)  # inches of a column
    rows, cell, head = -(-len(truths) // columns), int(side * width), int((0.2 + 0.16 * lines) * side)
    height = int(1.2 * side) + head
    sheet = np.full((rows * height, columns * cell), np.nan)
    figure = Figure(figsize=(width * columns, width * rows * height / cell))
    axes = figure.add_axes((0, 0, 1, 1))  # one picture for all: a set of axes for each takes ten times as long
    axes.axis("off")
    for i, (image, truth) in enumerate(zip(pixels, truths, strict=True)):
        top, left = i // columns * height + head, i % columns * cell + (cell - side) // 2
        sheet[top : top + side, left : left + side] = image
        named = {"truth": truth} if predictions is None else {"predicted": predictions[i]}
        right = predictions is None or predictions[i] == truth
        if not right:
            named["is"] = truth
        words = [f"{word} {shorten(classes[label], MAX_NAME)}" for word, label in named.items()]
        if probabilities is not None:
            shares = [format_probability(probabilities[i, label].item()) for label in named.values()]
            words = [f"{word}: {share}" for word, share in zip(words, shares, strict=True)]
        text, colour = (", " if lines == 1 else "\n").join(words), COLOURS["ink" if right else "bad"]
        axes.text(left + side / 2, top - 2, text, ha="center", va="bottom", fontsize=8.5, color=colour)
    axes.imshow(sheet, cmap=INK if as_ink else "gray", interpolation="none", aspect="auto")
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
