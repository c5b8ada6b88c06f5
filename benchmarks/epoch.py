"""Seconds of one training epoch: the tutorial's own loop, a plain loop over tensors in memory, and mnist_lab.

    python -m benchmarks.epoch [NETWORK ...] [--rounds 3]

The three run in turn, round after round (A B C A B C ...), each in a process of its own: a machine's speed drifts, so
what counts are the ratios within a round. All train one epoch on the 60,000 images at the tutorial's settings.

- tutorial: torchvision's data set, PIL transforms and a DataLoader with the tutorial's workers.
- plain: the images as tensors in memory, the smallest loop that trains.
- mnist_lab: the main job as users run it, with metrics, TensorBoard and checkpoints: its fit divided by its epochs, so
  decoding, saving and all else that Lightning does are in it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

LOOPS = ("tutorial", "plain", "mnist_lab")
NETWORKS = ("simple_cnn", "compact_cnn", "lenet", "dropout_cnn", "mlp")
WORKERS = {"lenet": 2}  # of the DataLoader; the other tutorials use none
EPOCHS = 2  # of the main job, so that what a run does once does not count in full


def seconds_of(loop: str, network: str) -> float:
    """Seconds of one epoch, in this process."""
    from mnist_lab.build import make_data, make_model
    from mnist_lab.config import compose
    from mnist_lab.train import train

    with tempfile.TemporaryDirectory() as runs_dir:
        settings = (f"experiment={network}", f"trainer.max_epochs={EPOCHS}", f"runs_dir={runs_dir}")
        cfg = compose(*settings, "callbacks.test_curve=null")  # training alone
        if loop == "mnist_lab":
            return float(train(cfg).info["seconds"]["fit"]) / EPOCHS
        model = make_model(cfg)
        data = make_data(cfg, model)
        data.setup("fit")
        assert model.optimizer is not None
        batches: Iterable = data.train_dataloader()
        if loop == "tutorial":
            from torch.utils.data import DataLoader
            from torchvision import datasets, transforms

            from mnist_lab.data.source import data_root

            resize = [transforms.Resize((model.image_size, model.image_size))] if model.image_size != 28 else []
            normalise = transforms.Normalize((cfg.data.mean,), (cfg.data.std,))
            pipeline = transforms.Compose([*resize, transforms.ToTensor(), normalise])
            images = datasets.MNIST(str(data_root(cfg.data.root)), train=True, transform=pipeline)
            workers = WORKERS.get(network, 0)
            batches = DataLoader(images, batch_size=cfg.data.batch_size, shuffle=True, num_workers=workers)
        return _train(model.train(), model.optimizer(model.parameters()), batches)


def _train(model, optimizer, batches: Iterable) -> float:  # type: ignore[no-untyped-def]
    from mnist_lab.models.classifier import LOSSES

    started = time.perf_counter()
    for images, labels in batches:
        optimizer.zero_grad()
        LOSSES[model.loss](model(images), labels).backward()
        optimizer.step()
    return time.perf_counter() - started


def measure(network: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each loop, a round at a time."""
    seconds: dict[str, list[float]] = {loop: [] for loop in LOOPS}
    for _ in range(rounds):
        for loop in LOOPS:
            command = [sys.executable, "-m", "benchmarks.epoch", network, "--only", loop]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
            seconds[loop].append(float(done.stdout.splitlines()[-1]))
    return seconds


def ratio(over: list[float], under: list[float]) -> str:
    """Median of the ratios within a round, and their range."""
    ratios = sorted(a / b for a, b in zip(over, under, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", metavar="NETWORK", nargs="*", help=", ".join(NETWORKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=LOOPS, help="one loop once, in this process")
    options = parser.parse_args()
    if options.only:
        print(seconds_of(options.only, options.networks[0]))
        return
    print("| network | tutorial's loop, s | plain loop, s | mnist_lab, s | tutorial / mnist_lab | mnist_lab / plain |")
    print("|---|---|---|---|---|---|")
    for network in options.networks or NETWORKS:
        seconds = measure(network, options.rounds)
        medians = " | ".join(f"{statistics.median(seconds[loop]):.1f}" for loop in LOOPS)
        tutorial, plain, ours = (seconds[loop] for loop in LOOPS)
        print(f"| {network} | {medians} | {ratio(tutorial, ours)} | {ratio(ours, plain)} |", flush=True)


if __name__ == "__main__":
    main()
