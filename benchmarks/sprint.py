"""Seconds of training to 99 %: the preset sprint beside a published one-epoch notebook, in turn on the same machine.

    python -m benchmarks.sprint 8_Final_00s76.ipynb [--rounds 10]

The notebook is that of github.com/tuomaso/train_mnist_fast, which is not part of this repository. Its cells run as they
are, in a process of their own, on the files that its data_saver makes; only its function train is timed. Of the preset
the time from the first epoch's start to the end of training is taken.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import Clock, output_of
from mnist_lab.config.compose import compose
from mnist_lab.training.build import make_data, make_model
from mnist_lab.training.train import train

BESIDE = "notebook"


def time_preset(seed: int) -> tuple[float, float]:
    """Train the preset; return its seconds and its test accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        clock = "+callbacks.clock._target_=benchmarks.timing.Clock"
        run = train(compose("experiment=sprint", f"seed={seed}", "figures=false", f"hydra.run.dir={folder}/run", clock))
        return Clock.times[-1] - Clock.times[0], run.info["metrics"]["test/acc"]


def time_notebook(path: Path, seed: int) -> tuple[float, float]:
    """Run a notebook's cells up to its function main, then main; return the seconds in train, and the accuracy."""
    torch.manual_seed(seed)
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {"__name__": BESIDE}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        _save_data()
        for cell in cells:
            lines = [line for line in "".join(cell["source"]).splitlines() if not line.startswith("%")]
            if "main" not in names:  # the cells after it call it
                exec(compile("\n".join(lines), str(path), "exec"), names)
    inner, seconds = names["train"], 0.0

    def timed(*arguments: Any) -> None:
        nonlocal seconds
        started = time.perf_counter()
        inner(*arguments)
        seconds = time.perf_counter() - started

    names["train"] = timed
    accuracy = names["main"]() / 100
    return seconds, accuracy


def _save_data() -> None:
    """Write the files that the notebook loads, as its data_saver does: normalised, and shuffled once."""
    cfg = compose("data.val_size=0")
    data = make_data(cfg, make_model(compose("model=fast_cnn")))
    data.setup()
    Path("data").mkdir()
    order = torch.randperm(60_000)
    images, labels = (torch.cat(parts) for parts in zip(*data.train_batches(), strict=True))
    test_images, test_labels = (torch.cat(parts) for parts in zip(*data.test_dataloader(), strict=True))
    torch.save(images[order], "data/train_data.pt")
    torch.save(labels[order], "data/train_labels.pt")
    torch.save(test_images, "data/test_data.pt")
    torch.save(test_labels, "data/test_labels.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--once", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    path = options.notebook.absolute()
    if options.once:
        print(*(time_preset(options.seed) if options.once == "sprint" else time_notebook(path, options.seed)))
        return
    found: dict[str, list[tuple[float, float]]] = {"sprint": [], BESIDE: []}
    for seed in range(options.rounds):
        for name, times in found.items():
            seconds, accuracy = output_of("benchmarks.sprint", str(path), "--once", name, "--seed", str(seed)).split()
            times.append((float(seconds), float(accuracy)))
            print(f"{name}, seed {seed}: {float(seconds):.2f} s, {float(accuracy):.2%}", flush=True)
    for name, times in found.items():
        seconds_of = [seconds for seconds, _ in times]
        accuracies = [accuracy for _, accuracy in times]
        print(
            f"{name}: {statistics.median(seconds_of):.2f} s ({min(seconds_of):.2f} to {max(seconds_of):.2f}), "
            f"{statistics.fmean(accuracies):.3%} ± {100 * statistics.stdev(accuracies):.3f}"
        )
    ratios = [mine[0] / theirs[0] for mine, theirs in zip(found["sprint"], found[BESIDE], strict=True)]
    print(f"sprint / notebook: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
