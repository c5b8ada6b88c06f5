"""List runs as rows for `ls` and `compare`: single runs, groups that differ in their seed alone, what runs took.

Imports neither torch nor Hydra.
"""

import contextlib
import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from mnist_lab.config.metric_names import IMAGES_PER_SECOND, METRIC_NAMES, is_accuracy, is_loss
from mnist_lab.config.settings import differing_settings, flatten
from mnist_lab.errors import UsageError
from mnist_lab.files import read_text
from mnist_lab.formatting import format_value, print_warning, shorten
from mnist_lab.runs.query import Condition
from mnist_lab.runs.record import RunRecord, RunState, parse_json, processor_name
from mnist_lab.runs.run import RESULTS_JSON, SWEEP_RECORD, Run, start_timestamp
from mnist_lab.runs.trash import read_annotations

MAX_SEEDS, MAX_CELL = 6, 1000  # A longer list of seeds, or a longer text, is shortened.
WITHOUT_MEAN = ("run", "date", "model", "overrides", "status", "error", "seed", "parameters", "tags", "note")
TIMED_RUNS = 20  # An estimate reads as many runs of the network at most.
SPEED_SETTINGS = ("data.batch_size", "data.source.name", "trainer.accelerator", "augmentation._target_")


def read_records(runs_dir: Path, where: str | None = None) -> dict[Run, RunRecord]:
    """Return the runs below a folder that fulfil a condition with their records, in the order of their start."""
    if not runs_dir.is_dir():
        raise UsageError(f"--runs-dir={runs_dir}: folder not found; give the folder that contains the runs")
    records = Run.records(runs_dir)
    return records if where is None else select_where(records, where)


def select_where(records: Mapping[Run, RunRecord], where: str) -> dict[Run, RunRecord]:
    """Return the runs that fulfil a condition on the values of their rows and on their settings."""
    condition = Condition.parse(where)
    names = {each.name for each in condition.comparisons}
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


def find_runs(names: Sequence[str], runs_dir: Path, *, at_least: int = 1) -> list[Run]:
    """Find the runs that names mean, each once: run folders, `latest`, or folders that contain several runs."""
    found: dict[Path, Run] = {}
    for name in names:
        several = [] if name == "latest" or Run(Path(name)).exists else Run.below(name)
        found |= {run.folder.resolve(): run for run in several or [Run.find(name, runs_dir)]}
    if len(found) < at_least:
        raise UsageError(f"{' '.join(names)}: names one run; give two or more, or a folder that holds them")
    return list(found.values())


def select_runs(found: Sequence[Run], problem: Callable[[Run], str | None]) -> list[Run]:
    """Return the runs without a problem, and warn about the others; UsageError if each has one."""
    problems = {run: words for run in found if (words := problem(run)) is not None}
    if len(problems) == len(found):
        raise UsageError(f"{found[0]}: {problems[found[0]]}")
    for run, words in problems.items():
        print_warning(f"{run}: {words}; left out")
    return [run for run in found if run not in problems]


def checkpoint_problem(run: Run) -> str | None:
    """Return the problem of a run without a checkpoint."""
    return None if run.checkpoint("best") or run.checkpoint("last") else "has no checkpoint"


def select_finished(records: Mapping[Run, RunRecord]) -> list[Run]:
    """Return the finished runs, and warn of the others."""
    others = Counter(info["status"] for info in records.values() if info["status"] != RunState.FINISHED)
    if others:
        counts = ", ".join(f"{count} {status}" for status, count in others.items())
        print_warning(f"runs that have not finished are left out: {counts}")
    return [run for run, info in records.items() if info["status"] == RunState.FINISHED]


def run_row(run: Run, info: RunRecord, *, judge: bool = False) -> dict[str, Any]:
    """Return a run's record as one row; of a sweep's jobs only the best have test results, unless to `judge` them."""
    tested, metrics, partial = info.get("tested"), info.get("metrics", {}), info.get("partial", [])
    hidden = tuple(f"{kind}/" for kind in partial)  # They do not measure whole sets.
    if not judge and is_unchosen(run):
        hidden = (*hidden, "test/")  # The test set chooses nothing.
    names = ("model", "overrides", "status", "error", "seed", "epochs", "parameters", IMAGES_PER_SECOND)
    return {
        "run": str(run),
        "date": info.get("started"),
        **{name: info.get(name) for name in names},
        **({"status": "partial"} if partial else {}),
        "time": info.get("seconds", {}).get("total"),
        **read_annotations(run),
        "tested_epoch": tested["epoch"] if tested else None,  # The metrics are those of its weights.
        **dict.fromkeys(METRIC_NAMES),
        **{name: value for name, value in metrics.items() if math.isfinite(value) and not name.startswith(hidden)},
    }


def is_unchosen(run: Run) -> bool:
    """Return whether a run is a job of a sweep, and not of the best by validation accuracy."""
    folder = run.folder.absolute()
    results = folder.parent / RESULTS_JSON
    modified = results.stat().st_mtime_ns if results.is_file() else 0
    return (folder.parent / SWEEP_RECORD).is_file() and folder.name not in _best_folders(results, modified)


@lru_cache
def _best_folders(results: Path, modified: int) -> frozenset[str]:
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # No job has finished, or it is damaged.
        return frozenset(parse_json(read_text(results))["best"]["folders"])
    return frozenset()


def sort_rows(rows: list[dict[str, Any]], sort: str) -> list[dict[str, Any]]:
    """Return rows in the order of their dates sorted by a column: the best accuracy or least value first, None last."""
    known = dict.fromkeys(name for each in rows for name in each)
    if sort == "date" or not rows:
        return rows
    if sort not in known:
        raise UsageError(f"--sort={sort}: no run has it; choose from {', '.join(known)}")
    having = [each for each in rows if each.get(sort) is not None]
    having.sort(key=lambda each: each[sort], reverse=is_accuracy(sort))
    return having + [each for each in rows if each.get(sort) is None]


def compare_settings(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return the settings in which runs differ, by key, with each run's value; None where it has no such setting."""
    settings = differing_settings(*(run.config for run in runs))
    return {
        key: [OmegaConf.to_container(value) if isinstance(value, ListConfig) else value for value in values]
        for key, values in settings.items()
    }


def group_runs(runs: Sequence[Run], settings: Mapping[str, Sequence[Any]]) -> list[list[Run]]:
    """Group runs that differ in their seed alone, by the settings in which they differ, with each run's value."""
    groups: list[tuple[list[Any], list[Run]]] = []
    for i, run in enumerate(runs):
        own = [values[i] for key, values in settings.items() if key != "seed"]
        group = next((members for shared, members in groups if shared == own), None)
        if group is None:
            groups.append((own, group := []))
        group.append(run)
    return [group for _, group in groups]


def group_row(runs: Mapping[Run, RunRecord], *, judge: bool = False) -> dict[str, Any]:
    """Return runs that differ in their seed alone as one row: means, and sample standard deviations as NAME_std."""
    by_start = sorted(runs.items(), key=lambda item: start_timestamp(item[1]))
    # Of runs with the same seed only the latest counts: a repetition says nothing new.
    latest = {info["seed"]: run_row(run, info, judge=judge) for run, info in by_start}
    rows = [latest[seed] for seed in sorted(latest, key=lambda seed: seed or 0)]
    last = run_row(*by_start[-1])
    row: dict[str, Any] = {
        "runs": [each["run"] for each in rows],
        **{name: last[name] for name in ("date", "model", "parameters")},
        "overrides": [override for override in last["overrides"] if not override.startswith("seed=")],
        "n": len(rows),
        "seeds": [each["seed"] for each in rows],
    }
    for name in dict.fromkeys(name for each in rows for name in each if name not in WITHOUT_MEAN):
        values = [each[name] for each in rows if each.get(name) is not None]
        whole = len(values) == len(rows)
        row[name] = statistics.mean(values) if whole else None
        row[f"{name}_std"] = statistics.stdev(values) if whole and len(values) > 1 else None
    return row


def group_rows(records: Mapping[Run, RunRecord]) -> list[dict[str, Any]]:
    """Return a row for each group of finished runs that differ in their seed alone, by the start of its latest run."""
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
        return f"{value:.1f}".removesuffix(".0")  # A mean may have many digits.
    if name == "seeds" and len(value) > MAX_SEEDS:
        return f"{value[0]} {value[1]} ... {value[-1]}"
    if name == "time":
        return f"{value:.1f} s"
    return shorten(" ".join(map(str, value)) if isinstance(value, list) else format_value(value), MAX_CELL)


def describe_settings(settings: Mapping[str, Any]) -> str:
    """Describe a run by its values of settings."""
    return ", ".join(f"{key}={format_cell(key, value)}" for key, value in settings.items() if value is not None)


def row_cell(row: Mapping[str, Any], name: str) -> str:
    """Format a value of a row for display; in the row of several runs, the mean ± the standard deviation."""
    std = row.get(f"{name}_std")
    spread = "" if std is None else f" ± {format_cell(name, std).rstrip('% s')}"
    return format_cell(name, row.get(name)) + spread


def seconds_an_epoch(cfg: DictConfig, runs_dir: Path) -> float | None:
    """Return the median seconds of an epoch in earlier runs like this one; None without any."""
    here = (RunState.FINISHED, cfg.name, processor_name())
    wanted = [OmegaConf.select(cfg, key) for key in SPEED_SETTINGS]
    records = Run.records(runs_dir) if runs_dir.is_dir() else {}
    like = [run for run, info in records.items() if (info["status"], info.get("model"), info.get("processor")) == here]
    found: list[float] = []
    for run in like[-TIMED_RUNS:]:
        with contextlib.suppress(UsageError, LookupError, ZeroDivisionError):  # config.yaml or run.json is damaged.
            config = run.config
            if [OmegaConf.select(config, key) for key in SPEED_SETTINGS] == wanted:
                found.append(records[run]["seconds"]["fit"] / records[run]["epochs"])
    return statistics.median(found) if found else None
