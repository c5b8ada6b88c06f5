"""Accuracy over the settings that are swept, as a picture."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from mnist_lab import figures
from mnist_lab.errors import BadInput
from mnist_lab.figures import METRICS, SETS
from mnist_lab.runs import Run
from mnist_lab.sweeps.results import Results, mean, spread

LABEL = "validation: accuracy (%)"
LEAST_ERROR = 0.01  # %: no accuracy is told apart from a better one
FAR = 4  # times the median error: no result is told apart from a worse one


def draw(results: Results) -> str | None:
    """Save heat_map.png, of two swept settings, or response.png, of one; returns the name. seed is none of them."""
    keys = [key for key in results.varied if key != "seed"]
    if not results.ranked or len(keys) not in (1, 2):
        return None
    if len(keys) == 2:
        across, up = keys
        settings = [results.settings(group[0]) for group in results.ranked]
        accuracies = [100 * mean(group, "val/acc") for group in results.ranked]
        places = {(own[up], own[across]): value for own, value in zip(settings, accuracies, strict=True)}
        name, figure = "heat_map.png", grid(places, across, up, LABEL)
    else:
        name, figure = "response.png", response(results, keys[0])
    figures.write(figure, results.sweep.folder / name)
    return name


def response(results: Results, key: str) -> Figure:
    """Validation accuracy by one setting, each with the spread over its seeds."""
    points = {results.settings(group[0])[key]: group for group in results.ranked}
    order = sorted(points, key=in_order)
    numbers = [in_order(value)[0] for value in order]
    places = numbers if np.isfinite(numbers).all() else list(range(len(order)))
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    means = [100 * mean(points[value], "val/acc") for value in order]
    spreads = [100 * (spread(points[value], "val/acc") or 0) for value in order]
    if places[0] > 0 and places[-1] / places[0] >= 20:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.errorbar(places, means, yerr=spreads, marker="o", capsize=4)
    axes.set_xticks(places, order)
    axes.set_xlabel(key)
    axes.set_ylabel(LABEL)
    axes.grid(alpha=0.3)
    return figure


def in_order(value: Any) -> tuple[float, str]:
    """What values are sorted by: numbers by size, then names."""
    try:
        return float(value), str(value)
    except (TypeError, ValueError):
        return float("inf"), str(value)


def heat_map(runs: Sequence[Run], across: str, up: str, metric: str = "val/acc") -> Figure:
    """A metric of runs by two of their settings, such as "optimizer.lr" and "optimizer.momentum".

    Several runs of one place, such as those of several seeds, count by their mean. An empty place is left white.

    Raises:
        BadInput: there are no runs, or one has no such setting or metric.
    """
    if not runs:
        raise BadInput("heat_map: no runs")
    for run in runs:
        if metric not in run.info["metrics"]:
            raise BadInput(f"{run}: has no {metric}; there are {', '.join(run.info['metrics'])}")
    values: dict[tuple[Any, Any], list[float]] = {}
    for run in runs:
        config = run.config
        if OmegaConf.select(config, across) is None or OmegaConf.select(config, up) is None:
            raise BadInput(f"{run}: has no setting {across if OmegaConf.select(config, across) is None else up}")
        place = OmegaConf.select(config, up), OmegaConf.select(config, across)
        values.setdefault(place, []).append(METRICS[metric.split("/")[1]][1] * run.info["metrics"][metric])
    kind, name = metric.split("/")
    means = {place: statistics.fmean(found) for place, found in values.items()}
    return grid(means, across, up, f"{SETS[kind][0]}: {METRICS[name][0]}")


def shades(errors: Mapping[Any, float]) -> dict[Any, float]:
    """Return how strong the colour of each result is, from 0 to 1: the fewer errors, the stronger.

    By the logarithm: from 97 to 98 % is as far as from 94 to 96 %. A bad result does not press the others together.

    Args:
        errors: 100 - accuracy in percent, or a loss, by result.
    """
    most = max(FAR * statistics.median(errors.values()), LEAST_ERROR)
    logs = {place: math.log(min(max(error, LEAST_ERROR), most)) for place, error in errors.items()}
    low, high = min(logs.values()), max(logs.values())
    return {place: (high - value) / (high - low or 1) for place, value in logs.items()}


def grid(values: Mapping[tuple[Any, Any], float], across: str, up: str, label: str) -> Figure:
    """Values by two settings, (up, across); an empty place is left white."""
    rows, columns = (sorted({place[i] for place in values}, key=in_order) for i in (0, 1))
    of_place = shades({place: 100 - value if "accuracy" in label else value for place, value in values.items()})
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
