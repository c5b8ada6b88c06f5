"""Where the time of an epoch goes.

    python -m benchmarks.profile [NETWORK ...]

Times the second of two epochs of the main job at the tutorial's settings, with a clock around each part of a step: the
arithmetic of the network, and what mnist_lab and Lightning add to it. Each clock costs about a microsecond a step.
"""

import argparse
import importlib
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from hydra.utils import get_class

from benchmarks.timing import Clock, output_of, print_head, print_row, train_timed
from benchmarks.tutorials import NETWORKS
from mnist_lab.config.compose import compose
from mnist_lab.data.batches import Batches
from mnist_lab.models import classifier
from mnist_lab.models.metrics import LossAndAccuracy
from mnist_lab.training.callbacks import StepLog
from mnist_lab.training.checkpointing import SaveWithinEpochs
from mnist_lab.training.progress import EpochLines

PARTS = ("forward", "loss", "backward", "optimizer", "batches", "metrics", "callbacks")
seconds: dict[str, float] = defaultdict(float)  # The clocks of all parts add to it.


def timed(function: Callable[..., Any], part: str) -> Callable[..., Any]:
    """Return the function with a clock that runs in the second epoch."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = function(*args, **kwargs)
        if len(Clock.times) == 2:
            seconds[part] += time.perf_counter() - started
        return result

    return wrapper


def shares(network: str) -> list[str]:
    """Return each part's share of an epoch in this process, and the epoch's seconds."""
    settings = (f"experiment={network}", "trainer.max_epochs=2", "callbacks.test_curve=null")
    places: list[tuple[Any, str, str]] = [
        (get_class(compose(*settings).model._target_), "forward", "forward"),
        (torch.Tensor, "backward", "backward"),
        (importlib.import_module("torch.optim.sgd"), "sgd", "optimizer"),
        (Batches, "batch", "batches"),
        (LossAndAccuracy, "add", "metrics"),
        *((callback, "after_step", "callbacks") for callback in (StepLog, SaveWithinEpochs, EpochLines)),
    ]
    for owner, name, part in places:
        setattr(owner, name, timed(getattr(owner, name), part))
    for name, loss in classifier.LOSSES.items():
        classifier.LOSSES[name] = timed(loss, "loss")
    train_timed(*settings)
    epoch = Clock.times[2] - Clock.times[1]
    parts = [seconds[part] for part in PARTS]
    return [f"{value / epoch:.1%}" for value in (*parts, epoch - sum(parts))] + [f"{epoch:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", metavar="NETWORK", nargs="*", default=list(NETWORKS))
    parser.add_argument("--only", action="store_true", help="profile the first network in this process")
    options = parser.parse_args()
    if options.only:
        print(" | ".join(shares(options.networks[0])))
        return
    print_head("network", *PARTS, "the rest", "seconds")
    for network in options.networks:
        print_row(network, output_of("benchmarks.profile", network, "--only"))


if __name__ == "__main__":
    main()
