"""Rows of runs: what `ls` and `compare` show of each, and the settings in which they differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import ListConfig, OmegaConf

from mnist_lab.config.settings import differing_settings
from mnist_lab.errors import UsageError
from mnist_lab.metric_names import IMAGES_PER_SECOND, METRIC_NAMES, is_accuracy
from mnist_lab.runs.record import RunRecord
from mnist_lab.runs.run import Run


def run_row(run: Run, info: RunRecord) -> dict[str, Any]:
    """A run's record as one row: its folder, what it was started with, and what it came to.

    Times are in seconds, accuracies from 0 to 1. None stands for what there is not, or not yet, or is not finite.
    """
    tested = info.get("tested")
    names = ("model", "overrides", "status", "error", "seed", "epochs", "parameters", IMAGES_PER_SECOND)
    return {
        "run": str(run),
        "date": info.get("started"),
        **{name: info.get(name) for name in names},
        "time": info.get("seconds", {}).get("total"),
        "tested_epoch": tested["epoch"] if tested else None,  # the metrics are those of its weights
        **dict.fromkeys(METRIC_NAMES),
        **{name: value for name, value in info.get("metrics", {}).items() if math.isfinite(value)},
    }


def list_runs(runs_dir: Path, sort: str = "date") -> list[dict[str, Any]]:
    """A row for each run below a folder, in the order of their start or sorted by another of their values.

    Accuracies are sorted from the best on, everything else from the smallest on; runs without the value come last.

    Raises:
        UsageError: no such folder, or no run has such a value.
    """
    if not runs_dir.is_dir():
        raise UsageError(f"--runs-dir={runs_dir}: no such folder; name the one that holds the runs")
    rows = [run_row(run, info) for run, info in Run.records(runs_dir).items()]
    known = list(dict.fromkeys(name for each in rows for name in each))
    if sort == "date" or not rows:
        return rows  # Run.records has sorted them
    if sort not in known:
        raise UsageError(f"--sort={sort}: no run has it; there are {', '.join(known)}")
    having = [each for each in rows if each.get(sort) is not None]
    lacking = [each for each in rows if each.get(sort) is None]
    return sorted(having, key=lambda each: each[sort], reverse=is_accuracy(sort)) + lacking


def find_runs(names: Sequence[str], runs_dir: Path, *, at_least: int = 2) -> list[Run]:
    """The runs that are named, each once: by their folders, by `latest`, or by a folder that holds several.

    Raises:
        UsageError: a name is none of these, or they are fewer than at_least.
    """
    found: dict[Path, Run] = {}
    for name in names:
        several = [] if name == "latest" or Run(Path(name)).exists else Run.below(name)
        found |= {run.folder.resolve(): run for run in several or [Run.find(name, runs_dir)]}
    if len(found) < at_least:
        raise UsageError(f"{' '.join(names)}: names one run; two or more can be compared, or a folder that holds them")
    return list(found.values())


def differing_settings_of_runs(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """The settings in which runs differ, by their keys, with each run's value; None where it has no such setting."""
    settings = differing_settings(*(run.config for run in runs))
    return {
        key: [OmegaConf.to_container(value) if isinstance(value, ListConfig) else value for value in values]
        for key, values in settings.items()
    }
