"""Seconds of one training epoch: the tutorial's own loop, a plain loop over tensors in memory, and mnist_lab.

    python -m benchmarks.epoch [NETWORK ...] [KEY=VALUE ...] [--rounds 3] [--figure FILE.png]

The four run in turn, round after round (A B C A B C ...), each in a process of its own. The speed of a machine changes,
so the ratios within a round count. All train on the 60,000 images at the tutorial's settings. KEY=VALUE, such as
trainer.precision=bf16-mixed, changes the settings of the plain loop and of mnist_lab.

- tutorial: its network, torchvision's data set, PIL transforms, a DataLoader with the tutorial's workers, and torch's
  defaults.
- plain: the smallest loop that trains, over tensors in memory, with mnist_lab's optimizer and memory layout.
- mnist_lab: the main job as users run it, with metrics, progress bar, TensorBoard, metrics.csv and checkpoints, from
  the start of an epoch to the start of the next.
- fast: the same with trainer=fast.

What happens once, such as reading and decoding the files, does not count.
"""

import argparse
import statistics
import time
from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.timing import Clock, draw_times, in_turn, output_of, print_head, print_row, ratio, train_timed
from benchmarks.tutorials import NETWORKS
from mnist_lab.config.compose import compose
from mnist_lab.data.mnist_files import data_root
from mnist_lab.models.classifier import LOSSES
from mnist_lab.training.build import make_data, make_model

LOOPS = ("tutorial", "plain", "mnist_lab", "fast")
WORKERS = {"lenet": 2}  # The other tutorials use a DataLoader without workers.
EPOCHS = 2  # The time is their mean. The tutorial's loop takes so long that it trains one epoch.


def seconds_of(loop: str, network: str, overrides: list[str]) -> float:
    """Train in this process and return the seconds of one epoch."""
    seconds, _ = time_epochs(loop, network, overrides, epochs=1 if loop == "tutorial" else EPOCHS)
    return statistics.fmean(seconds)


def time_epochs(loop: str, network: str, overrides: list[str], epochs: int) -> tuple[list[float], float]:
    """Train in this process; return the seconds of each epoch, and the accuracy on the test images."""
    settings = [f"experiment={network}", f"trainer.max_epochs={epochs}", "callbacks.test_curve=null"]
    if loop != "tutorial":
        settings += overrides
    if loop in ("mnist_lab", "fast"):
        info = train_timed(*settings, *["trainer=fast"] * (loop == "fast"))
        return [end - start for start, end in pairwise(Clock.times)], info["metrics"]["test/acc"]
    cfg = compose(*settings)
    torch.manual_seed(cfg.seed)
    model = make_model(cfg)
    data = make_data(cfg, model)
    data.setup()
    assert model.optimizer is not None
    if loop == "tutorial":
        tutorials = NETWORKS[network]()
        optimizer = model.optimizer(tutorials.parameters(), fused=False)
        batches = _tutorials_batches(network, model.image_size, cfg.data)
        return _train(tutorials, model.loss, optimizer, batches, epochs), _accuracy(tutorials, data.test_dataloader())
    bf16 = cfg.trainer.precision == "bf16-mixed"
    forward = partial(torch.autocast, "cpu", torch.bfloat16) if bf16 else nullcontext
    optimizer = model.optimizer(model.parameters())
    seconds = _train(model, model.loss, optimizer, data.train_batches(), epochs, forward)
    return seconds, _accuracy(model, data.test_dataloader())


def _tutorials_batches(network: str, size: int, settings: Any) -> Iterable:
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    resize = [transforms.Resize((size, size))] if size != 28 else []
    normalise = transforms.Normalize((settings.mean,), (settings.std,))
    pipeline = transforms.Compose([*resize, transforms.ToTensor(), normalise])
    images = datasets.MNIST(str(data_root(settings.root)), train=True, transform=pipeline)
    return DataLoader(images, batch_size=settings.batch_size, shuffle=True, num_workers=WORKERS.get(network, 0))


def _train(
    model: nn.Module,
    loss_name: str,
    optimizer: Any,
    batches: Iterable,
    epochs: int,
    forward: Any = nullcontext,
) -> list[float]:
    model.train()
    loss_of = LOSSES[loss_name]
    times = [time.perf_counter()]
    for _ in range(epochs):
        for images, labels in batches:
            optimizer.zero_grad()
            with forward():
                loss = loss_of(model(images), labels)
            loss.backward()
            optimizer.step()
        times.append(time.perf_counter())
    return [end - start for start, end in pairwise(times)]


def _accuracy(model: nn.Module, batches: Iterable) -> float:
    model.eval()
    with torch.inference_mode():
        return torch.cat([model(images).argmax(1) == labels for images, labels in batches]).float().mean().item()


def _in_own_process(loop: str, network: str, overrides: list[str]) -> float:
    return float(output_of("benchmarks.epoch", network, *overrides, "--only", loop))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", metavar="NETWORK or KEY=VALUE", nargs="*", help=", ".join(NETWORKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--figure", type=Path, help="a PNG to draw")
    parser.add_argument("--only", choices=LOOPS, help="time one loop once, in this process")
    options = parser.parse_args()
    overrides = [word for word in options.words if "=" in word]
    networks = [word for word in options.words if "=" not in word] or NETWORKS
    if options.only:
        print(seconds_of(options.only, networks[0], overrides))
        return
    ratios = (("tutorial", "mnist_lab"), ("mnist_lab", "plain"), ("tutorial", "fast"))
    print_head("network", *(f"{loop}, s" for loop in LOOPS), *map(" / ".join, ratios))
    measured = {}
    for network in networks:
        measures = {loop: partial(_in_own_process, loop, network, overrides) for loop in LOOPS}
        measured[network] = seconds = in_turn(measures, options.rounds)
        medians = [f"{statistics.median(seconds[loop]):.1f}" for loop in LOOPS]
        print_row(network, *medians, *(ratio(seconds[over], seconds[under]) for over, under in ratios))
    if options.figure:
        draw_times(measured, dict(zip(LOOPS, LOOPS, strict=True)), LOOPS[2:], options.figure)


if __name__ == "__main__":
    main()
