"""The values of a run's page."""

import re
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from mnist_lab.config.compose import compose, config_options
from mnist_lab.config.metric_names import TEST_ACC, TEST_BALANCED_ACC, VAL_ACC
from mnist_lab.config.presets import find_presets
from mnist_lab.config.settings import differing_settings
from mnist_lab.errors import UsageError
from mnist_lab.evaluation.predictions import Predictions, TrainedRun
from mnist_lab.export.model_card import describe_preset
from mnist_lab.formatting import format_command, format_date, format_duration, format_value
from mnist_lab.report.images import image_values
from mnist_lab.report.sweep import describe_limits
from mnist_lab.runs.checkpoints import checkpoint_epoch, read_checkpoint
from mnist_lab.runs.listing import format_cell
from mnist_lab.runs.record import RunRecord, RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.runs.trash import read_annotations
from mnist_lab.viz.curves import plot_accuracy, plot_loss
from mnist_lab.viz.model import plot_reliability
from mnist_lab.viz.save import inline_svg

MAX_PAIRS = 5  # pairs of classes most often confused
# A page has the values of these settings, if they are set, and of those that differ from the defaults.
SETTINGS = ("data.batch_size", "data.val_size", "augmentation", "optimizer", "scheduler", "trainer.max_epochs", "seed")
HIDDEN = re.compile(r"data\.source\.(?!(name|split|path)$)")  # settings that are left out of the table of differences


def run_page(run: Run) -> dict[str, Any]:
    """Return the values of run.html.j2 for a run in any state."""
    info, config, rows = run.info, run.config, run.epochs()
    needed = ("model", "parameters", "seed", "started", "max_epochs", "command")
    missing = [name for name in needed if info.get(name) is None]
    if missing:
        raise UsageError(f"{run.record_path}: lacks {', '.join(missing)}")
    tested, untested = describe_test_set(run)
    epochs = f"{len(rows)} of {info['max_epochs']}"
    names = [OmegaConf.select(config, f"data.source.{key}") for key in ("name", "split")]
    data_set = " ".join(str(name) for name in names if name) or "your own data"
    figures = {"Accuracy": plot_accuracy(run), "Loss": plot_loss(run)}
    differences = differing_settings(config, compose()).items()
    result, *tiles = _tiles(info, rows, tested, epochs)
    return {
        "title": f"{info['model']} on {data_set}",
        "status": info["status"],
        "subtitle": f"{format_date(info['started'])}, {run}",
        "notes": _status_notes(run, info, epochs),
        "tiles": [result, *_comparison(info, data_set, tested), *tiles],
        "settings": _main_settings(info, config, run),
        "differences": [(key, *map(format_value, values)) for key, values in differences if not HIDDEN.match(key)],
        "config": run.config_path.read_text(encoding="utf-8"),
        "curves": [(name, inline_svg(figure, name)) for name, figure in figures.items() if figure.axes[0].get_lines()],
        "tutorial": describe_preset(run) if run.tutorial.get("published") else None,
        "kind": "digit" if data_set == "MNIST" else "class",
        "tested": tested,
        "untested": untested,
        "commands_next": _next_commands(run, info),
    }


def describe_test_set(run: Run) -> tuple[dict[str, Any] | None, str]:
    """Return the values of the part on the test set, for the chosen checkpoint; or None, and why there are none."""
    info, checkpoint = run.info, run.checkpoint("best") or run.checkpoint("last")
    if checkpoint is None:
        return None, "The run has no checkpoint that could be evaluated."
    try:
        content, members = read_checkpoint(checkpoint), info["members"]
        if members:
            note = f"mean of {len(members)} networks' probabilities"
        else:
            note = f"weights of epoch {checkpoint_epoch(content, checkpoint) + 1}, {run.chosen_by()}"
    except UsageError as error:
        return None, f"The checkpoint cannot be evaluated: {error}."
    trained = TrainedRun(run)
    predictions = trained.predictions
    counts = predictions.confusion()
    diagonal = counts.diagonal().diag()
    count, wrong = int(counts.sum()), int((counts - diagonal).sum())
    recorded, part = info["metrics"].get(TEST_ACC), " for a part of the test images" * ("test" in info["partial"])
    if recorded is not None and round(abs(recorded - predictions.accuracy) * count) > 0:
        note += f"; recorded by the run{part}: {recorded:.2%}, evaluated now in float32: {predictions.accuracy:.2%}"
    return image_values(trained) | {
        "note": note,
        "accuracy": predictions.accuracy,
        "images": count,
        "wrong": wrong,
        "counts": counts.tolist(),
        "most": [int((counts - diagonal).max()), int(diagonal.max())],
        "confused": most_confused(counts),
        "classes": class_rows(predictions),
        "calibration_error": f"{predictions.calibration_error():.2%}",
        "reliability": inline_svg(plot_reliability(predictions), "Reliability diagram"),
    }, ""


def most_confused(counts: Tensor) -> list[tuple[int, int, int]]:
    """Return the pairs of classes that are most often confused, by a confusion matrix, with how often."""
    pairs = sorted((-int(counts[i, j]), i, j) for i, j in counts.nonzero().tolist() if i != j)
    return [(i, j, -count) for count, i, j in pairs[:MAX_PAIRS]]


def class_rows(predictions: Predictions) -> list[tuple[str, ...]]:
    """Return each class with its number of images, precision and recall; a dash if one is undefined."""
    counts = predictions.confusion().sum(1).tolist()
    rows = zip(predictions.classes, counts, predictions.precision(), predictions.recall(), strict=True)
    return [
        (name, f"{count:,}", *("-" if share.isnan() else f"{share:.2%}" for share in shares))
        for name, count, *shares in rows
    ]


def _status_notes(run: Run, info: RunRecord, epochs: str) -> list[str]:
    """Explain why a run is not finished, or which of its metrics are of a part of the set."""
    reason = {
        RunState.RUNNING: "This run was still running when this page was written.",
        RunState.KILLED: "This run was killed: its process ended without an error message.",
        RunState.PAUSED: "This run is paused: its sweep has not continued it.",
        RunState.INTERRUPTED: f"This run was interrupted: {info['error']}.",
        RunState.FAILED: f"This run failed: {info['error']}",
    }.get(info["status"])
    if reason is None:
        return describe_limits(info)
    has_traceback = info["status"] == RunState.FAILED and run.log_path.exists()
    where = f" Its traceback is in {run.log_path.name} in the run folder." if has_traceback else ""
    return [reason, f"Epochs done: {epochs}. This page shows the results so far.{where}"]


def _tiles(
    info: RunRecord, rows: list[dict[str, float]], tested: dict[str, Any] | None, epochs: str
) -> list[tuple[str, str, str]]:
    """Return the main results: name, value, note."""
    is_finished, metrics = info["status"] == RunState.FINISHED, info["metrics"]
    accuracy = metrics.get(TEST_ACC) if is_finished and not (tested and "test" in info["partial"]) else None
    if tested:
        accuracy, note = tested["accuracy"] if accuracy is None else accuracy, tested["note"]
    else:
        note = "not tested" if accuracy is None else "as recorded by the run"
    tiles = [("test accuracy", format_cell(TEST_ACC, accuracy), note)]
    if TEST_BALANCED_ACC in metrics:
        tiles.append(("balanced accuracy", f"{metrics[TEST_BALANCED_ACC]:.2%}", "mean of the recalls of the classes"))
    if tested:
        tiles.append(("wrong", f"{tested['wrong']:,}", f"of {tested['images']:,} test images"))
    if info["seconds"].get("total") and info["max_epochs"]:
        tiles.append(("time", format_duration(info["seconds"]["total"]), f"epoch {epochs}"))
    tiles.append(("parameters", f"{info['parameters']:,}", info["model"]))
    validation = metrics if is_finished else next(reversed(rows), {})
    if VAL_ACC in validation:
        weights = info["tested"] if is_finished else None
        note = f"in epoch {weights['epoch']}, the one tested" if weights else "on the images held out"
        tiles.append(("validation accuracy", f"{validation[VAL_ACC]:.2%}", note))
    return tiles


def _comparison(info: RunRecord, data_set: str, tested: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    """Return what the test accuracy compares with: that of a preset with the same network, or else of a guess."""
    network = f"override /model: {info['model']}\n"
    presets = [preset for preset in find_presets() if preset.measured and network in preset.path.read_text("utf-8")]
    if presets and data_set == "MNIST":
        preset = next((preset for preset in presets if f"experiment={preset.name}" in info["overrides"]), presets[0])
        accuracy, _, deviation = preset.measured["accuracy"].removesuffix(" %").partition(" ± ")
        note = f"experiment={preset.name}, ± {deviation} over {preset.measured['seeds']} seeds"
        return [("for comparison", f"{accuracy}%", note)]
    if tested:
        share = max(map(sum, tested["counts"])) / tested["images"]
        return [("for comparison", f"{share:.2%}", "always the most frequent class")]
    return []


def _main_settings(info: RunRecord, config: DictConfig, run: Run) -> list[tuple[str, str]]:
    """Return the settings that matter most for the result, the user's tags and note, and where the run was trained."""
    annotations, members, git = read_annotations(run), info["members"] or (), info["git"]
    networks = [f"{member['model']} ({format_cell(TEST_ACC, member['metrics'].get(TEST_ACC))})" for member in members]
    rows = [
        ("members", ", ".join(networks)),
        *((key, _describe_setting(OmegaConf.select(config, key))) for key in SETTINGS),
        ("tags", " ".join(annotations["tags"])),
        ("note", annotations["note"] or ""),
        ("settings of", describe_preset(run) if run.tutorial else ""),
        ("trained on", ", ".join(filter(None, (info["device"], info["processor"])))),
        ("commit", f"{git['commit'][:12]}{' with changes' * git['changed']}" if git else ""),
        ("versions", ", ".join(map(" ".join, info["versions"].items()))),
    ]
    return [(name, value) for name, value in rows if value]


def _describe_setting(value: Any) -> str:
    """Format a value that is set, or the class and the arguments of an optimizer or the like, in one line."""
    if not isinstance(value, DictConfig):
        return "" if value is None else format_value(value)
    arguments = [f"{key}={format_value(value[key])}" for key in map(str, value) if not key.startswith("_")]
    return " ".join([str(value.get("_target_", "")).rpartition(".")[2], *arguments])


def _next_commands(run: Run, info: RunRecord) -> list[tuple[str, str]]:
    """Return the commands that look at the run, compare it and train it further: what each does, and the command."""
    commands, sweep = [], Sweep(run.folder.absolute().parent)
    if run.checkpoint("last") or run.checkpoint("best"):
        commands.append(("Draw digits for it, and see its layers", format_command(["draw", str(run)])))
        commands.append(("See all its errors, and labels that may be wrong", format_command(["data", str(run)])))
        data = [override for override in info["overrides"] if re.match(r"\+*data(=|\.source)", override)]
        options = config_options(info["config_dir"], info["config_name"])
        other = format_command([*options, f"model={'mlp' if info['model'] == 'lenet' else 'lenet'}", *data])
        comparison = format_command(["compare", str(run), "latest"])
        commands.append(("Train another network, and compare both", f"{other}\n{comparison}"))
    if sweep.exists:
        commands.append(("Continue its sweep", sweep.record["command"]))
    elif run.checkpoint("last") and not info["members"]:
        if info["status"] == RunState.FINISHED:
            more = [f"resume={run}", f"trainer.max_epochs={(info['max_epochs'] or 0) + 1}"]
            commands.append(("Train it for one more epoch", format_command(more)))
        else:
            commands.append(("Continue where it stopped", format_command([f"resume={run}"])))
    return [*commands, ("Make it again, in a new folder", info["command"] or "")]
