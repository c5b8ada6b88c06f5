"""Rank the jobs of a sweep, and write results.csv and results.json."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mnist_lab.config.compose import config_options
from mnist_lab.config.metric_names import TEST_ACC, VAL_ACC, VAL_LOSS, in_words
from mnist_lab.config.overrides import override_key, override_values, without_keys
from mnist_lab.config.settings import short_names
from mnist_lab.files import write_text
from mnist_lab.formatting import format_accuracy, format_command
from mnist_lab.runs.record import RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job, Sweep
from mnist_lab.tables import csv_text, table_lines


@dataclass(frozen=True)
class Results:
    """The jobs of a sweep and their ranking.

    Attributes:
        sweep: the sweep.
        jobs: all its jobs.
        ranked: the finished jobs by `metric`, the best first, and by validation loss where that is equal. Jobs that
            differ only in their seeds are one entry. A job that measured only part of a set is left out if another one
            measured all.
        metric: val/acc, or val/balanced_acc if callbacks.best.monitor is that.
    """

    sweep: Sweep
    jobs: list[Job]
    ranked: list[list[Job]]
    metric: str = VAL_ACC

    @classmethod
    def of(cls, sweep: Sweep) -> Results:
        """Read the current results from the sweep's folder."""
        jobs, metric = sweep.jobs(), sweep.metric
        measured = [job for job in jobs if job.state == RunState.FINISHED and _is_measured(job, metric)]
        groups: dict[tuple[str, ...], list[Job]] = {}
        for job in [job for job in measured if not job.info.get("partial")] or measured:
            groups.setdefault(tuple(without_keys(job.overrides, "seed")), []).append(job)
        ranked = sorted(groups.values(), key=lambda group: merit(group, metric), reverse=True)
        return cls(sweep, jobs, ranked, metric)

    @cached_property
    def varied(self) -> list[str]:
        """The keys in which the jobs differ, in the order of their overrides."""
        by_key = [{override_key(override): override for override in job.overrides} for job in self.jobs]
        keys = dict.fromkeys(key for overrides in by_key for key in overrides)
        return [key for key in keys if len({overrides.get(key) for overrides in by_key}) > 1]

    @cached_property
    def heads(self) -> dict[str, str]:
        """The column heads of the keys in which the jobs differ: their last parts if unique, else the whole keys."""
        return short_names(self.varied)

    def settings(self, job: Job) -> dict[str, str]:
        """Return a job's values of the keys in which the jobs differ, as text."""
        values = override_values(job.overrides)
        return {key: values.get(key, str(job.info.get(key, ""))) for key in self.varied}  # The record has the seed.

    @cached_property
    def ranks(self) -> dict[str, int]:
        """The ranks of the jobs, by their ids."""
        return {job.id: number for number, group in enumerate(self.ranked, 1) for job in group}

    @property
    def winner(self) -> list[Job]:
        """The jobs of the best settings; only their test accuracy is shown, so that nothing is chosen by it."""
        return self.ranked[0] if self.ranked else []

    @property
    def best_job(self) -> Job | None:
        """The best job of the winner, by `metric`."""
        return max(self.winner, key=lambda job: merit([job], self.metric), default=None)

    @property
    def command(self) -> str | None:
        """The command that trains the best settings again, with all their seeds; None without a winner."""
        if not self.winner:
            return None
        first = self.winner[0]
        options = config_options(first.info["config_dir"], first.info["config_name"])
        if len(self.winner) == 1:
            return format_command([*options, *first.overrides])
        seeds = ",".join(str(job.info["seed"]) for job in self.winner)
        return format_command(["-m", *options, *without_keys(first.overrides, "seed"), f"seed={seeds}"])

    def row(self, job: Job) -> dict[str, Any]:
        """Return a job's row of results.csv."""
        info, rank = job.info, self.ranks.get(job.id)
        metrics = info.get("metrics", {})
        return {
            "rank": rank,
            **self.settings(job),
            "state": job.state,
            **{name: metrics.get(name) for name in dict.fromkeys([self.metric, VAL_ACC])},
            VAL_LOSS: metrics.get(VAL_LOSS),
            TEST_ACC: metrics.get(TEST_ACC) if rank == 1 else None,
            "epochs": info.get("epochs"),
            "seconds": info.get("seconds", {}).get("total"),
            "attempts": job.attempts,
            "error": job.error,
            "folder": job.folder.name if job.folder.is_dir() else None,
        }

    def entry(self, group: list[Job]) -> dict[str, Any]:
        """Return a ranked group's entry of results.json; only the best group has its accuracy on the test set."""
        entry = {
            "settings": {key: value for key, value in self.settings(group[0]).items() if key != "seed"},
            "jobs": len(group),
            self.metric: spread(group, self.metric),
            "seconds": statistics.fmean(job.info["seconds"].get("total", 0.0) for job in group),
            "folders": [job.folder.name for job in group],
        }
        return {**entry, TEST_ACC: spread(group, TEST_ACC)} if group == self.winner else entry

    def write(self) -> None:
        """Write results.csv and results.json."""
        rows = [self.row(job) for job in self.jobs]
        write_text(self.sweep.results_csv, csv_text(sorted(rows, key=lambda row: row["rank"] or len(rows) + 1)))
        content = {
            "sweep": self.sweep.folder.name,
            "command": self.sweep.record["command"],
            "best": {**self.entry(self.winner), "command": self.command} if self.winner else None,
            "ranked": [self.entry(group) for group in self.ranked],
            "jobs": [row | {"overrides": job.overrides} for row, job in zip(rows, self.jobs, strict=True)],
        }
        write_text(self.sweep.results_json, json.dumps(content, indent=1) + "\n")

    def table(self, limit: int = 20) -> list[str]:
        """Return the lines of a table of the ranking, with the id of each job."""
        keys = [key for key in self.varied if key != "seed"]
        partial = ", of part of the images" * any(job.info.get("partial") for job in self.winner)
        by = f", by {in_words(self.metric)}" * (self.metric != VAL_ACC)
        heads, rows = ["", *(self.heads[key] for key in keys)], []
        for number, group in enumerate(self.ranked[:limit], 1):
            entry = self.entry(group)
            values = [entry["settings"][key] for key in keys]
            jobs = group[0].id if len(group) == 1 else f"{len(group)} seeds"
            accuracy = format_accuracy(**entry[self.metric])
            rows.append([str(number), *values, accuracy, f"{entry['seconds']:.1f} s", jobs])
        left = [*heads, "jobs"]
        table = table_lines([*heads, "validation", "time", "jobs"], rows, left, drop=("time", "jobs"))
        return [f"sweep {self.sweep.folder.name}{by}{partial}", *table]


def _is_measured(job: Job, metric: str) -> bool:
    """Return whether a job has the accuracies that a ranked job needs."""
    metrics = job.info.get("metrics", {})
    return all(math.isfinite(metrics.get(name, math.nan)) for name in (metric, TEST_ACC))


def mean(group: Sequence[Job | Run], metric: str) -> float:
    """Return the mean of a metric over jobs or runs."""
    return statistics.fmean(job.info["metrics"][metric] for job in group)


def merit(group: Sequence[Job | Run], metric: str) -> tuple[float, float]:
    """Return the key that ranks jobs or runs, the greatest first: their mean of the metric, then the lower loss."""
    return mean(group, metric), -statistics.fmean(job.info["metrics"].get(VAL_LOSS, 0.0) for job in group)


def spread(group: list[Job], metric: str) -> dict[str, Any]:
    """Return the mean and the standard deviation of an accuracy over jobs; one job has no deviation."""
    values = [job.info["metrics"][metric] for job in group]
    return {"mean": mean(group, metric), "std": statistics.stdev(values) if len(values) > 1 else None}


def describe_job(results: Results, job: Job) -> str:
    """Describe a job by the settings in which the jobs differ."""
    return " ".join(f"{key}={value}" for key, value in results.settings(job).items() if value) or job.folder.name
