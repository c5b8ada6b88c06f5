"""Figures of what a network has learnt: predictions, confusion matrix, calibration, robustness, filters."""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor, nn

from mnist_lab.data.corruptions import CORRUPTIONS, corrupt
from mnist_lab.data.image_source import DIGITS
from mnist_lab.evaluation.evaluate import Robustness
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.models.classifier import Classifier
from mnist_lab.viz.axes import plot_means
from mnist_lab.viz.curves import LEGEND_ROW
from mnist_lab.viz.style import COLOURS, LETTER, WIDTH, rank_colours, set_title, set_tooltips, shorten_name, styled
from mnist_lab.viz.sweep import draw_cells

MAX_NAME = 12  # characters of a class's name
INK = LinearSegmentedColormap.from_list("ink", [(0, 0, 0, 0), (0, 0, 0, 1)])  # black, on paper of any colour
SIGNS = LinearSegmentedColormap.from_list("signs", [COLOURS[name] for name in ("negative", "paper", "positive")])
MAX_COUNTED = 20  # The confusion matrix of more classes has no numbers.
COLUMNS = 3  # columns of axes in the figure of robustness


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
    title: str = "",
) -> Figure:
    """Plot a grid of images, (N, 1, S, S) or (N, S, S), each below its true class or, if given, its predicted class.

    A wrong prediction is red, with the true class below it. Probabilities, (N, K), follow the classes if given. Bright
    pixels are ink on paper, as suits MNIST, or white on black.
    """
    side = images.shape[-1]
    pixels = np.asarray(images).reshape(len(truths), side, side)
    names = [shorten_name(name, MAX_NAME) for name in classes]
    word, guesses = ("truth", truths) if predictions is None else ("predicted", predictions)
    shares = [None] * len(truths) if probabilities is None else probabilities.tolist()
    texts = [describe_prediction(*each, names, word) for each in zip(truths, guesses, shares, strict=True)]
    cell_inches = max(1.2, 0.15 + 0.079 * max(len(line) for lines in texts for line in lines))
    rows, cell_width = -(-len(truths) // columns), int(side * cell_inches)
    text_height = int(0.26 * side * max(map(len, texts)))
    cell_height = int(1.2 * side) + text_height
    sheet = np.full((rows * cell_height, columns * cell_width), np.nan)
    height = cell_inches * rows * cell_height / cell_width
    figure = Figure(figsize=(cell_inches * columns, height))
    figure.set_layout_engine("none")
    set_title(figure, title)
    # Separate axes for each image would take ten times as long.
    axes = figure.add_axes((0, 0, 1, height / figure.get_figheight()))
    axes.axis("off")
    for i, lines in enumerate(texts):
        top, left = i // columns * cell_height + text_height, i % columns * cell_width + (cell_width - side) // 2
        sheet[top : top + side, left : left + side] = pixels[i]
        colour = COLOURS["wrong" if len(lines) > 1 else "right"]
        axes.text(left + side / 2, top - 2, "\n".join(lines), ha="center", va="bottom", color=colour)
    axes.imshow(sheet, cmap=INK if as_ink else "gray", interpolation="none", aspect="auto")
    return figure


def describe_prediction(
    truth: int, predicted: int, shares: Sequence[float] | None, names: Sequence[str], word: str = "predicted"
) -> list[str]:
    """Return the predicted class and, if that is wrong, the true one, each with its probability if given."""
    labels = {word: predicted} | ({"is": truth} if predicted != truth else {})
    lines = {label: f"{word} {names[label]}" for word, label in labels.items()}
    return [f"{line}: {format_probability(shares[label])}" if shares else line for label, line in lines.items()]


def format_probability(share: float) -> str:
    """Format a probability in per cent; none looks like 0 or 1, which rounding alone may have made of it."""
    if share >= 0.9995:
        return "> 99.9%"
    return "< 0.1%" if share < 0.0005 else f"{share:.1%}"


def plot_worst_errors(
    predictions: Predictions, images: Tensor | np.ndarray, count: int = 20, columns: int = 5, *, as_ink: bool = True
) -> Figure | None:
    """Plot the images that a network got most wrong, with both classes' probabilities; None if it got none wrong."""
    worst = predictions.worst(count)
    if not len(worst):
        return None
    truths, predicted = predictions.labels[worst].tolist(), predictions.predicted[worst].tolist()
    style: dict[str, Any] = {"classes": predictions.classes, "columns": columns, "as_ink": as_ink}
    style["title"] = "The images that the network got most wrong"
    return plot_images(images[worst], truths, predicted, predictions.probabilities[worst], **style)


@styled
def plot_confusion(predictions: Predictions) -> Figure:
    """Plot the images of each true class (row) by predicted class (column), right and wrong ones in two colours."""
    matrix = predictions.confusion()
    most = {"right": int(matrix.diagonal().max()), "wrong": int((matrix - matrix.diagonal().diag()).max())}
    counts = {(j, i): int(matrix[i, j]) for i, j in matrix.nonzero().tolist()}
    kinds = {cell: "right" if cell[0] == cell[1] else "wrong" for cell in counts}
    colours = {cell: (COLOURS[kind], counts[cell] / most[kind]) for cell, kind in kinds.items()}
    names = [shorten_name(name, MAX_NAME) for name in predictions.classes]
    label_inches = LETTER * (max(map(len, names)) - 1)
    has_counts = len(names) <= MAX_COUNTED
    cells_inches = max(3, 0.4 * len(names)) if has_counts else min(0.16 * len(names), 12)
    side = 0.6 + label_inches + cells_inches
    figure = Figure(figsize=(side, side))
    axes = figure.subplots()
    draw_cells(axes, colours, {cell: str(count) for cell, count in counts.items() if has_counts})
    shown = range(0, len(names), math.ceil(0.16 * len(names) / cells_inches))  # There is room for so many names.
    axes.set_xticks(shown, [names[i] for i in shown], rotation=90 if label_inches else 0)
    axes.set_yticks(shown, [names[i] for i in shown])
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
    axes.set(xlabel="predicted class", ylabel="true class")
    summary = f"{predictions.accuracy:.2%} of {len(predictions.labels):,} images are right"
    set_title(figure, f"{summary} (grey, up to {most['right']:,}); the others are red (up to {most['wrong']:,})")
    return figure


@styled
def plot_reliability(predictions: Predictions) -> Figure:
    """Plot accuracy by the probability of the predicted class; a point's area grows with its number of images."""
    sure, right, counts = zip(*predictions.calibration(), strict=True)
    figure = Figure(figsize=(3.9, 3.7))
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], color=COLOURS["soft"], linewidth=1, linestyle=(0, (5, 4)))
    style: dict[str, Any] = {"color": COLOURS["test"], "edgecolors": COLOURS["paper"], "clip_on": False, "zorder": 3}
    areas = 30 + 170 * np.array(counts) / max(counts)
    points = axes.scatter(100 * np.array(sure), 100 * np.array(right), s=areas, **style)
    texts = [f"{p:.1%} sure, {share:.1%} right: {n:,} images" for p, share, n in zip(sure, right, counts, strict=True)]
    set_tooltips(points, texts)
    figure.set_label("; ".join(texts))
    axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="probability of the predicted class (%)", ylabel="accuracy (%)")
    axes.grid()
    return figure


@styled
def plot_robustness(groups: Mapping[str, Sequence[Robustness]]) -> Figure:
    """Plot mean and range of each group of runs by corruption, below the first test image in every strength."""
    means = {label: np.mean([[*run.accuracies.values()] for run in runs]) for label, runs in groups.items()}
    ranked = sorted(groups, key=means.__getitem__, reverse=True)
    first, *_ = next(iter(groups.values()))
    corruptions, image = list(first.accuracies), first.example.unsqueeze(0)
    columns = min(COLUMNS, len(corruptions))
    rows = -(-len(corruptions) // columns)
    figure = Figure(figsize=(max(WIDTH, 3.3 * columns), 3.4 * rows + LEGEND_ROW * len(groups)))
    set_title(figure, f"{ranked[0]} is the most robust: {means[ranked[0]]:.1%} right on average" * (len(ranked) > 1))
    grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[1, 4.4] * rows)
    for axes in grid.flat:
        axes.axis("off")
    for i, name in enumerate(corruptions):
        strip, axes = grid[2 * (i // columns) : 2 * (i // columns) + 2, i % columns]
        strengths = torch.cat([corrupt(image, name, strength)[0] for strength in range(6)], dim=1).numpy()
        strip.imshow(strengths, cmap="gray_r", vmin=0, vmax=255, extent=(-0.5, 5.5, 0, 1), aspect="auto")
        strip.vlines(np.arange(0.5, 5), 0, 1, color=COLOURS["line"], linewidth=0.8)
        strip.set_title(name)
        axes.axis("on")
        for colour, label in zip(rank_colours(len(groups)), ranked, strict=True):
            values = 100 * np.array([[run.accuracy, *run.accuracies[name]] for run in groups[label]])
            text = shorten_name(f"{label}: {means[label]:.1%} on average", int(figure.get_figwidth() / LETTER) - 8)
            plot_means(axes, dict(enumerate(values.T)), "o-", colour, markersize=3, linewidth=1.3, label=text)
        axes.set_xticks(range(6), ["0", *(f"{amount:g}" for amount in CORRUPTIONS[name].amounts)])
        axes.set(xlabel=CORRUPTIONS[name].unit, xlim=(-0.5, 5.5), ylim=(0, 102))
        axes.grid()
        if i % columns == 0:
            axes.set_ylabel("test accuracy (%)")
    figure.legend(*grid[1, 0].get_legend_handles_labels(), loc="outside lower left")
    return figure


@styled
def plot_filters(model: nn.Module, image_size: int, count: int = 128) -> Figure | None:
    """Plot the first layer's weights, at most `count`, as pictures; None if they have no such shape."""
    found = find_filters(model, image_size)
    if found is None:
        return None
    name, pictures = found
    shown, gap = pictures[:count], ((0, 0), (0, 1), (0, 1))  # A gap of one pixel is on the right and below.
    columns = math.ceil(math.sqrt(len(shown)))
    sheet = tile(np.pad(shown, gap, constant_values=np.nan), columns, np.nan)[:-1, :-1]
    limit = np.abs(shown).max()
    figure = Figure(figsize=(6.2, 5 * sheet.shape[0] / sheet.shape[1] + 0.1))
    axes = figure.subplots()
    axes.axis("off")
    set_title(figure, f"The first layer's weights ({name}): {len(shown)} of {len(pictures)} filters")
    colours = axes.imshow(sheet, cmap=SIGNS, vmin=-limit, vmax=limit, interpolation="none")
    figure.colorbar(colours, ax=axes, label="weight", aspect=30)
    return figure


def find_filters(model: nn.Module, image_size: int) -> tuple[str, np.ndarray] | None:
    """Return the name and the weights of the first layer, (N, H, W), if they are pictures of parts of an image."""
    layers = ((name, weight) for name, weight in model.named_parameters() if weight.ndim > 1)
    name, weight = next(layers, ("", torch.zeros(0)))
    if weight.ndim == 4 and weight.shape[1] == 1 and weight.shape[2] > 1:  # (N, 1, height, width)
        pictures = weight[:, 0]
    elif weight.ndim == 2 and weight.shape[1] == image_size**2:  # (N, S * S)
        pictures = weight.view(-1, image_size, image_size)
    else:
        return None
    return name, pictures.detach().float().cpu().numpy()


def tile(pictures: np.ndarray, columns: int, empty: float) -> np.ndarray:
    """Return one picture of many, (N, H, W), row by row; the places after the last have one value."""
    count, height, width = pictures.shape
    rows = math.ceil(count / columns)
    sheet = np.full((rows * columns, height, width), empty, pictures.dtype)
    sheet[:count] = pictures
    return sheet.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)


def compute_features(model: Classifier, images: Tensor) -> Tensor | None:
    """Return the inputs of a network's last linear layer, (N, F), or None if they are not one row for each image."""
    inputs: list[Tensor] = []
    with ExitStack() as hooks:
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                hooks.enter_context(layer.register_forward_pre_hook(lambda _, arguments: inputs.extend(arguments)))
        model.probabilities(images, batch_size=len(images))
    return inputs[-1].float().cpu() if inputs and inputs[-1].shape[:-1] == (len(images),) else None
