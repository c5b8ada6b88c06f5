"""Validation accuracy of a sweep's jobs by one setting, ranked, and by epoch."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from mnist_lab.config.metric_names import VAL_ACC
from mnist_lab.formatting import format_accuracy
from mnist_lab.runs.ranking import Results, describe_job, spread
from mnist_lab.runs.sweep import Job
from mnist_lab.viz.curves import HEIGHT, LEGEND_ROW, METRICS, WIDTH, finish_axes, format_metric
from mnist_lab.viz.heatmap import sort_key
from mnist_lab.viz.style import COLOURS, margins, set_tooltips, styled

LABEL = "validation accuracy (%)"
MAX_TICKS = 8  # values of a setting that are all named
MIN_GAP = 0.12  # of the axis, between two of them
LETTER = 0.085  # inches, of a tick's label
MAX_RANKS = 20
MAX_JOBS = 10  # whose curves are shown
MAX_LEGEND = 50  # letters; the tooltips have the whole


@styled
def plot_response(results: Results, key: str, *, joined: bool = True) -> Figure:
    """Plot validation accuracy by one setting: a point for each place in the ranking, with the spread over its seeds.

    Numbers are placed by size, over a decade or more by logarithm; names are placed side by side.

    Args:
        results: the sweep's results.
        key: the setting.
        joined: whether a line joins the points.
    """
    groups = sorted(results.ranked, key=lambda group: sort_key(results.settings(group[0])[key]))
    values = [results.settings(group[0])[key] for group in groups]
    figure = Figure(figsize=(WIDTH, HEIGHT + 0.12))
    axes = figure.subplots()
    figure.subplots_adjust(**margins(figure))
    x = _set_scale(axes, list(dict.fromkeys(values)))
    _plot_accuracies(axes, [x[value] for value in values], groups, f"o{'-' * joined}", vertical=True)
    name = results.heads[key]
    texts = [f"{name}={value}: {_accuracy(group)}" for value, group in zip(values, groups, strict=True)]
    set_tooltips(axes.get_lines()[0], texts)
    axes.set_xlabel(name)
    axes.set_ylabel(LABEL)
    axes.grid(axis="y")
    figure.set_label(f"{LABEL} by {key}: {'; '.join(texts)}")
    return figure


def _set_scale(axes: Axes, values: Sequence[str]) -> dict[str, float]:
    """Set an axis' scale and ticks for the sorted values of a setting; return where each is placed."""
    numbers = [sort_key(value)[0] for value in values]
    numeric = all(map(math.isfinite, numbers))
    x = dict(zip(values, numbers if numeric else map(float, range(len(values))), strict=True))
    low, high = min(x.values()), max(x.values())
    is_log = numeric and low > 0 and high / low >= 10
    if is_log:
        axes.set_xscale("log")
        ends = low * (low / high) ** 0.06, high * (high / low) ** 0.06
    else:
        margin = 0.06 * (high - low) or 0.5
        ends = low - margin, high + margin
    axes.set_xlim(*ends)
    axes.xaxis.set_minor_locator(NullLocator())
    if numeric and len(values) > MAX_TICKS:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)) if is_log else MaxNLocator(5))
        axes.xaxis.set_major_formatter("{x:g}")
        return x
    to_fraction = axes.transScale.transform([(place, 1) for place in x.values()])[:, 0]
    length = np.ptp(axes.transScale.transform([(end, 1) for end in ends])[:, 0])
    ticks: list[int] = []
    for i, place in enumerate(to_fraction / length):
        if not ticks or place - to_fraction[ticks[-1]] / length >= MIN_GAP:
            ticks.append(i)
    names = [values[i] for i in ticks]
    spaces = [(b - a) / length for a, b in pairwise(to_fraction[ticks])]
    if max(map(len, names)) * LETTER > (WIDTH - 0.76) * min(spaces, default=1):
        axes.set_xticks([x[name] for name in names], names, rotation=25, ha="right", rotation_mode="anchor")
        axes.figure.subplots_adjust(bottom=(0.5 + 0.36 * LETTER * max(map(len, names))) / (HEIGHT + 0.12))
    else:
        axes.set_xticks([x[name] for name in names], names)
    return x


@styled
def plot_ranking(results: Results) -> Figure:
    """Plot the validation accuracy of the best places in the ranking, with the spread over their seeds, best first."""
    groups = results.ranked[:MAX_RANKS]
    keys = [key for key in results.varied if key != "seed"]
    settings = [results.settings(group[0]) for group in groups]
    names = [" · ".join(own[key] for key in keys) for own in settings]
    head = " · ".join(results.heads[key] for key in keys)
    left = 0.3 + LETTER * max(map(len, [*names, head]))
    width = max(WIDTH, left + 2.4)
    figure = Figure(figsize=(width, 0.75 + 0.24 * len(groups)))
    axes = figure.subplots(gridspec_kw=margins(figure, left=left, top=0.3))
    _plot_accuracies(axes, range(len(groups)), groups, "o", vertical=False)
    texts = [
        f"{rank}: {' '.join(f'{results.heads[key]}={own[key]}' for key in keys)}: {_accuracy(group)}"
        for rank, (own, group) in enumerate(zip(settings, groups, strict=True), 1)
    ]
    set_tooltips(axes.get_lines()[0], texts)
    axes.set_yticks(range(len(groups)), names)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlabel(LABEL)
    axes.set_title(head, loc="right", x=-0.02, fontsize=9)
    axes.grid(axis="both")
    figure.set_label(f"Ranking by {LABEL}: {'; '.join(texts)}")
    return figure


def _accuracy(group: list[Job]) -> str:
    return format_accuracy(**spread(group, VAL_ACC))


def _plot_accuracies(
    axes: Axes, places: Sequence[float], groups: Sequence[list[Job]], form: str, *, vertical: bool
) -> None:
    """Plot mean and standard deviation of each group of jobs, in percent."""
    accuracies = [spread(group, VAL_ACC) for group in groups]
    means = [100 * accuracy["mean"] for accuracy in accuracies]
    spreads = [100 * (accuracy["std"] or 0) for accuracy in accuracies]
    errors: dict[str, Any] = {"yerr" if vertical else "xerr": spreads}
    x, y = (places, means) if vertical else (means, places)
    style: dict[str, Any] = {"color": COLOURS["val"], "markersize": 7, "markeredgecolor": COLOURS["paper"]}
    axes.errorbar(x, y, fmt=form, **style, **errors if any(spreads) else {})
    locator = MaxNLocator(5, steps=[1, 2, 5, 10])
    (axes.yaxis if vertical else axes.xaxis).set_major_locator(locator)


@styled
def plot_sweep_curves(results: Results, name: str) -> Figure | None:
    """Plot a validation metric, loss or acc, by epoch for the better half of a sweep's jobs, the best one in colour.

    None if no job has more than one epoch.
    """
    jobs = [job for group in results.ranked for job in group]
    jobs.sort(key=lambda job: job != results.best_job)  # of the winner's seeds it need not be the first
    jobs = jobs[: min(MAX_JOBS, max(3, (len(jobs) + 1) // 2))]
    label, factor = METRICS[name]
    figure = Figure(figsize=(WIDTH, HEIGHT + 2 * LEGEND_ROW + 0.12))
    axes = figure.subplots(gridspec_kw=margins(figure, top=2 * LEGEND_ROW + 0.12))
    texts = []
    for job in jobs[::-1]:  # the best over the others
        words, best = describe_job(results, job) or job.folder.name, job == results.best_job
        rows = [row for row in job.epochs if math.isfinite(row.get(f"val/{name}", math.nan))]
        curve = {row["epoch"] + 1: factor * row[f"val/{name}"] for row in rows}
        if not curve:
            continue
        style: dict[str, Any] = (
            {"color": COLOURS["val"], "zorder": 3} if best else {"color": COLOURS["soft"], "linewidth": 1}
        )
        style |= {"markersize": 4, "markeredgecolor": COLOURS["paper"], "label": words}
        (line,) = axes.plot(list(curve), list(curve.values()), marker="o", **style)
        tooltips = [f"{words}, epoch {x:g}: {format_metric(name, y)}" for x, y in curve.items()]
        set_tooltips(line, tooltips)
        texts.append(tooltips[-1])
    lines = axes.get_lines()
    if max((len(line.get_xdata()) for line in lines), default=0) < 2:  # type: ignore[arg-type]
        return None
    finish_axes(axes, "epoch", f"validation {label}")
    handles = [lines[-1], *lines[:1]] if len(lines) > 1 else lines
    shown = results.settings(results.best_job) if results.best_job else {}
    best_words = " ".join(f"{results.heads[key]}={value}" for key, value in shown.items()) or lines[-1].get_label()
    best_words = textwrap.shorten(f"best: {best_words}", MAX_LEGEND, placeholder=" …")
    names = [best_words, f"the {len(lines) - 1} that rank next"][: len(handles)]
    place = (0.06 / WIDTH, 1)
    figure.legend(handles, names, loc="upper left", bbox_to_anchor=place, borderaxespad=0)
    figure.set_label(f"validation {label} by epoch: {'; '.join(texts[::-1])}")
    return figure
