"""Measure accuracy on shifted, rotated, noisy and otherwise corrupted test images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mnist_lab.data.corruptions import corrupt
from mnist_lab.evaluation.predictions import Predictions, load_trained
from mnist_lab.runs.run import Run


@dataclass(frozen=True)
class Robustness:
    """Accuracies of a network, from 0 to 1."""

    images: int
    accuracy: float  # without corruption
    accuracies: dict[str, list[float]]  # by corruption, in the strengths 1 to 5


def measure(run: Run, names: Sequence[str]) -> Robustness:
    """Measure the accuracies of a run's tested weights on the whole test set."""
    network, data = load_trained(run)
    images, labels = (torch.from_numpy(array) for array in data.test_set())

    def inverted(images: Tensor) -> Tensor:
        return 255 - images if data.background > 127 else images  # corruptions fill with black

    def accuracy(name: str, strength: int) -> float:
        changed = data.normalise(inverted(corrupt(inverted(images), name, strength)).numpy())
        return Predictions(labels.long(), network.probabilities(changed)).accuracy

    plain = accuracy("", 0)
    corrupted = {name: [accuracy(name, strength) for strength in range(1, 6)] for name in names}
    return Robustness(len(images), plain, corrupted)


def example_image(run: Run) -> Tensor:
    """Return a run's first test image, (28, 28) bytes."""
    return torch.from_numpy(load_trained(run)[1].test_set()[0][0])
