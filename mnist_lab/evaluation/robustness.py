"""Measure accuracy on test images that are shifted, turned, noisy and so on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mnist_lab.data.corruptions import CORRUPTIONS, SEED, corrupt
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.runs.run import Run
from mnist_lab.training.build import load_trained_model, make_data


def measure(run: Run, names: Sequence[str], after_each: Callable[[], object] = lambda: None) -> Measured:
    """Accuracies of a run's tested weights on the whole test set, as it is and corrupted, each from 0 to 1.

    Args:
        run: the run.
        names: of the corruptions, from CORRUPTIONS.
        after_each: called after each of the accuracies.

    Raises:
        UsageError: the run has no checkpoint.
        DataUnavailable: the test set could not be had.
    """
    network = load_trained_model(run)
    data = make_data(run.config, network)
    images, labels = (torch.from_numpy(array) for array in data.test_set())

    def accuracy(name: str, strength: int) -> float:
        changed = data.normalise(corrupt(images, name, strength).numpy())
        after_each()
        return Predictions(labels.long(), network.probabilities(changed)).accuracy

    return {
        "images": len(images),
        "seed": SEED,
        "accuracy": accuracy("", 0),
        "corruptions": {
            name: {
                "unit": CORRUPTIONS[name].unit,
                "amounts": list(CORRUPTIONS[name].amounts),
                "accuracies": [accuracy(name, strength) for strength in range(1, 6)],
            }
            for name in names
        },
    }


def example(run: Run) -> Tensor:
    """A run's first test image, (28, 28) bytes."""
    cfg = run.config
    return torch.from_numpy(make_data(cfg, load_trained_model(run)).test_set()[0][0])


Measured = dict[str, Any]  # as `measure` returns it
