"""A run's figures. Each function returns a matplotlib Figure, for notebooks and for files alike."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_lab.files import atomic_write
from mnist_lab.runs import Run

if TYPE_CHECKING:  # torch is long in starting, and those who read figures alone do without
    from torch import Tensor

SETS = {
    "train": ("training, while learning", "tab:blue"),
    "val": ("validation", "tab:orange"),
    "test": ("test", "tab:green"),
}
METRICS = {"loss": ("loss (mean per image)", 1), "acc": ("accuracy (%)", 100)}  # axis, and the factor to its unit


def save(run: Run, drawn: Mapping[str, Figure | None]) -> list[Path]:
    """Write figures into a run's folder figures/ as NAME.png; where there is none, an earlier start's is removed."""
    paths = {name: run.folder / "figures" / f"{name}.png" for name in drawn}
    for name, figure in drawn.items():
        if figure is None:
            paths.pop(name).unlink(missing_ok=True)
        else:
            paths[name].parent.mkdir(exist_ok=True)
            write(figure, paths[name])
    return list(paths.values())


def write(figure: Figure, path: Path) -> None:
    """Write a figure as a file in the format that the file's name ends in, such as .png."""
    with atomic_write(path, durable=False) as partial:
        figure.savefig(partial, format=path.suffix[1:], dpi=120)


def loss(run: Run) -> Figure:
    """Loss by epoch: training, validation, test, and what the tutorial published."""
    return _by_epoch(run, "loss")


def accuracy(run: Run) -> Figure:
    """Accuracy by epoch: training, validation, test, and what the tutorial published."""
    return _by_epoch(run, "acc")


def examples_seen(run: Run) -> Figure:
    """Loss of single training steps, and loss and accuracy of whole sets, by training examples seen."""
    figure = Figure(figsize=(6.4, 5.6))
    above, below = figure.subplots(2, 1, sharex=True, gridspec_kw=_margins(figure) | {"hspace": 0.06})
    above.set_title(f"{run.info['model']}: {run.folder.name}", fontsize=10)
    steps = [row for row in run.metrics() if "train/loss_step" in row]
    if steps:
        x, y = [row["examples_seen"] for row in steps], [row["train/loss_step"] for row in steps]
        above.plot(x, y, color=SETS["train"][1], linewidth=1, alpha=0.5, label="training, single steps")
    for axes, name in ((above, "loss"), (below, "acc")):
        _curves(axes, run, name, across="examples_seen")
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
    factor, tested = METRICS[name][1], (run.info.get("tested") or {}).get("epoch")
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


def against_published(name: str, row: Mapping[str, Any]) -> Figure:
    """A reproduced preset's curves from epoch 1 on, mean and range over its seeds, over the published points.

    The axes are made for the test set and the published points; the first epochs of training may be far off.

    Args:
        name: the preset's name.
        row: what results.json has of it.
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
            shown += _published(axes, row, f"{kind}/{metric}", colour, first=1)
        if shown and metric == "loss":
            axes.set_ylim(top=1.15 * max(shown))
        elif shown:
            axes.set_ylim(bottom=min(shown) - 0.1 * (100 - min(shown)))
        _finish(axes, "epoch", METRICS[metric][0])
    return figure


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


def digits(
    images: Tensor | np.ndarray,
    truths: Sequence[int],
    predictions: Sequence[int] | None = None,
    probabilities: Tensor | None = None,
    *,
    columns: int = 3,
) -> Figure:
    """A grid of images, (N, 1, S, S) or (N, S, S), each below its ground truth or, if given, its prediction.

    A wrong prediction is red, with the truth beside it; given the classes' probabilities, (N, 10), with theirs.
    """
    side = images.shape[-1]
    pixels = np.asarray(images).reshape(len(truths), side, side)
    lines = 1 if probabilities is None else 2
    rows, cell, head = -(-len(truths) // columns), int(1.15 * side), int((0.2 + 0.1 * lines) * side)
    sheet = np.full((rows * (cell + head), columns * cell), pixels.min())
    figure = Figure(figsize=(1.4 * columns, 1.4 * rows * (cell + head) / cell))
    axes = figure.add_axes((0, 0, 1, 1))  # one picture for all: a set of axes for each takes ten times as long
    axes.axis("off")
    for i, (image, truth) in enumerate(zip(pixels, truths, strict=True)):
        top, left = i // columns * (cell + head) + head, i % columns * cell + (cell - side) // 2
        sheet[top : top + side, left : left + side] = image
        named = {"truth": truth} if predictions is None else {"predicted": predictions[i]}
        right = predictions is None or predictions[i] == truth
        if not right:
            named["is"] = truth
        words = [f"{word} {digit}" for word, digit in named.items()]
        if probabilities is not None:
            shares = [f"{probabilities[i, digit].item():.1%}" for digit in named.values()]
            words = [f"{word}: {share}" for word, share in zip(words, shares, strict=True)]
        text, colour = (", " if lines == 1 else "\n").join(words), "black" if right else "tab:red"
        axes.text(left + side / 2, top - 2, text, ha="center", va="bottom", fontsize=9, color=colour)
    axes.imshow(sheet, cmap="gray_r", interpolation="nearest", aspect="auto")
    return figure
