"""Heat maps of a metric over two settings; tables whose cells are coloured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from omegaconf import OmegaConf

from mnist_lab.config.metric_names import VAL_ACC
from mnist_lab.errors import UsageError
from mnist_lab.runs.ranking import Results, mean
from mnist_lab.runs.run import Run
from mnist_lab.viz.curves import METRICS, SETS
from mnist_lab.viz.style import COLOURS, TITLE_HEIGHT, set_title, styled

MIN_ERROR = 0.01  # %: accuracies above 100 % minus this look the same
MAX_ERROR_RATIO = 4  # times the median error: worse results look the same


def sort_key(value: Any) -> tuple[float, str]:
    """Return what values of a setting are sorted by: numbers by size, then names."""
    try:
        return float(value), str(value)
    except (TypeError, ValueError):
        return float("inf"), str(value)


def plot_heat_map(runs: Sequence[Run], across: str, up: str, metric: str = VAL_ACC) -> Figure:
    """Plot a metric of runs over two of their settings, such as "optimizer.lr" and "optimizer.momentum".

    Runs with equal values of both, such as those of several seeds, count by their mean. An empty cell has no run.

    Raises:
        UsageError: there are no runs, or one lacks the setting or the metric.
    """
    if not runs:
        raise UsageError("heat_map: no runs")
    for run in runs:
        if metric not in run.info["metrics"]:
            raise UsageError(f"{run}: has no {metric}; there are {', '.join(run.info['metrics'])}")
    kind, name = metric.split("/")
    values: dict[tuple[Any, Any], list[float]] = {}
    for run in runs:
        config = run.config
        if OmegaConf.select(config, across) is None or OmegaConf.select(config, up) is None:
            raise UsageError(f"{run}: has no setting {across if OmegaConf.select(config, across) is None else up}")
        place = OmegaConf.select(config, up), OmegaConf.select(config, across)
        values.setdefault(place, []).append(METRICS[name][1] * run.info["metrics"][metric])
    means = {place: statistics.fmean(found) for place, found in values.items()}
    return draw_heat_map(means, across, up, f"{SETS[kind][0]}: {METRICS[name][0]}")


def plot_accuracy_map(results: Results, across: str, up: str) -> Figure:
    """Plot the validation accuracy of a sweep's jobs over two of its settings, mean over seeds."""
    values = {}
    for group in results.ranked:
        own = results.settings(group[0])
        values[own[up], own[across]] = 100 * mean(group, VAL_ACC)
    return draw_heat_map(values, across, up, f"{SETS['val'][0]}: {METRICS['acc'][0]}")


def colour_strengths(errors: Mapping[Any, float]) -> dict[Any, float]:
    """Return how strong the colour of each result is, from 0 to 1: the fewer errors, the stronger.

    By the logarithm: from 97 to 98 % is as far as from 94 to 96 %. A bad result does not press the others together.

    Args:
        errors: 100 - accuracy in percent, or a loss, by result.
    """
    most = max(MAX_ERROR_RATIO * statistics.median(errors.values()), MIN_ERROR)
    logs = {place: math.log(min(max(error, MIN_ERROR), most)) for place, error in errors.items()}
    low, high = min(logs.values()), max(logs.values())
    return {place: (high - value) / (high - low or 1) for place, value in logs.items()}


@styled
def draw_heat_map(values: Mapping[tuple[Any, Any], float], across: str, up: str, label: str) -> Figure:
    """Draw values by two settings, (up, across), the best one framed; a cell without a value stays empty."""
    rows, columns = (sorted({place[i] for place in values}, key=sort_key) for i in (0, 1))
    errors = {place: 100 - value if "accuracy" in label else value for place, value in values.items()}
    strengths = colour_strengths(errors)
    names = [list(map(str, each)) for each in (columns, rows)]
    left = 0.5 + 0.085 * max(map(len, names[1]))  # inches
    cell = max(0.75, 0.15 + 0.085 * max(map(len, names[0])))
    tall = max(0.45 * len(rows), 0.085 * len(up))  # room for the name beside the rows
    width, height = max(left + cell * len(columns) + 0.15, 3.6), 0.55 + tall + TITLE_HEIGHT
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, 0.5 / height, 1 - (left + 0.15) / width, tall / height))
    places = {(columns.index(column), rows.index(row)): (row, column) for row, column in values}
    best = min(errors.values())
    draw_cells(
        axes,
        {spot: (COLOURS["heat"], 0.12 + 0.88 * strengths[place]) for spot, place in places.items()},
        {spot: f"{values[place]:.2f}" for spot, place in places.items()},
        {spot for spot, place in places.items() if errors[place] == best},
    )
    axes.set_xticks(range(len(columns)), names[0])
    axes.set_yticks(range(len(rows)), names[1])
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    set_title(figure, f"{label}; the stronger the colour, the better")
    cells = ", ".join(f"{up}={row} {across}={column}: {value:.2f}" for (row, column), value in values.items())
    figure.set_label(f"Heat map, {label}: {cells}")
    return figure


def draw_cells(
    axes: Axes,
    colours: Mapping[tuple[int, int], tuple[str, float]],
    texts: Mapping[tuple[int, int], str],
    framed: set[tuple[int, int]] = frozenset(),  # type: ignore[assignment]
) -> None:
    """Draw coloured cells with a text in each, and hide the axes' lines.

    Args:
        axes: the axes.
        colours: colour and opacity of each cell, by its column and row.
        texts: what stands in the cells.
        framed: cells with a frame and bold text.
    """
    squares = [Rectangle((column - 0.48, row - 0.46), 0.96, 0.92) for column, row in colours]
    faces = [to_rgba(*colour) for colour in colours.values()]
    edges = [COLOURS["ink"] if spot in framed else "none" for spot in colours]
    axes.add_collection(PatchCollection(squares, facecolors=faces, edgecolors=edges, linewidths=1.5))
    for spot, text in texts.items():
        axes.text(
            *spot, text, ha="center", va="center_baseline", fontsize=9, weight="bold" if spot in framed else "normal"
        )
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
