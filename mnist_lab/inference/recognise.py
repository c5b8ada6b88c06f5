"""Recognise digits, or the other classes of a run, in a user's images or in a file of arrays or a CSV of pixels."""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mnist_lab.data.array_file import ArrayFile
from mnist_lab.data.data_files import explain
from mnist_lab.data.image_folder import ImageFolder
from mnist_lab.data.images import PixelBudget, UnreadableImage, fit_image, open_image
from mnist_lab.data.pixel_values import find_common_scale, to_bytes
from mnist_lab.errors import UsageError
from mnist_lab.evaluation.predictions import TrainedRun
from mnist_lab.files import require_writable_file, user_output
from mnist_lab.formatting import csv_value, print_warning
from mnist_lab.inference.digits import NetworkInput, NoDigit, find_digit, find_number
from mnist_lab.runs.run import Run
from mnist_lab.training.runtime import guest

MIN_PROBABILITY = 0.55  # An answer below it is doubtful; 1 in 100 right answers is.
MAX_WIDTH = 1.6  # heights; 1 in 400 of MNIST's test digits is wider, and so are many pairs that touch.
TOUCH_WIDTH, TOUCH_PROBABILITY = 1.2, 0.95  # Beyond both are 1 in 200 of its digits, and half of such pairs.


class ImageClassifier(TrainedRun):
    """A run's network with its tested weights, ready for images. The data set is not needed."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.classes = self.data.classes
        self.is_for_digits = self.data.has_digits
        self.noun = "digit" if self.is_for_digits else "class"

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return class probabilities, (N, K), for images, (N, 28, 28) bytes."""
        return self.model.probabilities(self.data.normalise(images)).numpy()

    def network_inputs(self, image: Image.Image, *, single: bool = False) -> list[NetworkInput]:
        """Return the image's row of digits, or its clearest one; of a network for other classes, the whole image."""
        if self.is_for_digits:
            return [find_digit(image)] if single else find_number(image)
        # A network that was trained on image files has seen them as they are.
        background = None if isinstance(self.data.source, ImageFolder) else self.data.background
        return [NetworkInput(fit_image(image, background))]


@dataclass(frozen=True)
class Answer:
    """A network's answer for an image."""

    path: Path
    found: Sequence[NetworkInput]  # D digits, from left to right; for other classes, the whole image
    probabilities: np.ndarray  # (D, K)
    classifier: ImageClassifier
    single: bool = False  # whether only the clearest digit was read

    @property
    def text(self) -> str:
        """The most probable number or class."""
        return self._name_classes(self.probabilities.argmax(1))

    def _name_classes(self, labels: np.ndarray) -> str:
        return "".join(self.classifier.classes[label] for label in labels)

    @property
    def probability(self) -> float:
        """The probability that all digits are right: the product of theirs."""
        return float(self.probabilities.max(1).prod())

    @property
    def runner_up(self) -> tuple[str, float]:
        """The second most probable number or class, which differs in one digit, and its probability."""
        ranked = self.probabilities.argsort(1)[:, ::-1]  # (D, K) labels, the most probable first
        best, second_best = np.take_along_axis(self.probabilities, ranked[:, :2], 1).T
        place = int((second_best / best).argmax())
        labels = ranked[:, 0].copy()
        labels[place] = ranked[place, 1]
        return self._name_classes(labels), float(self.probability * second_best[place] / best[place])

    @property
    def note(self) -> str:
        """A reason to doubt the answer; empty if there is none."""
        others = self.found[0].candidates - len(self.found)
        if others:
            return f"one of {1 + others} digits" if self.single else f"{others} more outside the row"
        probabilities = self.probabilities.max(1)
        if self.classifier.is_for_digits and any(map(_may_touch, self.found, probabilities)):
            return "digits may touch"
        return "doubtful" if probabilities.min() < MIN_PROBABILITY else ""


def _may_touch(digit: NetworkInput, probability: float) -> bool:
    """Return whether what was found may be digits that touch: it is very wide, or wide and improbable."""
    height, width = (np.ptp(indices) + 1 for indices in digit.pixels.nonzero())
    return bool(width > (TOUCH_WIDTH if probability < TOUCH_PROBABILITY else MAX_WIDTH) * height)


@guest()
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
    classifier = ImageClassifier(run)
    rows: dict[Path, list[NetworkInput]] = {}
    budget = PixelBudget()
    for path in map(Path, paths):
        try:
            rows[path] = classifier.network_inputs(open_image(path, budget), single=single)
        except (UnreadableImage, NoDigit) as error:
            if on_skip is None:
                raise type(error)(f"{path}: {error}") from error
            on_skip(path, error)
    if not rows:
        return []
    probabilities = classifier.probabilities(np.stack([digit.pixels for row in rows.values() for digit in row]))
    ends = np.cumsum([len(row) for row in rows.values()])
    return [
        Answer(path, row, part, classifier, single)
        for (path, row), part in zip(rows.items(), np.split(probabilities, ends[:-1]), strict=True)
    ]


def write_submission(run: Run, path: Path, out: Path) -> tuple[int, float | None]:
    """Classify the images of a file, as Kaggle asks; return their number, and the accuracy if they have labels."""
    require_writable_file(out, f"--out={out}")
    if out.exists() and path.exists() and out.samefile(path):
        raise UsageError(f"--out={out}: would overwrite the input; choose another")
    classifier = ImageClassifier(run)
    source = classifier.data.source
    form = source if isinstance(source, ArrayFile) else ArrayFile(path=str(path))
    images, labels = form.read_more(path, classifier.classes)
    with explain(f"{path}: "):
        (_, highest), scale = find_common_scale({"test": images})
    if scale != (0, 255):
        print_warning(f"{path}: values up to {highest:g}, taken as {scale[0]:g} to {scale[1]:g}")
    predictions = classifier.probabilities(to_bytes(images, scale)).argmax(1)
    with user_output(out, f"--out={out}") as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["ImageId", "Label"])
        for number, label in enumerate(predictions, start=1):
            writer.writerow([number, csv_value(classifier.classes[label])])
    return len(predictions), None if labels is None else float((predictions == labels).mean())
