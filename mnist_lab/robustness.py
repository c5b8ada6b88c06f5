"""Measure accuracy on test images that are shifted, turned, noisy and so on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from mnist_lab.build import make_data, trained_model
from mnist_lab.compare import different_settings
from mnist_lab.corruptions import CORRUPTIONS, SEED, corrupted
from mnist_lab.predictions import Predictions
from mnist_lab.robustness_report import Measured
from mnist_lab.runs import Run
from mnist_lab.tables import cell


def measure(run: Run, names: Sequence[str], after_each: Callable[[], object] = lambda: None) -> Measured:
    """Accuracies of a run's tested weights on the whole test set, as it is and corrupted, each from 0 to 1.

    Args:
        run: the run.
        names: of the corruptions, from CORRUPTIONS.
        after_each: called after each of the accuracies.

    Raises:
        BadInput: the run has no checkpoint.
        DataUnavailable: the test set could not be had.
    """
    network = trained_model(run)
    data = make_data(run.config, network)
    images, labels = (torch.from_numpy(array) for array in data.test_set())

    def accuracy(name: str, strength: int) -> float:
        changed = data.normalised(corrupted(images, name, strength).numpy())
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
    return torch.from_numpy(make_data(cfg, trained_model(run)).test_set()[0][0])


def grouped(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by their networks and whatever else tells them apart; those of several seeds are together."""
    groups: dict[str, list[Run]] = {}
    for model in dict.fromkeys(run.info["model"] for run in runs):
        own = [run for run in runs if run.info["model"] == model]
        settings = {key: values for key, values in different_settings(own).items() if key != "seed"}
        for i, run in enumerate(own):
            words = [f"{key}={cell(key, values[i])}" for key, values in settings.items() if values[i] is not None]
            groups.setdefault(", ".join([model, *words]), []).append(run)
    return groups


def with_weights(named: Sequence[Run]) -> list[Run]:
    """The runs that have a checkpoint; the others are warned of, and if there are no more, BadInput."""
    runs = [run for run in named if run.checkpoint("best") or run.checkpoint("last")]
    if not runs:
        named[0].chosen_checkpoint()  # which raises, and says why
    for run in named:
        if run not in runs:
            print(f"mnist_lab: warning: {run}: has no checkpoint; left out", file=sys.stderr)
    return runs


def measure_all(runs: Sequence[Run], names: Sequence[str]) -> dict[Run, Measured]:
    """What measure gives of each run, with a bar on a terminal."""
    console, measured = Console(stderr=True), {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=len(runs) * (1 + 5 * len(names)))
        for run in runs:
            progress.update(bar, description=run.info["model"])
            measured[run] = measure(run, names, lambda: progress.advance(bar))
    return measured
