"""Recognise the digits in a user's images with a run's network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mnist_lab.errors import UsageError
from mnist_lab.inference.digits import Digit, NoDigit, find_digit
from mnist_lab.inference.images import UnreadableImage, open_image
from mnist_lab.runs.run import Run
from mnist_lab.training.build import load_trained_model, make_data

MIN_PROBABILITY = 0.55  # below it an answer is doubtful; about 1 in 100 right answers is
MAX_WIDTH = 1.6  # times the height; 1 in 400 of MNIST's test digits is wider, and so are two digits that touch

PredictProbabilities = Callable[[np.ndarray], np.ndarray]  # images, (N, 28, 28) bytes, to probabilities, (N, 10)


@dataclass(frozen=True)
class Answer:
    """A network's answer for an image: the probabilities, (10,), of the digit found in it."""

    path: Path
    found: Digit
    probabilities: np.ndarray

    @property
    def ranked(self) -> list[tuple[int, float]]:
        """The ten digits with their probabilities, most probable first."""
        return sorted(enumerate(self.probabilities.tolist()), key=lambda pair: -pair[1])

    @property
    def note(self) -> str:
        """A reason to doubt the answer; empty if there is none."""
        if self.found.candidates > 1:
            return f"one of {self.found.candidates} digits"
        height, width = (np.ptp(indices) + 1 for indices in self.found.pixels.nonzero())
        if width > MAX_WIDTH * height:
            return "doubtful: wider than a digit"
        return "doubtful" if self.probabilities.max() < MIN_PROBABILITY else ""


def load_classifier(run: Run) -> PredictProbabilities:
    """Load a run's tested weights as a function from images, (N, 28, 28) bytes, to probabilities, (N, 10).

    The data set is not needed.

    Raises:
        UsageError: the run has no checkpoint, or was not trained on digits.
    """
    cfg = run.config
    if cfg.data.source.name == "FashionMNIST":
        raise UsageError(f"{run}: was trained on Fashion-MNIST, not on digits; choose another run")
    model = load_trained_model(run)
    data = make_data(cfg, model)
    return lambda images: model.probabilities(data.normalise(images)).numpy()


def predict(
    run: Run, paths: Iterable[Path | str], on_skip: Callable[[Path, Exception], None] | None = None
) -> list[Answer]:
    """Recognise the digit in each image file, as `digits.find_digit` finds it.

    Args:
        run: the run whose tested weights are used.
        paths: the files, of any size and mode.
        on_skip: called with each file that has no answer, and the reason; None to raise the first such error.

    Raises:
        UsageError: the run has no checkpoint, or was not trained on digits.
        UnreadableImage, NoDigit: on_skip is None, and a file has no answer.
    """
    classify = load_classifier(run)
    found: dict[Path, Digit] = {}
    for path in map(Path, paths):
        try:
            found[path] = find_digit(open_image(path))
        except (UnreadableImage, NoDigit) as error:
            if on_skip is None:
                raise type(error)(f"{path}: {error}") from error
            on_skip(path, error)
    if not found:
        return []
    probabilities = classify(np.stack([digit.pixels for digit in found.values()]))
    return [Answer(path, digit, row) for (path, digit), row in zip(found.items(), probabilities, strict=True)]
