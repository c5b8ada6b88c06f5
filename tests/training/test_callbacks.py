"""Averaged weights are what is validated, tested and saved; the seconds of a run count over all its starts."""

import signal
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lab import SMALL_RESIDUAL, Command, Tiny, run, same, slow
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mnist_lab.runs.checkpoints import read_checkpoint
from mnist_lab.runs.run import Run
from mnist_lab.training.callbacks import ElapsedTime
from mnist_lab.training.multistep import StepCallback

RUN = Run(Path("runs/a/b"))
FIT: Any = (None, None, "fit")  # what Lightning gives a hook; the trainer and the network do not matter


class Recorder(StepCallback):
    """Keeps the weights after each step."""

    weights: ClassVar[list[dict[str, Tensor]]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Recorder.weights = []

    def after_step(self, trainer: Trainer, pl_module: LightningModule, step: int, loss: Tensor) -> None:
        self.weights.append({name: value.clone() for name, value in pl_module.state_dict().items()})


def test_saved_network_is_the_moving_average_of_weights_that_do_not_depend_on_it(command: Command) -> None:
    recorder = "+callbacks.recorder._target_=test_callbacks.Recorder"
    settings = (*SMALL_RESIDUAL, recorder, "data.val_size=0", "trainer.max_epochs=1")
    assert command(*settings, "hydra.run.dir=runs/a/plain").status == 0
    plain = Recorder.weights
    assert command(*settings, "callbacks=ema", "callbacks.ema.decay=0.8", f"hydra.run.dir={RUN}").status == 0
    saved = torch.load(RUN.chosen_checkpoint(), weights_only=True)
    assert len(Recorder.weights) == RUN.info["steps"] > 10
    assert all(map(same, plain, Recorder.weights))
    assert same(saved["current_model_state"], plain[-1])
    for name in ("stem.weight", "norm.running_mean"):
        average = plain[0][name]
        for count, weights in enumerate(plain[1:], start=1):
            decay = min(0.8, (1 + count) / (10 + count))
            average = decay * average + (1 - decay) * weights[name]
        assert torch.allclose(saved["state_dict"][name], average, atol=1e-6)


@pytest.mark.parametrize("ema", [True, *slow(False)])
def test_test_curve_ends_at_the_figures_of_the_tested_weights(command: Command, ema: bool) -> None:
    """With averaged weights the curve is theirs, too; and it keeps to the limit of batches."""
    averaged = ["callbacks.ema={_target_: mnist_lab.training.AveragedWeights, decay: 0.9}"] * ema
    limits = ("data.val_size=0", "trainer.limit_test_batches=1")
    assert command("model=mlp", "callbacks=test_curve", *averaged, *limits, f"hydra.run.dir={RUN}").status == 0
    assert RUN.curve("test/loss")[2] == pytest.approx(RUN.info["metrics"]["test/loss"], abs=1e-6)
    assert RUN.curve("test/acc")[2] == RUN.info["metrics"]["test/acc"]


class SlowFirstEpoch(Callback):
    """Makes the first epoch last four seconds."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 0:
            time.sleep(4)


@pytest.mark.slow
def test_seconds_of_a_killed_run_count_when_it_is_resumed(tiny: Tiny, command: Command) -> None:
    longer = "+callbacks.slow._target_=test_callbacks.SlowFirstEpoch"
    status, out = run(tiny, "model=mlp", longer, "+callbacks.kill={_target_: instrumented.KillProcess, rank: 0}")
    assert status == -signal.SIGKILL, out
    (killed,) = Run.below("runs")
    saved = read_checkpoint(killed.checkpoint_path("last"))["callbacks"]["ElapsedTime"]
    assert saved["total"] > saved["fit"] > 4
    assert command("resume=latest", "~callbacks.kill", data=False).status == 0
    seconds = killed.info["seconds"]
    assert seconds["total"] > saved["total"]
    assert seconds["fit"] > saved["fit"]


def test_seconds_continue_from_those_of_the_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    first = ElapsedTime()
    clock[0] += 1
    first.setup(*FIT)
    clock[0] += 10
    saved = first.state_dict()
    assert saved == {"total": 11, "fit": 10}
    clock[0] += 1000  # lost with the process
    resumed = ElapsedTime()
    resumed.load_state_dict(saved)
    resumed.setup(*FIT)
    clock[0] += 5
    resumed.teardown(*FIT)
    clock[0] += 2
    assert resumed.seconds() == {"total": 18, "fit": 15}
