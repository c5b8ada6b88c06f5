"""The contents of a sweep's page."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mnist_lab.config.metric_names import TEST_ACC, VAL_ACC
from mnist_lab.formatting import display_path, format_accuracy, format_command, format_date, format_duration
from mnist_lab.runs.ranking import Results, Spread, describe_job
from mnist_lab.runs.record import RunState
from mnist_lab.runs.run import Run, start_timestamp
from mnist_lab.runs.sweep import Job, Sweep
from mnist_lab.viz.curves import METRICS
from mnist_lab.viz.heatmap import plot_accuracy_map
from mnist_lab.viz.svg import inline_svg
from mnist_lab.viz.sweep import plot_ranking, plot_response, plot_sweep_curves

STATES = (  # the first with a job is the sweep's
    RunState.RUNNING,
    RunState.FAILED,
    RunState.KILLED,
    RunState.INTERRUPTED,
    RunState.WAITING,
    RunState.FINISHED,
    RunState.PAUSED,
)
MAX_CELLS = 12  # in a row or column of a heat map


def sweep_page(sweep: Sweep, path: Path) -> dict[str, Any]:
    """Return the values of sweep.html.j2 for a sweep in any state, and a page at a path.

    Raises:
        UsageError: a record in the folder cannot be read.
    """
    results = Results.of(sweep)
    keys = [key for key in results.varied if key != "seed"]
    states = Counter(job.state for job in results.jobs)
    return {
        "kicker": "A sweep of mnist_lab",
        "title": sweep.folder.name,
        "status": next((state for state in STATES if states[state]), RunState.WAITING),
        "status_words": f"{states[RunState.FINISHED]} of {len(results.jobs)} jobs finished",
        "subtitle": f"{start_date(results)}{display_path(sweep.folder)}",
        "notes": [],
        "tiles": tiles(results, states),
        "seeds": "seed" in results.varied,
        "ranked_heads": ["rank", *(results.heads[key] for key in keys), "validation", "time", "jobs"],
        "ranked": ranking(results, keys),
        "commands_best": best_commands(results),
        "pictures": pictures(results, keys),
        "heat": len(keys) == 2 and is_grid(results, keys),
        "curves": learning_curves(results),
        "job_heads": [*results.heads.values(), "validation", "epochs", "time"],
        "jobs": [job_row(results, job, path) for job in results.jobs],
        "errors": [(describe_job(results, job), job.error) for job in results.jobs if job.error],
        "commands_again": [
            ("The same command skips finished jobs and continues with the others:", sweep.record["command"]),
            ("Write this page again:", format_command(["report", display_path(sweep.folder)])),
        ],
    }


def start_date(results: Results) -> str:
    """Return when the first job started, for the page's head."""
    records = [job.info for job in results.jobs if job.info]
    return f"{format_date(min(records, key=start_timestamp)['started'])}, " if records else ""


def tiles(results: Results, states: Counter[RunState]) -> list[tuple[str, str, str]]:
    """Return the main results: name, value, note."""
    jobs = ", ".join(f"{states[state]} {state}" for state in reversed(STATES) if states[state]) or "none"
    if not results.winner:
        return [
            ("best validation accuracy", "none", "no job has finished with one"),
            ("jobs", f"{len(results.jobs)}", jobs),
        ]
    entry = results.entry(results.winner)
    best = " ".join(f"{key}={value}" for key, value in entry["settings"].items()) or "one job"
    seconds = sum(job.info["seconds"]["total"] for group in results.ranked for job in group)
    seeds = len(results.winner)
    (best_val, over), (tested, tested_over) = (
        _split_spread(accuracy, seeds) for accuracy in (entry[VAL_ACC], entry[TEST_ACC])
    )
    return [
        ("best validation accuracy", best_val, over + best),
        ("its test accuracy", tested, f"{tested_over}not used for the choice"),
        ("jobs", f"{len(results.jobs)}", jobs),
        ("training time", format_duration(seconds), "of all finished jobs"),
    ]


def _split_spread(accuracy: Spread, seeds: int) -> tuple[str, str]:
    """Return a mean accuracy, and its spread in words."""
    value, _, deviation = format_accuracy(**accuracy).partition(" ± ")
    return value, f"± {deviation} over {seeds} seeds; " if deviation else ""


def ranking(results: Results, keys: list[str]) -> list[tuple[int, list[str]]]:
    """Return the rows of the ranking: rank, and settings with their results."""
    lines = []
    for rank, group in enumerate(results.ranked, 1):
        entry = results.entry(group)
        jobs = "1" if len(group) == 1 else f"{len(group)} seeds"
        values = [entry["settings"][key] for key in keys]
        lines.append((rank, [*values, format_accuracy(**entry[VAL_ACC]), format_duration(entry["seconds"]), jobs]))
    return lines


def best_commands(results: Results) -> list[tuple[str, str]]:
    """Return the commands for the best settings: what each does, and the command."""
    if results.command is None:
        return []
    job, seeds = results.best_job, len(results.winner)
    assert job is not None
    report = format_command(["report", display_path(job.folder)])
    if seeds == 1:
        return [("Train with them again:", results.command), ("Report of that run:", report)]
    own = f"Report of the best of these seeds by validation accuracy, {job.info['seed']}:"
    return [(f"Train with them again, with their {seeds} seeds:", results.command), (own, report)]


def pictures(results: Results, keys: list[str]) -> list[tuple[str, str]]:
    """Return the pictures of accuracy by the swept settings, with their headings.

    One setting: the response. Two: a heat map, unless it would be too wide or mostly empty. More: the ranking, and the
    response to each setting.
    """
    if not results.ranked or not keys:
        return []
    heads = [results.heads[key] for key in keys]
    if len(keys) == 2 and is_grid(results, keys):
        return [(f"By {' and '.join(heads)}", inline_svg(plot_accuracy_map(results, *keys), "heat"))]
    found = [
        (f"By {head}", plot_response(results, key, joined=len(keys) == 1))
        for head, key in zip(heads, keys, strict=True)
    ]
    if len(keys) > 1:
        found.insert(0, ("Ranking", plot_ranking(results)))
    return [(heading, inline_svg(figure, f"picture{i}")) for i, (heading, figure) in enumerate(found)]


def is_grid(results: Results, keys: list[str]) -> bool:
    """Return whether the planned jobs fill at least half of a table of two settings that is not too wide."""
    places = {tuple(results.settings(job)[key] for key in keys) for job in results.jobs}
    columns, rows = (len(set(values)) for values in zip(*places, strict=True))
    return max(columns, rows) <= MAX_CELLS and 2 * len(places) >= columns * rows


def learning_curves(results: Results) -> list[tuple[str, str]]:
    """Return the pictures of validation loss and accuracy by epoch, with their headings."""
    figures = {name: plot_sweep_curves(results, name) for name in ("loss", "acc")}
    drawn = [(f"Validation {METRICS[name][0]}", inline_svg(each, name)) for name, each in figures.items() if each]
    return drawn if len(drawn) == len(figures) else []


def job_row(results: Results, job: Job, path: Path) -> dict[str, Any]:
    """Return a job's row in the table of jobs, with the link to its report, or else to its folder."""
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
