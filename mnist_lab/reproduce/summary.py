"""What the runs of `reproduce` come to: the presets over several seeds, beside what their tutorials published."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mnist_lab.config.compose import compose, presets
from mnist_lab.config.settings import format_differences
from mnist_lab.runs.run import Run

TOLERANCE = 0.3  # points by which a mean test accuracy may fall short of the published one and still have reached it
# To the unit of the table, accuracies being per cent.
FACTORS = {f"{kind}/{name}": by for kind in ("train", "val", "test") for name, by in (("loss", 1), ("acc", 100))}


def summarise(runs_dir: Path) -> dict[str, Any]:
    """By preset, its curves and final figures over the seeds, the published ones, times, machine and versions.

    Accuracies are in per cent. A curve is a list by epochs done, 0 being before training, of lists by seed.
    """
    found: dict[str, list[Run]] = {}
    for path in runs_dir.glob("*-seed*/run.json"):
        run = Run(path.parent)
        name = run.folder.name.rsplit("-seed", 1)[0]
        if run.info["status"] == "finished" and name in presets(run.info["config_dir"]):
            found.setdefault(name, []).append(run)
    return {
        name: _row(name, sorted(runs, key=lambda run: int(run.info["seed"]))) for name, runs in sorted(found.items())
    }


def _row(name: str, runs: list[Run]) -> dict[str, Any]:
    infos = [run.info for run in runs]
    preset = compose(f"experiment={name}", config_dir=infos[0]["config_dir"])
    tutorial: dict[str, Any] = OmegaConf.to_container(preset.tutorial or OmegaConf.create({}))  # type: ignore[assignment]
    published = {metric: y for metric, y in (tutorial.get("published") or {}).items() if metric in FACTORS}
    epochs = max(info["epochs"] for info in infos)
    curves = {}
    for metric, factor in FACTORS.items():
        by_seed = [run.curve(metric) for run in runs]
        curves[metric] = [
            [round(factor * curve[epoch], 6) for curve in by_seed if epoch in curve] for epoch in range(epochs + 1)
        ]
    accuracies = [round(100 * info["metrics"]["test/acc"], 6) for info in infos]
    mean, target = statistics.fmean(accuracies), (published.get("test/acc") or [None])[-1]
    changed = _changed(preset, runs)
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
        **{key: tutorial.get(key) for key in ("title", "source", "explained_by", "disagreements")},
        "published": published,
        "epochs": epochs,
        "seeds": [info["seed"] for info in infos],
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
        **{key: join_unique(info[key] for info in infos) for key in ("device", "processor")},
        "versions": {key: join_unique(info["versions"].get(key) for info in infos) for key in infos[0]["versions"]},
        "commits": join_unique(_commit(info) for info in infos),
    }


def _largest_difference(
    published: dict[str, list[float | None]], curves: dict[str, list[list[float]]]
) -> dict[str, float] | None:
    """Where, from epoch 3 on, the mean test accuracy is farthest from the published curve, if there is one."""
    pairs = enumerate(zip(published["test/acc"], curves["test/acc"], strict=False))
    far = {e: statistics.fmean(here) - there for e, (there, here) in pairs if here and there is not None and e >= 3}
    if len(far) < 3:
        return None
    epoch = max(far, key=lambda e: abs(far[e]))
    return {"epoch": epoch, "difference": round(far[epoch], 6)}


def _changed(preset: DictConfig, runs: list[Run]) -> list[str]:
    """The settings in which the runs depart from their preset."""
    found: dict[str, None] = {}
    for run in runs:
        ours = format_differences(preset, run.config)
        found |= dict.fromkeys(f"{key}={now}" for key, (_, now) in ours.items() if key != "seed")
    return list(found)


def _commit(info: dict[str, Any]) -> str:
    git = info["git"] or {"commit": "unknown", "changed": False}
    return str(git["commit"])[:12] + (" and changes" if git["changed"] else "")


def join_unique(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))
