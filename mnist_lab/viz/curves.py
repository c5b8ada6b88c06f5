"""Loss and accuracy of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_lab.config.metric_names import EXAMPLES_SEEN, TRAIN_LOSS_STEP
from mnist_lab.runs.run import Run
from mnist_lab.viz.style import COLOURS, TITLE_HEIGHT, margins, set_title, set_tooltips, styled

SETS = {
    "train": ("training, while learning", COLOURS["train"]),
    "val": ("validation", COLOURS["val"]),
    "test": ("test", COLOURS["test"]),
}
METRICS = {"loss": ("loss (mean per image)", 1), "acc": ("accuracy (%)", 100)}  # label, factor to its unit
WIDTH, HEIGHT, LEGEND_ROW = 4.6, 2.75, 0.19  # inches: a figure, its axes with their labels, a row of its legend


def plot_loss(run: Run) -> Figure:
    """Plot loss by epoch: training, validation, test, and what the tutorial published."""
    return _plot_by_epoch(run, "loss")


def plot_accuracy(run: Run) -> Figure:
    """Plot accuracy by epoch: training, validation, test, and what the tutorial published."""
    return _plot_by_epoch(run, "acc")


@styled
def plot_examples_seen(run: Run) -> Figure:
    """Plot loss of single training steps, and loss and accuracy of whole sets, by training examples seen."""
    figure = Figure()
    above, below = figure.subplots(2, 1, sharex=True)
    steps = [row for row in run.metrics() if TRAIN_LOSS_STEP in row]
    if steps:
        x, y = [row[EXAMPLES_SEEN] for row in steps], [row[TRAIN_LOSS_STEP] for row in steps]
        above.plot(x, y, color=SETS["train"][1], linewidth=1, alpha=0.5, label="training, single steps")
    for axes, name in ((above, "loss"), (below, "acc")):
        _plot_sets(axes, run, name, across=EXAMPLES_SEEN)
        finish_axes(axes, "", METRICS[name][0])
    below.set_xlabel("training examples seen")
    below.set_xlim(left=min(0, below.get_xlim()[0]), right=None if steps else 1)
    below.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    below.xaxis.set_major_formatter("{x:,.0f}")
    _finish_figure(figure, run, 2 * HEIGHT - 0.4)
    return figure


@styled
def _plot_by_epoch(run: Run, name: str) -> Figure:
    figure = Figure()
    axes = figure.subplots()
    _plot_sets(axes, run, name, across="epochs")
    tutorial = run.tutorial
    for kind in SETS:
        plot_published(axes, tutorial, f"{kind}/{name}")
    finish_axes(axes, "epoch", METRICS[name][0])
    lines = [str(line.get_label()) for line in axes.get_lines()]
    figure.set_label(f"{METRICS[name][0]} by epoch: {'; '.join(lines)}")
    _finish_figure(figure, run, HEIGHT)
    return figure


def _finish_figure(figure: Figure, run: Run, height: float) -> None:
    """Add the title and, above the axes, the legend in two columns: curves, then published points."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    top = TITLE_HEIGHT + LEGEND_ROW * math.ceil(len(handles) / 2) + 0.12
    figure.set_size_inches(WIDTH, height + top)
    figure.subplots_adjust(**margins(figure, top=top), hspace=0.08)
    set_title(figure, f"{run.info['model']}: {run.folder.name}")
    if handles:
        place = (0.06 / WIDTH, 1 - TITLE_HEIGHT / (height + top))
        figure.legend(handles, labels, loc="upper left", bbox_to_anchor=place, ncols=2, borderaxespad=0)


def _plot_sets(axes: Axes, run: Run, name: str, *, across: Literal["epochs", "examples_seen"]) -> None:
    """Plot a metric of every set, as a star if the test set was evaluated once.

    By epoch, the values before training are left out if there are others: they would press the rest flat. The legend
    has the value of the epoch whose weights were tested, as the run's table has, else the last one.
    """
    factor, tested = METRICS[name][1], run.tested_epoch
    for kind, (words, colour) in SETS.items():
        by_epoch = {x: factor * y for x, y in run.curve(f"{kind}/{name}").items() if math.isfinite(y)}
        if not by_epoch:
            continue
        curve = {x: factor * y for x, y in run.curve(f"{kind}/{name}", across).items() if math.isfinite(y)}
        if across == "epochs":
            curve = {x: y for x, y in curve.items() if x > 0} or curve
        last = list(by_epoch)[-1]
        epoch = tested if tested in by_epoch else last
        label = f"{words}, {format_metric(name, by_epoch[epoch])}" + (f" (epoch {epoch:g})" if epoch != last else "")
        star = kind == "test" and len(curve) == 1
        (line,) = axes.plot(
            list(curve),
            list(curve.values()),
            marker="*" if star else "o",
            markersize=12 if star else 5,
            markeredgecolor=COLOURS["paper"],
            color=colour,
            label=label,
        )
        if across == "epochs":
            set_tooltips(line, [f"{words}, epoch {x:g}: {format_metric(name, y)}" for x, y in curve.items()])


def plot_published(axes: Axes, tutorial: Mapping[str, Any], metric: str) -> list[float]:
    """Plot the published values of a metric, such as test/acc, from epoch 1 on as crosses; return them."""
    values = (tutorial.get("published") or {}).get(metric, [])
    points = {epoch: y for epoch, y in enumerate(values) if y is not None and epoch > 0}
    if points:
        kind, name = metric.split("/")
        words, last = f"{SETS[kind][0].split(',')[0]}, published", format_metric(name, list(points.values())[-1])
        style: dict[str, Any] = {"color": SETS[kind][1], "markersize": 7, "markeredgewidth": 1.6, "linestyle": "none"}
        (line,) = axes.plot(list(points), list(points.values()), marker="x", label=f"{words}, {last}", **style)
        set_tooltips(line, [f"{words}, epoch {x}: {format_metric(name, y)}" for x, y in points.items()])
    return list(points.values())


def format_metric(name: str, value: float) -> str:
    """Return a loss, or an accuracy in percent, for people."""
    return f"{value:.4f}" if name == "loss" else f"{value:.2f}%"


def finish_axes(axes: Axes, across: str, up: str) -> None:
    """Name the axes, and add a grid."""
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.grid(axis="y")
