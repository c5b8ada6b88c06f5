"""What the page of a sweep shows."""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mnist_lab.formatting import display_path, format_accuracy, format_command, format_date, format_duration
from mnist_lab.metric_names import TEST_ACC, VAL_ACC
from mnist_lab.report.charts import Chart, Dot, Line, axis, epochs_axis, settings_axis
from mnist_lab.runs.ranking import Results, describe_job, mean, spread
from mnist_lab.runs.run import Run, start_timestamp
from mnist_lab.runs.state import RunState
from mnist_lab.runs.sweep import Job, Sweep
from mnist_lab.viz.curves import METRICS
from mnist_lab.viz.heatmap import colour_strengths, sort_key

STATES = (  # the first with a job is the sweep's
    RunState.RUNNING,
    RunState.FAILED,
    RunState.KILLED,
    RunState.INTERRUPTED,
    RunState.WAITING,
    RunState.FINISHED,
)
WIDEST = 12  # values of a setting in a heat map; of more, and of scattered ones, each setting has a chart
MOST_CURVES = 10  # jobs whose curves are shown


def sweep_page(sweep: Sweep, path: Path) -> dict[str, Any]:
    """The values of sweep.html.j2, of a sweep in any state, for a page at a path.

    Raises:
        UsageError: a record in the folder cannot be read.
    """
    results = Results.of(sweep)
    keys = [key for key in results.varied if key != "seed"]
    states = Counter(job.state for job in results.jobs)
    grid = heat_map(results, *keys) if len(keys) == 2 else None
    return {
        "kicker": "A sweep of mnist_lab",
        "title": sweep.folder.name,
        "status": next((state for state in STATES if states[state]), RunState.WAITING),
        "status_words": f"{states[RunState.FINISHED]} of {len(results.jobs)} jobs finished",
        "subtitle": f"{began(results)}{display_path(sweep.folder)}",
        "trouble": [],
        "tiles": tiles(results, states),
        "seeds": "seed" in results.varied,
        "ranked_heads": ["rank", *(results.heads[key] for key in keys), "validation", "time", "jobs"],
        "ranked": ranking(results, keys),
        "commands_best": commands_best(results),
        "grid": grid,
        "charts": [] if grid or not results.ranked else [response(results, key, joined=len(keys) == 1) for key in keys],
        "curves": curves(results),
        "job_heads": [*results.heads.values(), "validation", "epochs", "time"],
        "jobs": [job_row(results, job, path) for job in results.jobs],
        "errors": [(describe_job(results, job), job.error) for job in results.jobs if job.error],
        "commands_again": [
            ("The same command skips finished jobs and goes on with the others:", sweep.record["command"]),
            ("This page anew:", format_command(["report", display_path(sweep.folder)])),
        ],
    }


def began(results: Results) -> str:
    """When the first job was started, for the page's head."""
    records = [job.info for job in results.jobs if job.info]
    return f"{format_date(min(records, key=start_timestamp)['started'])}, " if records else ""


def tiles(results: Results, states: Counter[RunState]) -> list[tuple[str, str, str]]:
    """The figures that a reader looks for first: name, value, note."""
    jobs = ", ".join(f"{states[state]} {state}" for state in reversed(STATES) if states[state]) or "none"
    if not results.winner:
        return [("best validation accuracy", "none", "no job has come to one"), ("jobs", f"{len(results.jobs)}", jobs)]
    entry = results.entry(results.winner)
    best = " ".join(f"{key}={value}" for key, value in entry["settings"].items()) or "one job"
    seconds = sum(job.info["seconds"]["total"] for group in results.ranked for job in group)
    seeds = len(results.winner)
    (best_val, over), (tested, tested_over) = (_apart(entry[name], seeds) for name in (VAL_ACC, TEST_ACC))
    return [
        ("best validation accuracy", best_val, over + best),
        ("its test accuracy", tested, f"{tested_over}it chose nothing"),
        ("jobs", f"{len(results.jobs)}", jobs),
        ("training time", format_duration(seconds), "of finished jobs together"),
    ]


def _apart(accuracy: dict[str, float | None], seeds: int) -> tuple[str, str]:
    """A mean accuracy, and in words its spread."""
    value, _, deviation = format_accuracy(accuracy).partition(" ± ")
    return value, f"± {deviation} over {seeds} seeds; " if deviation else ""


def ranking(results: Results, keys: list[str]) -> list[tuple[int, list[str]]]:
    """Each place in the ranking with its settings and what they came to."""
    lines = []
    for rank, group in enumerate(results.ranked, 1):
        entry = results.entry(group)
        jobs = "1" if len(group) == 1 else f"{len(group)} seeds"
        values = [entry["settings"][key] for key in keys]
        lines.append((rank, [*values, format_accuracy(entry[VAL_ACC]), format_duration(entry["seconds"]), jobs]))
    return lines


def commands_best(results: Results) -> list[tuple[str, str]]:
    """How to have the best settings again: what each command does, and the command."""
    if results.command is None:
        return []
    job, seeds = results.best_job, len(results.winner)
    assert job is not None
    report = format_command(["report", display_path(job.folder)])
    if seeds == 1:
        return [("Train them again:", results.command), ("Look closely at that run:", report)]
    own = f"Look closely at the best of these seeds by validation, {job.info['seed']}:"
    return [(f"Train them again, with their {seeds} seeds:", results.command), (own, report)]


def heat_map(results: Results, across: str, up: str) -> dict[str, Any] | None:
    """Validation accuracy by two settings: the values of each, and each cell's text, strength of colour, 0 to 1, and
    whether it is the best. None where it would be too wide, or mostly empty.
    """
    places = [results.settings(job) for job in results.jobs]
    columns, rows = (sorted({place[key] for place in places}, key=sort_key) for key in (across, up))
    found = {}
    for group in results.ranked:
        own = results.settings(group[0])
        found[own[up], own[across]] = mean(group, VAL_ACC)
    planned = {(place[up], place[across]) for place in places}
    if not found or max(len(columns), len(rows)) > WIDEST or 2 * len(planned) < len(columns) * len(rows):
        return None
    shade, best = (
        colour_strengths({place: 100 - 100 * accuracy for place, accuracy in found.items()}),
        max(found.values()),
    )
    cells = {
        place: (f"{100 * accuracy:.2f}", round(shade[place], 2), accuracy == best) for place, accuracy in found.items()
    }
    lines = [(row, [cells.get((row, column), ("–", 0, False)) for column in columns]) for row in reversed(rows)]
    return {"across": results.heads[across], "up": results.heads[up], "columns": columns, "rows": lines}


def curves(results: Results) -> list[Chart]:
    """Validation loss and accuracy by epoch, of the better half of the jobs: a bad one would press theirs flat."""
    jobs = [job for group in results.ranked for job in group]
    jobs = jobs[: min(MOST_CURVES, max(3, (len(jobs) + 1) // 2))]
    charts = []
    for name in ("loss", "acc"):
        label, factor = METRICS[name]
        lines = []
        for job in jobs:
            words = describe_job(results, job) or job.folder.name
            values = {row["epoch"] + 1: factor * row[f"val/{name}"] for row in job.epochs if f"val/{name}" in row}
            form = "{:.4f}" if name == "loss" else "{:.2f}%"
            dots = [Dot(x, y, f"{words}, epoch {x:g}: {form.format(y)}", 2.5) for x, y in values.items()]
            if dots:
                lines.append(Line(words, "val" if job == results.best_job else "other", dots))
        if not any(len(line.dots) > 1 for line in lines):
            return []
        dots = [dot for line in lines for dot in line.dots]
        x = epochs_axis([dot.x for dot in dots])
        y = axis(f"validation {label}", [dot.y for dot in dots], 100 if name == "acc" else math.inf)
        lasts = "; ".join(line.dots[-1].words for line in lines)
        charts.append(Chart(f"{y.label} by epoch: {lasts}", x, y, lines[::-1]))  # the best over the others
    return charts


def response(results: Results, key: str, *, joined: bool) -> Chart:
    """Validation accuracy by a setting: a dot for each place in the ranking, with the spread over its seeds."""
    groups = sorted(results.ranked, key=lambda group: sort_key(results.settings(group[0])[key]))
    values = [results.settings(group[0])[key] for group in groups]
    x, places = settings_axis(results.heads[key], values)
    dots = []
    for value, group in zip(values, groups, strict=True):
        accuracy, deviation = mean(group, VAL_ACC), spread(group, VAL_ACC)
        words = f"{results.heads[key]}={value}: {format_accuracy({'mean': accuracy, 'std': deviation})}"
        dots.append(Dot(places[value], 100 * accuracy, words, spread=100 * (deviation or 0)))
    ends = [dot.y + sign * dot.spread for dot in dots for sign in (-1, 1)]
    y = axis("validation accuracy (%)", ends, 100)
    words = f"{y.label} by {key}: {'; '.join(dot.words for dot in dots)}"
    return Chart(words, x, y, [Line(y.label, "val", dots, joined=joined)])


def job_row(results: Results, job: Job, path: Path) -> dict[str, Any]:
    """A job in the table of jobs, and the way from the page to its own report, or else to its folder."""
    row, page = results.row(job), Run(job.folder).report_path
    target = page if page.is_file() else job.folder
    accuracy, seconds, epochs = row[VAL_ACC], row["seconds"], row["epochs"]
    cells = [
        *results.settings(job).values(),
        "–" if accuracy is None else f"{accuracy:.2%}",
        "–" if epochs is None else str(epochs),
        "–" if seconds is None else format_duration(seconds),
    ]
    link = quote(Path(os.path.relpath(target, path.absolute().parent)).as_posix()) if target.exists() else None
    words = "report" if target == page else "folder"
    return {"number": results.jobs.index(job) + 1, "cells": cells, "state": job.state, "link": link, "words": words}
