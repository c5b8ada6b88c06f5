"""Figures of a sweep's results by its settings: heat maps, response, ranking, learning curves."""

import math
import operator
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from omegaconf import OmegaConf

from mnist_lab.config.metric_names import VAL_ACC, in_words, is_accuracy
from mnist_lab.formatting import format_accuracy
from mnist_lab.runs.listing import format_cell
from mnist_lab.runs.ranking import Results, mean, spread
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job
from mnist_lab.viz.axes import finish_axes, set_log_scale, show_end
from mnist_lab.viz.curves import LEGEND_ROW, METRICS, SETS
from mnist_lab.viz.style import COLOURS, FILL, HEIGHT, LETTER, WIDTH, set_title, set_tooltips, shorten_name, styled

LABELS = METRICS | {"balanced_acc": ("balanced accuracy (%)", 100)}
CELL = 0.75, 0.45  # inches of a cell in a heat map
MAX_RANKS = 20
MAX_JOBS = 10  # jobs with a learning curve
MAX_LETTERS = 48  # A longer name is shortened.
POINTS: dict[str, Any] = {"color": COLOURS["val"], "markersize": 7, "markeredgecolor": COLOURS["paper"]}


def plot_heat_map(runs: Sequence[Run], across: str, up: str, metric: str = VAL_ACC) -> Figure:
    """Plot a metric of runs over two of their settings, such as "optimizer.lr" and "optimizer.momentum".

    A cell has the mean of the runs with equal values of both settings, such as those of several seeds.
    """
    groups: dict[tuple[Any, Any], list[float]] = {}
    for run in runs:
        place = OmegaConf.select(run.config, up), OmegaConf.select(run.config, across)
        groups.setdefault(place, []).append(run.info["metrics"][metric])
    return _draw_heat_map({place: statistics.fmean(values) for place, values in groups.items()}, across, up, metric)


def plot_accuracy_map(results: Results, across: str, up: str) -> Figure:
    """Plot the validation accuracy of a sweep's jobs over two of its settings, as the mean over seeds."""
    settings = [results.settings(group[0]) for group in results.ranked]
    places = [(values[up], values[across]) for values in settings]
    means = [mean(group, results.metric) for group in results.ranked]
    return _draw_heat_map(dict(zip(places, means, strict=True)), across, up, results.metric)


@styled
def _draw_heat_map(means: Mapping[tuple[Any, Any], float], across: str, up: str, metric: str) -> Figure:
    """Draw values by two settings, (up, across), with a frame around the best; a cell without a value stays empty."""
    # A colour's strength is the share of results that are no better; by value, one bad result would hide the others.
    kind, name = metric.split("/")
    label, factor = LABELS[name]
    digits = 2 if is_accuracy(metric) else 4
    is_no_worse = operator.ge if is_accuracy(metric) else operator.le
    rows, columns = (sorted({place[i] for place in means}, key=sort_key) for i in (0, 1))
    cells = {(columns.index(column), rows.index(row)): factor * value for (row, column), value in means.items()}
    colours = {
        spot: (COLOURS["val"], statistics.fmean(is_no_worse(value, other) for other in cells.values()))
        for spot, value in cells.items()
    }
    names = [[shorten_name(str(value), MAX_LETTERS) for value in values] for values in (columns, rows)]
    across_inches, up_inches = (LETTER * max(map(len, each)) for each in names)
    is_wide = across_inches > CELL[0]
    width = max(WIDTH, 0.7 + up_inches + max(LETTER * len(across), CELL[0] * len(columns)))
    height = 0.9 + is_wide * across_inches + max(1.5, LETTER * len(up), CELL[1] * len(rows))
    figure = Figure(figsize=(width, height))
    axes = figure.subplots()
    best = {spot for spot, (_, strength) in colours.items() if strength == 1}
    draw_cells(axes, colours, {spot: f"{value:.{digits}f}" for spot, value in cells.items()}, best)
    axes.set_xticks(range(len(columns)), names[0], rotation=90 if is_wide else 0)
    axes.set_yticks(range(len(rows)), names[1])
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(-0.5, len(rows) - 0.5), xlabel=across, ylabel=up)
    set_title(figure, f"{SETS[kind]} {label}: stronger is better")
    figure.set_label(", ".join(f"{up}={row} {across}={column}: {factor * y:.2f}" for (row, column), y in means.items()))
    return figure


def draw_cells(
    axes: Axes,
    colours: Mapping[tuple[int, int], tuple[str, float]],
    texts: Mapping[tuple[int, int], str],
    framed: Collection[tuple[int, int]] = (),
) -> None:
    """Draw coloured cells by column and row, some with a frame, and a text in each, without axis lines."""
    squares = [Rectangle((column - 0.48, row - 0.46), 0.96, 0.92) for column, row in colours]
    faces = [to_rgba(colour, strength * (FILL if texts else 1)) for colour, strength in colours.values()]
    edges = [COLOURS["ink"] if spot in framed else "none" for spot in colours]
    # Without in_layout=False, the layout would measure every cell and text, which takes long and changes nothing.
    axes.add_collection(PatchCollection(squares, facecolors=faces, edgecolors=edges, linewidths=1.5, in_layout=False))
    for spot, text in texts.items():
        axes.text(*spot, text, ha="center", va="center_baseline", fontsize=9, in_layout=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def sort_key(value: Any) -> tuple[float, str]:
    """Return the key that sorts values of a setting: numbers by size, then names."""
    try:
        return float(value), str(value)
    except (TypeError, ValueError):
        return math.inf, str(value)


@styled
def plot_response(results: Results, key: str) -> Figure:
    """Plot validation accuracy by one setting, with the spread over seeds: names as rows, numbers along an axis.

    Points are joined if no other setting is swept.
    """
    groups = sorted(results.ranked, key=lambda group: sort_key(results.settings(group[0])[key]))
    values = [results.settings(group[0])[key] for group in groups]
    places = [sort_key(value)[0] for value in values]
    if not math.isfinite(places[-1]):
        return _plot_rows(results, groups, [key], values, results.heads[key])
    figure = Figure(figsize=(WIDTH, HEIGHT))
    axes = figure.subplots()
    means, deviations, texts = _accuracies(results, groups, [key])
    form = "s-" if {*results.varied} <= {key, "seed"} else "s"
    points, *_ = axes.errorbar(places, means, yerr=deviations, fmt=form, **POINTS)
    set_tooltips(points, texts)
    figure.set_label("; ".join(texts))
    if 0 < 10 * places[0] <= places[-1]:
        set_log_scale(axes, "x")
    axes.set(xlabel=results.heads[key], ylabel=f"{in_words(results.metric)} (%)")
    axes.grid(axis="y")
    return figure


def plot_ranking(results: Results) -> Figure:
    """Plot the validation accuracy of the best places in the ranking, with the spread over their seeds, best first."""
    groups = results.ranked[:MAX_RANKS]
    keys = [key for key in results.varied if key != "seed"]
    return _plot_rows(results, groups, keys, [_describe(results, group[0], keys) for group in groups])


@styled
def _plot_rows(
    results: Results, groups: Sequence[list[Job]], keys: Sequence[str], names: Sequence[str], label_y: str = ""
) -> Figure:
    """Plot validation accuracy in a row for each name, from top to bottom, with the spread over seeds."""
    rows = list(dict.fromkeys(names))
    labels = [shorten_name(name, MAX_LETTERS) for name in rows]
    figure = Figure(figsize=(max(WIDTH, 2.7 + LETTER * max(map(len, labels))), 0.9 + 0.24 * len(rows)))
    axes = figure.subplots()
    means, deviations, texts = _accuracies(results, groups, keys)
    points, *_ = axes.errorbar(means, list(map(rows.index, names)), xerr=deviations, fmt="s", **POINTS)
    set_tooltips(points, texts)
    figure.set_label("; ".join(texts))
    axes.set_yticks(range(len(rows)), labels)
    axes.set(xlabel=f"{in_words(results.metric)} (%)", ylabel=label_y, ylim=(len(rows) - 0.5, -0.5))
    axes.grid()
    return figure


def _accuracies(
    results: Results, groups: Sequence[list[Job]], keys: Sequence[str]
) -> tuple[list[float], list[float], list[str]]:
    """Return the mean and the standard deviation of each group's validation accuracy, in percent, and a description."""
    spreads = [spread(group, results.metric) for group in groups]
    names = [_describe(results, group[0], keys) for group in groups]
    texts = [f"{name}: {format_accuracy(**accuracy)}" for name, accuracy in zip(names, spreads, strict=True)]
    return [100 * each["mean"] for each in spreads], [100 * (each["std"] or 0) for each in spreads], texts


def _describe(results: Results, job: Job, keys: Sequence[str]) -> str:
    settings = results.settings(job)
    return " ".join(f"{results.heads[key]}={settings[key]}" for key in keys)


@styled
def plot_sweep_curves(results: Results, name: str) -> Figure | None:
    """Plot loss or acc by epoch for the better half of a sweep's jobs; None if none has a second epoch."""
    jobs = [job for group in results.ranked for job in group]
    jobs.sort(key=lambda job: job != results.best_job)  # The ranking does not sort the seeds of the winner.
    jobs = jobs[: min(MAX_JOBS, max(3, (len(jobs) + 1) // 2))]
    if max((len(job.epochs) for job in jobs), default=0) < 2:
        return None
    label_y, factor = METRICS[name]
    figure = Figure(figsize=(WIDTH, HEIGHT + 2 * LEGEND_ROW))
    axes = figure.subplots()
    texts: list[str] = []
    for job in jobs[::-1]:  # The last curve, of the best job, covers the others.
        curve = {row["epoch"] + 1: row.get(f"val/{name}", math.nan) for row in job.epochs}
        curve = {epoch: value for epoch, value in curve.items() if math.isfinite(value)}
        colour, width = (COLOURS["val"], 1.5) if job == results.best_job else (COLOURS["soft"], 1.0)
        label = _describe(results, job, results.varied) or job.folder.name
        style: dict[str, Any] = {"markersize": 4, "markeredgecolor": COLOURS["paper"], "linewidth": width}
        (line,) = axes.plot(list(curve), [factor * y for y in curve.values()], "s-", color=colour, label=label, **style)
        tooltips = [f"{label}, epoch {x:g}: {format_cell(f'val/{name}', y)}" for x, y in curve.items()]
        set_tooltips(line, tooltips)
        texts = tooltips[-1:] + texts
    figure.set_label("; ".join(texts))
    show_end(axes, name)
    finish_axes(axes, "epoch", f"validation\n{label_y}")
    *others, best = axes.get_lines()
    handles, names = [best, *others[:1]], [shorten_name(f"best: {best.get_label()}", MAX_LETTERS)]
    if others:
        names.append(f"the {len(others)} that rank next")
    figure.legend(handles, names, loc="outside lower left")
    return figure
