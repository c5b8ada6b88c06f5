"""Seconds of one training epoch beside other frameworks: the same network, batch size, optimizer and data in memory.

    python -m benchmarks.peers [NETWORK ...] [--rounds 3] [--figure FILE.png] [--environment FOLDER]

The loops run in turn, round after round (A B C A B C ...), on the CPU with the threads that they take by default. Each
runs in a process of its own, trains two epochs of the 60,000 images and times the second: the first compiles and fills
caches. A loop with less than half or more than twice the median loop's test errors is refused.

- mnist_lab and fast: as benchmarks.epoch has them, with all that a run logs and saves.
- tutorial and plain: the loops of benchmarks.epoch.
- lightning: Lightning's Trainer on the tutorial's network, without logger, progress bar and checkpoints.
- fastai: its Learner on the tutorial's network.
- keras and keras_50: Keras on JAX, compile and fit, with steps_per_execution 1 and 50.
- flax: Flax NNX, in the functional training loop of its guide to performance.

All but the tutorial's loop take a batch by one look-up in the arrays. Lightning and fastai have mnist_lab's fused SGD;
Keras and Flax draw their weights from torch's distribution. fastai, Keras, JAX and Flax live in an environment of their
own, which the first run makes: two minutes and 7 GB on Linux.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import platformdirs

from benchmarks.epoch import time_epochs
from benchmarks.peer_loops import EPOCHS, PACKAGES
from benchmarks.timing import in_turn, output_of, ratio, spread
from benchmarks.tutorials import NETWORKS
from mnist_lab.viz.style import COLOURS, styled

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
HERE = ("mnist_lab", "fast", "tutorial", "plain")  # benchmarks.epoch measures these.
Seconds = Mapping[str, Sequence[float]]  # of each loop, a value a round


def prepare_environment(folder: Path) -> Path:
    """Make the environment of the peers where it is missing, and return its Python."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        print(f"Installing {', '.join(PACKAGES)} in {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True, stdout=sys.stderr)
    return python


def write_data(network: str, path: Path) -> None:
    """Write a preset's images, labels and settings as NumPy's arrays."""
    import numpy as np

    from mnist_lab.config.compose import compose
    from mnist_lab.models.classifier import LOSSES
    from mnist_lab.training.build import make_data, make_model

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
    if loop in HERE:
        line = output_of("benchmarks.peers", network, "--only", loop)
    else:
        line = output_of(
            *("benchmarks.peer_loops", loop, network, str(data)),
            python=sys.executable if loop == "lightning" else python,
        )
    seconds, accuracy = map(float, line.split())
    print(f"{network}, {loop}: {seconds:.2f} s, {accuracy:.2%}", file=sys.stderr, flush=True)
    return seconds, accuracy


def odd_loops(accuracies: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the loops that do not train as the others do: half or twice as many errors as the median loop."""
    errors = {loop: 1 - statistics.median(values) for loop, values in accuracies.items()}
    usual = statistics.median(errors.values())
    return [loop for loop, error in errors.items() if not usual / 2 <= error <= usual * 2]


def table(measured: Mapping[str, Seconds]) -> str:
    """Return the medians and ranges as a Markdown table: a column for each network, the fastest loop in bold."""
    lines = [["seconds of an epoch", *measured], ["---"] * (1 + len(measured))]
    first = {
        network: min(seconds, key=lambda loop: statistics.median(seconds[loop]))
        for network, seconds in measured.items()
    }
    for loop, words in LOOPS.items():
        cells = [spread(seconds[loop]) for seconds in measured.values()]
        bold = [
            f"**{cell}**" if first[network] == loop else cell for network, cell in zip(measured, cells, strict=True)
        ]
        lines.append([words, *bold])
    for loop, words in OURS.items():
        cells = []
        for seconds in measured.values():
            best_peers = [min(values) for values in zip(*(seconds[peer] for peer in PEERS), strict=True)]
            cells.append(ratio(seconds[loop], best_peers))
        lines.append([f"{words} / best of the others", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@styled
def draw(measured: Mapping[str, Seconds], path: Path) -> None:
    """Draw a panel for each network: bars of the medians, the fastest on top, and each round a dot."""
    from matplotlib.figure import Figure

    columns = min(2, len(measured))
    lines = math.ceil(len(measured) / columns)
    figure = Figure(figsize=(4.8 * columns, 0.4 + 2.6 * lines), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in panels[len(measured) :]:
        axes.axis("off")
    for axes, (network, seconds) in zip(panels, measured.items(), strict=False):
        medians = {loop: statistics.median(values) for loop, values in seconds.items()}
        order = sorted(medians, key=medians.__getitem__)
        colours = [COLOURS["train" if loop in OURS else "line"] for loop in order]
        axes.barh(range(len(order)), [medians[loop] for loop in order], 0.7, color=colours)
        for place, loop in enumerate(order):
            rounds = seconds[loop]
            axes.plot(rounds, [place] * len(rounds), "o", color=COLOURS["ink"], mec=COLOURS["paper"], ms=4, mew=0.6)
            after = (max(rounds), place)
            axes.annotate(f"{medians[loop]:.2f}", after, (6, 0), textcoords="offset points", va="center", fontsize=8.5)
        axes.set_yticks(range(len(order)), [LOOPS[loop] for loop in order])
        axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_xlim(left=0)
        axes.set_title(network, loc="left", fontweight="bold")
    figure.supxlabel("seconds of an epoch of 60,000 images: median, and each round", fontsize=9.5)
    figure.savefig(path, dpi=120)


def versions(python: Path) -> str:
    """Return the versions of Python and of the packages in both environments, and the processor."""
    from mnist_lab.runs.record import package_versions, processor_name

    ours = package_versions()
    here = ", ".join(f"{package} {ours[package]}" for package in ("torch", "lightning"))
    there = output_of("benchmarks.peer_loops", "versions", python=python)
    return f"Python {platform.python_version()}, {here}; of the peers: {there}; {processor_name()}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", metavar="NETWORK", nargs="*", help=", ".join(NETWORKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--figure", type=Path, help="a PNG to draw")
    parser.add_argument("--environment", type=Path, help="of the peers: a folder; default: one in the user's cache")
    parser.add_argument("--only", choices=HERE, help=argparse.SUPPRESS)
    options = parser.parse_args()
    networks = options.networks or list(NETWORKS)
    if unknown := set(networks) - set(NETWORKS):
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
        if odd := odd_loops(accuracies):
            raise RuntimeError(f"{network}: {', '.join(odd)} did not train as the others did: {accuracies}")
        measured[network] = {loop: [seconds for seconds, _ in pairs] for loop, pairs in values.items()}
    print(f"{table(measured)}\n\n{versions(python)}")
    if options.figure:
        draw(measured, options.figure)


if __name__ == "__main__":
    main()
