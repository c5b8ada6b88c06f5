"""Plot accuracy over the swept settings."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from mnist_lab.metric_names import VAL_ACC
from mnist_lab.runs.ranking import Results, mean, spread
from mnist_lab.viz.heatmap import draw_heat_map, sort_key
from mnist_lab.viz.save import write_figure

LABEL = "validation: accuracy (%)"


def save_sweep_figure(results: Results) -> str | None:
    """Save heat_map.png for two swept settings or response.png for one, besides seed, and return the file's name."""
    keys = [key for key in results.varied if key != "seed"]
    if not results.ranked or len(keys) not in (1, 2):
        return None
    if len(keys) == 2:
        across, up = keys
        settings = [results.settings(group[0]) for group in results.ranked]
        accuracies = [100 * mean(group, VAL_ACC) for group in results.ranked]
        places = {(own[up], own[across]): value for own, value in zip(settings, accuracies, strict=True)}
        name, figure = "heat_map.png", draw_heat_map(places, across, up, LABEL)
    else:
        name, figure = "response.png", plot_response(results, keys[0])
    write_figure(figure, results.sweep.folder / name)
    return name


def plot_response(results: Results, key: str) -> Figure:
    """Plot validation accuracy by one setting, with the standard deviation over seeds."""
    points = {results.settings(group[0])[key]: group for group in results.ranked}
    order = sorted(points, key=sort_key)
    numbers = [sort_key(value)[0] for value in order]
    places = numbers if np.isfinite(numbers).all() else list(range(len(order)))
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    means = [100 * mean(points[value], VAL_ACC) for value in order]
    spreads = [100 * (spread(points[value], VAL_ACC) or 0) for value in order]
    if places[0] > 0 and places[-1] / places[0] >= 20:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.errorbar(places, means, yerr=spreads, marker="o", capsize=4)
    axes.set_xticks(places, order)
    axes.set_xlabel(key)
    axes.set_ylabel(LABEL)
    axes.grid(alpha=0.3)
    return figure
