"""Plot the curves of a reproduced preset beside its tutorial's published figures."""

from __future__ import annotations

import statistics

from matplotlib.figure import Figure

from mnist_lab.reproduce.summary import PresetSummary
from mnist_lab.viz.curves import METRICS, SETS, finish_axes, plot_published
from mnist_lab.viz.style import styled


@styled
def plot_reproduction(name: str, row: PresetSummary) -> Figure:
    """Plot a preset's curves from epoch 1 on, mean and range over its seeds, with the published points.

    The axes fit the test set and the published points; the first epochs of training may lie outside.

    Args:
        name: the preset's name.
        row: its summary.
    """
    seeds = len(row["seeds"])
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    words = f"{name}: mean and range of {seeds} seed{'s' * (seeds > 1)}, published figures as crosses"
    figure.suptitle(words, fontsize=10)
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "acc"), strict=True):
        shown: list[float] = []
        for kind, (words, colour) in SETS.items():
            by_epoch = enumerate(row["curves"].get(f"{kind}/{metric}", []))
            curve = {epoch: values for epoch, values in by_epoch if epoch > 0 and values}
            if curve:
                low, high = [min(values) for values in curve.values()], [max(values) for values in curve.values()]
                axes.plot(list(curve), list(map(statistics.fmean, curve.values())), color=colour, label=words)
                axes.fill_between(list(curve), low, high, color=colour, alpha=0.2, linewidth=0)
                shown += [*low, *high] if kind == "test" else []
            shown += plot_published(axes, row, f"{kind}/{metric}")
        if shown and metric == "loss":
            axes.set_ylim(top=1.15 * max(shown))
        elif shown:
            axes.set_ylim(bottom=min(shown) - 0.1 * (100 - min(shown)))
        finish_axes(axes, "epoch", METRICS[metric][0])
        axes.legend()
    return figure
