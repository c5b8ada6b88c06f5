"""Does the range test's suggestion train as well as the tutorial's own learning rate?

    python -m benchmarks.lr_range [--epochs 5]

For each tutorial's network, with SGD at the tutorial's momentum and with Adam, it prints the rates that `lr` suggests
and the validation accuracy after five epochs with each, beside that of the tutorial's own optimizer and rate.
"""

import argparse
import tempfile
from collections.abc import Sequence

from omegaconf import DictConfig

from benchmarks.timing import print_head, print_row
from mnist_lab.config.compose import compose
from mnist_lab.config.metric_names import VAL_ACC
from mnist_lab.console import console
from mnist_lab.formatting import format_value
from mnist_lab.training.lr_range import range_test
from mnist_lab.training.train import train

NETWORKS = ("mlp", "lenet", "simple_cnn", "compact_cnn", "dropout_cnn")
HEADS = ("network", "optimizer", "tutorial's rate", "%", "valley", "%", "steepest", "%")


def settings(network: str, optimizer: str, epochs: int) -> list[str]:
    """Return the overrides of a tutorial's preset with an optimizer, and 5,000 validation images."""
    overrides = [f"experiment={network}", "data.val_size=5000", "callbacks=default", "seed=1"]
    overrides.append(f"trainer.max_epochs={epochs}")
    if optimizer == "adam":
        overrides.append("optimizer=adam")
        if "momentum" in compose(*overrides).optimizer:  # The preset sets it for SGD.
            overrides.append("~optimizer.momentum")
    return overrides


def accuracy(overrides: Sequence[str]) -> float:
    """Train and return the validation accuracy of the best epoch in per cent."""
    with tempfile.TemporaryDirectory() as folder:
        console.quiet = True
        run = train(compose(*overrides, f"hydra.run.dir={folder}/run", "figures=false", "dashboard=none"))
        return 100 * run.info["metrics"][VAL_ACC]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    epochs = parser.parse_args().epochs
    print_head(*HEADS)
    for network in NETWORKS:
        tutorial = settings(network, "sgd", epochs)
        cfg: DictConfig = compose(*tutorial)
        baseline = accuracy(tutorial)
        for optimizer in ("sgd", "adam"):
            overrides = settings(network, optimizer, epochs)
            suggested = range_test(compose(*overrides))
            cells = [network, optimizer, format_value(cfg.optimizer.lr), f"{baseline:.2f}"]
            for rate in (suggested.valley, suggested.steepest):
                cells += [f"{rate:.2g}", f"{accuracy([*overrides, f'optimizer.lr={rate:.2g}']):.2f}"]
            print_row(*cells)


if __name__ == "__main__":
    main()
