"""Plot accuracy over the strength of corruptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from mnist_lab.data.corruptions import CORRUPTIONS, corrupt
from mnist_lab.evaluation.robustness import Robustness
from mnist_lab.viz.style import COLOURS, distinct_colours, styled

COLUMNS = 4  # of axes in the figure


@styled
def plot_robustness(groups: Mapping[str, Sequence[Robustness]], image: Tensor) -> Figure:
    """Plot each corruption in its own axes, with a line for each group of runs: the mean, and the range of several.

    Args:
        groups: by name, the robustness of each run.
        image: (28, 28) bytes, shown above the axes in every strength.
    """
    corruptions = list(next(iter(groups.values()))[0].accuracies)
    columns = min(COLUMNS, len(corruptions) + 1)
    rows = -(-(len(corruptions) + 1) // columns)
    figure = Figure(figsize=(3.3 * columns, 3.4 * rows), layout="constrained")
    grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[1, 4.4] * rows)
    for i, name in enumerate(corruptions):
        strip, axes = grid[2 * (i // columns) : 2 * (i // columns) + 2, i % columns]
        shown = torch.cat([corrupt(image.unsqueeze(0), name, strength)[0] for strength in range(6)], dim=1).numpy()
        strip.imshow(shown, cmap="gray_r", vmin=0, vmax=255, extent=(-0.5, 5.5, 0, 1), aspect="auto")
        strip.vlines(np.arange(0.5, 5), 0, 1, color=COLOURS["line"], linewidth=0.8)
        strip.set_title(name, fontsize=10)
        for colour, (label, runs) in zip(distinct_colours(len(groups)), groups.items(), strict=True):
            values = 100 * np.array([[run.accuracy, *run.accuracies[name]] for run in runs])
            axes.plot(range(6), values.mean(0), "o-", markersize=3, linewidth=1.3, color=colour, label=label)
            axes.fill_between(range(6), values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
        axes.set_xticks(range(6), ["0", *(f"{amount:g}" for amount in CORRUPTIONS[name].amounts)])
        axes.set_xlabel(CORRUPTIONS[name].unit)
        axes.set_xlim(-0.5, 5.5)
        axes.set_ylim(0, 102)
        axes.grid()
        if i % columns == 0:
            axes.set_ylabel("test accuracy (%)")
    for axes in grid.flat:
        if not axes.has_data():
            axes.axis("off")
        elif axes.get_images():
            axes.set_xticks([])
            axes.set_yticks([])
    grid[-1, -1].legend(*grid[1, 0].get_legend_handles_labels(), loc="center", fontsize=9)
    return figure
