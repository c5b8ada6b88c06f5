"""A run's figures. Each function returns a matplotlib Figure, for notebooks and for files alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_lab.metric_names import EXAMPLES_SEEN, TRAIN_LOSS_STEP
from mnist_lab.runs.run import Run

if TYPE_CHECKING:  # torch is long in starting, and those who read figures alone do without
    pass

SETS = {
    "train": ("training, while learning", "tab:blue"),
    "val": ("validation", "tab:orange"),
    "test": ("test", "tab:green"),
}
METRICS = {"loss": ("loss (mean per image)", 1), "acc": ("accuracy (%)", 100)}  # axis, and the factor to its unit


def plot_loss(run: Run) -> Figure:
    """Loss by epoch: training, validation, test, and what the tutorial published."""
    return _by_epoch(run, "loss")


def plot_accuracy(run: Run) -> Figure:
    """Accuracy by epoch: training, validation, test, and what the tutorial published."""
    return _by_epoch(run, "acc")


def plot_examples_seen(run: Run) -> Figure:
    """Loss of single training steps, and loss and accuracy of whole sets, by training examples seen."""
    figure = Figure(figsize=(6.4, 5.6))
    above, below = figure.subplots(2, 1, sharex=True, gridspec_kw=_margins(figure) | {"hspace": 0.06})
    above.set_title(f"{run.info['model']}: {run.folder.name}", fontsize=10)
    steps = [row for row in run.metrics() if TRAIN_LOSS_STEP in row]
    if steps:
        x, y = [row[EXAMPLES_SEEN] for row in steps], [row[TRAIN_LOSS_STEP] for row in steps]
        above.plot(x, y, color=SETS["train"][1], linewidth=1, alpha=0.5, label="training, single steps")
    for axes, name in ((above, "loss"), (below, "acc")):
        _curves(axes, run, name, across=EXAMPLES_SEEN)
        _finish(axes, "", METRICS[name][0])
    below.set_xlabel("training examples seen")
    below.set_xlim(left=min(0, below.get_xlim()[0]), right=None if steps else 1)
    below.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    below.xaxis.set_major_formatter("{x:,.0f}")
    return figure


def _by_epoch(run: Run, name: str) -> Figure:
    figure = Figure(figsize=(6.4, 4))
    axes = figure.subplots(gridspec_kw=_margins(figure))
    axes.set_title(f"{run.info['model']}: {run.folder.name}", fontsize=10)
    _curves(axes, run, name, across="epochs")
    tutorial = run.tutorial
    for kind, (_, colour) in SETS.items():
        _published(axes, tutorial, f"{kind}/{name}", colour)
    _finish(axes, "epoch", METRICS[name][0])
    return figure


def _margins(figure: Figure) -> dict[str, float]:
    """Room for the axes' names and the title; to have it worked out, as matplotlib offers, takes as long as drawing."""
    width, height = figure.get_size_inches()
    return {"left": 0.75 / width, "right": 1 - 0.15 / width, "bottom": 0.5 / height, "top": 1 - 0.3 / height}


def _curves(axes: Axes, run: Run, name: str, *, across: Literal["epochs", "examples_seen"]) -> None:
    """Draw a metric of every set, a star where the test set was looked at once.

    The legend has the value of the epoch whose weights were tested, as the run's table has, else the last value.
    """
    factor, tested = METRICS[name][1], run.tested_epoch
    for kind, (words, colour) in SETS.items():
        curve = {x: factor * y for x, y in run.curve(f"{kind}/{name}", across).items()}
        if curve:
            by_epoch = run.curve(f"{kind}/{name}")
            epoch = tested if tested in by_epoch else list(by_epoch)[-1]
            value = factor * by_epoch[epoch]
            label = f"{words}, {value:.4f}" if name == "loss" else f"{words}, {value:.2f} %"
            label += f" (epoch {epoch:g})" if epoch != list(by_epoch)[-1] else ""
            marker, size = ("*", 12) if kind == "test" and len(curve) == 1 else ("o", 4)
            axes.plot(list(curve), list(curve.values()), "-", marker=marker, markersize=size, color=colour, label=label)


def _published(axes: Axes, tutorial: Mapping[str, Any], metric: str, colour: str, *, first: int = 0) -> list[float]:
    """The tutorial's printed figures of a metric, as crosses, from the first epoch that is to be shown on."""
    values = (tutorial.get("published") or {}).get(metric, [])
    points = {epoch: y for epoch, y in enumerate(values) if y is not None and epoch >= first}
    if points:
        words = f"{metric.split('/')[0].replace('train', 'training')}, published"
        axes.plot(list(points), list(points.values()), "x", color=colour, markeredgewidth=1.5, label=words)
    return list(points.values())


def _finish(axes: Axes, across: str, up: str) -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
