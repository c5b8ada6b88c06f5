"""What the page of a run shows of its network on the test set."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from matplotlib.image import imsave
from omegaconf import DictConfig

from mnist_lab.errors import UsageError
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.metric_names import TEST_ACC
from mnist_lab.report.charts import reliability
from mnist_lab.runs.checkpoints import checkpoint_epoch, read_checkpoint
from mnist_lab.runs.run import Run
from mnist_lab.training.build import load_trained_model, make_data

WORST = 24  # errors that are shown
PAIRS = 3  # of classes most often confused, that are told
CHOSEN = {"best": "the best by validation accuracy", "last": "the last ones"}


def on_test_set(run: Run, config: DictConfig) -> tuple[dict[str, Any] | None, str]:
    """The values of the page's part on the test set, of the run's chosen checkpoint; or None, and why there are none.

    Raises:
        LabError: the test set cannot be had, or the network cannot be made.
    """
    chosen = run.checkpoint("best") or run.checkpoint("last")
    if chosen is None:
        return None, "The run has no checkpoint, and so nothing can be told of it."
    try:
        epoch = checkpoint_epoch(read_checkpoint(chosen), chosen) + 1
    except UsageError as error:
        return None, f"Nothing can be told of it: {error}."
    model = load_trained_model(run)
    data = make_data(config, model)
    images, labels = data.test_set()
    predictions = Predictions.on_test_set(model, data)
    wrong = int((predictions.predicted != predictions.labels).sum())
    of = f"weights of epoch {epoch}, {CHOSEN[chosen.stem]}"
    note = of
    recorded = run.info["metrics"].get(TEST_ACC)
    if recorded is not None and round(abs(recorded - predictions.accuracy) * len(labels)) > 0:
        note += f"; when it was run {recorded:.2%}, in float32 on all images now {predictions.accuracy:.2%}"
    return {
        "note": note,
        "of": f"{of.capitalize()}, on {len(labels):,} test images: {wrong:,} wrong",
        "accuracy": predictions.accuracy,
        "images": len(labels),
        "wrong": wrong,
        "confusion": confusion(predictions),
        "confused": confused(predictions),
        "classes": classes(predictions),
        "calibration_error": f"{predictions.calibration_error():.2%}",
        "bins": [(f"{sure:.1%}", f"{right:.1%}", f"{count:,}") for sure, right, count in predictions.calibration()],
        "reliability": reliability(predictions),
        "worst": worst(predictions, images),
    }, ""


def confusion(predictions: Predictions) -> list[list[tuple[int, float]]]:
    """Each cell's number of images, and how strong its colour is: of the hits and of the errors apart, 0 to 1."""
    counts = predictions.confusion()
    hits = max(counts.diagonal().max().item(), 1)
    errors = max((counts - counts.diagonal().diag()).max().item(), 1)
    rows = enumerate(counts.tolist())
    return [[(count, round(count / (hits if i == j else errors), 2)) for j, count in enumerate(row)] for i, row in rows]


def confused(predictions: Predictions) -> str:
    """The classes that were most often taken for another, in words."""
    counts = predictions.confusion()
    pairs = sorted((-counts[i, j].item(), i, j) for i in range(10) for j in range(10) if i != j and counts[i, j])
    return ", ".join(f"{i} taken for {j} ({-count:.0f})" for count, i, j in pairs[:PAIRS])


def classes(predictions: Predictions) -> list[tuple[int, str, str, str]]:
    """Each class with its number of images, precision and recall; a dash where there is none."""
    images = predictions.confusion().sum(1).tolist()
    shares = (predictions.precision().tolist(), predictions.recall().tolist())
    columns = [["–" if np.isnan(share) else f"{share:.2%}" for share in each] for each in shares]
    return [(digit, f"{images[digit]:,}", columns[0][digit], columns[1][digit]) for digit in range(len(images))]


def worst(predictions: Predictions, images: np.ndarray) -> list[dict[str, Any]]:
    """The worst errors, each with its picture; images are the test set's, (N, 28, 28) bytes."""
    found = []
    for index in predictions.worst(WORST).tolist():
        label, predicted = int(predictions.labels[index]), int(predictions.predicted[index])
        sure, of_truth = (predictions.probabilities[index, digit].item() for digit in (predicted, label))
        found.append(
            {
                "index": index,
                "picture": picture(images[index]),
                "label": label,
                "predicted": predicted,
                "sure": probability(sure),
                "of_truth": probability(of_truth),
            }
        )
    return found


def picture(image: np.ndarray) -> str:
    """An image of bytes, (28, 28), as a data URI: ink on paper."""
    file = io.BytesIO()
    paper = np.stack([255 - image] * 3, axis=-1)  # in colours: grey values would go through a colour map
    imsave(file, paper, format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def probability(share: float) -> str:
    """In per cent; none is told as certain that is not."""
    return "> 99.9%" if 0.9995 <= share < 1 else "< 0.1%" if 0 < share < 0.0005 else f"{share:.1%}"
