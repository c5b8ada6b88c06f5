"""Group runs that differ in their seed alone, and summarise each group as a row: mean ± standard deviation."""

from __future__ import annotations

import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mnist_lab.config.settings import differing_settings
from mnist_lab.errors import UsageError
from mnist_lab.formatting import printable
from mnist_lab.runs.listing import read_records, run_row, sort_rows
from mnist_lab.runs.record import RunRecord
from mnist_lab.runs.run import Run, start_timestamp
from mnist_lab.runs.state import RunState

# Columns without a mean.
OF_ONE_RUN = ("run", "date", "model", "overrides", "status", "error", "seed", "parameters", "tags", "note")


def group_runs(runs: Sequence[Run], settings: Mapping[str, Sequence[Any]]) -> list[list[Run]]:
    """Group runs that differ in their seed alone, in the order of each group's first run.

    Args:
        runs: the runs.
        settings: the settings in which they differ, with each run's value.
    """
    groups: list[tuple[list[Any], list[Run]]] = []
    for i, run in enumerate(runs):
        own = [values[i] for key, values in settings.items() if key != "seed"]
        group = next((members for shared, members in groups if shared == own), None)
        if group is None:
            groups.append((own, group := []))
        group.append(run)
    return [group for _, group in groups]


def group_row(runs: Mapping[Run, RunRecord]) -> dict[str, Any]:
    """Return the records of runs that differ in their seed alone as one row.

    Of runs with the same seed, the latest counts: a repetition says nothing new.

    Returns:
        `n`, the number of seeds; `seeds` and `runs`, in the same order; `date`, of the latest run; and of each number
        in `run_row` the mean, and as NAME_std the sample standard deviation, which is None for one run. Both are None
        where a run lacks the value.
    """
    by_start = sorted(runs.items(), key=lambda item: start_timestamp(item[1]))
    latest = {info["seed"]: run_row(run, info) for run, info in by_start}
    rows = [latest[seed] for seed in sorted(latest, key=lambda seed: seed or 0)]
    last = run_row(*by_start[-1])
    row: dict[str, Any] = {
        "runs": [each["run"] for each in rows],
        "date": last["date"],
        "model": last["model"],
        "overrides": [override for override in last["overrides"] if not override.startswith("seed=")],
        "n": len(rows),
        "seeds": [each["seed"] for each in rows],
        "parameters": last["parameters"],
    }
    for name in dict.fromkeys(name for each in rows for name in each if name not in OF_ONE_RUN):
        values = [each[name] for each in rows if each.get(name) is not None]
        whole = len(values) == len(rows)
        row[name] = statistics.mean(values) if whole else None
        row[f"{name}_std"] = statistics.stdev(values) if whole and len(values) > 1 else None
    return row


def select_finished(records: Mapping[Run, RunRecord]) -> list[Run]:
    """Return the finished runs, and warn of the others."""
    others = Counter(info["status"] for info in records.values() if info["status"] != RunState.FINISHED)
    if others:
        counts = ", ".join(f"{count} {status}" for status, count in others.items())
        print(f"mnist_lab: warning: runs that have not finished are left out: {counts}", file=sys.stderr)
    return [run for run, info in records.items() if info["status"] == RunState.FINISHED]


def list_groups(runs_dir: Path, sort: str = "date", where: str | None = None) -> list[dict[str, Any]]:
    """Return a row for each group of finished runs below a folder that differ in their seed alone, sorted.

    A run whose configuration cannot be read is left out, and a warning is printed.

    Args:
        runs_dir: the folder.
        sort: see `listing.sort_rows`.
        where: a condition on the runs; see `listing.select_where`.

    Raises:
        UsageError: the folder does not exist, no group has the column, or the condition is invalid.
    """
    records = read_records(runs_dir, where)
    configs: dict[Run, DictConfig] = {}
    for run in select_finished(records):
        try:
            configs[run] = run.config
        except UsageError as error:
            print(f"mnist_lab: warning: {printable(str(error))}; left out", file=sys.stderr)
    groups = group_runs(list(configs), differing_settings(*configs.values()))
    rows = [group_row({run: records[run] for run in group}) for group in groups]
    rows.sort(key=lambda row: start_timestamp({"started": row["date"]}))
    return sort_rows(rows, sort)
