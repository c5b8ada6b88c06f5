"""The average of the weights is what is validated, tested and saved; training goes on with the weights themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lab import SMALL_RESIDUAL, Command
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from mnist_lab.runs.run import Run
from mnist_lab.training.multistep import StepCallback

RUN = Run(Path("runs/a/b"))


class Recorder(StepCallback):
    """Keeps the weights after each step."""

    weights: ClassVar[list[dict[str, Tensor]]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Recorder.weights = []

    def after_step(self, trainer: Trainer, pl_module: LightningModule, step: int, loss: Tensor) -> None:
        self.weights.append({name: value.clone() for name, value in pl_module.state_dict().items()})


def checkpoint() -> dict[str, Any]:
    content: dict[str, Any] = torch.load(RUN.chosen_checkpoint(), weights_only=True)
    return content


def test_saved_network_is_the_moving_average_of_the_weights_after_each_step(command: Command) -> None:
    recorder = "+callbacks.recorder._target_=test_averaging.Recorder"
    settings = (*SMALL_RESIDUAL, "callbacks=ema", "callbacks.ema.decay=0.8", "data.val_size=0")
    assert command(*settings, recorder, "trainer.max_epochs=1", f"hydra.run.dir={RUN}").status == 0
    saved = checkpoint()
    assert len(Recorder.weights) == RUN.info["steps"] > 10
    for name in ("stem.weight", "norm.running_mean"):
        average = Recorder.weights[0][name]
        for count, weights in enumerate(Recorder.weights[1:], start=1):
            decay = min(0.8, (1 + count) / (10 + count))
            average = decay * average + (1 - decay) * weights[name]
        assert torch.allclose(saved["state_dict"][name], average, atol=1e-6)
        assert torch.equal(saved["current_model_state"][name], Recorder.weights[-1][name])


def test_training_does_not_depend_on_the_average(command: Command) -> None:
    states = []
    for settings in ((), ("callbacks=ema",)):
        assert command("model=dropout_cnn", *settings, "data.val_size=0", f"hydra.run.dir={RUN}").status == 0
        content = checkpoint()
        states.append(content.get("current_model_state", content["state_dict"]))
        RUN.clear()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize("ema", [True, False])
def test_test_curve_ends_at_the_figures_of_the_tested_weights(command: Command, ema: bool) -> None:
    """With averaged weights the curve is theirs, too."""
    averaged = ["callbacks.ema={_target_: mnist_lab.training.AveragedWeights, decay: 0.9}"] * ema
    settings = ("model=mlp", "callbacks=test_curve", *averaged, "data.val_size=0", f"hydra.run.dir={RUN}")
    assert command(*settings).status == 0
    assert RUN.curve("test/loss")[2] == pytest.approx(RUN.info["metrics"]["test/loss"], abs=1e-6)
