"""The contents of a run's page."""

import re
import statistics
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mnist_lab.config.compose import compose
from mnist_lab.config.metric_names import IMAGES_PER_SECOND, METRIC_NAMES, TEST_ACC, VAL_ACC
from mnist_lab.config.settings import differing_settings
from mnist_lab.errors import UsageError
from mnist_lab.evaluation.predictions import Predictions, TrainedRun
from mnist_lab.export.model_card import describe_preset
from mnist_lab.formatting import format_command, format_date, format_duration, format_held_out, format_value
from mnist_lab.runs.checkpoints import checkpoint_epoch, read_checkpoint
from mnist_lab.runs.listing import format_cell
from mnist_lab.runs.record import RunRecord, RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.runs.trash import read_annotations
from mnist_lab.viz.curves import plot_accuracy, plot_loss
from mnist_lab.viz.model import plot_confusion, plot_reliability, plot_worst_errors
from mnist_lab.viz.save import inline_svg

WORST, COLUMNS = 24, 6  # errors that are shown, and in a row
PAIRS = 3  # of classes most often confused, that are named
# The settings that matter most for the result, and their keys.
SETTINGS = {
    "data set": "data.source.name",
    "batch size": "data.batch_size",
    "optimizer": "optimizer",
    "scheduler": "scheduler",
    "augmentation": "augmentation",
    "test-time augmentation": "test_augmentation",
    "label smoothing": "label_smoothing",
    "averaged weights": "callbacks.ema",
    "epochs": "trainer.max_epochs",
    "precision": "trainer.precision",
    "seed": "seed",
}


def run_page(run: Run) -> dict[str, Any]:
    """Return the values of run.html.j2 for a run in any state."""
    info, config, rows = run.info, run.config, run.epochs()
    needed = ("model", "parameters", "seed", "started", "max_epochs", "command")
    missing = [name for name in needed if info.get(name) is None]
    if missing:
        raise UsageError(f"{run.record_path}: lacks {', '.join(missing)}")
    tested, untested = describe_test_set(run)
    epochs = f"{len(rows)} of {info['max_epochs']}"
    data_set = OmegaConf.select(config, "data.source.name") or "your own data"
    figures = {"Accuracy": plot_accuracy(run), "Loss": plot_loss(run)}
    curves = {name: curve for name in METRIC_NAMES if (curve := run.curve(name))}
    changed = differing_settings(config, compose()).items()
    return {
        "title": f"{info['model']} on {data_set}",
        "status": info["status"],
        "subtitle": f"{format_date(info['started'])}, {run}",
        "notes": _status_notes(run, info, epochs),
        "tiles": _tiles(info, rows, tested, epochs),
        "settings": _main_settings(info, config, run),
        "differences": [
            (key, *map(format_value, values))
            for key, values in changed
            if not re.match(r"data\.source\.(?!(name|path)$)", key)
        ],
        "config": run.config_path.read_text(encoding="utf-8"),
        "curves": [(name, inline_svg(figure, name)) for name, figure in figures.items() if figure.axes[0].get_lines()],
        "tutorial": describe_preset(run) if run.tutorial.get("published") else None,
        "epoch_heads": list(curves),
        "epochs": [
            (f"{x:g}", [format_cell(name, curve.get(x)) for name, curve in curves.items()])
            for x in sorted({x for curve in curves.values() for x in curve})
        ],
        "kind": "digit" if data_set == "MNIST" else "class",
        "tested": tested,
        "untested": untested,
        "environment": _environment(info, rows),
        "commands_again": _next_commands(run, info),
    }


def describe_test_set(run: Run) -> tuple[dict[str, Any] | None, str]:
    """Return the values of the part on the test set, of the chosen checkpoint; or None, and why there are none."""
    info, chosen = run.info, run.checkpoint("best") or run.checkpoint("last")
    if chosen is None:
        return None, "The run has no checkpoint that could be evaluated."
    try:
        content, members = read_checkpoint(chosen), info["members"]
        if members:
            note = f"mean of {len(members)} networks' probabilities"
        else:
            note = f"weights of epoch {checkpoint_epoch(content, chosen) + 1}, {run.chosen_by()}"
    except UsageError as error:
        return None, f"The checkpoint cannot be evaluated: {error}."
    trained = TrainedRun(run)
    made, images = trained.predictions, trained.data.test_set()[0]
    wrong = int((made.predicted != made.labels).sum())
    of = f"{note.capitalize()}, on {len(images):,} test images: {wrong:,} wrong"
    recorded = info["metrics"].get(TEST_ACC)
    if recorded is not None and round(abs(recorded - made.accuracy) * len(images)) > 0:
        note += f"; recorded by the run: {recorded:.2%}, evaluated now in float32: {made.accuracy:.2%}"
    worst = plot_worst_errors(made, images, WORST, COLUMNS, as_ink=trained.data.is_ink)
    return {
        "note": note,
        "of": of,
        "accuracy": made.accuracy,
        "images": len(images),
        "wrong": wrong,
        "confusion": inline_svg(plot_confusion(made), "Confusion matrix"),
        "confused": most_confused(made),
        "classes": class_rows(made),
        "calibration_error": f"{made.calibration_error():.2%}",
        "bins": [(f"{sure:.1%}", f"{right:.1%}", f"{count:,}") for sure, right, count in made.calibration()],
        "reliability": inline_svg(plot_reliability(made), "Reliability diagram"),
        "worst": inline_svg(worst, "Worst errors") if worst else None,
        "shown": min(wrong, WORST),
    }, ""


def most_confused(predictions: Predictions) -> str:
    """Name the pairs of classes that are most often confused."""
    counts, names = predictions.confusion(), predictions.classes
    pairs = sorted((-int(counts[i, j]), i, j) for i, j in counts.nonzero().tolist() if i != j)
    return ", ".join(f"{names[i]} predicted as {names[j]} ({-count})" for count, i, j in pairs[:PAIRS])


def class_rows(predictions: Predictions) -> list[tuple[str, ...]]:
    """Return each class with its number of images, precision and recall; a dash for an undefined one."""
    images = predictions.confusion().sum(1).tolist()
    rows = zip(predictions.classes, images, predictions.precision(), predictions.recall(), strict=True)
    return [(name, f"{n:,}", *("-" if share.isnan() else f"{share:.2%}" for share in own)) for name, n, *own in rows]


def _status_notes(run: Run, info: RunRecord, epochs: str) -> list[str]:
    """Describe why a run is not finished."""
    reason = {
        RunState.RUNNING: "This run was still running when this page was written.",
        RunState.KILLED: "This run was killed: its process ended without an error message.",
        RunState.PAUSED: "This run is paused: its sweep asked for no more epochs of it.",
        RunState.INTERRUPTED: f"This run was interrupted: {info['error']}.",
        RunState.FAILED: f"This run failed: {info['error']}",
    }.get(info["status"])
    if reason is None:
        return [f"Its {' and '.join(info['partial'])} metrics are those of a part of the set."] * bool(info["partial"])
    logged = info["status"] == RunState.FAILED and run.log_path.exists()
    where = f" Its traceback is in {run.log_path.name} in the run folder." if logged else ""
    return [reason, f"Epochs done: {epochs}. This page shows the results so far.{where}"]


def _tiles(
    info: RunRecord, rows: list[dict[str, float]], tested: dict[str, Any] | None, epochs: str
) -> list[tuple[str, str, str]]:
    """Return the main results: name, value, note."""
    finished, metrics = info["status"] == RunState.FINISHED, info["metrics"]
    accuracy = metrics.get(TEST_ACC) if finished else None
    if accuracy is None and tested:
        accuracy = tested["accuracy"]
    note = tested["note"] if tested else "as recorded by the run" if accuracy is not None else "not tested"
    found = [("test accuracy", format_cell(TEST_ACC, accuracy), note)]
    validation = metrics if finished else rows[-1] if rows else {}
    if VAL_ACC in validation:
        done = info["tested"] if finished else None
        words = f"in epoch {done['epoch']}, the one tested" if done else "on the images held out"
        found.append(("validation accuracy", f"{validation[VAL_ACC]:.2%}", words))
    if tested:
        found.insert(1, ("wrong", f"{tested['wrong']:,}", f"of {tested['images']:,} test images"))
        found.append(("calibration error", tested["calibration_error"], "expected; 0 is best"))
    found.append(("parameters", f"{info['parameters']:,}", info["model"]))
    if info["seconds"].get("total") and info["max_epochs"]:
        found.append(("time", format_duration(info["seconds"]["total"]), f"{epochs} epochs"))
    return found


def _main_settings(info: RunRecord, config: DictConfig, run: Run) -> list[tuple[str, str]]:
    """Return the settings that matter most for the result, and what its user has noted."""
    annotations, members = read_annotations(run), info["members"] or ()
    accuracies = [f"{each['model']} ({format_cell(TEST_ACC, each['metrics'].get(TEST_ACC))})" for each in members]
    held_out = OmegaConf.select(config, "data.source.validation") or config.data.get("val_size")
    found = [
        ("network", f"{info['model']}, {info['parameters']:,} parameters"),
        ("members", ", ".join(accuracies)),
        ("images held out for validation", format_held_out(held_out)),
        *((label, _describe_setting(OmegaConf.select(config, key))) for label, key in SETTINGS.items()),
        ("tags", " ".join(annotations["tags"])),
        ("note", annotations["note"] or ""),
        ("settings of", describe_preset(run) if run.tutorial else ""),
    ]
    return [(name, value) for name, value in found if value]


def _describe_setting(value: Any) -> str:
    """Return a value, or the class and the arguments of an optimizer or the like, in one line."""
    if not isinstance(value, DictConfig):
        return "none" if value is None else format_value(value)
    words = [f"{key}={format_value(value[key])}" for key in map(str, value) if not key.startswith("_")]
    return " ".join([str(value.get("_target_", "none")).rpartition(".")[2], *words])


def _environment(info: RunRecord, rows: list[dict[str, float]]) -> list[tuple[str, str]]:
    """Return when and where the run was, how long it took, and the versions of the code."""
    speeds = [row[IMAGES_PER_SECOND] for row in rows if IMAGES_PER_SECOND in row]
    times, seconds, git = {"total time": "total", "training and validation": "fit"}, info["seconds"], info["git"]
    return [
        ("started", format_date(info["started"])),
        ("ended", format_date(info["finished"])),
        *((label, format_duration(seconds[key])) for label, key in times.items() if key in seconds),
        ("training images per second", f"{statistics.fmean(speeds):,.0f}" if speeds else "-"),
        ("steps", f"{info['steps']:,}"),
        ("device", info["device"] or "-"),
        ("processor", info["processor"] or "-"),
        ("git commit", f"{git['commit'][:12]}, {'with changes' if git['changed'] else 'unchanged'}" if git else "-"),
        *info["versions"].items(),
    ]


def _next_commands(run: Run, info: RunRecord) -> list[tuple[str, str]]:
    """Return the commands that train, continue and test the run: what each does, and the command."""
    found = [(f"{'Make' if info['members'] else 'Train'} it again, in a new folder:", info["command"] or "")]
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
