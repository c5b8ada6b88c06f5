"""Seconds of one training epoch beside other frameworks: the same network, batch size, optimizer and data in memory.

    python -m benchmarks.peers [NETWORK ...] [--rounds 3] [--figure FILE.png] [--environment FOLDER]

The loops run in turn, round after round (A B C A B C ...), on the CPU with their default number of threads. Each runs
in a process of its own, trains two epochs of the 60,000 images and times the second: in the first it compiles and fills
caches. A loop with less than half or more than twice the median loop's test errors ends the benchmark with an error.

- mnist_lab, fast, tutorial and plain: the loops of benchmarks.epoch.
- lightning: Lightning's Trainer on the tutorial's network, without logger, progress bar and checkpoints.
- fastai: its Learner on the tutorial's network.
- keras and keras_50: Keras on JAX, compile and fit, with steps_per_execution 1 and 50.
- flax: Flax NNX, in the functional training loop of its guide to performance.

All but the tutorial's loop take a batch by indexing the arrays once. Lightning and fastai use mnist_lab's fused SGD;
Keras and Flax draw their weights from torch's distribution. fastai, Keras, JAX and Flax are installed in an environment
of their own, which the first run makes in two minutes: 7 GB on Linux.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import platformdirs

from benchmarks.epoch import time_epochs
from benchmarks.peer_loops import EPOCHS, PACKAGES
from benchmarks.timing import draw_times, in_turn, output_of, print_head, print_row, ratio, spread
from benchmarks.tutorials import NETWORKS
from mnist_lab.config.compose import compose
from mnist_lab.models.classifier import LOSSES
from mnist_lab.runs.record import package_versions, processor_name
from mnist_lab.training.build import make_data, make_model

OURS = {"mnist_lab": "mnist_lab", "fast": "mnist_lab, fast"}
PEERS = {
    "tutorial": "tutorial",
    "plain": "plain PyTorch",
    "lightning": "plain Lightning",
    "fastai": "fastai",
    "keras": "Keras on JAX",
    "keras_50": "Keras on JAX, 50 steps",
    "flax": "Flax NNX",
}
LOOPS = OURS | PEERS
OF_EPOCH = ("mnist_lab", "fast", "tutorial", "plain")  # benchmarks.epoch measures these.
Seconds = Mapping[str, Sequence[float]]  # By loop, a value for each round.


def prepare_environment(folder: Path) -> Path:
    """Make the environment of the other frameworks if it is missing, and return its Python."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        print(f"Installing {', '.join(PACKAGES)} in {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True, stdout=sys.stderr)
    return python


def write_data(network: str, path: Path) -> None:
    """Write a preset's images, labels and settings as NumPy arrays."""
    cfg = compose(f"experiment={network}")
    model = make_model(cfg)
    data = make_data(cfg, model)
    data.setup()
    train, test = data.train_batches(), data.test_dataloader()
    np.savez(
        path,
        images=train.images,
        labels=train.labels,
        test_images=test.images,
        test_labels=test.labels,
        batch_size=cfg.data.batch_size,
        lr=cfg.optimizer.lr,
        momentum=cfg.optimizer.momentum,
        loss=LOSSES[model.loss].__name__,
    )


def measure(loop: str, network: str, data: Path, python: Path) -> tuple[float, float]:
    """Time a loop in a process of its own; return the seconds of its last epoch, and its accuracy."""
    if loop in OF_EPOCH:
        line = output_of("benchmarks.peers", network, "--only", loop)
    else:
        python = Path(sys.executable) if loop == "lightning" else python
        line = output_of("benchmarks.peer_loops", loop, network, str(data), python=python)
    seconds, accuracy = map(float, line.split())
    print(f"{network}, {loop}: {seconds:.2f} s, {accuracy:.2%}", file=sys.stderr, flush=True)
    return seconds, accuracy


def odd_loops(accuracies: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the loops that do not train as the others do: half or twice as many errors as the median loop."""
    errors = {loop: 1 - statistics.median(values) for loop, values in accuracies.items()}
    usual = statistics.median(errors.values())
    return [loop for loop, error in errors.items() if not usual / 2 <= error <= usual * 2]


def fastest(seconds: Seconds) -> str:
    """Return the loop with the least median."""
    return min(seconds, key=lambda loop: statistics.median(seconds[loop]))


def print_table(measured: Mapping[str, Seconds]) -> None:
    """Print the medians and ranges: a column for each network, the fastest loop in bold."""
    print_head("seconds of an epoch", *measured)
    for loop, words in LOOPS.items():
        cells = []
        for seconds in measured.values():
            bold = "**" if loop == fastest(seconds) else ""
            cells.append(f"{bold}{spread(seconds[loop])}{bold}")
        print_row(words, *cells)
    for loop, words in OURS.items():
        cells = []
        for seconds in measured.values():
            best_of_round = [min(values) for values in zip(*(seconds[peer] for peer in PEERS), strict=True)]
            cells.append(ratio(seconds[loop], best_of_round))
        print_row(f"{words} / best of the others", *cells)


def versions(python: Path) -> str:
    """Return the versions of Python and of the packages in both environments, and the processor."""
    ours = package_versions()
    here = ", ".join(f"{package} {ours[package]}" for package in ("torch", "lightning"))
    there = output_of("benchmarks.peer_loops", "versions", python=python)
    return f"Python {platform.python_version()}, {here}; other frameworks: {there}; {processor_name()}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", metavar="NETWORK", nargs="*", help=", ".join(NETWORKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--figure", type=Path, help="a PNG to draw")
    parser.add_argument("--environment", type=Path, help="its folder (default: in the user's cache)")
    parser.add_argument("--only", choices=OF_EPOCH, help=argparse.SUPPRESS)
    options = parser.parse_args()
    networks = options.networks or list(NETWORKS)
    unknown = set(networks) - set(NETWORKS)
    if unknown:
        parser.error(f"unknown network {', '.join(sorted(unknown))}; choose from {', '.join(NETWORKS)}")
    if options.only:
        seconds, accuracy = time_epochs(options.only, networks[0], [], EPOCHS)
        print(seconds[-1], accuracy)
        return
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    folder = options.environment or platformdirs.user_cache_path("mnist_lab") / "peers"
    python = prepare_environment(folder.absolute())
    measured: dict[str, Seconds] = {}
    for network in networks:
        with tempfile.TemporaryDirectory() as temporary:
            data = Path(temporary) / "data.npz"
            write_data(network, data)
            measures = {loop: partial(measure, loop, network, data, python) for loop in LOOPS}
            values = in_turn(measures, options.rounds)
        accuracies = {loop: [accuracy for _, accuracy in pairs] for loop, pairs in values.items()}
        odd = odd_loops(accuracies)
        if odd:
            raise RuntimeError(f"{network}: {', '.join(odd)} did not train as the others did: {accuracies}")
        measured[network] = {loop: [seconds for seconds, _ in pairs] for loop, pairs in values.items()}
    print_table(measured)
    print(f"\n{versions(python)}")
    if options.figure:
        draw_times(measured, LOOPS, OURS, options.figure)


if __name__ == "__main__":
    main()
