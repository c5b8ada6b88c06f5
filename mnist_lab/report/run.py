"""The contents of a run's page."""

from __future__ import annotations

import re
import statistics
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mnist_lab.config.compose import compose
from mnist_lab.config.metric_names import IMAGES_PER_SECOND, METRIC_NAMES, TEST_ACC, VAL_ACC
from mnist_lab.config.settings import differing_settings
from mnist_lab.errors import UsageError
from mnist_lab.export.model_card import describe_preset
from mnist_lab.formatting import format_command, format_date, format_duration, format_held_out, format_value
from mnist_lab.report.test_set import describe_test_set
from mnist_lab.runs.listing import format_cell
from mnist_lab.runs.record import RunRecord, RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.runs.trash import read_annotations
from mnist_lab.viz.curves import plot_accuracy, plot_loss
from mnist_lab.viz.svg import inline_svg

NONE = "–"


def run_page(run: Run) -> dict[str, Any]:
    """Return the values of run.html.j2 for a run in any state.

    Raises:
        LabError: the test set, the network or a file of the folder cannot be loaded.
    """
    info, config, rows = run.info, run.config, run.epochs()
    needed = ("model", "parameters", "seed", "started", "max_epochs", "command")
    missing = [name for name in needed if info.get(name) is None]
    if missing:
        raise UsageError(f"{run.record_path}: lacks {', '.join(missing)}")
    tested, untested = describe_test_set(run, config)
    accuracy = info["metrics"].get(TEST_ACC) if info["status"] == RunState.FINISHED else None
    if accuracy is None and tested:
        accuracy = tested["accuracy"]
    epochs = f"{len(rows)} of {info['max_epochs']}"
    data_set = OmegaConf.select(config, "data.source.name") or "your own data"
    return {
        "kicker": "A run of mnist_lab",
        "title": f"{info['model']} on {data_set}",
        "status": info["status"],
        "status_words": info["status"],
        "subtitle": f"{format_date(info['started'])}, {run}",
        "notes": status_notes(run, info, epochs),
        "tiles": tiles(info, rows, accuracy, tested, epochs),
        "settings": main_settings(info, config, run),
        "differences": changed_settings(config),
        "config": run.config_path.read_text(encoding="utf-8"),
        "curves": curves(run),
        "tutorial": describe_preset(run) if run.tutorial.get("published") else None,
        **epoch_table(run),
        "kind": "digit" if data_set == "MNIST" else "class",
        "plural": "digits" if data_set == "MNIST" else "classes",
        "tested": tested,
        "untested": untested,
        "timing": timing(info, rows, epochs),
        "environment": environment(info),
        "commands_again": next_commands(run, info),
    }


def curves(run: Run) -> list[tuple[str, str]]:
    """Return the pictures of accuracy and loss with their headings; none for a run without a curve."""
    figures = {"Accuracy": plot_accuracy(run), "Loss": plot_loss(run)}
    return [(name, inline_svg(figure, name)) for name, figure in figures.items() if figure.axes[0].get_lines()]


def status_notes(run: Run, info: RunRecord, epochs: str) -> list[str]:
    """Describe why a run is not finished."""
    reason = {
        RunState.RUNNING: "This run was still running when this page was written.",
        RunState.KILLED: "This run was killed: its process ended without an error message.",
        RunState.PAUSED: "This run is paused: its sweep asked for no more epochs of it.",
        RunState.INTERRUPTED: f"This run was interrupted: {info['error']}.",
        RunState.FAILED: f"This run failed: {info['error']}",
    }.get(info["status"])
    if reason is None:
        return []
    log = run.log_path
    where = (
        f" Its traceback is in {log.name} in the run folder."
        if info["status"] == RunState.FAILED and log.exists()
        else ""
    )
    return [reason, f"Epochs done: {epochs}. This page shows the results so far.{where}"]


def tiles(
    info: RunRecord,
    rows: list[dict[str, float]],
    accuracy: float | None,
    tested: dict[str, Any] | None,
    epochs: str,
) -> list[tuple[str, str, str]]:
    """Return the main results: name, value, note."""
    note = tested["note"] if tested else "as recorded by the run" if accuracy is not None else "not tested"
    found = [("test accuracy", "none" if accuracy is None else f"{accuracy:.2%}", note)]
    if tested:
        found.append(("wrong", f"{tested['wrong']:,}", f"of {tested['images']:,} test images"))
    metrics = info["metrics"] if info["status"] == RunState.FINISHED else rows[-1] if rows else {}
    if VAL_ACC in metrics:
        done = info["tested"] if info["status"] == RunState.FINISHED else None
        words = f"in epoch {done['epoch']}, the one tested" if done else "on the images held out"
        found.append(("validation accuracy", f"{metrics[VAL_ACC]:.2%}", words))
    if tested:
        found.append(("calibration error", tested["calibration_error"], "expected; 0 is best"))
    found.append(("parameters", f"{info['parameters']:,}", info["model"]))
    if info["seconds"].get("total") and info["max_epochs"]:
        found.append(("time", format_duration(info["seconds"]["total"]), f"{epochs} epochs"))
    return found


def describe_node(node: DictConfig | None) -> str:
    """Return the class and the arguments of an optimizer or the like in one line."""
    if not node or "_target_" not in node:
        return "none"
    values = [f"{key}={format_value(node[key])}" for key in map(str, node) if not key.startswith("_")]
    return " ".join([str(node["_target_"]).rsplit(".", 1)[-1], *values])


def main_settings(info: RunRecord, config: DictConfig, run: Run) -> list[tuple[str, str]]:
    """Return the settings that matter most for the result."""
    data, trainer = config.data, config.trainer
    found = [
        ("network", f"{info['model']}, {info['parameters']:,} parameters"),
        ("data set", OmegaConf.select(data, "source.name") or NONE),
        ("images held out for validation", format_held_out(data.get("val_size"))),
        ("batch size", format_value(data.get("batch_size"))),
        ("optimizer", describe_node(config.optimizer)),
        ("scheduler", describe_node(config.scheduler)),
        ("augmentation", describe_node(config.augmentation)),
        ("test-time augmentation", describe_node(config.test_augmentation)),
        ("label smoothing", format_value(config.label_smoothing)),
        ("averaged weights", describe_node(config.callbacks.get("ema"))),
        ("epochs", format_value(trainer.max_epochs)),
        ("precision", format_value(trainer.get("precision"))),
        ("seed", format_value(config.seed)),
    ]
    annotations = read_annotations(run)
    if annotations["tags"]:
        found.append(("tags", " ".join(annotations["tags"])))
    if annotations["note"]:
        found.append(("note", annotations["note"]))
    if members := info["members"]:
        words = [f"{member['model']} ({format_cell(TEST_ACC, member['metrics'][TEST_ACC])})" for member in members]
        found.insert(1, ("members", ", ".join(words)))
    return [*found, ("settings of", describe_preset(run))] if run.tutorial else found


def changed_settings(config: DictConfig) -> list[tuple[str, str, str]]:
    """Return the settings that differ from the defaults: key, value, default."""
    found = differing_settings(config, compose())
    shown = {key: values for key, values in found.items() if not re.match(r"data\.source\.(?!(name|path)$)", key)}
    return [(key, format_value(here), format_value(default)) for key, (here, default) in shown.items()]


def epoch_table(run: Run) -> dict[str, Any]:
    """Return the metrics of each epoch; 0 is before training."""
    curves = {name: run.curve(name) for name in METRIC_NAMES}
    curves = {name: curve for name, curve in curves.items() if curve}
    epochs = sorted({epoch for curve in curves.values() for epoch in curve})
    lines = [
        (f"{epoch:g}", [format_cell(name, curve[epoch]) if epoch in curve else NONE for name, curve in curves.items()])
        for epoch in epochs
    ]
    return {"epoch_heads": list(curves), "epochs": lines}


def timing(info: RunRecord, rows: list[dict[str, float]], epochs: str) -> list[tuple[str, str]]:
    """Return when the run was, and how long it took."""
    seconds, speeds = info["seconds"], [row[IMAGES_PER_SECOND] for row in rows if IMAGES_PER_SECOND in row]
    return [
        ("started", format_date(info["started"])),
        ("ended", format_date(info["finished"]) if info["finished"] else NONE),
        ("total", format_duration(seconds["total"]) if "total" in seconds else NONE),
        ("training and validation", format_duration(seconds["fit"]) if "fit" in seconds else NONE),
        ("training images per second", f"{statistics.fmean(speeds):,.0f}" if speeds else NONE),
        ("epochs", epochs),
        ("steps", f"{info['steps']:,}"),
    ]


def environment(info: RunRecord) -> list[tuple[str, str]]:
    """Return the hardware and the versions of a run."""
    git = info.get("git")
    commit = f"{git['commit'][:12]}, {'with changes' if git['changed'] else 'unchanged'}" if git else "unknown"
    machine = [("device", info.get("device") or NONE), ("processor", info.get("processor") or NONE)]
    return [*machine, ("git commit", commit), *info.get("versions", {}).items()]


def next_commands(run: Run, info: RunRecord) -> list[tuple[str, str]]:
    """Return the commands that train, continue and test the run: what each does, and the command."""
    words = "Make it again, in a new folder:" if info["members"] else "Train it again, in a new folder:"
    found = [(words, info["command"] or "")]
    sweep = Sweep(run.folder.absolute().parent)
    if sweep.exists:
        found.append(("Continue its sweep:", sweep.record["command"]))
    elif run.checkpoint("last") and not info["members"]:
        more = [f"trainer.max_epochs={(info['max_epochs'] or 0) + 1}"] if info["status"] == RunState.FINISHED else []
        words = "Train it for one more epoch, in its folder:" if more else "Continue where it stopped, in its folder:"
        found.append((words, format_command([f"resume={run}", *more])))
    if run.checkpoint("last") or run.checkpoint("best"):
        found.append(("Test it again:", format_command(["test", str(run)])))
    if info["git"] and (restore := info["git"].get("restore")):
        found.append(("Get its code again:", restore))
    return found
