"""Seconds of training to 99 %: the preset sprint beside a published one-epoch notebook, in turn on the same machine.

    python -m benchmarks.sprint 8_Final_00s76.ipynb [--rounds 10]

The notebook is that of github.com/tuomaso/train_mnist_fast, which is not part of this repository. Its cells run
unchanged, in a process of their own, on the files that its data_saver makes. Only its function train is timed, and the
preset from the start of its first epoch to the end of training.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import Clock, output_of, ratio, spread, train_timed
from mnist_lab.config.compose import compose
from mnist_lab.training.build import make_data, make_model


def time_preset(seed: int) -> tuple[float, float]:
    """Train the preset; return its seconds and its test accuracy."""
    info = train_timed("experiment=sprint", f"seed={seed}", "figures=false")
    return Clock.times[-1] - Clock.times[0], info["metrics"]["test/acc"]


def time_notebook(path: Path, seed: int) -> tuple[float, float]:
    """Run a notebook's cells until main is defined, then main; return the seconds of its train, and its accuracy."""
    torch.manual_seed(seed)
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {"__name__": "notebook"}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        _save_data()
        for cell in cells:
            lines = [line for line in "".join(cell["source"]).splitlines() if not line.startswith("%")]
            if "main" not in names:  # The cells after it call it.
                exec(compile("\n".join(lines), str(path), "exec"), names)
    train, seconds = names["train"], 0.0

    def timed(*arguments: Any) -> None:
        nonlocal seconds
        started = time.perf_counter()
        train(*arguments)
        seconds = time.perf_counter() - started

    names["train"] = timed
    accuracy = names["main"]() / 100
    return seconds, accuracy


def _save_data() -> None:
    """Write the files that the notebook loads as its data_saver does: images normalised, and shuffled once."""
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
    times: dict[str, list[float]] = {"sprint": [], "notebook": []}
    accuracies: dict[str, list[float]] = {"sprint": [], "notebook": []}
    for seed in range(options.rounds):
        for name in times:
            line = output_of("benchmarks.sprint", str(path), "--once", name, "--seed", str(seed))
            seconds, accuracy = map(float, line.split())
            times[name].append(seconds)
            accuracies[name].append(accuracy)
            print(f"{name}, seed {seed}: {seconds:.2f} s, {accuracy:.2%}", flush=True)
    for name, values in accuracies.items():
        mean, std = statistics.fmean(values), statistics.stdev(values)
        print(f"{name}: {spread(times[name])} s, {mean:.3%} ± {100 * std:.3f}")
    print(f"sprint / notebook: {ratio(times['sprint'], times['notebook'])}")


if __name__ == "__main__":
    main()
