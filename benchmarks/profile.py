"""Where the time of an epoch goes.

    python -m benchmarks.profile [NETWORK ...]

One epoch of the main job at the tutorial's settings, after one to warm up, with a clock around each part of a step: the
arithmetic of the network, and what mnist_lab and Lightning add to it. The clocks themselves cost about a microsecond a
step each.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.timing import Clock, output_of
from benchmarks.tutorials import NETWORKS
from mnist_lab.data.batches import Batches
from mnist_lab.models import classifier
from mnist_lab.models.metrics import LossAndAccuracy
from mnist_lab.training.callbacks import StepLog
from mnist_lab.training.checkpointing import SaveWithinEpochs
from mnist_lab.training.progress import EpochLines

PARTS = ("forward", "loss", "backward", "optimizer", "batches", "metrics", "callbacks")
seconds: dict[str, float] = defaultdict(float)


def timed(function: Callable[..., Any], part: str) -> Callable[..., Any]:
    """The function with a clock that runs in the second epoch."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = function(*args, **kwargs)
        if len(Clock.times) == 2:
            seconds[part] += time.perf_counter() - started
        return result

    return wrapper


def shares(network: str) -> list[str]:
    """Each part's share of an epoch in this process, and the epoch's seconds."""
    from hydra.utils import get_class

    from mnist_lab.config.compose import compose
    from mnist_lab.sweeps.process import keep_freed_memory
    from mnist_lab.training.train import train

    with tempfile.TemporaryDirectory() as runs_dir:
        clock = "+callbacks.clock._target_=benchmarks.timing.Clock"
        settings = (f"experiment={network}", "trainer.max_epochs=2", "callbacks.test_curve=null", clock)
        cfg = compose(*settings, f"runs_dir={runs_dir}")
        places: list[tuple[Any, str, str]] = [
            (get_class(cfg.model._target_), "forward", "forward"),
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
        keep_freed_memory()  # as on the command line
        train(cfg)
    epoch = Clock.times[2] - Clock.times[1]
    rest = epoch - sum(seconds.values())
    return [f"{value / epoch:.1%}" for value in (*(seconds[part] for part in PARTS), rest)] + [f"{epoch:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", metavar="NETWORK", nargs="*", default=list(NETWORKS))
    parser.add_argument("--only", action="store_true", help="the first network, in this process")
    options = parser.parse_args()
    if options.only:
        print(" | ".join(shares(options.networks[0])))
        return
    print("|", " | ".join(["network", *PARTS, "the rest", "seconds"]), "|")
    print("|---" * (len(PARTS) + 3) + "|")
    for network in options.networks:
        print("|", network, "|", output_of("benchmarks.profile", network, "--only"), "|", flush=True)


if __name__ == "__main__":
    main()
