"""Results of a sweep by its settings: heat maps, response, ranking, learning curves."""

import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from omegaconf import OmegaConf

from mnist_lab.config.metric_names import VAL_ACC, is_accuracy
from mnist_lab.errors import UsageError
from mnist_lab.formatting import format_accuracy
from mnist_lab.runs.ranking import Results, mean, spread
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job
from mnist_lab.viz.curves import LEGEND_ROW, METRICS, SETS, finish_axes, format_metric, set_log_scale
from mnist_lab.viz.style import COLOURS, HEIGHT, TITLE_HEIGHT, WIDTH, set_title, set_tooltips, styled

LABEL = "validation accuracy (%)"
MIN_ERROR = 0.01  # %: accuracies above 100 % minus this look the same
MAX_ERROR_RATIO = 4  # times the median error: worse results look the same
MAX_TICKS = 8  # values of a setting that are all named
MIN_GAP = 0.13  # of the distance from the first value to the last, between two that are named
LETTER = 0.085  # inches, of a tick's label
MAX_RANKS = 20
MAX_JOBS = 10  # whose curves are shown
MAX_LEGEND = 50  # letters; the tooltips have the whole


def plot_heat_map(runs: Sequence[Run], across: str, up: str, metric: str = VAL_ACC) -> Figure:
    """Plot a metric of runs over two of their settings, such as "optimizer.lr" and "optimizer.momentum".

    Runs with equal values of both, such as those of several seeds, count by their mean. An empty cell has no run.
    """
    if not runs:
        raise UsageError("heat_map: no runs")
    values: dict[tuple[Any, Any], list[float]] = {}
    for run in runs:
        metrics, config = run.info["metrics"], run.config
        if metric not in metrics:
            raise UsageError(f"{run}: has no {metric}; there are {', '.join(metrics)}")
        place = OmegaConf.select(config, up), OmegaConf.select(config, across)
        if None in place:
            raise UsageError(f"{run}: has no setting {across if place[1] is None else up}")
        values.setdefault(place, []).append(metrics[metric])
    return _draw_heat_map({place: statistics.fmean(found) for place, found in values.items()}, across, up, metric)


def plot_accuracy_map(results: Results, across: str, up: str) -> Figure:
    """Plot the validation accuracy of a sweep's jobs over two of its settings, mean over seeds."""
    settings = [results.settings(group[0]) for group in results.ranked]
    places = [(own[up], own[across]) for own in settings]
    means = [mean(group, VAL_ACC) for group in results.ranked]
    return _draw_heat_map(dict(zip(places, means, strict=True)), across, up, VAL_ACC)


@styled
def _draw_heat_map(means: Mapping[tuple[Any, Any], float], across: str, up: str, metric: str) -> Figure:
    """Draw values by two settings, (up, across), the best one framed; a cell without a value stays empty."""
    kind, name = metric.split("/")
    label = f"{SETS[kind][0]}: {METRICS[name][0]}"
    values = {place: METRICS[name][1] * value for place, value in means.items()}
    errors = {place: 100 - value if is_accuracy(metric) else value for place, value in values.items()}
    rows, columns = (sorted({place[i] for place in values}, key=sort_key) for i in (0, 1))
    longest = [max(len(str(value)) for value in each) for each in (rows, columns)]
    cell = max(0.75, 0.15 + LETTER * longest[1])  # inches
    tall = max(0.45 * len(rows), LETTER * len(up))  # room for the name beside the rows
    wide = max(0.75 + LETTER * longest[0] + cell * len(columns), WIDTH)
    figure = Figure(figsize=(wide, 0.65 + tall + TITLE_HEIGHT))
    axes = figure.subplots()
    places = {(columns.index(column), rows.index(row)): (row, column) for row, column in values}
    strengths, best = colour_strengths(errors), min(errors.values())
    draw_cells(
        axes,
        {spot: (COLOURS["heat"], 0.12 + 0.88 * strengths[place]) for spot, place in places.items()},
        {spot: f"{values[place]:.2f}" for spot, place in places.items()},
        {spot for spot, place in places.items() if errors[place] == best},
    )
    axes.set_xticks(range(len(columns)), map(str, columns))
    axes.set_yticks(range(len(rows)), map(str, rows))
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(-0.5, len(rows) - 0.5), xlabel=across, ylabel=up)
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
    """Draw coloured cells by column and row, with a text in each and some in bold with a frame, without axis lines."""
    squares = [Rectangle((column - 0.48, row - 0.46), 0.96, 0.92) for column, row in colours]
    faces = [to_rgba(*colour) for colour in colours.values()]
    edges = [COLOURS["ink"] if spot in framed else "none" for spot in colours]
    inside: dict[str, Any] = {"in_layout": False}  # the layout need not look at it
    axes.add_collection(PatchCollection(squares, facecolors=faces, edgecolors=edges, linewidths=1.5, **inside))
    for spot, text in texts.items():
        weight = "bold" if spot in framed else "normal"
        axes.text(*spot, text, ha="center", va="center_baseline", fontsize=9, weight=weight, **inside)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def colour_strengths(errors: Mapping[Any, float]) -> dict[Any, float]:
    """Return how strong the colour of each result is, from 0 to 1: the fewer errors, or the less loss, the stronger.

    By the logarithm: from 97 to 98 % is as far as from 94 to 96 %. A bad result does not press the others together.
    """
    most = max(MAX_ERROR_RATIO * statistics.median(errors.values()), MIN_ERROR)
    logs = {place: math.log(min(max(error, MIN_ERROR), most)) for place, error in errors.items()}
    low, high = min(logs.values()), max(logs.values())
    return {place: (high - value) / (high - low or 1) for place, value in logs.items()}


def sort_key(value: Any) -> tuple[float, str]:
    """Return what values of a setting are sorted by: numbers by size, then names."""
    try:
        return float(value), str(value)
    except (TypeError, ValueError):
        return math.inf, str(value)


@styled
def plot_response(results: Results, key: str, *, joined: bool = True) -> Figure:
    """Plot validation accuracy by one setting: a point for each place in the ranking, with the spread over its seeds.

    Numbers are placed by size, over a decade or more by logarithm; names are placed side by side. A line joins the
    points if asked for.
    """
    groups = sorted(results.ranked, key=lambda group: sort_key(results.settings(group[0])[key]))
    values = [results.settings(group[0])[key] for group in groups]
    figure = Figure(figsize=(WIDTH, HEIGHT))
    axes = figure.subplots()
    x = _set_scale(figure, axes, list(dict.fromkeys(values)))
    names = [f"{results.heads[key]}={value}" for value in values]
    _plot_accuracies(axes, [x[value] for value in values], groups, names, f"o{'-' * joined}", vertical=True)
    axes.set(xlabel=results.heads[key], ylabel=LABEL)
    axes.grid(axis="y")
    return figure


def _set_scale(figure: Figure, axes: Axes, values: Sequence[str]) -> dict[str, float]:
    """Set an axis' scale and ticks for the sorted values of a setting; return where each is placed."""
    numbers = [sort_key(value)[0] for value in values]
    numeric = all(map(math.isfinite, numbers))
    places = np.array(numbers if numeric else range(len(values)), dtype=float)
    x = dict(zip(values, places.tolist(), strict=True))
    is_log = numeric and places[0] > 0 and places[-1] >= 10 * places[0]
    if is_log:
        set_log_scale(axes, "x")
    if numeric and len(values) > MAX_TICKS:
        if not is_log:
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.xaxis.set_major_formatter("{x:g}")
        return x
    shares = np.log(places) if is_log else places
    shares = (shares - shares[0]) / (np.ptp(shares) or 1)
    named: list[int] = []
    for i, share in enumerate(shares):
        if not named or share - shares[named[-1]] >= MIN_GAP:
            named.append(i)
    names = [values[i] for i in named]
    room = 0.8 * WIDTH * min(np.diff(shares[named]), default=1)
    axes.set_xticks(places[named], names)
    longest = LETTER * max(map(len, names))
    if longest > room:
        for label in axes.get_xticklabels():
            label.set(rotation=25, ha="right", rotation_mode="anchor")
        figure.set_figheight(HEIGHT + 0.4 * longest)
    return x


@styled
def plot_ranking(results: Results) -> Figure:
    """Plot the validation accuracy of the best places in the ranking, with the spread over their seeds, best first."""
    groups = results.ranked[:MAX_RANKS]
    keys = [key for key in results.varied if key != "seed"]
    settings = [results.settings(group[0]) for group in groups]
    names = [" · ".join(own[key] for key in keys) for own in settings]
    names.insert(0, " · ".join(results.heads[key] for key in keys))
    figure = Figure(figsize=(max(WIDTH, 2.7 + LETTER * max(map(len, names))), 0.9 + 0.24 * len(groups)))
    axes = figure.subplots()
    ranked = [f"{rank}: {_describe(results, group[0], keys)}" for rank, group in enumerate(groups, 1)]
    _plot_accuracies(axes, range(1, len(names)), groups, ranked, "o", vertical=False)
    axes.set_yticks(range(len(names)), names)  # the first one is the head of the others
    axes.set(xlabel=LABEL, ylim=(len(groups) + 0.5, -0.5))
    axes.grid()
    return figure


def _describe(results: Results, job: Job, keys: Sequence[str]) -> str:
    settings = results.settings(job)
    return " ".join(f"{results.heads[key]}={settings[key]}" for key in keys)


def _plot_accuracies(
    axes: Axes, places: Sequence[float], groups: Sequence[list[Job]], names: Sequence[str], form: str, *, vertical: bool
) -> None:
    """Plot mean and standard deviation of each group of jobs, in percent, with a tooltip each."""
    accuracies = [spread(group, VAL_ACC) for group in groups]
    means = [100 * accuracy["mean"] for accuracy in accuracies]
    spreads = [100 * (accuracy["std"] or 0) for accuracy in accuracies]
    errors: dict[str, Any] = {"yerr" if vertical else "xerr": spreads} if any(spreads) else {}
    x, y = (places, means) if vertical else (means, places)
    style: dict[str, Any] = {"color": COLOURS["val"], "markersize": 7, "markeredgecolor": COLOURS["paper"]}
    points, *_ = axes.errorbar(x, y, fmt=form, **style, **errors)
    texts = [f"{name}: {format_accuracy(**accuracy)}" for name, accuracy in zip(names, accuracies, strict=True)]
    set_tooltips(points, texts)
    axes.figure.set_label(f"{LABEL}: {'; '.join(texts)}")
    (axes.yaxis if vertical else axes.xaxis).set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


@styled
def plot_sweep_curves(results: Results, name: str) -> Figure | None:
    """Plot a validation metric, loss or acc, by epoch for the better half of a sweep's jobs, the best one in colour.

    None if no job has more than one epoch.
    """
    jobs = [job for group in results.ranked for job in group]
    jobs.sort(key=lambda job: job != results.best_job)  # of the winner's seeds it need not be the first
    jobs = jobs[: min(MAX_JOBS, max(3, (len(jobs) + 1) // 2))]
    label, factor = METRICS[name]
    figure = Figure(figsize=(WIDTH, HEIGHT + 2 * LEGEND_ROW))
    axes = figure.subplots()
    texts: list[str] = []
    for job in jobs[::-1]:  # the best over the others
        words = _describe(results, job, results.varied) or job.folder.name
        curve = {row["epoch"] + 1: factor * row.get(f"val/{name}", math.nan) for row in job.epochs}
        curve = {epoch: value for epoch, value in curve.items() if math.isfinite(value)}
        if curve:
            style: dict[str, Any] = {"markersize": 4, "markeredgecolor": COLOURS["paper"], "label": words}
            best = job == results.best_job
            style |= {"color": COLOURS["val"]} if best else {"color": COLOURS["soft"], "linewidth": 1}
            (line,) = axes.plot(list(curve), list(curve.values()), "o-", **style)
            tooltips = [f"{words}, epoch {x:g}: {format_metric(name, y)}" for x, y in curve.items()]
            set_tooltips(line, tooltips)
            texts.insert(0, tooltips[-1])
    lines = axes.get_lines()
    if max((len(line.get_xdata()) for line in lines), default=0) < 2:  # type: ignore[arg-type]
        return None
    finish_axes(axes, "epoch", f"validation {label}")
    first = textwrap.shorten(f"best: {lines[-1].get_label()}", MAX_LEGEND, placeholder=" …")
    names = [first, f"the {len(lines) - 1} that rank next"][: len(lines)]
    figure.legend([lines[-1], lines[0]][: len(lines)], names, loc="outside lower left")
    figure.set_label(f"validation {label} by epoch: {'; '.join(texts)}")
    return figure
