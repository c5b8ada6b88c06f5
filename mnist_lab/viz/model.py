"""What a network has learnt: worst errors, confusion matrix, calibration, filters of the first layer."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor, nn

from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.formatting import shorten
from mnist_lab.viz.heatmap import draw_cells
from mnist_lab.viz.images import MAX_NAME, format_probability, plot_images, tile_images
from mnist_lab.viz.style import COLOURS, TITLE_HEIGHT, margins, set_title, set_tooltips, styled

MAX_COUNTED = 20  # classes up to which the confusion matrix shows its numbers


def plot_worst_errors(
    predictions: Predictions, images: Tensor | np.ndarray, count: int = 20, columns: int = 5, *, as_ink: bool = True
) -> Figure | None:
    """Plot the images that a network got most wrong, worst first; None if it got none wrong.

    Each has the predicted and the true class, with their probabilities.

    Args:
        predictions: predictions for the images.
        images: (N, 1, S, S) or (N, S, S).
        count: how many are shown at most.
        columns: images in a row.
        as_ink: as `plot_images` takes it.
    """
    chosen = predictions.worst(count)
    if not len(chosen):
        return None
    truths, predicted = predictions.labels[chosen].tolist(), predictions.predicted[chosen].tolist()
    probabilities = predictions.probabilities[chosen]
    names = predictions.classes
    figure = plot_images(
        images[chosen], truths, predicted, probabilities, classes=names, columns=columns, as_ink=as_ink
    )
    texts = [
        f"a {names[truth]} ({format_probability(own[truth])}) predicted as {names[taken]} "
        f"({format_probability(own[taken])})"
        for truth, taken, own in zip(truths, predicted, probabilities.tolist(), strict=True)
    ]
    figure.set_label(f"Test images that are most wrong: {'; '.join(texts)}")
    return figure


@styled
def plot_confusion(predictions: Predictions) -> Figure:
    """Plot how many images of each true class (row) were predicted as each class (column); an empty cell has none.

    Right and wrong ones have colours of their own, each the stronger the more images there are.
    """
    counts = predictions.confusion()
    right = max(counts.diagonal().max().item(), 1)
    wrong = max((counts - counts.diagonal().diag()).max().item(), 1)
    classes = range(len(counts))
    found = {(j, i): int(counts[i, j]) for i in classes for j in classes if counts[i, j]}
    names = [shorten(name, MAX_NAME) for name in predictions.classes]
    room = 0.065 * (max(map(len, names)) - 1)  # inches that names need more than digits do
    side = 0.4 * len(names) if len(names) <= MAX_COUNTED else min(0.16 * len(names), 12)  # inches
    side = max(side, 3)
    figure = Figure(figsize=(side + 0.6 + room, side + 0.5 + room))
    edges = margins(figure, top=TITLE_HEIGHT + 0.38 + room, left=0.55 + room, bottom=0.1)
    axes = figure.subplots(gridspec_kw=edges)
    axes.set_xlim(-0.5, len(counts) - 0.5)
    axes.set_ylim(len(counts) - 0.5, -0.5)
    draw_cells(
        axes,
        {
            (j, i): (COLOURS["heat"], n / right) if i == j else (COLOURS["error"], n / wrong)
            for (j, i), n in found.items()
        },
        {spot: str(count) for spot, count in found.items()} if len(names) <= MAX_COUNTED else {},
    )
    axes.set_xticks(classes, names, rotation=90 if room else 0)
    axes.set_yticks(classes, names)
    axes.xaxis.set_label_position("top")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    set_title(figure, f"{len(predictions.labels):,} images, accuracy {predictions.accuracy:.2%}")
    errors = [f"{names[i]} predicted as {names[j]}: {count}" for (j, i), count in sorted(found.items()) if i != j]
    figure.set_label(f"Confusion matrix; errors: {', '.join(errors) or 'none'}")
    return figure


@styled
def plot_reliability(predictions: Predictions) -> Figure:
    """Plot accuracy by the probability of the predicted class; a point's area grows with its number of images."""
    bins = predictions.calibration()
    most = max(count for _, _, count in bins)
    figure = Figure(figsize=(3.9, 3.7))
    axes = figure.subplots(gridspec_kw=margins(figure))
    axes.plot([0, 100], [0, 100], color=COLOURS["soft"], linewidth=1, linestyle=(0, (5, 4)))
    points = axes.scatter(
        [100 * probability for probability, _, _ in bins],
        [100 * accuracy for _, accuracy, _ in bins],
        s=[30 + 170 * count / most for _, _, count in bins],
        color=COLOURS["test"],
        edgecolors=COLOURS["paper"],
        clip_on=False,
        zorder=3,
    )
    texts = [f"{sure:.1%} sure, {right:.1%} right: {count:,} images" for sure, right, count in bins]
    set_tooltips(points, texts)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_xlabel("probability of the predicted class (%)")
    axes.set_ylabel("accuracy (%)")
    axes.grid()
    figure.set_label(f"Reliability diagram: {'; '.join(texts)}")
    return figure


@styled
def plot_filters(model: nn.Module, image_size: int, count: int = 128) -> Figure | None:
    """Plot the weights of the first layer with weights, as pictures; None if they are not pictures.

    They are for a convolution of one channel, and for a linear layer that takes every pixel of the image.

    Args:
        model: the network.
        image_size: S, the side of the images that it takes, in pixels.
        count: how many are shown at most.
    """
    weight = next((parameter for parameter in model.parameters() if parameter.ndim > 1), None)
    if weight is None:
        return None
    name = next(name for name, parameter in model.named_parameters() if parameter is weight)
    if weight.ndim == 4 and weight.shape[1] == 1 and weight.shape[2] > 1:  # (N, 1, height, width)
        pictures = weight[:, 0]
    elif weight.ndim == 2 and weight.shape[1] == image_size**2:  # (N, S * S)
        pictures = weight.view(-1, image_size, image_size)
    else:
        return None
    shown = pictures[:count].detach().float().cpu().numpy()
    root = math.ceil(math.sqrt(len(shown)))
    columns = next((number for number in range(root, 2 * root) if len(shown) % number == 0), root)
    sheet, most = tile_images(shown, columns, gap=1, fill=np.nan), np.abs(shown).max()
    tall = 5 * sheet.shape[0] / sheet.shape[1]  # inches, of a sheet that is 5 wide
    figure = Figure(figsize=(6.2, tall + 0.5))
    axes = figure.add_axes((0.1 / 6.2, 0.1 / (tall + 0.5), 5 / 6.2, tall / (tall + 0.5)))
    axes.axis("off")
    set_title(figure, f"{name}: {len(shown)} of {len(pictures)}")
    drawn = axes.imshow(sheet, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="none")
    beside = figure.add_axes((5.25 / 6.2, 0.1 / (tall + 0.5), 0.15 / 6.2, tall / (tall + 0.5)))
    figure.colorbar(drawn, cax=beside, label="weight")
    return figure
