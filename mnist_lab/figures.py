"""A run's figures. Each function returns a matplotlib Figure, for notebooks and for files alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
        figure.subplots(1, 2), ("loss", "acc"), ("loss (mean per image)", "accuracy (%)"), (1, 100), strict=True
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
    images: Tensor | np.ndarray, truths: Sequence[int], predictions: Sequence[int] | None = None, *, columns: int = 3
) -> Figure:
    """A grid of images, (N, 1, S, S) or (N, S, S), titled with their ground truth or, if given, their predictions.

    A wrong prediction is red and shows the truth beside it.
    """
    pixels: Any = np.asarray(images).reshape(len(truths), *images.shape[-2:])
    rows = -(-len(truths) // columns)
    figure = Figure(figsize=(1.5 * columns, 1.75 * rows), layout="constrained")
    grid = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes in grid:
        axes.axis("off")
    for i, (axes, image) in enumerate(zip(grid, pixels, strict=False)):
        axes.imshow(image, cmap="gray_r", interpolation="nearest")
        if predictions is None:
            axes.set_title(f"truth: {truths[i]}", fontsize=10)
        elif predictions[i] == truths[i]:
            axes.set_title(f"predicted: {predictions[i]}", fontsize=10)
        else:
            axes.set_title(f"predicted: {predictions[i]} ({truths[i]})", fontsize=10, color="tab:red")
    return figure
