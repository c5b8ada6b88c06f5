"""Summarise the runs of `reproduce`: the presets over several seeds beside their tutorials' published figures."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from omegaconf import OmegaConf

from mnist_lab.config.compose import compose
from mnist_lab.config.metric_names import METRIC_NAMES, TEST_ACC, is_accuracy
from mnist_lab.config.presets import preset_names
from mnist_lab.config.settings import format_differences
from mnist_lab.runs.record import RunRecord, RunState
from mnist_lab.runs.run import Run

TOLERANCE = 0.3  # points; a mean test accuracy at most so far below the published one has reached it
# Accuracies are in per cent.
FACTORS = {name: 100 if is_accuracy(name) else 1 for name in METRIC_NAMES}


class Difference(TypedDict):
    """A difference in points, and the epoch."""

    epoch: int
    difference: float


class AccuracySummary(TypedDict):
    """The test accuracy after the last epoch over the seeds, in per cent, beside the published one."""

    published: float | None
    mean: float
    std: float | None
    min: float
    max: float
    difference: float | None
    verdict: str
    largest_difference: Difference | None


class PresetSummary(TypedDict):
    """A preset's runs beside the published figures, as results.json contains them.

    A curve is a list by epoch, 0 being before training, of lists by seed.
    """

    command: str
    changed: list[str]
    title: str | None
    source: str | None
    explained_by: str | None
    disagreements: list[str] | None
    published: dict[str, list[float | None]]
    epochs: int
    seeds: list[int]
    test_acc: AccuracySummary
    curves: dict[str, list[list[float]]]
    seconds: dict[str, float]
    device: str
    processor: str
    versions: dict[str, str]
    commits: str


def finished_runs(runs_dir: Path) -> dict[str, list[Run]]:
    """Return the finished runs below runs_dir by preset, each preset's in the order of the seeds."""
    found: dict[str, list[Run]] = {}
    for run in filter(lambda run: run.exists, map(Run, runs_dir.glob("*-seed*"))):
        name = run.folder.name.rsplit("-seed", 1)[0]
        if run.info["status"] == RunState.FINISHED and name in preset_names(run.info["config_dir"]):
            found.setdefault(name, []).append(run)
    return {name: sorted(found[name], key=lambda run: run.info["seed"] or 0) for name in sorted(found)}


def has_tutorial(name: str, config_dir: str | None) -> bool:
    """Return whether a preset is a tutorial's."""
    return compose(f"experiment={name}", config_dir=config_dir).get("tutorial") is not None


def summarise(name: str, runs: list[Run]) -> PresetSummary:
    """Summarise a preset's finished runs."""
    infos = [run.info for run in runs]
    preset = compose(f"experiment={name}", config_dir=infos[0]["config_dir"])
    tutorial: dict[str, Any] = OmegaConf.to_container(preset.tutorial)  # type: ignore[assignment]
    published = {metric: y for metric, y in (tutorial.get("published") or {}).items() if metric in FACTORS}
    epochs = max(info["epochs"] for info in infos)
    curves = {}
    for metric, factor in FACTORS.items():
        by_seed = [run.curve(metric) for run in runs]
        curves[metric] = [
            [round(factor * curve[epoch], 6) for curve in by_seed if epoch in curve] for epoch in range(epochs + 1)
        ]
    accuracies = [round(100 * info["metrics"][TEST_ACC], 6) for info in infos]
    mean, target = statistics.fmean(accuracies), (published.get(TEST_ACC) or [None])[-1]
    changed = changed_settings(name, runs)
    if target is None or changed:
        reason = ", ".join(changed) or "nothing was published"
        difference, verdict = None, f"not compared: {reason}"
    else:
        difference = round(mean - target, 6)
        verdict = "reached" if difference >= -TOLERANCE else f"missed by {-TOLERANCE - difference:.2f}"
    seconds = [info["seconds"]["total"] for info in infos]
    return {
        "command": f"python -m mnist_lab experiment={name}",
        "changed": changed,
        "title": tutorial.get("title"),
        "source": tutorial.get("source"),
        "explained_by": tutorial.get("explained_by"),
        "disagreements": tutorial.get("disagreements"),
        "published": published,
        "epochs": epochs,
        "seeds": [info["seed"] or 0 for info in infos],
        "test_acc": {
            "published": target,
            "mean": round(mean, 6),
            "std": round(statistics.stdev(accuracies), 6) if len(accuracies) > 1 else None,
            "min": min(accuracies),
            "max": max(accuracies),
            "difference": difference,
            "verdict": verdict,
            "largest_difference": None if difference is None else _largest_difference(published, curves),
        },
        "curves": curves,
        "seconds": {"mean": statistics.fmean(seconds), "min": min(seconds), "max": max(seconds)},
        "device": join_unique(info["device"] for info in infos),
        "processor": join_unique(info["processor"] for info in infos),
        "versions": {key: join_unique(info["versions"].get(key) for info in infos) for key in infos[0]["versions"]},
        "commits": join_unique(commit_of(info) for info in infos),
    }


def _largest_difference(
    published: dict[str, list[float | None]], curves: dict[str, list[list[float]]]
) -> Difference | None:
    """Return the largest difference of the mean test accuracy from the published curve from epoch 3 on, if known."""
    pairs = enumerate(zip(published[TEST_ACC], curves[TEST_ACC], strict=False))
    differences = {
        epoch: statistics.fmean(here) - there
        for epoch, (there, here) in pairs
        if here and there is not None and epoch >= 3
    }
    if len(differences) < 3:
        return None
    epoch = max(differences, key=lambda epoch: abs(differences[epoch]))
    return {"epoch": epoch, "difference": round(differences[epoch], 6)}


def changed_settings(name: str, runs: Sequence[Run]) -> list[str]:
    """Return the settings in which runs differ from their preset."""
    preset = compose(f"experiment={name}", config_dir=runs[0].info["config_dir"])
    found: dict[str, None] = {}
    for run in runs:
        ours = format_differences(preset, run.config)
        found |= dict.fromkeys(f"{key}={now}" for key, (_, now) in ours.items() if key != "seed")
    return list(found)


def commit_of(info: RunRecord) -> str:
    """Return the commit that a run was made with, and whether files were changed."""
    git = info["git"] or {"commit": "unknown", "changed": False}
    return str(git["commit"])[:12] + (" and changes" if git["changed"] else "")


def join_unique(values: Iterable[Any]) -> str:
    """Join the distinct values with commas."""
    return ", ".join(dict.fromkeys(map(str, values)))
