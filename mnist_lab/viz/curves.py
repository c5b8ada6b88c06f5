"""Curves of loss and accuracy: of a run, of several runs, and over the learning rate."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_lab.config.metric_names import EXAMPLES_SEEN, METRIC_NAMES, TRAIN_ACC, TRAIN_LOSS_STEP, VAL_ACC
from mnist_lab.runs.listing import format_cell
from mnist_lab.runs.run import Run
from mnist_lab.viz.axes import finish_axes, label_ends, note_cut, plot_means, set_log_scale, show_end
from mnist_lab.viz.style import (
    COLOURS,
    HEIGHT,
    LETTER,
    WIDTH,
    rank_colours,
    set_title,
    set_tooltips,
    shorten_name,
    styled,
)

if TYPE_CHECKING:
    from mnist_lab.training.lr_range import RangeTest

SETS = {"train": "training, while learning", "val": "validation", "test": "test"}
PANELS = {"val": "validation", "train": "training", "test": "test"}  # The first one ranks the runs of a comparison.
MARKERS = {"train": "o", "val": "s", "test": "D"}
METRICS = {"loss": ("loss (nats per image)", 1), "acc": ("accuracy (%)", 100)}  # the label, and the factor to its unit
LEGEND_ROW = 0.2  # inches
MAX_NAMED, MAX_LABEL = 10, 32  # runs with a label in a comparison, and its characters


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
        loss_axes.plot(x, y, color=COLOURS["train"], linewidth=1, alpha=0.5, label="training, single steps")
    for axes, name in ((loss_axes, "loss"), (accuracy_axes, "acc")):
        _plot_sets(axes, run, name, across=EXAMPLES_SEEN)
        show_end(axes, name)
        finish_axes(axes, "", METRICS[name][0])
    left, right = accuracy_axes.get_xlim()
    accuracy_axes.set(xlabel="training examples seen", xlim=(min(0, left), max(1, right)))
    accuracy_axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    accuracy_axes.xaxis.set_major_formatter("{x:,.0f}")
    _finish_figure(figure, run, 2 * HEIGHT - 0.4, "Loss and accuracy")
    return figure


@styled
def _plot_by_epoch(run: Run, name: str) -> Figure:
    figure = Figure()
    axes = figure.subplots()
    _plot_sets(axes, run, name, across="epochs")
    for kind in SETS:
        plot_published(axes, run.tutorial, f"{kind}/{name}")
    show_end(axes, name)
    finish_axes(axes, "epoch", METRICS[name][0])
    figure.set_label("; ".join(str(line.get_label()) for line in axes.get_lines()))
    _finish_figure(figure, run, HEIGHT, "Loss" if name == "loss" else "Accuracy")
    return figure


def _finish_figure(figure: Figure, run: Run, height: float, subject: str) -> None:
    """Add the title, and the legend below the axes."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.set_size_inches(WIDTH, height + LEGEND_ROW * len(handles))
    model, name = str(run.info["model"]), run.folder.name
    set_title(figure, f"{subject} of {name if model in name else f'{model}, {name}'}")
    figure.legend(handles, labels, loc="outside lower left")


def _plot_sets(axes: Axes, run: Run, name: str, *, across: Literal["epochs", "examples_seen"]) -> None:
    """Plot a metric of every set, a single test as a star, with the value of the tested or last epoch in the legend."""
    for kind, words in SETS.items():
        metric, factor = f"{kind}/{name}", METRICS[name][1]
        curve = _finite_curve(run, metric, across)
        if not curve:
            continue
        label = words
        if across == "epochs":  # Otherwise, one legend is for loss and accuracy.
            last = max(curve)
            epoch = run.tested_epoch if run.tested_epoch in curve else last
            label += f", {format_cell(metric, curve[epoch])}" + (f" (epoch {epoch:g})" if epoch != last else "")
        marker, size = ("*", 12) if kind == "test" and len(curve) == 1 else (MARKERS[kind], 5)
        style: dict[str, Any] = {"marker": marker, "markersize": size, "markeredgecolor": COLOURS["paper"]}
        style |= {"color": COLOURS[kind], "label": label, "linestyle": "" if marker == "*" else "-"}
        (line,) = axes.plot(list(curve), [factor * y for y in curve.values()], **style)
        if across == "epochs":
            set_tooltips(line, [f"{words}, epoch {x:g}: {format_cell(metric, y)}" for x, y in curve.items()])


def _finite_curve(run: Run, metric: str, across: Literal["epochs", "examples_seen"] = "epochs") -> dict[float, float]:
    """Return the finite values of a curve; those by epoch begin with epoch 1, if there is one."""
    curve = {x: y for x, y in run.curve(metric, across).items() if math.isfinite(y)}
    return {x: y for x, y in curve.items() if x > 0 or across != "epochs"} or curve


def plot_published(axes: Axes, tutorial: Mapping[str, Any], metric: str) -> None:
    """Plot the published values of a metric, such as test/acc, from epoch 1 on as crosses."""
    values = (tutorial.get("published") or {}).get(metric, [])
    points = {epoch: y for epoch, y in enumerate(values) if y is not None and epoch > 0}
    if points:
        kind, name = metric.split("/")
        factor = METRICS[name][1]
        label = f"{PANELS[kind]}, published"
        texts = {epoch: format_cell(metric, y / factor) for epoch, y in points.items()}
        style: dict[str, Any] = {"color": COLOURS[kind], "markersize": 7, "markeredgewidth": 1.6}
        style["label"] = f"{label}, {texts[max(texts)]}"
        (line,) = axes.plot(list(points), list(points.values()), "x", **style)
        set_tooltips(line, [f"{label}, epoch {epoch}: {text}" for epoch, text in texts.items()])


@styled
def plot_comparison(runs: Sequence[Run], labels: Sequence[str]) -> Figure | None:
    """Plot accuracy and loss of runs by epoch, a column of axes for each set; None without a curve.

    Runs with the same label are seeds: a line shows their mean, and a band their range. The best in validation is
    black, and the better another one is, the darker is its grey; only the best have labels. The test set has axes if a
    run evaluated it more than once. A run that evaluated it once has a star there.
    """
    groups: dict[str, list[Mapping[str, dict[float, float]]]] = {}
    for run, label in zip(runs, labels, strict=True):
        groups.setdefault(label, []).append({metric: _finite_curve(run, metric) for metric in METRIC_NAMES})
    everyone = [curves for group in groups.values() for curves in group]
    kinds = [kind for kind in PANELS if any(len(curves[f"{kind}/loss"]) > (kind == "test") for curves in everyone)]
    if not kinds:
        return None
    judged = VAL_ACC if any(curves[VAL_ACC] for curves in everyone) else TRAIN_ACC
    scores = {
        label: fmean(max(curves[judged].values(), default=0) for curves in group) for label, group in groups.items()
    }
    ranked = sorted(groups, key=scores.__getitem__, reverse=True)
    named = ranked[:MAX_NAMED]
    colours = dict(zip(named, rank_colours(len(named)), strict=True))
    short = {label: label if len(label) <= MAX_LABEL else re.sub(r"[^ ,=]+=", "", label) for label in named}
    short = {label: shorten_name(text, MAX_LABEL) for label, text in short.items()}
    panel = 3.8 + LETTER * max(map(len, short.values()))
    figure = Figure(figsize=(0.2 + panel * len(kinds), 2 * HEIGHT))
    names = [label.split(": ", 1)[-1] for label in ranked]
    title = f"{names[0]} reaches {scores[ranked[0]]:.2%} in {PANELS[judged.split('/')[0]]}"
    if names[1:]:
        title += f", {100 * (scores[ranked[0]] - scores[ranked[1]]):.2f} percentage points more than {names[1]}"
    set_title(figure, title)
    notes = ["a band is the range over seeds"] * (len(groups) < len(runs))
    notes += ["in brackets: training minus validation"] * ({*kinds} >= {"train", "val"})
    notes += [f"the best {MAX_NAMED} of {len(ranked)} have labels"] * (len(ranked) > MAX_NAMED)
    figure.supxlabel("; ".join(notes).capitalize(), x=0.02, ha="left", fontsize=10, color=COLOURS["soft"])
    grid = figure.subplots(2, len(kinds), sharex=True, sharey="row", squeeze=False)
    for row, name in zip(grid, ("acc", "loss"), strict=True):
        label_y, factor = METRICS[name]
        for axes, kind in zip(row, kinds, strict=True):
            for i, label in enumerate(ranked):
                curves = [curves[f"{kind}/{name}"] for curves in groups[label]]
                epochs = sorted({epoch for curve in curves for epoch in curve})
                values = {epoch: [factor * curve[epoch] for curve in curves if epoch in curve] for epoch in epochs}
                form, size = ("*", 11) if kind == "test" and max(map(len, curves)) == 1 else ("o-", 4)
                style: dict[str, Any] = {"markersize": size, "linewidth": 1.2 if i else 2.2, "label": label}
                plot_means(axes, values, form, colours.get(label, COLOURS["line"]), zorder=3 - i / len(ranked), **style)
            finish_axes(axes, "epoch" if name == "loss" else "", label_y if axes is row[0] else "")
            axes.set_title(PANELS[kind], loc="left")
        low, high = min(axes.dataLim.y0 for axes in row), max(axes.dataLim.y1 for axes in row)
        if name == "loss" and 0 < 10 * low < high:
            set_log_scale(row[0], "y")  # On a linear scale, one run that hardly learns would hide the others.
            row[0].set_ylabel(f"{label_y},\nlogarithmic axis")
        else:
            show_end(row[0], name, max(2, (len(ranked) + 1) // 2))
        for axes, kind in zip(row, kinds, strict=True):
            if note := axes.get_title("right"):  # Right of narrow axes there is room for it.
                axes.set_title("", loc="right")
                axes.set_title(f"{PANELS[kind]}   {note}", loc="left")
        _label_row(row, kinds, short, *((2, "%") if name == "acc" else (4, "")))
    return figure


def _label_row(row: Sequence[Axes], kinds: Sequence[str], names: Mapping[str, str], digits: int, unit: str) -> None:
    """Label lines at their ends with names, last values and, in brackets, training minus validation."""
    ends: dict[str, dict[str, float]] = {}
    for axes, kind in zip(row, kinds, strict=True):
        last = {str(line.get_label()): y[-1] for line in axes.get_lines() if len(y := np.asarray(line.get_ydata()))}
        ends[kind] = {label: last[label] for label in names if label in last}
        texts = {label: f"{names[label]}  {y:.{digits}f}{unit}" for label, y in ends[kind].items()}
        for label in texts.keys() & ends.get("val", {}).keys() if kind == "train" else ():
            texts[label] += f" ({last[label] - ends['val'][label]:+.{digits}f})"
        label_ends(axes, texts)


@styled
def plot_range_test(result: RangeTest, title: str) -> Figure:
    """Plot the training loss over the learning rate, of each step and smoothed, with the two suggestions as points."""
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    axes.plot(result.rates, result.losses, ".", markersize=3, alpha=0.4, color=COLOURS["train"], label="each step")
    axes.plot(result.rates, result.smoothed, color=COLOURS["ink"], label="smoothed")
    for name, rate, marker in (("steepest", result.steepest, "^"), ("valley", result.valley, "o")):
        y = result.smoothed[result.rates.index(rate)]
        axes.plot([rate], [y], marker, markersize=8, zorder=3, color=COLOURS["ink"], label=f"{name}: {rate:.2g}")
    finish_axes(axes, "learning rate, logarithmic axis", "training loss (nats per image)")
    set_log_scale(axes, "x")
    top = 1.3 * max(result.smoothed[: len(result.smoothed) // 3])
    axes.set_ylim(0, top)
    if max(result.losses) > top:
        note_cut(axes, max(result.losses), " nats", above=True)
    set_title(figure, title)
    figure.legend(loc="outside lower left", ncols=4)
    return figure
