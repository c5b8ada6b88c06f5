"""What the page of a run shows."""

from __future__ import annotations

import re
import statistics
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mnist_lab.config.compose import compose
from mnist_lab.config.settings import differing_settings
from mnist_lab.errors import UsageError
from mnist_lab.export.model_card import describe_preset
from mnist_lab.formatting import format_cell, format_command, format_date, format_duration, format_value
from mnist_lab.metric_names import IMAGES_PER_SECOND, METRIC_NAMES, TEST_ACC, VAL_ACC
from mnist_lab.report.charts import by_epoch
from mnist_lab.report.test_set import on_test_set
from mnist_lab.runs.record import RunRecord
from mnist_lab.runs.run import Run
from mnist_lab.runs.state import RunState
from mnist_lab.runs.sweep import Sweep

NONE = "–"


def run_page(run: Run) -> dict[str, Any]:
    """The values of run.html.j2, of a run in any state.

    Raises:
        LabError: the test set cannot be had, the network cannot be made, or the folder's files cannot be read.
    """
    info, config, rows = run.info, run.config, run.epochs()
    needed = ("model", "parameters", "seed", "started", "max_epochs", "command")
    missing = [name for name in needed if info.get(name) is None]
    if missing:
        raise UsageError(f"{run.record_path}: lacks {', '.join(missing)}")
    tested, untested = on_test_set(run, config)
    accuracy = info["metrics"].get(TEST_ACC) if info["status"] == RunState.FINISHED else None
    if accuracy is None and tested:
        accuracy = tested["accuracy"]
    epochs = f"{len(rows)} of {info['max_epochs']}"
    data_set = OmegaConf.select(config, "data.source.name") or "data of one's own"
    return {
        "kicker": "A run of mnist_lab",
        "title": f"{info['model']} on {data_set}",
        "status": info["status"],
        "status_words": info["status"],
        "subtitle": f"{format_date(info['started'])}, {run}",
        "trouble": trouble(run, info, epochs),
        "tiles": tiles(info, rows, accuracy, tested, epochs),
        "settings": settings(info, config, run),
        "differences": differences(config),
        "config": run.config_path.read_text(encoding="utf-8"),
        "charts": [chart for name in ("acc", "loss") if (chart := by_epoch(run, name))],
        "tutorial": describe_preset(run) if run.tutorial.get("published") else None,
        **epoch_table(run),
        "kind": "digit" if data_set == "MNIST" else "class",
        "tested": tested,
        "untested": untested,
        "timing": timing(info, rows, epochs),
        "environment": environment(info),
        "commands_again": commands_again(run, info),
    }


def trouble(run: Run, info: RunRecord, epochs: str) -> list[str]:
    """What is to be said of a run that has not come to its end."""
    what = {
        RunState.RUNNING: "This run was under way when the page was made.",
        RunState.KILLED: "This run was killed: its process ended without a word.",
        RunState.INTERRUPTED: f"This run was interrupted: {info['error']}.",
        RunState.FAILED: f"This run failed: {info['error']}",
    }.get(info["status"])
    if what is None:
        return []
    log = run.log_path
    where = (
        f" Its traceback is in {log.name} in the run folder."
        if info["status"] == RunState.FAILED and log.exists()
        else ""
    )
    return [what, f"Epochs done: {epochs}. Below is what there is of it.{where}"]


def tiles(
    info: RunRecord,
    rows: list[dict[str, float]],
    accuracy: float | None,
    tested: dict[str, Any] | None,
    epochs: str,
) -> list[tuple[str, str, str]]:
    """The figures that a reader looks for first: name, value, note."""
    note = tested["note"] if tested else "as the run recorded it" if accuracy is not None else "not tested"
    found = [("test accuracy", "none" if accuracy is None else f"{accuracy:.2%}", note)]
    if tested:
        found.append(("wrong", f"{tested['wrong']:,}", f"of {tested['images']:,} test images"))
    metrics = info["metrics"] if info["status"] == RunState.FINISHED else rows[-1] if rows else {}
    if VAL_ACC in metrics:
        done = info["tested"] if info["status"] == RunState.FINISHED else None
        words = f"in epoch {done['epoch']}, the one tested" if done else "of the images set apart"
        found.append(("validation accuracy", f"{metrics[VAL_ACC]:.2%}", words))
    if tested:
        found.append(("calibration error", tested["calibration_error"], "expected, 0 is best"))
    found.append(("parameters", f"{info['parameters']:,}", info["model"]))
    if info["seconds"].get("total"):
        found.append(("time", format_duration(info["seconds"]["total"]), f"{epochs} epochs"))
    return found


def told(name: str, value: float | None) -> str:
    """A metric as it is shown."""
    return NONE if value is None else format_cell(name, value)


def made(node: DictConfig | None) -> str:
    """An optimizer or the like in a line: its class, and what it is made with."""
    if not node or "_target_" not in node:
        return "none"
    values = [f"{key}={format_value(node[key])}" for key in map(str, node) if not key.startswith("_")]
    return " ".join([str(node["_target_"]).rsplit(".", 1)[-1], *values])


def settings(info: RunRecord, config: DictConfig, run: Run) -> list[tuple[str, str]]:
    """The settings that a result hangs on most."""
    data, trainer = config.data, config.trainer
    found = [
        ("network", f"{info['model']}, {info['parameters']:,} parameters"),
        ("data set", OmegaConf.select(data, "source.name") or NONE),
        ("images kept for validation", f"{data.val_size:,}" if data.get("val_size") else "none"),
        ("batch size", format_value(data.get("batch_size"))),
        ("optimizer", made(config.optimizer)),
        ("scheduler", made(config.scheduler)),
        ("augmentation", made(config.augmentation)),
        ("epochs", format_value(trainer.max_epochs)),
        ("precision", format_value(trainer.get("precision"))),
        ("seed", format_value(config.seed)),
    ]
    return [*found, ("settings of", describe_preset(run))] if run.tutorial else found


def differences(config: DictConfig) -> list[tuple[str, str, str]]:
    """The settings in which a configuration differs from that of a command line without any: key, value, default."""
    found = differing_settings(config, compose())
    shown = {key: values for key, values in found.items() if not re.match(r"data\.source\.(?!name$)", key)}
    return [(key, format_value(here), format_value(default)) for key, (here, default) in shown.items()]


def epoch_table(run: Run) -> dict[str, Any]:
    """Each epoch's metrics; 0 is before training."""
    curves = {name: run.curve(name) for name in METRIC_NAMES}
    curves = {name: curve for name, curve in curves.items() if curve}
    epochs = sorted({epoch for curve in curves.values() for epoch in curve})
    lines = [(f"{epoch:g}", [told(name, curve.get(epoch)) for name, curve in curves.items()]) for epoch in epochs]
    return {"epoch_heads": list(curves), "epochs": lines}


def timing(info: RunRecord, rows: list[dict[str, float]], epochs: str) -> list[tuple[str, str]]:
    """When the run was, and how long it took."""
    seconds, speeds = info["seconds"], [row[IMAGES_PER_SECOND] for row in rows if IMAGES_PER_SECOND in row]
    return [
        ("started", format_date(info["started"])),
        ("ended", format_date(info["finished"]) if info["finished"] else NONE),
        ("total", format_duration(seconds["total"]) if "total" in seconds else NONE),
        ("training and validation", format_duration(seconds["fit"]) if "fit" in seconds else NONE),
        ("training images a second", f"{statistics.fmean(speeds):,.0f}" if speeds else NONE),
        ("epochs", epochs),
        ("steps", f"{info['steps']:,}"),
    ]


def environment(info: RunRecord) -> list[tuple[str, str]]:
    """What the run ran on, and with which versions."""
    git = info.get("git")
    commit = f"{git['commit'][:12]}, {'with changes' if git['changed'] else 'unchanged'}" if git else "not known"
    machine = [("device", info.get("device") or NONE), ("processor", info.get("processor") or NONE)]
    return [*machine, ("git commit", commit), *info.get("versions", {}).items()]


def commands_again(run: Run, info: RunRecord) -> list[tuple[str, str]]:
    """How to train, go on, test: what each does, and its command."""
    found = [("Train it anew, in a folder of its own:", info["command"] or "")]
    sweep = Sweep(run.folder.absolute().parent)
    if sweep.exists:
        found.append(("Continue its sweep:", sweep.record["command"]))
    elif run.checkpoint("last"):
        more = [f"trainer.max_epochs={(info['max_epochs'] or 0) + 1}"] if info["status"] == RunState.FINISHED else []
        words = "Train it one epoch more, in its folder:" if more else "Go on where it stopped, in its folder:"
        found.append((words, format_command([f"resume={run}", *more])))
    if run.checkpoint("last") or run.checkpoint("best"):
        found.append(("Test it again:", format_command(["test", str(run)])))
    return found
