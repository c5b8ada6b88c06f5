"""Recognise the digits, or the other classes of a run, in a user's images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from mnist_lab.data.image_folder import ImageFolder
from mnist_lab.data.images import UnreadableImage, fit_image, open_image
from mnist_lab.inference.digits import NetworkInput, NoDigit, find_digit
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

    def network_input(self, image: Image.Image, *, is_drawing: bool = False) -> NetworkInput:
        """Return what the network is given of an image: the digit in it or, for other classes, the whole image.

        Args:
            image: of any size and mode.
            is_drawing: whether it was drawn dark on light, so that it is inverted for a network that knows light on
                dark.

        Raises:
            NoDigit: the network is for digits, and there is none in the image.
        """
        if self.is_for_digits:
            return find_digit(image)
        may_invert = is_drawing or not self.takes_images_as_they_are
        return NetworkInput(fit_image(image, self.background if may_invert else None))


@dataclass(frozen=True)
class Answer:
    """A network's answer for an image: the probabilities, (K,), of its classes."""

    path: Path
    found: NetworkInput
    probabilities: np.ndarray
    classifier: ImageClassifier

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """The classes with their probabilities, most probable first."""
        pairs = zip(self.classifier.classes, self.probabilities.tolist(), strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])

    @property
    def note(self) -> str:
        """A reason to doubt the answer; empty if there is none."""
        if self.found.candidates > 1:
            return f"one of {self.found.candidates} digits"
        if self.classifier.is_for_digits:
            height, width = (np.ptp(indices) + 1 for indices in self.found.pixels.nonzero())
            if width > MAX_WIDTH * height:
                return "doubtful: wider than a digit"
        return "doubtful" if self.probabilities.max() < MIN_PROBABILITY else ""


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
    run: Run, paths: Iterable[Path | str], on_skip: Callable[[Path, Exception], None] | None = None
) -> list[Answer]:
    """Recognise the digit in each image file or, with a network for other classes, the class of the whole image.

    Args:
        run: the run whose tested weights are used.
        paths: the files, of any size and mode.
        on_skip: called with each file that has no answer, and the reason; None to raise the first such error.

    Raises:
        UsageError: the run has no checkpoint.
        UnreadableImage, NoDigit: on_skip is None, and a file has no answer.
    """
    classifier = load_classifier(run)
    found: dict[Path, NetworkInput] = {}
    for path in map(Path, paths):
        try:
            found[path] = classifier.network_input(open_image(path))
        except (UnreadableImage, NoDigit) as error:
            if on_skip is None:
                raise type(error)(f"{path}: {error}") from error
            on_skip(path, error)
    if not found:
        return []
    probabilities = classifier.probabilities(np.stack([each.pixels for each in found.values()]))
    return [Answer(path, each, row, classifier) for (path, each), row in zip(found.items(), probabilities, strict=True)]
