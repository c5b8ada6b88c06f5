"""Curves of loss and accuracy: of a run, of several runs, and over the learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from mnist_lab.config.metric_names import EXAMPLES_SEEN, TRAIN_LOSS_STEP
from mnist_lab.runs.listing import format_cell
from mnist_lab.runs.run import Run
from mnist_lab.viz.style import COLOURS, HEIGHT, TITLE_HEIGHT, WIDTH, distinct_colours, set_title, set_tooltips, styled

if TYPE_CHECKING:
    from mnist_lab.training.lr_range import RangeTest

SETS = {
    "train": ("training, while learning", COLOURS["train"]),
    "val": ("validation", COLOURS["val"]),
    "test": ("test", COLOURS["test"]),
}
METRICS = {"loss": ("loss (mean per image)", 1), "acc": ("accuracy (%)", 100)}  # the label, and the factor to its unit
LEGEND_ROW = 0.19  # inches
MAX_NAMED = 24  # runs in a legend


def plot_loss(run: Run) -> Figure:
    """Plot loss by epoch: training, validation, test, and the tutorial's published values."""
    return _plot_by_epoch(run, "loss")


def plot_accuracy(run: Run) -> Figure:
    """Plot accuracy by epoch: training, validation, test, and the tutorial's published values."""
    return _plot_by_epoch(run, "acc")


@styled
def plot_examples_seen(run: Run) -> Figure:
    """Plot loss of single training steps, and loss and accuracy of whole sets, by training examples seen."""
    figure = Figure()
    loss_axes, accuracy_axes = figure.subplots(2, 1, sharex=True)
    steps = [row for row in run.metrics() if TRAIN_LOSS_STEP in row]
    if steps:
        x, y = [row[EXAMPLES_SEEN] for row in steps], [row[TRAIN_LOSS_STEP] for row in steps]
        loss_axes.plot(x, y, color=SETS["train"][1], linewidth=1, alpha=0.5, label="training, single steps")
    for axes, name in ((loss_axes, "loss"), (accuracy_axes, "acc")):
        _plot_sets(axes, run, name, across=EXAMPLES_SEEN)
        finish_axes(axes, "", METRICS[name][0])
    left, right = accuracy_axes.get_xlim()
    accuracy_axes.set(xlabel="training examples seen", xlim=(min(0, left), max(1, right)))
    accuracy_axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    accuracy_axes.xaxis.set_major_formatter("{x:,.0f}")
    _finish_figure(figure, run, 2 * HEIGHT - 0.4)
    return figure


@styled
def _plot_by_epoch(run: Run, name: str) -> Figure:
    figure = Figure()
    axes = figure.subplots()
    _plot_sets(axes, run, name, across="epochs")
    for kind in SETS:
        plot_published(axes, run.tutorial, f"{kind}/{name}")
    finish_axes(axes, "epoch", METRICS[name][0])
    figure.set_label("; ".join(str(line.get_label()) for line in axes.get_lines()))
    _finish_figure(figure, run, HEIGHT)
    return figure


def _finish_figure(figure: Figure, run: Run, height: float) -> None:
    """Add the title, and the legend below the axes."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.set_size_inches(WIDTH, height + TITLE_HEIGHT + LEGEND_ROW * len(handles))
    set_title(figure, f"{run.info['model']}: {run.folder.name}")
    figure.legend(handles, labels, loc="outside lower left")


def _plot_sets(axes: Axes, run: Run, name: str, *, across: Literal["epochs", "examples_seen"]) -> None:
    """Plot a metric of every set, a single test as a star, with the value of the tested or last epoch in the legend."""
    for kind, (words, colour) in SETS.items():
        metric, factor = f"{kind}/{name}", METRICS[name][1]
        by_epoch, curve = (
            {x: y for x, y in run.curve(metric, by).items() if math.isfinite(y)} for by in ("epochs", across)
        )
        if across == "epochs":  # The value before training would leave little of the axis for the others.
            curve = {x: y for x, y in curve.items() if x > 0} or curve
        if not curve:
            continue
        last = max(by_epoch)
        epoch = run.tested_epoch if run.tested_epoch in by_epoch else last
        label = f"{words}, {format_cell(metric, by_epoch[epoch])}" + (f" (epoch {epoch:g})" if epoch != last else "")
        marker, size = ("*", 12) if kind == "test" and len(curve) == 1 else ("o", 5)
        style: dict[str, Any] = {"marker": marker, "markersize": size, "markeredgecolor": COLOURS["paper"]}
        (line,) = axes.plot(list(curve), [factor * y for y in curve.values()], color=colour, label=label, **style)
        if across == "epochs":
            set_tooltips(line, [f"{words}, epoch {x:g}: {format_cell(metric, y)}" for x, y in curve.items()])


def plot_published(axes: Axes, tutorial: Mapping[str, Any], metric: str) -> list[float]:
    """Plot the published values of a metric, such as test/acc, from epoch 1 on as crosses, and return the values."""
    values = (tutorial.get("published") or {}).get(metric, [])
    points = {epoch: y for epoch, y in enumerate(values) if y is not None and epoch > 0}
    if points:
        kind, name = metric.split("/")
        (words, colour), factor = SETS[kind], METRICS[name][1]
        label = f"{words.split(',')[0]}, published"
        texts = {epoch: format_cell(metric, y / factor) for epoch, y in points.items()}
        style: dict[str, Any] = {"color": colour, "markersize": 7, "markeredgewidth": 1.6}
        style["label"] = f"{label}, {texts[max(texts)]}"
        (line,) = axes.plot(list(points), list(points.values()), "x", **style)
        set_tooltips(line, [f"{label}, epoch {epoch}: {text}" for epoch, text in texts.items()])
    return list(points.values())


@styled
def plot_comparison(runs: Sequence[Run], labels: Sequence[str]) -> Figure | None:
    """Plot loss and accuracy of runs by epoch: a row of axes for each set, a colour for each run; None without a curve.

    The test set has axes if a run evaluated it more than once. A run that evaluated it once has a star there.
    """
    kinds = [kind for kind in SETS if any(len(run.curve(f"{kind}/loss")) > (kind == "test") for run in runs)]
    if not kinds:
        return None
    figure = Figure(figsize=(10, HEIGHT * len(kinds) + 0.5 + LEGEND_ROW * min(len(runs), MAX_NAMED)))
    grid = figure.subplots(len(kinds), len(METRICS), sharex=True, squeeze=False)
    for row, kind in zip(grid, kinds, strict=True):
        for axes, (name, (label_y, factor)) in zip(row, METRICS.items(), strict=True):
            for run, label, colour in zip(runs, labels, distinct_colours(len(runs)), strict=True):
                curve = run.curve(f"{kind}/{name}")
                marker, size = ("*", 11) if kind == "test" and len(curve) == 1 else ("o", 3)
                style: dict[str, Any] = {"marker": marker, "markersize": size, "linewidth": 1.2, "color": colour}
                axes.plot(list(curve), [factor * y for y in curve.values()], label=label, **style)
            finish_axes(axes, "epoch" if kind == kinds[-1] else "", label_y)
            low, high = axes.dataLim.intervaly
            if name == "loss" and 0 < 10 * low < high:
                set_log_scale(axes, "y")  # On a linear scale, one run that hardly learns would hide the others.
            axes.set_title(SETS[kind][0])
    title = f"the first {MAX_NAMED} of {len(runs)} runs" if len(runs) > MAX_NAMED else None
    figure.legend(handles=grid[0][0].get_lines()[:MAX_NAMED], title=title, loc="outside lower center")
    return figure


@styled
def plot_range_test(result: RangeTest, title: str) -> Figure:
    """Plot the training loss over the learning rate, of each step and smoothed, with the two suggestions as points."""
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    axes.plot(result.rates, result.losses, ".", markersize=3, alpha=0.4, color=COLOURS["soft"], label="each step")
    axes.plot(result.rates, result.smoothed, color=COLOURS["train"], label="smoothed")
    for name, rate, colour in (("steepest", result.steepest, "val"), ("valley", result.valley, "test")):
        y = result.smoothed[result.rates.index(rate)]
        axes.plot([rate], [y], "o", zorder=3, color=COLOURS[colour], label=f"{name}: {rate:.2g}")
    finish_axes(axes, "learning rate", "training loss")
    set_log_scale(axes, "x")
    axes.set_ylim(0, 1.3 * max(result.smoothed[: len(result.smoothed) // 3]))
    set_title(figure, title)
    axes.legend(loc="lower left")
    return figure


def finish_axes(axes: Axes, label_x: str, label_y: str) -> None:
    """Label the axes, and add a grid."""
    axes.set(xlabel=label_x, ylabel=label_y)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.grid(axis="y")


def set_log_scale(axes: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with plain numbers as labels, since matplotlib's own need mathtext, which is off."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")
