"""Recognise the digits, or the other classes of a run, in a user's images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from mnist_lab.data.images import UnreadableImage, fit_image, open_image
from mnist_lab.data.own_images import ImageFolder
from mnist_lab.inference.digits import NetworkInput, NoDigit, find_digit, find_number
from mnist_lab.models.classifier import Classifier
from mnist_lab.runs.run import Run
from mnist_lab.training.build import load_trained_model, make_data

MIN_PROBABILITY = 0.55  # below it an answer is doubtful; about 1 in 100 right answers is
MAX_WIDTH = 1.6  # times the height; 1 in 400 of MNIST's test digits is wider, and so are two digits that touch


@dataclass(frozen=True)
class ImageClassifier:
    """A run's network, ready for images.

    Attributes:
        classes: the names of its K classes.
        is_for_digits: whether it was trained on digits as MNIST has them, which are looked for in an image.
        background: brightness of the training images' edges, from 0 to 255.
        takes_images_as_they_are: whether it was trained on image files, which were not inverted.
        model: the network.
        normalise: maps images, (N, 28, 28) bytes, to the network's input.
    """

    classes: list[str]
    is_for_digits: bool
    background: int
    takes_images_as_they_are: bool
    model: Classifier
    normalise: Callable[[np.ndarray], Tensor]

    @property
    def noun(self) -> str:
        """What the network tells apart: digit or class."""
        return "digit" if self.is_for_digits else "class"

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return class probabilities, (N, K), for images, (N, 28, 28) bytes."""
        return self.model.probabilities(self.normalise(images)).numpy()

    def network_inputs(self, image: Image.Image, *, single: bool = False) -> list[NetworkInput]:
        """Return what the network is given of an image: its row of digits or, for other classes, the whole image.

        Args:
            image: of any size and mode.
            single: whether only the clearest digit is taken.

        Raises:
            NoDigit: the network is for digits, and there is none in the image.
        """
        if self.is_for_digits:
            return [find_digit(image)] if single else find_number(image)
        background = None if self.takes_images_as_they_are else self.background
        return [NetworkInput(fit_image(image, background))]


@dataclass(frozen=True)
class Answer:
    """A network's answer for an image.

    Attributes:
        path: of the image.
        found: the D digits in it, from left to right; one for other classes.
        probabilities: of the classes for each of them, (D, K).
        classifier: the network.
        single: whether more digits than the clearest were left out.
    """

    path: Path
    found: Sequence[NetworkInput]
    probabilities: np.ndarray
    classifier: ImageClassifier
    single: bool = False

    @property
    def text(self) -> str:
        """The most probable number or class."""
        return "".join(self.classifier.classes[best] for best in self.probabilities.argmax(1))

    @property
    def probability(self) -> float:
        """That all of it is right, each digit by itself."""
        return float(self.probabilities.max(1).prod())

    @property
    def runner_up(self) -> tuple[str, float]:
        """The next probable number or class, and its probability: another digit in one place."""
        ranked = self.probabilities.argsort(1)[:, ::-1]
        best, next_best = (np.take_along_axis(self.probabilities, ranked[:, [rank]], 1)[:, 0] for rank in (0, 1))
        place = int((next_best / best).argmax())
        chosen = ranked[:, 0].copy()
        chosen[place] = ranked[place, 1]
        probability = self.probability * next_best[place] / best[place]
        return "".join(self.classifier.classes[each] for each in chosen), float(probability)

    @property
    def note(self) -> str:
        """Reasons to doubt the answer; empty if there are none."""
        others = self.found[0].candidates - len(self.found)
        if others:
            return f"one of {1 + others} digits" if self.single else f"{others} more outside the row"
        is_wide = [self._is_wide(each) for each in self.found]
        if len(self.found) == 1:
            is_doubtful = self.probability < MIN_PROBABILITY
            return "doubtful: wider than a digit" if is_wide[0] else "doubtful" if is_doubtful else ""
        doubts = [
            f"digit {place}" + (" (wider than a digit)" if wide else "")
            for place, (wide, row) in enumerate(zip(is_wide, self.probabilities, strict=True), start=1)
            if wide or row.max() < MIN_PROBABILITY
        ]
        return f"doubtful: {', '.join(doubts)}" if doubts else ""

    def _is_wide(self, digit: NetworkInput) -> bool:
        if not self.classifier.is_for_digits:
            return False
        height, width = (np.ptp(indices) + 1 for indices in digit.pixels.nonzero())
        return bool(width > MAX_WIDTH * height)


def load_classifier(run: Run) -> ImageClassifier:
    """Load a run's tested weights. The data set is not needed.

    Raises:
        UsageError: the run has no checkpoint.
    """
    cfg = run.config
    model = load_trained_model(run)
    data = make_data(cfg, model)
    return ImageClassifier(
        classes=data.classes,
        is_for_digits=data.has_digits,
        background=data.background,
        takes_images_as_they_are=isinstance(data.source, ImageFolder),
        model=model,
        normalise=data.normalise,
    )


def predict(
    run: Run,
    paths: Iterable[Path | str],
    on_skip: Callable[[Path, Exception], None] | None = None,
    *,
    single: bool = False,
) -> list[Answer]:
    """Recognise the row of digits in each image file or, with a network for other classes, the class of the image.

    Args:
        run: the run whose tested weights are used.
        paths: the files, of any size and mode.
        on_skip: called with each file that has no answer, and the reason; None to raise the first such error.
        single: whether only the clearest digit of each image is read.

    Raises:
        UsageError: the run has no checkpoint.
        UnreadableImage, NoDigit: on_skip is None, and a file has no answer.
    """
    classifier = load_classifier(run)
    found: dict[Path, list[NetworkInput]] = {}
    for path in map(Path, paths):
        try:
            found[path] = classifier.network_inputs(open_image(path), single=single)
        except (UnreadableImage, NoDigit) as error:
            if on_skip is None:
                raise type(error)(f"{path}: {error}") from error
            on_skip(path, error)
    if not found:
        return []
    probabilities = classifier.probabilities(np.stack([each.pixels for row in found.values() for each in row]))
    rows = np.split(probabilities, np.cumsum([len(row) for row in found.values()])[:-1])
    return [
        Answer(path, inputs, row, classifier, single) for (path, inputs), row in zip(found.items(), rows, strict=True)
    ]
