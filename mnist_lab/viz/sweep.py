"""Figures of a sweep's results by its settings: heat maps, response, ranking, coordinates, learning curves."""

import math
import operator
import statistics
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from omegaconf import OmegaConf

from mnist_lab.config.metric_names import VAL_ACC, in_words, is_accuracy
from mnist_lab.formatting import format_accuracy
from mnist_lab.runs.listing import format_cell
from mnist_lab.runs.ranking import Results, describe_job, mean, spread
from mnist_lab.runs.record import DONE, RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job
from mnist_lab.viz.axes import find_floor, finish_axes, place_values, plot_means, show_end, sort_key
from mnist_lab.viz.curves import LEGEND_ROW, METRICS, SETS
from mnist_lab.viz.style import COLOURS, FILL, HEIGHT, LETTER, WIDTH, set_title, set_tooltips, shorten_name, styled

LABELS = METRICS | {"balanced_acc": ("balanced accuracy (%)", 100)}
CELL = 0.75, 0.45  # inches of a cell in a heat map
MAX_CURVES = 10
MAX_LINES = 300  # Parallel coordinates show so many places in the ranking.
MAX_LETTERS = 40  # A longer name is shortened.
ROW = 0.68  # inches of an axis of parallel coordinates
MAX_TEXTS = 6  # at one of these axes
SLOT = 0.2  # the width of the name of a state on the last one, as a part of it
# The lines of the first three places differ without colour, too.
FIRST = (("s-", 2.0), ("o--", 1.5), ("^:", 1.8))  # their markers, lines and widths
NAMES = ("best", "second", "third")
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
    places = {job.id: (results.settings(job)[up], results.settings(job)[across]) for job in results.jobs}
    means = {places[group[0].id]: mean(group, results.metric) for group in results.ranked}
    words = {places[job.id]: str(state) for state, jobs in unranked(results).items() for job in jobs}
    return _draw_heat_map(means, across, up, results.metric, words)


def unranked(results: Results) -> dict[RunState, list[Job]]:
    """Return the jobs without a rank by their states, the failed ones last."""
    jobs: dict[RunState, list[Job]] = {}
    for job in sorted(results.jobs, key=lambda job: job.state == RunState.FAILED):
        if job.id not in results.ranks:
            jobs.setdefault(job.state, []).append(job)
    return jobs


@styled
def _draw_heat_map(
    means: Mapping[tuple[Any, Any], float],
    across: str,
    up: str,
    metric: str,
    words: Mapping[tuple[Any, Any], str] = MappingProxyType({}),
) -> Figure:
    """Draw values by two settings, (up, across), with a frame around the best; a cell may have a word, too."""
    # A colour's strength is the share of results that are no better; by value, one bad result would hide the others.
    kind, name = metric.split("/")
    label, factor = LABELS[name]
    digits = 2 if is_accuracy(metric) else 4
    is_no_worse = operator.ge if is_accuracy(metric) else operator.le
    rows, columns = (sorted({place[i] for place in (*means, *words)}, key=sort_key) for i in (0, 1))
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
    for (row, column), word in words.items():
        x, y = columns.index(column), rows.index(row)
        colour = COLOURS["wrong" if word == RunState.FAILED else "soft"]
        frame = Rectangle((x - 0.46, y - 0.43), 0.92, 0.86, fill=False, edgecolor=colour, linestyle=":", linewidth=1)
        axes.add_patch(frame)
        low = 0.3 * ((x, y) in cells)  # Of several seeds, only some may have failed.
        axes.text(x, y - low, word, ha="center", va="center_baseline", fontsize=9, color=colour, in_layout=False)
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


@styled
def plot_response(results: Results, key: str) -> Figure:
    """Plot validation accuracy by one setting, with the spread over seeds; failed jobs are marked below.

    Points are joined if no other setting is swept and the values are numbers.
    """
    groups = sorted(results.ranked, key=lambda group: sort_key(results.settings(group[0])[key]))
    failed = unranked(results).get(RunState.FAILED, [])
    values = [results.settings(job)[key] for job in (*(group[0] for group in groups), *failed)]
    places, ticks = place_values(values)
    spots = [places[value] for value in values]
    names = [shorten_name(name, MAX_LETTERS) for name in ticks.values()]
    is_wide = LETTER * sum(len(name) + 1 for name in names) > WIDTH - 0.8
    width = max(WIDTH, 1 + 0.2 * len(names)) if is_wide else WIDTH
    figure = Figure(figsize=(width, HEIGHT + is_wide * LETTER * max(map(len, names))))
    axes = figure.subplots()
    means, deviations, texts = _accuracies(results, groups)
    is_line = {*results.varied} <= {key, "seed"} and all(math.isfinite(sort_key(value)[0]) for value in values)
    points, *_ = axes.errorbar(spots[: len(groups)], means, yerr=deviations, fmt="s-" if is_line else "s", **POINTS)
    set_tooltips(points, texts)
    figure.set_label("; ".join(texts))
    axes.set(xlabel=results.heads[key], ylabel=f"{in_words(results.metric)} (%)", xlim=(-0.05, 1.05))
    axes.set_xticks(list(ticks), names, rotation=90 if is_wide else 0)
    axes.grid(axis="y")
    floor, best, notes = find_floor(means), max(means), []
    low, high = floor - 0.06 * (best - floor), best + 0.06 * (best - floor)
    if low > min(means):
        axes.set_ylim(low, high)
        notes.append(f"▼ cut off: down to {min(means):.3g}")
    cut = {text: spot for text, spot, value in zip(texts, spots, means, strict=False) if value < low}
    lost = {_explain(results, job): spot for job, spot in zip(failed, spots[len(groups) :], strict=True)}
    for marks, marker, colour in ((cut, "v", "val"), (lost, "x", "wrong")):
        style: dict[str, Any] = {"marker": marker, "color": COLOURS[colour], "s": 26, "clip_on": False, "zorder": 3}
        marked = axes.scatter(list(marks.values()), [0] * len(marks), transform=axes.get_xaxis_transform(), **style)
        set_tooltips(marked, list(marks))
    notes += ["× failed"] * bool(lost)
    axes.set_title("   ".join(notes), loc="right", y=1, fontsize=8.5, color=COLOURS["soft"])
    return figure


def _accuracies(results: Results, groups: Sequence[list[Job]]) -> tuple[list[float], list[float], list[str]]:
    """Return the mean and the standard deviation of each group's validation accuracy, in percent, and a description."""
    spreads = [spread(group, results.metric) for group in groups]
    names = [describe_place(results, group[0]) for group in groups]
    texts = [f"{name}: {format_accuracy(**accuracy)}" for name, accuracy in zip(names, spreads, strict=True)]
    return [100 * each["mean"] for each in spreads], [100 * (each["std"] or 0) for each in spreads], texts


def describe_place(results: Results, job: Job) -> str:
    """Describe a job's place in the ranking: its settings without the seed."""
    settings = results.settings(job)
    return " ".join(f"{head}={settings[key]}" for key, head in results.heads.items() if key != "seed")


def _explain(results: Results, job: Job) -> str:
    """Describe a job that has no rank."""
    return f"{describe_job(results, job)}: {job.state}" + (f", {job.error}" if job.error else "")


@styled
def plot_coordinates(results: Results, keys: Sequence[str]) -> Figure:
    """Plot each place in the ranking as a line from setting to setting and on to its validation accuracy.

    The better it is, the stronger is its line; the first three have lines of their own. The line of a job that failed,
    was pruned or is paused ends at its state.
    """
    groups = results.ranked[:MAX_LINES]
    states = {state: jobs[:MAX_LINES] for state, jobs in unranked(results).items() if state in DONE}
    means, _, texts = _accuracies(results, groups)
    figure = Figure(figsize=(WIDTH, 0.4 + ROW * (len(keys) + 1)))
    axes = figure.subplots()
    axes.set(xlim=(-0.08, 1.08), ylim=(len(keys) + 0.45, -0.45))
    axes.set_axis_off()
    places: dict[str, dict[str, float]] = {}
    jobs = [job for members in (*groups, *states.values()) for job in members]
    for row, key in enumerate(keys):
        places[key], ticks = place_values([results.settings(job)[key] for job in jobs])
        _draw_coordinate(axes, row, results.heads[key], ticks)

    # The last axis begins with the names of states.
    first, low, high = SLOT * len(states), find_floor(means), max(means)
    ends = [first + (1 - first) * (max(value, low) - low) / (high - low or 1) for value in means]
    numbers = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high) if high > low else [high]
    ticks = {first + (1 - first) * (y - low) / (high - low or 1): f"{y:g}" for y in numbers if low <= y <= high}
    if low > min(means):
        ticks = {first: f"≤ {low:.4g}"} | {place: text for place, text in ticks.items() if place - first > SLOT}
    _draw_coordinate(axes, len(keys), f"{in_words(results.metric)} (%)", ticks, first)
    lines: list[tuple[Job, float, dict[str, Any], str]] = []
    for slot, (state, members) in enumerate(states.items()):
        colour = COLOURS["wrong" if state == RunState.FAILED else "soft"]
        axes.text(SLOT * slot, len(keys) + 0.1, state, va="top", ha="center", color=colour)
        style: dict[str, Any] = {"color": colour, "linewidth": 0.8, "linestyle": "-."}
        lines += [(job, SLOT * slot, style, _explain(results, job)) for job in members]
    for rank in reversed(range(len(groups))):
        style = {"color": COLOURS["val"], "linewidth": 1, "alpha": 0.15 + 0.4 * (1 - rank / len(groups))}
        if rank < len(FIRST):
            style |= {"linestyle": FIRST[rank][0][1:], "linewidth": FIRST[rank][1], "alpha": 1}
        lines.append((groups[rank][0], ends[rank], style, f"rank {rank + 1}: {texts[rank]}"))
    for job, end, style, text in lines:
        settings = results.settings(job)
        (line,) = axes.plot([*(places[key][settings[key]] for key in keys), end], range(len(keys) + 1), **style)
        set_tooltips(line, [text])
    figure.set_label("; ".join(texts[: len(FIRST)]))
    count = min(len(groups), len(FIRST))
    figure.legend(axes.get_lines()[: -count - 1 : -1], NAMES[:count], loc="outside lower left", ncols=3, fontsize=9.5)
    return figure


def _draw_coordinate(axes: Axes, row: int, name: str, ticks: Mapping[float, str], left: float = 0.0) -> None:
    """Draw one of the parallel axes with its name above and the texts of its ticks below it."""
    axes.plot([left, 1], [row, row], color=COLOURS["soft"], linewidth=1, zorder=1)
    box = {"facecolor": COLOURS["paper"], "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
    axes.text(-0.06, row - 0.09, name, va="bottom", bbox=box, zorder=4)
    shown = list(ticks.items())[:: math.ceil(len(ticks) / MAX_TEXTS)]
    most = int(WIDTH / LETTER / len(shown)) - 2
    for place, whole in shown:
        axes.plot([place], [row], "|", color=COLOURS["soft"], markersize=6, zorder=1)
        text = shorten_name(whole, most)
        side = {0.0: "left", 1.0: "right"}.get(place, "center") if len(text) > MAX_TEXTS else "center"
        style: dict[str, Any] = {"color": COLOURS["soft"], "bbox": box, "zorder": 4}
        axes.text(place, row + 0.1, text, ha=side, va="top", **style)


@styled
def plot_sweep_curves(results: Results, name: str) -> Figure | None:
    """Plot loss or acc by epoch for the better half of a ranking, seeds as bands; None if none has a second epoch."""
    groups = results.ranked[: min(MAX_CURVES, max(3, (len(results.ranked) + 1) // 2))]
    if max((len(job.epochs) for group in groups for job in group), default=0) < 2:
        return None
    label_y, factor = METRICS[name]
    figure = Figure(figsize=(WIDTH, HEIGHT + LEGEND_ROW * min(4, len(groups))))
    axes = figure.subplots()
    last: list[str] = []
    for rank in reversed(range(len(groups))):  # The last curve, of the best, covers the others.
        group = groups[rank]
        rows = [(row["epoch"] + 1, row.get(f"val/{name}", math.nan)) for job in group for row in job.epochs]
        values: dict[float, list[float]] = {}
        for epoch, value in sorted(row for row in rows if math.isfinite(row[1])):
            values.setdefault(epoch, []).append(factor * value)
        label = describe_place(results, group[0]) or f"mean of {len(group)} seeds"
        style: dict[str, Any] = {"markersize": 4, "markeredgecolor": COLOURS["paper"], "label": label}
        if rank < len(FIRST):
            form, width = FIRST[rank]
            plot_means(axes, values, form, COLOURS["val"], linewidth=width, **style)
        else:
            means = {epoch: [statistics.fmean(each)] for epoch, each in values.items()}
            plot_means(axes, means, "s-", COLOURS["soft"], linewidth=0.8, **style)
        line = axes.get_lines()[-1]
        points = np.asarray(line.get_xydata())
        tooltips = [f"{label}, epoch {x:g}: {format_cell(f'val/{name}', y / factor)}" for x, y in points]
        set_tooltips(line, tooltips)
        last = tooltips[-1:] + last
    figure.set_label("; ".join(last))
    show_end(axes, name)
    finish_axes(axes, "epoch", f"validation\n{label_y}")
    handles = axes.get_lines()[::-1][: len(FIRST) + 1]
    names = [f"{name}: {line.get_label()}" for name, line in zip(NAMES, handles, strict=False)]
    names += [f"ranks 4 to {len(groups)}"] * (len(groups) > len(FIRST))
    names = [shorten_name(name, MAX_LETTERS) for name in names]
    figure.legend(handles, names, loc="outside lower left")
    return figure
