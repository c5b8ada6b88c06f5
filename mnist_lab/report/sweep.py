"""The values of a sweep's page."""

import math
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mnist_lab.config.metric_names import TEST_ACC, in_words
from mnist_lab.formatting import display_path, format_accuracy, format_command, format_date, format_duration
from mnist_lab.report.importance import importances
from mnist_lab.runs.ranking import Results, spread
from mnist_lab.runs.record import RunRecord, RunState
from mnist_lab.runs.run import Run, start_timestamp
from mnist_lab.runs.sweep import Job, Sweep
from mnist_lab.viz.curves import METRICS
from mnist_lab.viz.save import inline_svg
from mnist_lab.viz.sweep import plot_accuracy_map, plot_coordinates, plot_response, plot_sweep_curves

# A sweep is in the first of these states that one of its jobs is in, or else finished.
UNFINISHED = (RunState.RUNNING, RunState.FAILED, RunState.KILLED, RunState.INTERRUPTED, RunState.WAITING)
MAX_CELLS = 12  # cells in a row or column of a heat map
MAX_RANKS = 10
CHANCE = "≈ "  # marks a difference that may be chance


def sweep_page(sweep: Sweep, path: Path) -> dict[str, Any]:
    """Return the values of sweep.html.j2 for a sweep in any state; `path` is where the page will be."""
    results = Results.of(sweep)
    numbers = {job.id: number for number, job in enumerate(results.jobs, 1)}
    swept = [key for key in results.varied if key != "seed"]
    importance, method = importances(results, swept)
    keys = sorted(swept, key=lambda key: -importance.get(key, 0.0))
    states = Counter(job.state for job in results.jobs)
    first = min((job.info for job in results.jobs if job.info), key=start_timestamp, default=None)
    figures = {f"Validation {label}": plot_sweep_curves(results, name) for name, (label, _) in METRICS.items()}
    return {
        "notes": describe_limits(results.winner[0].info) if results.winner else [],
        "title": sweep.folder.name,
        "status": next((state for state in UNFINISHED if states[state]), RunState.FINISHED),
        "finished": states[RunState.FINISHED],
        "subtitle": (f"{format_date(first['started'])}, " if first else "") + display_path(sweep.folder),
        "tiles": _tiles(results, states),
        "metric": in_words(results.metric),
        "seeds": "seed" in results.varied,
        "ranked_heads": ["validation", *(results.heads[key] for key in swept), "behind", "time"],
        "ranked": [
            (_ranking_row(results, group, swept), [numbers[job.id] for job in group])
            for group in results.ranked[:MAX_RANKS]
        ],
        "places": len(results.ranked),
        "importance": [(results.heads[key], f"{100 * value:.0f}") for key, value in importance.items()],
        "method": method,
        "pictures": _pictures(results, keys),
        "heat": is_grid(results, keys),
        "states": states,
        "curves": [(heading, inline_svg(figure, heading)) for heading, figure in figures.items() if figure],
        "job_heads": ["rank", "validation", *results.heads.values(), "epochs", "time"],
        "jobs": [_job_row(results, job, numbers[job.id], path) for job in results.jobs],
        "errors": [
            (error, [numbers[job.id] for job in results.jobs if job.error == error])
            for error in dict.fromkeys(job.error for job in results.jobs if job.error)
        ],
        "commands_next": _next_commands(results),
    }


def describe_limits(info: RunRecord) -> list[str]:
    """Say that a run has used only a part of the images, if it has."""
    limits = ", ".join(override.lstrip("+") for override in info["overrides"] if "trainer.limit_" in override)
    sets = " and ".join(info["partial"]).replace("val", "validation")
    effect = f", so that the recorded {sets} accuracy is not that of the whole set" if sets else ""
    return [f"Only a part of the images was used{effect}: {limits or 'limited batches'}."] if limits or sets else []


def _tiles(results: Results, states: Counter[RunState]) -> list[tuple[str, str, str]]:
    """Return the main results: name, value, note."""
    counts = ", ".join(f"{count} {state}" for state, count in states.most_common()) or "none"
    jobs = ("jobs", f"{len(results.jobs)}", counts)
    if not results.winner:
        return [(f"best {in_words(results.metric)}", "none", "no job has finished with one"), jobs]
    entry = results.entry(results.winner)
    best = " ".join(f"{key}={value}" for key, value in entry["settings"].items()) or "one job"
    tiles = []
    for name, metric, note in (
        (f"best {in_words(results.metric)}", results.metric, best),
        ("its test accuracy", TEST_ACC, "not used for the choice"),
    ):
        mean, _, deviation = format_accuracy(**entry[metric]).partition(" ± ")
        seeds = f"± {deviation} over {len(results.winner)} seeds; " if deviation else ""
        tiles.append((name, mean, seeds + note))
    seconds = sum(job.info["seconds"].get("total", 0.0) for group in results.ranked for job in group)
    return [*tiles, jobs, ("training time", format_duration(seconds), "of all finished jobs")]


def _ranking_row(results: Results, group: list[Job], keys: list[str]) -> list[str]:
    """Return the cells of a place in the ranking: accuracy, settings, points behind the best, time."""
    entry, best = results.entry(group), spread(results.winner, results.metric)
    own = entry[results.metric]
    behind = f"{100 * (best['mean'] - own['mean']):.2f}" if group != results.winner else ""
    if behind and None not in (best["std"], own["std"]):
        error = math.hypot(best["std"] / math.sqrt(len(results.winner)), own["std"] / math.sqrt(len(group)))
        behind = CHANCE * (best["mean"] - own["mean"] < 2 * error) + behind
    settings = [entry["settings"][key] for key in keys]
    return [format_accuracy(**own), *settings, behind, format_duration(entry["seconds"])]


def _next_commands(results: Results) -> list[tuple[str, str]]:
    """Return the commands for the best settings and for the whole sweep: what each does, and the command."""
    commands, seeds = [], len(results.winner)
    if results.best_job and results.command:
        best = display_path(results.best_job.folder)
        again = f"Train the best settings again, {f'with {seeds} seeds' if seeds > 1 else 'on all images'}"
        whole = re.sub(r" '?\+*trainer\.limit_\w+=\S+", "", results.command)
        commands = [(again, whole), ("See the errors of the best run", format_command(["report", best]))]
        commands.append(("Draw digits for it", format_command(["draw", best])))
    return [*commands, ("Continue the sweep; finished jobs are skipped", results.sweep.record["command"])]


def _pictures(results: Results, keys: list[str]) -> list[tuple[str, str]]:
    """Return a heat map of two settings, or parallel coordinates and the responses to all, with headings."""
    if not results.ranked:
        return []
    if is_grid(results, keys):
        across, up = sorted(keys, key=results.varied.index)
        heading = f"By {results.heads[across]} and {results.heads[up]}"
        return [(heading, inline_svg(plot_accuracy_map(results, across, up), "Heat map"))]
    figures = {"From settings to accuracy": plot_coordinates(results, keys)} if keys[1:] else {}
    figures |= {f"By {results.heads[key]}": plot_response(results, key) for key in keys}
    return [(heading, inline_svg(figure, heading)) for heading, figure in figures.items()]


def is_grid(results: Results, keys: list[str]) -> bool:
    """Return whether two settings are swept whose table is not too wide, and at least half full of planned jobs."""
    if len(keys) != 2:
        return False
    places = {tuple(results.settings(job)[key] for key in keys) for job in results.jobs}
    columns, rows = (len(set(values)) for values in zip(*places, strict=True))
    return max(columns, rows) <= MAX_CELLS and 2 * len(places) >= columns * rows


def _job_row(results: Results, job: Job, number: int, path: Path) -> dict[str, Any]:
    """Return a job's row in the table of jobs, with the link to its report, or else to its folder."""
    row, page = results.row(job), Run(job.folder).report_path
    target, link_text = (page, "report") if page.is_file() else (job.folder, "folder")
    link = quote(os.fsencode(os.path.relpath(target, path.absolute().parent))) if target.exists() else None
    formats: dict[str, Callable[[Any], str]] = {"rank": str, results.metric: "{:.2%}".format}
    formats |= {"epochs": str, "seconds": format_duration}
    values = ["–" if row[name] is None else format_value(row[name]) for name, format_value in formats.items()]
    cells = [*values[:2], *results.settings(job).values(), *values[2:]]
    return {"number": number, "cells": cells, "state": job.state, "link": link, "words": link_text}
