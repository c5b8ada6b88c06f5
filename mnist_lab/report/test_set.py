"""The part of a run's page on the test set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from mnist_lab.config.metric_names import TEST_ACC
from mnist_lab.errors import UsageError
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.runs.checkpoints import checkpoint_epoch, read_checkpoint
from mnist_lab.runs.run import Run
from mnist_lab.training.build import load_trained_model, make_data
from mnist_lab.viz.model import plot_confusion, plot_reliability, plot_worst_errors
from mnist_lab.viz.svg import inline_svg

WORST = 24  # errors that are shown
COLUMNS = 6  # of errors
PAIRS = 3  # of classes most often confused, that are named
CHOSEN = {"best": "the best by validation accuracy", "last": "the last ones"}


def describe_test_set(run: Run, config: DictConfig) -> tuple[dict[str, Any] | None, str]:
    """Return the values of the part on the test set, of the run's chosen checkpoint; or None, and why there are none.

    Raises:
        LabError: the test set or the network cannot be loaded.
    """
    chosen = run.checkpoint("best") or run.checkpoint("last")
    if chosen is None:
        return None, "The run has no checkpoint that could be evaluated."
    try:
        of = describe_weights(run, chosen)
    except UsageError as error:
        return None, f"The checkpoint cannot be evaluated: {error}."
    model = load_trained_model(run)
    data = make_data(config, model)
    images, labels = data.test_set()
    predictions = Predictions.on_test_set(model, data)
    worst = plot_worst_errors(predictions, images, WORST, COLUMNS, as_ink=data.is_ink)
    wrong = int((predictions.predicted != predictions.labels).sum())
    note = of
    recorded = run.info["metrics"].get(TEST_ACC)
    if recorded is not None and round(abs(recorded - predictions.accuracy) * len(labels)) > 0:
        note += f"; recorded by the run: {recorded:.2%}, evaluated now in float32: {predictions.accuracy:.2%}"
    return {
        "note": note,
        "of": f"{of.capitalize()}, on {len(labels):,} test images: {wrong:,} wrong",
        "accuracy": predictions.accuracy,
        "images": len(labels),
        "wrong": wrong,
        "confusion": inline_svg(plot_confusion(predictions), "confusion"),
        "confused": most_confused(predictions),
        "classes": class_rows(predictions),
        "calibration_error": f"{predictions.calibration_error():.2%}",
        "bins": [(f"{sure:.1%}", f"{right:.1%}", f"{count:,}") for sure, right, count in predictions.calibration()],
        "reliability": inline_svg(plot_reliability(predictions), "reliability"),
        "worst": inline_svg(worst, "worst") if worst else None,
        "shown": min(wrong, WORST),
    }, ""


def describe_weights(run: Run, chosen: Path) -> str:
    """Return which weights a run's checkpoint has.

    Raises:
        UsageError: the checkpoint is damaged.
    """
    content = read_checkpoint(chosen)
    if members := run.info["members"]:
        return f"mean of {len(members)} networks' probabilities"
    return f"weights of epoch {checkpoint_epoch(content, chosen) + 1}, {CHOSEN[chosen.stem]}"


def most_confused(predictions: Predictions) -> str:
    """Name the pairs of classes that are most often confused."""
    counts = predictions.confusion()
    names = predictions.classes
    wrong = counts - counts.diagonal().diag()
    pairs = sorted((-int(counts[i, j]), i, j) for i, j in wrong.nonzero().tolist())
    return ", ".join(f"{names[i]} predicted as {names[j]} ({-count})" for count, i, j in pairs[:PAIRS])


def class_rows(predictions: Predictions) -> list[tuple[str, str, str, str]]:
    """Return each class with its number of images, precision and recall; a dash for an undefined one."""
    images = predictions.confusion().sum(1).tolist()
    shares = (predictions.precision().tolist(), predictions.recall().tolist())
    columns = [["–" if np.isnan(share) else f"{share:.2%}" for share in each] for each in shares]
    rows = zip(predictions.classes, images, *columns, strict=True)
    return [(name, f"{count:,}", precision, recall) for name, count, precision, recall in rows]
