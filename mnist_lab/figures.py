"""A run's figures. Each function returns a matplotlib Figure, for notebooks and for files alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from mnist_lab.runs import Run

TRAIN, VAL, TEST = "tab:blue", "tab:orange", "tab:green"


def curves(run: Run) -> Figure:
    """Loss and accuracy by epoch, of training and validation, with the test result as a point."""
    epochs = run.epochs()
    metrics = run.info.get("metrics", {})
    tested = run.info.get("tested", {}).get("epoch")
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(f"{run.info['model']}: {run.folder.name}", fontsize=10)
    for axes, name, label, scale in zip(
        figure.subplots(1, 2),
        ("loss", "acc"),
        ("loss (mean per image)", "accuracy (%)"),
        (1, 100),
        strict=True,
    ):
        for kind, colour, words in (("train", TRAIN, "training, while learning"), ("val", VAL, "validation")):
            rows = [row for row in epochs if f"{kind}/{name}" in row]
            if rows:
                x = [row["epoch"] + 1 for row in rows]
                y = [scale * row[f"{kind}/{name}"] for row in rows]
                axes.plot(x, y, "o-", color=colour, markersize=4, label=words)
        if f"test/{name}" in metrics and tested is not None:
            value = scale * metrics[f"test/{name}"]
            words = f"test, {value:.4f}" if name == "loss" else f"test, {value:.2f} %"
            axes.plot([tested], [value], "*", color=TEST, markersize=12, label=words)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def digits(
    images: Tensor | np.ndarray,
    truths: Sequence[int],
    predictions: Sequence[int] | None = None,
    *,
    columns: int = 3,
) -> Figure:
    """A grid of images, (N, 1, S, S) or (N, S, S), each below its ground truth or, if given, its prediction.

    A wrong prediction is red, with the truth beside it.
    """
    side = images.shape[-1]
    pixels = np.asarray(images).reshape(len(truths), side, side)
    rows, cell, head = -(-len(truths) // columns), int(1.15 * side), int(0.3 * side)
    sheet = np.full((rows * (cell + head), columns * cell), pixels.min())
    figure = Figure(figsize=(1.4 * columns, 1.4 * rows * (cell + head) / cell))
    axes = figure.add_axes((0, 0, 1, 1))  # one picture for all: a set of axes for each takes ten times as long
    axes.axis("off")
    for i, (image, truth) in enumerate(zip(pixels, truths, strict=True)):
        top, left = i // columns * (cell + head) + head, i % columns * cell + (cell - side) // 2
        sheet[top : top + side, left : left + side] = image
        right = predictions is None or predictions[i] == truth
        text = f"truth {truth}" if predictions is None else f"predicted {predictions[i]}"
        if not right:
            text += f", is {truth}"
        colour = "black" if right else "tab:red"
        axes.text(left + side / 2, top - 2, text, ha="center", va="bottom", fontsize=9, color=colour)
    axes.imshow(sheet, cmap="gray_r", interpolation="nearest", aspect="auto")
    return figure
