"""The same configuration gives the same training: to the last bit on one machine, and near enough on another."""

import json
import os
from pathlib import Path

import pytest
from lab import Tiny, thorough
from test_models import NETWORKS

from mnist_lab.runs.run import Run
from mnist_lab.training.train import train

REFERENCE = Path(__file__).parent / "reference_losses.json"
# Another number of threads or another processor adds numbers in another order. In single precision, training amplifies
# that from the seventh digit to several per cent of a loss within the hundred steps, so the runs use double precision.
RELATIVE, ABSOLUTE = 1e-6, 1e-6


def hundred_steps(tiny: Tiny, network: str, *more: str) -> Run:
    settings = ("data.val_size=0", "trainer.max_epochs=7", "trainer.max_steps=100", "trainer.log_every_n_steps=1")
    return train(tiny.compose(f"model={network}", *settings, *more))


@pytest.mark.parametrize("network", ["mlp", "dropout_cnn", *thorough(*sorted({*NETWORKS} - {"mlp", "dropout_cnn"}))])
def test_hundred_steps_are_those_of_the_reference(tiny: Tiny, network: str) -> None:
    """MNIST_LAB_RENEW=1 writes a new reference, if training was changed on purpose."""
    run = hundred_steps(tiny, network, "trainer.precision=64-true")
    losses = [row["train/loss_step"] for row in run.metrics() if "train/loss_step" in row]
    assert len(losses) == 100
    known = json.loads(REFERENCE.read_text()) if REFERENCE.exists() else {}
    if os.environ.get("MNIST_LAB_RENEW") == "1":
        REFERENCE.write_text(json.dumps(known | {network: [round(loss, 6) for loss in losses]}, indent=0) + "\n")
    else:
        assert losses == pytest.approx(known[network], rel=RELATIVE, abs=ABSOLUTE)
