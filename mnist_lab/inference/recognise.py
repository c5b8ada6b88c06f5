"""Tell which digits a run's network sees in pictures of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mnist_lab.errors import UsageError
from mnist_lab.inference.digits import Digit, NoDigit, find_digit
from mnist_lab.inference.images import Unreadable, opened
from mnist_lab.runs.run import Run
from mnist_lab.training.build import load_trained_model, make_data

DOUBTFUL = 0.55  # a lower probability is doubtful; of answers that are right, about 1 in 100 is lower
WIDEST = 1.6  # width by height of a digit; of MNIST's test digits, 1 in 400 is wider, and two digits that touch are

PredictProbabilities = Callable[
    [np.ndarray], np.ndarray
]  # images like MNIST's, (N, 28, 28) bytes, to probabilities, (N, 10)


@dataclass(frozen=True)
class Answer:
    """What a network makes of a picture: the ten probabilities, (10,), of the digit that was found in it."""

    path: Path
    found: Digit
    probabilities: np.ndarray

    @property
    def ranked(self) -> list[tuple[int, float]]:
        """The ten digits with their probabilities, most probable first."""
        return sorted(enumerate(self.probabilities.tolist()), key=lambda pair: -pair[1])

    @property
    def note(self) -> str:
        """Why the answer is not to be relied on; empty if nothing speaks against it."""
        if self.found.candidates > 1:
            return f"one of {self.found.candidates} digits"
        height, width = (np.ptp(places) + 1 for places in self.found.pixels.nonzero())
        if width > WIDEST * height:
            return "doubtful: wider than a digit"
        return "doubtful" if self.probabilities.max() < DOUBTFUL else ""


def load_classifier(run: Run) -> PredictProbabilities:
    """What tells digits apart as a run's tested weights do; the data set itself is not needed.

    Raises:
        UsageError: the run has no checkpoint, or has learnt something else than digits.
    """
    cfg = run.config
    if cfg.data.source.name == "FashionMNIST":
        raise UsageError(f"{run}: has learnt clothes (data=fashion_mnist), not digits; choose another run")
    model = load_trained_model(run)
    data = make_data(cfg, model)
    return lambda images: model.probabilities(data.normalise(images)).numpy()


def predict(
    run: Run, paths: Iterable[Path | str], skipped: Callable[[Path, Exception], None] | None = None
) -> list[Answer]:
    """The digits in files of pictures of any size and mode; digits.find_digit says how they are found.

    Args:
        run: the run whose tested weights answer.
        paths: the files.
        skipped: is told of each file without an answer, and why; None to raise the first such error.

    Raises:
        UsageError: the run has no checkpoint, or has learnt something else than digits.
        Unreadable, NoDigit: of a file, if skipped is None.
    """
    recognise = load_classifier(run)
    found: dict[Path, Digit] = {}
    for path in map(Path, paths):
        try:
            found[path] = find_digit(opened(path))
        except (Unreadable, NoDigit) as error:
            if skipped is None:
                raise type(error)(f"{path}: {error}") from error
            skipped(path, error)
    if not found:
        return []
    probabilities = recognise(np.stack([digit.pixels for digit in found.values()]))
    return [Answer(path, digit, row) for (path, digit), row in zip(found.items(), probabilities, strict=True)]
