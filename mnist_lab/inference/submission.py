"""Classify a CSV of pixels, as in Kaggle's "Digit Recognizer", and write the submission file."""

from __future__ import annotations

import csv
from pathlib import Path

from mnist_lab.data.array_files import read_pixels
from mnist_lab.errors import UsageError
from mnist_lab.files import require_writable_file, user_output
from mnist_lab.inference.recognise import load_classifier
from mnist_lab.runs.run import Run


def write_submission(run: Run, path: Path, out: Path) -> tuple[int, float | None]:
    """Classify a CSV's images with a run's tested weights, and write a CSV of ImageId,Label.

    Args:
        run: the run.
        path: the CSV of images.
        out: the CSV to write.

    Returns:
        The number of images, and the accuracy if the CSV has labels.

    Raises:
        UsageError: the CSV is invalid, the file cannot be written, or the run has no checkpoint.
    """
    require_writable_file(out, f"--out={out}")
    if out.exists() and path.exists() and out.samefile(path):
        raise UsageError(f"--out={out}: would overwrite the input; choose another")
    classifier = load_classifier(run)
    images, labels = read_pixels(path, max_label=len(classifier.classes) - 1)
    predicted = classifier.probabilities(images).argmax(1)
    with user_output(out, f"--out={out}") as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["ImageId", "Label"])
        writer.writerows((number, classifier.classes[label]) for number, label in enumerate(predicted, start=1))
    return len(predicted), None if labels is None else float((predicted == labels).mean())
