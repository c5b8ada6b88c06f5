"""The loss of a learning-rate range test."""

from __future__ import annotations

from matplotlib.figure import Figure

from mnist_lab.training.lr_range import RangeTest
from mnist_lab.viz.style import COLOURS, styled


@styled
def plot_range_test(found: RangeTest, title: str) -> Figure:
    """Plot the training loss over the learning rate, single and smoothed, with the two suggestions as points."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(found.rates, found.losses, ".", markersize=3, alpha=0.4, color=COLOURS["soft"], label="each step")
    axes.plot(found.rates, found.smoothed, color=COLOURS["train"], label="smoothed")
    for name, rate, colour in (("steepest", found.steepest, "val"), ("valley", found.valley, "test")):
        y = found.smoothed[found.rates.index(rate)]
        axes.plot([rate], [y], "o", zorder=3, color=COLOURS[colour], label=f"{name}: {rate:.2g}")
    axes.set_xscale("log")
    axes.set_ylim(0, 1.3 * max(found.smoothed[: len(found.smoothed) // 3]))
    axes.set(xlabel="learning rate", ylabel="training loss", title=title)
    axes.grid()
    axes.legend(loc="lower left")
    return figure
