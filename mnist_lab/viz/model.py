"""Figures of what a network has learnt: its worst errors, its confusion matrix, its first layer's filters."""

from __future__ import annotations

import math
import warnings

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.viz.images import plot_images, tile_images


def plot_worst_errors(predictions: Predictions, images: Tensor, count: int = 20) -> Figure | None:
    """The images, of (N, 1, S, S), that a network got most wrong, worst first; None if it got none wrong.

    Each has the predicted class and its own, with the probabilities that it gave them.
    """
    chosen = predictions.worst(count)
    if not len(chosen):
        return None
    truths, predicted = predictions.labels[chosen].tolist(), predictions.predicted[chosen].tolist()
    return plot_images(images[chosen], truths, predicted, predictions.probabilities[chosen], columns=5)


def plot_confusion(predictions: Predictions) -> Figure:
    """How many images of each class were taken for each, as torchmetrics draws it."""
    matrix = predictions.confusion()
    figure = Figure(figsize=(6.4, 6.4))
    axes = figure.add_axes(
        (0.1, 0.09, 0.87, 0.87)
    )  # given axes of ours, torchmetrics makes none in pyplot, which would keep them
    with warnings.catch_warnings():  # torchmetrics hands matplotlib a tensor, of which NumPy 2 asks more than it takes
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        MulticlassConfusionMatrix(num_classes=len(matrix)).plot(matrix, ax=axes, cmap="Blues")
    for text in axes.texts:
        text.set(fontsize=10, alpha=0.3 if text.get_text() == "0" else 1)
    axes.tick_params("both", labelrotation=0)
    axes.set_title(f"{len(predictions.labels):,} images, accuracy {predictions.accuracy:.2%}", fontsize=10)
    return figure


def plot_filters(model: nn.Module, image_size: int, count: int = 128) -> Figure | None:
    """The weights of the first layer that has any as pictures, at most so many; None if they are none.

    Those of a convolution of one channel are, and those of a linear layer that takes every pixel of the image.

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
    figure = Figure(figsize=(6.4, tall + 0.5))
    axes = figure.add_axes((0.1 / 6.4, 0.1 / (tall + 0.5), 5 / 6.4, tall / (tall + 0.5)))
    axes.axis("off")
    axes.set_title(f"{name}: {len(shown)} of {len(pictures)}", fontsize=10)
    drawn = axes.imshow(sheet, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
    beside = figure.add_axes((5.3 / 6.4, 0.1 / (tall + 0.5), 0.15 / 6.4, tall / (tall + 0.5)))
    figure.colorbar(drawn, cax=beside, label="weight")
    return figure
