"""List runs as rows, one for each run or for all seeds of the same settings; imports neither torch nor Hydra."""

import contextlib
import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mnist_lab.config.metric_names import IMAGES_PER_SECOND, METRIC_NAMES, is_accuracy, is_loss
from mnist_lab.config.settings import differing_settings, flatten
from mnist_lab.errors import UsageError
from mnist_lab.files import read_text
from mnist_lab.formatting import format_value, print_warning, shorten
from mnist_lab.runs.query import Condition
from mnist_lab.runs.record import RunRecord, RunState, parse_json, processor_name
from mnist_lab.runs.run import RESULTS_JSON, SWEEP_RECORD, Run, find_folder, start_timestamp
from mnist_lab.runs.trash import read_annotations

MAX_SEEDS, MAX_CELL = 6, 1000  # A longer list of seeds, or a longer text, is shortened.
WITHOUT_MEAN = ("run", "date", "model", "overrides", "status", "error", "seed", "parameters", "tags", "note")
TIMED_RUNS = 20  # An estimate of time reads at most so many runs of the network.
SPEED_SETTINGS = (
    "data.batch_size",
    "data.source.name",
    "data.source.split",
    "trainer.accelerator",
    "augmentation._target_",
)


def read_records(runs_dir: Path) -> dict[Run, RunRecord]:
    """Return the runs below a folder, with their records, in the order of their start."""
    if not runs_dir.is_dir():
        raise UsageError(f"--runs-dir={runs_dir}: folder not found; give the folder that contains the runs")
    return Run.records(runs_dir)


def select_where(records: Mapping[Run, RunRecord], where: str) -> dict[Run, RunRecord]:
    """Return the runs that fulfil a condition on the values of their rows and on their settings."""
    condition = Condition.parse(where)
    names = {comparison.name for comparison in condition.comparisons}
    rows: dict[Run, dict[str, Any]] = {}
    for run, info in records.items():
        row = run_row(run, info)
        rows[run] = {**row, "tag": row["tags"]}
        if not names <= rows[run].keys():
            try:
                rows[run] = {**flatten(run.config), **rows[run]}
            except UsageError as error:
                print_warning(f"{error}; its settings are left out")
    for name in sorted(names.difference(*rows.values())) if records else []:
        raise UsageError(f"--where={where!r}: no run has {name}; name a column of `ls --json`, or a setting")
    condition.require_fit(list(rows.values()))
    return {run: records[run] for run, values in rows.items() if condition.holds(values)}


def find_records(names: Sequence[str], runs_dir: Path) -> dict[Run, RunRecord]:
    """Find the runs with these names, each once, with their records: runs, sweeps, or folders that contain several."""
    found: dict[tuple[Path, Path | None], tuple[Run, RunRecord]] = {}
    for name in names:
        folder = find_folder(name, runs_dir)
        records = {} if name == "latest" or Run(folder).exists else Run.records(folder)
        if not records:
            run = Run.find(name, runs_dir)
            records = {run: run.info}
        found |= {(run.folder.resolve(), run.weights): (run, info) for run, info in records.items()}
    return dict(found.values())


def select_runs(runs: Sequence[Run], find_problem: Callable[[Run], str | None]) -> list[Run]:
    """Return the runs without a problem, and warn about the others; UsageError if each has one."""
    problems = {run: find_problem(run) for run in runs}
    selected = [run for run, problem in problems.items() if problem is None]
    if not selected:
        raise UsageError(f"{runs[0]}: {problems[runs[0]]}")
    for run, problem in problems.items():
        if problem is not None:
            print_warning(f"{run}: {problem}; left out")
    return selected


def checkpoint_problem(run: Run) -> str | None:
    """Return the problem of a run without a checkpoint, or None."""
    return None if run.checkpoint("best") or run.checkpoint("last") else "has no checkpoint"


def select_finished(records: Mapping[Run, RunRecord]) -> list[Run]:
    """Return the finished runs, and warn about the others."""
    others = Counter(info["status"] for info in records.values() if info["status"] != RunState.FINISHED)
    if others:
        counts = ", ".join(f"{count} {status}" for status, count in others.items())
        print_warning(f"runs that have not finished are left out: {counts}")
    return [run for run, info in records.items() if info["status"] == RunState.FINISHED]


def run_row(run: Run, info: RunRecord, *, judge: bool = False) -> dict[str, Any]:
    """Return a run's record as one row; of a sweep's jobs, only the best has test results, unless to `judge` them."""
    tested, metrics, partial = info.get("tested"), info.get("metrics", {}), info.get("partial", [])
    hidden = tuple(f"{name}/" for name in partial)  # These metrics do not measure a whole set.
    if not judge and is_unchosen(run):
        hidden = (*hidden, "test/")  # Nothing may be chosen by the test set.
    names = ("model", "overrides", "status", "error", "seed", "epochs", "parameters", IMAGES_PER_SECOND)
    return {
        "run": str(run),
        "date": info.get("started"),
        **{name: info.get(name) for name in names},
        **({"status": "partial"} if partial else {}),
        "time": info.get("seconds", {}).get("total"),
        **read_annotations(run),
        "tested_epoch": tested["epoch"] if tested else None,  # The metrics measure the weights of this epoch.
        **dict.fromkeys(METRIC_NAMES),
        **{name: value for name, value in metrics.items() if math.isfinite(value) and not name.startswith(hidden)},
    }


def is_unchosen(run: Run) -> bool:
    """Return whether a run is a job of a sweep, and not among the best by validation accuracy."""
    folder = run.folder.absolute()
    results = folder.parent / RESULTS_JSON
    modified = results.stat().st_mtime_ns if results.is_file() else 0
    return (folder.parent / SWEEP_RECORD).is_file() and folder.name not in _best_folders(results, modified)


@lru_cache  # All jobs of a sweep read the same file; its time of modification is an argument, since it may change.
def _best_folders(results: Path, modified: int) -> frozenset[str]:
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # No job has finished, or it is damaged.
        return frozenset(parse_json(read_text(results))["best"]["folders"])
    return frozenset()


def sort_rows(rows: list[dict[str, Any]], sort: str) -> list[dict[str, Any]]:
    """Sort rows, which have the order of their dates, by a column: the highest accuracy or least value first."""
    known = dict.fromkeys(name for row in rows for name in row)
    if sort == "date" or not rows:
        return rows
    if sort not in known:
        raise UsageError(f"--sort={sort}: no run has it; choose from {', '.join(known)}")
    with_value = [row for row in rows if row.get(sort) is not None]
    with_value.sort(key=lambda row: row[sort], reverse=is_accuracy(sort))
    return with_value + [row for row in rows if row.get(sort) is None]


def compare_settings(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return the settings in which runs differ, by key, with each run's value; None where it has no such setting."""
    return differing_settings(*(run.config for run in runs))


def group_runs(runs: Sequence[Run], settings: Mapping[str, Sequence[Any]]) -> list[list[Run]]:
    """Group runs that differ only in their seed; `settings` has each key in which they differ, with all values."""
    groups: dict[tuple[int, ...], list[Run]] = {}
    for i, run in enumerate(runs):
        # Values may be lists, which no key can have, so the place of the first equal value stands for each.
        places = tuple(values.index(values[i]) for key, values in settings.items() if key != "seed")
        groups.setdefault(places, []).append(run)
    return list(groups.values())


def group_row(runs: Mapping[Run, RunRecord], *, judge: bool = False) -> dict[str, Any]:
    """Return runs that differ only in their seed as one row: means, and sample standard deviations as NAME_std."""
    by_start = sorted(runs.items(), key=lambda item: start_timestamp(item[1]))
    # Of the runs with the same seed, only the latest counts: a repetition adds no information.
    latest = {info["seed"]: run_row(run, info, judge=judge) for run, info in by_start}
    rows = [latest[seed] for seed in sorted(latest, key=lambda seed: seed or 0)]
    last = run_row(*by_start[-1])
    grouped: dict[str, Any] = {
        "runs": [row["run"] for row in rows],
        **{name: last[name] for name in ("date", "model", "parameters")},
        "overrides": [override for override in last["overrides"] if not override.startswith("seed=")],
        "n": len(rows),
        "seeds": [row["seed"] for row in rows],
    }
    for name in dict.fromkeys(name for row in rows for name in row if name not in WITHOUT_MEAN):
        values = [row[name] for row in rows if row.get(name) is not None]
        is_complete = len(values) == len(rows)
        grouped[name] = statistics.mean(values) if is_complete else None
        grouped[f"{name}_std"] = statistics.stdev(values) if is_complete and len(values) > 1 else None
    return grouped


def group_rows(records: Mapping[Run, RunRecord]) -> list[dict[str, Any]]:
    """Return a row for each group of finished runs that differ only in their seed, by the start of its latest run."""
    configs: dict[Run, DictConfig] = {}
    for run in select_finished(records):
        try:
            configs[run] = run.config
        except UsageError as error:
            print_warning(f"{error}; left out")
    groups = group_runs(list(configs), differing_settings(*configs.values()))
    rows = [group_row({run: records[run] for run in group}) for group in groups]
    return sorted(rows, key=lambda row: start_timestamp({"started": row["date"]}))


def format_cell(name: str, value: Any) -> str:
    """Format a value of a run for display, "-" if it is missing."""
    if value is None:
        return "-"
    if is_accuracy(name):
        return f"{value:.2%}"
    if is_loss(name):
        return f"{value:.4f}"
    if name in ("parameters", IMAGES_PER_SECOND):
        return f"{value:,.0f}"
    if name in ("epochs", "tested_epoch"):
        return f"{value:.1f}".removesuffix(".0")  # A mean of epochs may have many digits.
    if name == "seeds" and len(value) > MAX_SEEDS:
        return f"{value[0]} {value[1]} ... {value[-1]}"
    if name == "time":
        return f"{value:.1f} s"
    return shorten(" ".join(map(str, value)) if isinstance(value, list) else format_value(value), MAX_CELL)


def describe_settings(settings: Mapping[str, Any]) -> str:
    """Describe a run by its values of settings."""
    return ", ".join(f"{key}={format_cell(key, value)}" for key, value in settings.items() if value is not None)


def row_cell(row: Mapping[str, Any], name: str) -> str:
    """Format a value of a row for display; for several runs, as the mean ± the standard deviation."""
    std = row.get(f"{name}_std")
    spread = "" if std is None else f" ± {format_cell(name, std).rstrip('% s')}"
    return format_cell(name, row.get(name)) + spread


def seconds_an_epoch(cfg: DictConfig, runs_dir: Path) -> float | None:
    """Return the median seconds of an epoch in earlier runs like this one; None without such runs."""
    identity = (RunState.FINISHED, cfg.name, processor_name())
    settings = [OmegaConf.select(cfg, key) for key in SPEED_SETTINGS]
    records = Run.records(runs_dir)
    alike = [
        run for run, info in records.items() if (info["status"], info.get("model"), info.get("processor")) == identity
    ]
    seconds: list[float] = []
    for run in alike[-TIMED_RUNS:]:
        with contextlib.suppress(UsageError, LookupError, ZeroDivisionError):  # config.yaml or run.json is damaged.
            config = run.config
            if [OmegaConf.select(config, key) for key in SPEED_SETTINGS] == settings:
                seconds.append(records[run]["seconds"]["fit"] / records[run]["epochs"])
    return statistics.median(seconds) if seconds else None
