"""Figures of a sweep's results by its settings: heat maps, response, ranking, coordinates, learning curves."""

import itertools
import math
import statistics
import textwrap
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
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
from mnist_lab.runs.record import RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job
from mnist_lab.viz.axes import add_note, find_floor, finish_axes, note_cut, place_values, plot_means, show_end, sort_key
from mnist_lab.viz.curves import LEGEND_ROW, METRICS, SETS
from mnist_lab.viz.style import COLOURS, FILL, HEIGHT, LETTER, WIDTH, set_tooltips, shorten_name, styled

LABELS = METRICS | {"balanced_acc": ("balanced accuracy (%)", 100)}
CELL = 0.75, 0.45  # inches of a cell in a heat map
WORST = 0.08  # the strength of the palest colour in a heat map; the strongest has 1
MAX_CURVES = 10
MAX_LINES = 300  # Parallel coordinates show so many places in the ranking.
MAX_LETTERS = 40  # A longer name at an axis is shortened.
LEGEND_LETTERS = 40  # A longer name in a legend has several lines.
ROW = 0.68  # inches of an axis of parallel coordinates
MAX_TEXTS = 6  # at one of these axes
SLOT = 0.2  # the width of the name of a state on the last one, as a part of it
# The lines of the first three places differ without colour, too.
FIRST = (("s-", 2.0), ("o--", 1.5), ("^:", 1.8))  # their markers, lines and widths
NAMES = ("best", "second", "third")
# The marks of jobs that ended without a rank, in texts and in charts.
MARKS = {RunState.PRUNED: "○o", RunState.PAUSED: "◇D", RunState.FAILED: "×x"}
POINTS: dict[str, Any] = {"color": COLOURS["val"], "markersize": 7, "markeredgecolor": COLOURS["paper"]}


def plot_heat_map(runs: Sequence[Run], across: str, up: str, metric: str = VAL_ACC) -> Figure:
    """Plot a metric of runs over two of their settings, such as "optimizer.lr" and "optimizer.momentum".

    A cell has the mean of the runs with equal values of both settings, such as those of several seeds.
    """
    groups: dict[tuple[Any, Any], list[float]] = {}
    for run in runs:
        place = OmegaConf.select(run.config, up), OmegaConf.select(run.config, across)
        groups.setdefault(place, []).append(run.info["metrics"][metric])
    return _draw_heat_map({place: statistics.fmean(values) for place, values in groups.items()}, across, up, metric, {})


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
    words: Mapping[tuple[Any, Any], str],
) -> Figure:
    """Draw values by two settings, (up, across), with a frame around the best; a cell may have a word, too."""
    kind, name = metric.split("/")
    label, factor = LABELS[name]
    digits, sign = (2, 1) if is_accuracy(metric) else (4, -1)
    rows, columns = (sorted({place[i] for place in (*means, *words)}, key=sort_key) for i in (0, 1))
    cells = {(columns.index(column), rows.index(row)): factor * value for (row, column), value in means.items()}
    merits = sorted(sign * value for value in cells.values())
    floor, most = find_floor(merits), merits[-1]
    strengths = {spot: max(WORST, 1 - (most - sign * value) / (most - floor or 1)) for spot, value in cells.items()}
    names = [[shorten_name(str(value), MAX_LETTERS) for value in values] for values in (columns, rows)]
    across_inches, up_inches = (LETTER * max(map(len, each)) for each in names)
    is_wide = across_inches > CELL[0]
    width = max(WIDTH, 0.7 + up_inches + max(LETTER * len(across), CELL[0] * len(columns)))
    height = 0.9 + is_wide * across_inches + max(1.5, LETTER * len(up), CELL[1] * len(rows))
    figure = Figure(figsize=(width, height))
    axes = figure.subplots()
    colours = {spot: (COLOURS["val"], strength) for spot, strength in strengths.items()}
    best = {spot for spot, (_, strength) in colours.items() if strength == 1}
    draw_cells(axes, colours, {spot: f"{value:.{digits}f}" for spot, value in cells.items()}, best)
    empty = {place: "no result" for place in itertools.product(rows, columns) if place not in means}
    for (row, column), word in (empty | dict(words)).items():
        x, y = columns.index(column), rows.index(row)
        colour = COLOURS["wrong" if word == RunState.FAILED else "soft"]
        frame = Rectangle((x - 0.46, y - 0.43), 0.92, 0.86, fill=False, edgecolor=colour, linestyle=":", linewidth=1)
        axes.add_patch(frame)
        low = 0.3 * ((x, y) in cells)  # Of several seeds, only some may have failed.
        axes.text(x, y - low, word, ha="center", va="center_baseline", fontsize=9, color=colour, in_layout=False)
    axes.set_xticks(range(len(columns)), names[0], rotation=90 if is_wide else 0)
    axes.set_yticks(range(len(rows)), names[1])
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(-0.5, len(rows) - 0.5), xlabel=across, ylabel=up)
    worst = f"{'≤' if sign > 0 else '≥'} " * (floor > merits[0]) + f"{abs(floor):.4g}"
    scale = f": pale {worst}, strong {abs(most):.4g}" * (floor < most)
    add_note(axes, f"{SETS[kind]} {label}{scale}")
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
    """Plot validation accuracy by one setting, with the spread over seeds; jobs without a rank are marked below.

    Points are joined if no other setting is swept and the values are numbers.
    """
    groups = sorted(results.ranked, key=lambda group: sort_key(results.settings(group[0])[key]))
    ended = [job for state, jobs in unranked(results).items() if state in MARKS for job in jobs]
    values = [results.settings(job)[key] for job in (*(group[0] for group in groups), *ended)]
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
    floor, best = find_floor(means), max(means)
    low, high = floor - 0.06 * (best - floor), best + 0.1 * (best - floor)
    if low > min(means):
        axes.set_ylim(low, high)
        note_cut(axes, min(means), "%", above=False)
    marks: dict[str, dict[str, float]] = {}
    for job, spot in zip(ended, spots[len(groups) :], strict=True):
        marks.setdefault(MARKS[job.state][1], {})[_explain(results, job)] = spot
    marks["v"] = {text: spot for text, spot, value in zip(texts, spots, means, strict=False) if value < low}
    for marker, places in marks.items():
        colour = COLOURS[{"v": "val", "x": "wrong"}.get(marker, "soft")]
        style: dict[str, Any] = {"marker": marker, "s": 26, "clip_on": False, "zorder": 3, "color": colour}
        style["facecolors"] = COLOURS["paper"] if marker in "oD" else colour
        marked = axes.scatter(list(places.values()), [0] * len(places), transform=axes.get_xaxis_transform(), **style)
        set_tooltips(marked, list(places))
    for state, count in Counter(job.state for job in ended).items():
        add_note(axes, f"{MARKS[state][0]} {count} {state}")
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
    accuracy = job.info.get("metrics", {}).get(results.metric)
    result = "" if accuracy is None else f" at {accuracy:.2%}"
    return f"{describe_job(results, job)}: {job.state}{result}" + (f", {job.error}" if job.error else "")


@styled
def plot_coordinates(results: Results, keys: Sequence[str]) -> Figure:
    """Plot each place in the ranking as a line from setting to setting and on to its validation accuracy.

    The better it is, the stronger is its line; the first three have lines of their own. The line of a job that ended
    without a rank leads to its state.
    """
    groups = results.ranked[:MAX_LINES]
    states = {state: jobs[:MAX_LINES] for state, jobs in unranked(results).items() if state in MARKS}
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
    ends = [1 - (1 - first) * (high - max(value, low)) / (high - low or 1) for value in means]
    numbers = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high)
    ticks = {1 - (1 - first) * (high - y) / (high - low or 1): f"{y:g}" for y in numbers}
    ticks = {place: text for place, text in ticks.items() if first + SLOT < place < 1 - SLOT} | {1.0: f"{high:.4g}"}
    if high > low:
        ticks[first] = f"{'≤ ' * (low > min(means))}{low:.4g}"
    _draw_coordinate(axes, len(keys), f"{in_words(results.metric)} (%)", ticks, first)

    def plot_line(job: Job, end: float, text: str, **style: Any) -> None:
        settings = results.settings(job)
        (line,) = axes.plot([*(places[key][settings[key]] for key in keys), end], range(len(keys) + 1), **style)
        set_tooltips(line, [text])

    for slot, (state, members) in enumerate(states.items()):
        colour = COLOURS["wrong" if state == RunState.FAILED else "soft"]
        axes.text(SLOT * slot, len(keys) + 0.1, state, va="top", ha="center", color=colour)
        form = "-." if state == RunState.FAILED else (0, (6, 2, 1, 2, 1, 2))
        style: dict[str, Any] = {"color": colour, "linewidth": 0.8, "linestyle": form}
        for job in members:
            plot_line(job, SLOT * slot, _explain(results, job), **style, label=state if job is members[0] else "")
    for rank in reversed(range(len(groups))):
        style = {"linewidth": 1, "alpha": 0.15 + 0.4 * (1 - rank / len(groups)), "label": ""}
        if rank < len(FIRST):
            style = {"linestyle": FIRST[rank][0][1:], "linewidth": FIRST[rank][1], "label": NAMES[rank]}
        plot_line(groups[rank][0], ends[rank], f"rank {rank + 1}: {texts[rank]}", color=COLOURS["val"], **style)
    figure.set_label("; ".join(texts[: len(FIRST)]))
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if len(labels) == 4 else 3
    figure.legend(handles[::-1], labels[::-1], loc="outside lower left", ncols=columns, fontsize=9.5)
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
        axes.text(place, row + 0.1, text, ha=side, va="top", color=COLOURS["soft"], bbox=box, zorder=4)


@styled
def plot_sweep_curves(results: Results, name: str) -> Figure | None:
    """Plot loss or acc by epoch for the better half of a ranking, seeds as bands; None if none has a second epoch."""
    groups = results.ranked[: min(MAX_CURVES, max(3, (len(results.ranked) + 1) // 2))]
    if max((len(job.epochs) for group in groups for job in group), default=0) < 2:
        return None
    label_y, factor = METRICS[name]
    labels = [describe_place(results, group[0]) or f"mean of {len(group)} seeds" for group in groups]
    names = [f"{name}: {label}" for name, label in zip(NAMES, labels, strict=False)]
    names += ["the others"] * (len(groups) > len(FIRST))
    names = [textwrap.fill(name, LEGEND_LETTERS, subsequent_indent="  ", break_on_hyphens=False) for name in names]
    figure = Figure(figsize=(WIDTH, HEIGHT + LEGEND_ROW * len("\n".join(names).splitlines())))
    axes = figure.subplots()
    last: list[str] = []
    for rank in reversed(range(len(groups))):  # The last curve, of the best, covers the others.
        group = groups[rank]
        rows = [(row["epoch"] + 1, row.get(f"val/{name}", math.nan)) for job in group for row in job.epochs]
        values: dict[float, list[float]] = {}
        for epoch, value in sorted(row for row in rows if math.isfinite(row[1])):
            values.setdefault(epoch, []).append(factor * value)
        style: dict[str, Any] = {"markersize": 4, "markeredgecolor": COLOURS["paper"], "label": labels[rank]}
        form, style["linewidth"], colour = (*FIRST[rank], "val") if rank < len(FIRST) else ("s-", 0.8, "soft")
        if rank >= len(FIRST):  # The bands of all would cover each other.
            values = {epoch: [statistics.fmean(each)] for epoch, each in values.items()}
        plot_means(axes, values, form, COLOURS[colour], **style)
        line = axes.get_lines()[-1]
        points = np.asarray(line.get_xydata())
        tooltips = [f"{labels[rank]}, epoch {x:g}: {format_cell(f'val/{name}', y / factor)}" for x, y in points]
        set_tooltips(line, tooltips)
        last = tooltips[-1:] + last
    figure.set_label("; ".join(last))
    show_end(axes, name)
    finish_axes(axes, "epoch", label_y)
    figure.legend(axes.get_lines()[::-1][: len(names)], names, loc="outside lower left")
    return figure
