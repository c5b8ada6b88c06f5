"""Measure accuracy on shifted, rotated, noisy and otherwise corrupted test images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mnist_lab.data.corruptions import corrupt
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.runs.run import Run
from mnist_lab.training.build import load_trained_model, make_data


@dataclass(frozen=True)
class Robustness:
    """Accuracies of a network, from 0 to 1.

    Attributes:
        images: the number of test images.
        accuracy: on the test images without corruption.
        accuracies: by corruption, in the strengths 1 to 5.
    """

    images: int
    accuracy: float
    accuracies: dict[str, list[float]]


def measure(run: Run, names: Sequence[str], after_each: Callable[[], object] = lambda: None) -> Robustness:
    """Measure the accuracies of a run's tested weights on the whole test set, with and without corruption.

    Args:
        run: the run.
        names: the corruptions, from CORRUPTIONS.
        after_each: called after each accuracy.

    Raises:
        UsageError: the run has no checkpoint.
        DataUnavailable: the test set could not be had.
    """
    network = load_trained_model(run)
    data = make_data(run.config, network)
    images, labels = (torch.from_numpy(array) for array in data.test_set())

    def inverted(images: Tensor) -> Tensor:
        return 255 - images if data.background > 127 else images  # corruptions fill with black

    def accuracy(name: str, strength: int) -> float:
        changed = data.normalise(inverted(corrupt(inverted(images), name, strength)).numpy())
        after_each()
        return Predictions(labels.long(), network.probabilities(changed)).accuracy

    plain = accuracy("", 0)
    return Robustness(
        len(images), plain, {name: [accuracy(name, strength) for strength in range(1, 6)] for name in names}
    )


def example_image(run: Run) -> Tensor:
    """Return a run's first test image, (28, 28) bytes."""
    cfg = run.config
    return torch.from_numpy(make_data(cfg, load_trained_model(run)).test_set()[0][0])
