"""Heat maps of a metric over two settings."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from mnist_lab.errors import UsageError
from mnist_lab.metric_names import VAL_ACC
from mnist_lab.runs.run import Run
from mnist_lab.viz.curves import METRICS, SETS

LEAST_ERROR = 0.01  # %: no accuracy is told apart from a better one
FAR = 4  # times the median error: no result is told apart from a worse one


def sort_key(value: Any) -> tuple[float, str]:
    """What values are sorted by: numbers by size, then names."""
    try:
        return float(value), str(value)
    except (TypeError, ValueError):
        return float("inf"), str(value)


def plot_heat_map(runs: Sequence[Run], across: str, up: str, metric: str = VAL_ACC) -> Figure:
    """A metric of runs by two of their settings, such as "optimizer.lr" and "optimizer.momentum".

    Several runs of one place, such as those of several seeds, count by their mean. An empty place is left white.

    Raises:
        UsageError: there are no runs, or one has no such setting or metric.
    """
    if not runs:
        raise UsageError("heat_map: no runs")
    for run in runs:
        if metric not in run.info["metrics"]:
            raise UsageError(f"{run}: has no {metric}; there are {', '.join(run.info['metrics'])}")
    values: dict[tuple[Any, Any], list[float]] = {}
    for run in runs:
        config = run.config
        if OmegaConf.select(config, across) is None or OmegaConf.select(config, up) is None:
            raise UsageError(f"{run}: has no setting {across if OmegaConf.select(config, across) is None else up}")
        place = OmegaConf.select(config, up), OmegaConf.select(config, across)
        values.setdefault(place, []).append(METRICS[metric.split("/")[1]][1] * run.info["metrics"][metric])
    kind, name = metric.split("/")
    means = {place: statistics.fmean(found) for place, found in values.items()}
    return draw_heat_map(means, across, up, f"{SETS[kind][0]}: {METRICS[name][0]}")


def colour_strengths(errors: Mapping[Any, float]) -> dict[Any, float]:
    """Return how strong the colour of each result is, from 0 to 1: the fewer errors, the stronger.

    By the logarithm: from 97 to 98 % is as far as from 94 to 96 %. A bad result does not press the others together.

    Args:
        errors: 100 - accuracy in percent, or a loss, by result.
    """
    most = max(FAR * statistics.median(errors.values()), LEAST_ERROR)
    logs = {place: math.log(min(max(error, LEAST_ERROR), most)) for place, error in errors.items()}
    low, high = min(logs.values()), max(logs.values())
    return {place: (high - value) / (high - low or 1) for place, value in logs.items()}


def draw_heat_map(values: Mapping[tuple[Any, Any], float], across: str, up: str, label: str) -> Figure:
    """Values by two settings, (up, across); an empty place is left white."""
    rows, columns = (sorted({place[i] for place in values}, key=sort_key) for i in (0, 1))
    of_place = colour_strengths(
        {place: 100 - value if "accuracy" in label else value for place, value in values.items()}
    )
    sheet = np.array([[of_place.get((row, column), np.nan) for column in columns] for row in rows])
    figure = Figure(figsize=(max(5, 1.6 + 1.1 * len(columns)), 1.4 + 0.7 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet, origin="lower", aspect="auto", cmap="Blues", vmin=-0.1, vmax=1.1)
    for i, j in zip(*np.nonzero(np.isfinite(sheet)), strict=True):
        text, colour = f"{values[rows[i], columns[j]]:.2f}", "white" if sheet[i, j] > 0.6 else "black"
        axes.text(j, i, text, ha="center", va="center", color=colour)
    axes.set_xticks(range(len(columns)), [str(value) for value in columns])
    axes.set_yticks(range(len(rows)), [str(value) for value in rows])
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_title(f"{label}; the stronger the colour, the better", fontsize="medium")
    return figure
