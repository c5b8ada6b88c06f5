"""List runs as rows for `ls` and `compare`, and find the settings in which they differ."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import ListConfig, OmegaConf

from mnist_lab.config.metric_names import IMAGES_PER_SECOND, METRIC_NAMES, is_accuracy, is_loss
from mnist_lab.config.settings import differing_settings, flatten
from mnist_lab.errors import UsageError
from mnist_lab.formatting import format_value
from mnist_lab.runs.annotations import read_annotations
from mnist_lab.runs.query import Condition
from mnist_lab.runs.record import RunRecord
from mnist_lab.runs.run import Run

MAX_SEEDS = 6  # that are all shown


def run_row(run: Run, info: RunRecord) -> dict[str, Any]:
    """Return a run's record as one row.

    Times are in seconds, accuracies from 0 to 1. None stands for a value that is missing or not finite.
    """
    tested = info.get("tested")
    names = ("model", "overrides", "status", "error", "seed", "epochs", "parameters", IMAGES_PER_SECOND)
    return {
        "run": str(run),
        "date": info.get("started"),
        **{name: info.get(name) for name in names},
        "time": info.get("seconds", {}).get("total"),
        **read_annotations(run),
        "tested_epoch": tested["epoch"] if tested else None,  # the metrics are those of its weights
        **dict.fromkeys(METRIC_NAMES),
        **{name: value for name, value in info.get("metrics", {}).items() if math.isfinite(value)},
    }


def read_records(runs_dir: Path, where: str | None = None) -> dict[Run, RunRecord]:
    """Return the runs below a folder with their records, in the order of their start.

    Args:
        runs_dir: the folder.
        where: a condition; see `select_where`.

    Raises:
        UsageError: the folder does not exist, or the condition is invalid.
    """
    if not runs_dir.is_dir():
        raise UsageError(f"--runs-dir={runs_dir}: folder not found; give the folder that contains the runs")
    records = Run.records(runs_dir)
    return records if where is None else select_where(records, where)


def select_where(records: Mapping[Run, RunRecord], where: str) -> dict[Run, RunRecord]:
    """Return the runs that fulfil a condition on the values of their rows and on their settings.

    Args:
        records: the runs.
        where: the condition, such as `test/acc > 0.98 and optimizer.lr == 0.1 and tag == keep`.

    Raises:
        UsageError: it is not a condition, or no run has a name that it compares.
    """
    condition = Condition.parse(where)
    found, known = {}, set[str]()
    for run, info in records.items():
        row = run_row(run, info)
        values = {**row, "tag": row["tags"]}
        if not condition.names <= values.keys():
            with contextlib.suppress(UsageError):  # config.yaml is damaged
                values = {**flatten(run.config), **values}
        known |= values.keys()
        if condition.holds(values):
            found[run] = info
    for name in sorted(condition.names - known) if records else []:
        raise UsageError(f"--where={where!r}: no run has {name}; name a column of `ls --json`, or a setting")
    return found


def list_runs(runs_dir: Path, sort: str = "date", where: str | None = None) -> list[dict[str, Any]]:
    """Return a row for each run below a folder, sorted.

    Args:
        runs_dir: the folder.
        sort: see `sort_rows`.
        where: a condition; see `select_where`.

    Raises:
        UsageError: the folder does not exist, no run has the column, or the condition is invalid.
    """
    return sort_rows([run_row(run, info) for run, info in read_records(runs_dir, where).items()], sort)


def sort_rows(rows: list[dict[str, Any]], sort: str) -> list[dict[str, Any]]:
    """Return rows sorted by a column.

    Args:
        rows: the rows, in the order of their dates.
        sort: the column: accuracies in descending order, others in ascending order, missing values last.

    Raises:
        UsageError: no row has the column.
    """
    known = list(dict.fromkeys(name for each in rows for name in each))
    if sort == "date" or not rows:
        return rows
    if sort not in known:
        raise UsageError(f"--sort={sort}: no run has it; choose from {', '.join(known)}")
    having = [each for each in rows if each.get(sort) is not None]
    lacking = [each for each in rows if each.get(sort) is None]
    return sorted(having, key=lambda each: each[sort], reverse=is_accuracy(sort)) + lacking


def find_runs(names: Sequence[str], runs_dir: Path, *, at_least: int = 2) -> list[Run]:
    """Find the runs that names mean, each once.

    Args:
        names: run folders, `latest`, or folders that contain several runs.
        runs_dir: where names are looked for.
        at_least: the number of runs needed.

    Raises:
        UsageError: a run is not found, or they are fewer than at_least.
    """
    found: dict[Path, Run] = {}
    for name in names:
        several = [] if name == "latest" or Run(Path(name)).exists else Run.below(name)
        found |= {run.folder.resolve(): run for run in several or [Run.find(name, runs_dir)]}
    if len(found) < at_least:
        raise UsageError(f"{' '.join(names)}: names one run; give two or more, or a folder that holds them")
    return list(found.values())


def select_runs(found: Sequence[Run], problem: Callable[[Run], str | None]) -> list[Run]:
    """Return the runs without a problem, and warn about the others.

    Args:
        found: the runs.
        problem: returns why a run cannot be used, or None.

    Raises:
        UsageError: each has a problem.
    """
    problems = {run: problem(run) for run in found}
    selected = [run for run in found if problems[run] is None]
    if not selected:
        raise UsageError(f"{found[0]}: {problems[found[0]]}")
    for run in found:
        if problems[run] is not None:
            print(f"mnist_lab: warning: {run}: {problems[run]}; left out", file=sys.stderr)
    return selected


def checkpoint_problem(run: Run) -> str | None:
    """Return the problem of a run without a checkpoint."""
    return None if run.checkpoint("best") or run.checkpoint("last") else "has no checkpoint"


def differing_settings_of_runs(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return the settings in which runs differ, by key, with each run's value; None where it has no such setting."""
    settings = differing_settings(*(run.config for run in runs))
    return {
        key: [OmegaConf.to_container(value) if isinstance(value, ListConfig) else value for value in values]
        for key, values in settings.items()
    }


def format_cell(name: str, value: Any) -> str:
    """A value of a run as a person reads it; a dash if there is none."""
    if value is None:
        return "-"
    if is_accuracy(name):
        return f"{value:.2%}"
    if is_loss(name):
        return f"{value:.4f}"
    if name in ("parameters", IMAGES_PER_SECOND):
        return f"{value:,.0f}"
    if name in ("epochs", "tested_epoch"):
        return f"{value:.1f}".removesuffix(".0")  # a mean may have many digits
    if name == "seeds" and len(value) > MAX_SEEDS:
        return f"{value[0]} {value[1]} ... {value[-1]}"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:.1f} s" if name == "time" else format_value(value)


def row_cell(row: Mapping[str, Any], name: str) -> str:
    """A value of a row as a person reads it; in the row of several runs, the mean ± the standard deviation."""
    std = row.get(f"{name}_std")
    spread = "" if std is None else f" ± {format_cell(name, std).rstrip('% s')}"
    return format_cell(name, row.get(name)) + spread
