"""Steps in groups give the same weights, curves and checkpoints as single steps, to the last bit."""

import os
import signal
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lab import RECIPE, SMALL_RESIDUAL, Command, Tiny, thorough
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from benchmarks.kills import same
from mnist_lab.data.batches import Batches
from mnist_lab.models.mlp import MLP
from mnist_lab.runs.run import Run
from mnist_lab.training.build import make_model, make_trainer
from mnist_lab.training.multistep import StepCallback, single_step_reason, training_batches

PLAIN = ["model=dropout_cnn", "scheduler=onecycle"]
RUN = Run(Path("runs/a/b"))


def saved(name: str) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(f"runs/a/{name}/checkpoints/last.ckpt", weights_only=True)
    return content


def assert_same(first: str, second: str, *, counts: bool) -> None:
    """Compare checkpoints and curves of two runs, without folders and speed; with Lightning's counts if asked to."""
    contents = [saved(first), saved(second)]
    for content in contents:
        kept = content["callbacks"].items()
        content["callbacks"] = {key: state for key, state in kept if not key.startswith(("EpochCheckpoint", "Elapsed"))}
        # Resumed within an epoch's last group, Lightning counts the next validation twice, without any effect.
        del content["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"], content["folder"]
        if not counts:
            del content["loops"], content["steps_per_execution"]
    assert same(*contents)
    curves = [Run(Path("runs/a") / name).metrics() for name in (first, second)]
    one, other = ([{**row, "images_per_second": None} for row in rows] for rows in curves)
    assert one == other


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "size"),
    [
        (RECIPE, 5),
        (["model=mlp", "trainer.max_steps=15"], 5),
        (["model=dropout_cnn", "trainer.precision=bf16-mixed"], 5),
        (["model=mlp", "callbacks.checkpoint.every_n_train_steps=5", "data.val_size=0"], 3),
        *thorough((PLAIN, 50)),
        *thorough((["model=mlp", "scheduler=step", "optimizer=adam", "trainer.max_epochs=3"], 5)),
        *thorough((["model=mlp", "trainer.limit_train_batches=7"], 5)),
        *thorough((["model=mlp", "callbacks=early_stopping", "callbacks.early_stopping.monitor=train/loss"], 5)),
        *thorough((["model=mlp", "callbacks=test_curve", "data.val_size=0"], 5)),
    ],
    ids=str,
)
def test_run_leaves_the_same_in_groups_as_in_single_steps(command: Command, settings: list[str], size: int) -> None:
    for steps in (1, size):
        outcome = command(*settings, f"steps_per_execution={steps}", f"hydra.run.dir=runs/a/{steps}")
        assert (outcome.status, outcome.err) == (0, "")
        assert "steps_per_execution" not in outcome.out
    assert_same("1", str(size), counts=False)


class OwnStep(MLP):
    """Has a training step of its own."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return super().training_step(batch, batch_idx) * 2


class Watches(Callback):
    """Sees every batch."""

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        assert isinstance(trainer.train_dataloader, Batches)


class StopWithin(StepCallback):
    """Sends SIGTERM in an odd step, or Ctrl-C in an even one, also within a group."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        batches = training_batches(trainer)
        original = batches.batch

        def batch(step: int, *arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
            if trainer.global_step + 1 == self.step:
                number = signal.SIGTERM if self.step % 2 else signal.SIGINT
                self.step = 0  # A second signal would not wait for the end of the step.
                os.kill(os.getpid(), number)
            return original(step, *arguments)

        batches.batch = batch  # type: ignore[method-assign]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "size", "reason"),
    [
        (["steps_per_execution=3"], 5, "as in the checkpoint"),
        (["+callbacks.watches._target_=test_multistep.Watches"], 1, "for Watches.on_train_batch_start"),
    ],
)
def test_resumed_run_keeps_its_groups_if_it_can(command: Command, settings: list[str], size: int, reason: str) -> None:
    base = ("model=mlp", "steps_per_execution=5", "logger=csv")
    assert command(*base, "hydra.run.dir=runs/a/whole").status == 0
    stop = "+callbacks.stop={_target_: test_multistep.StopWithin, step: 8}"
    assert command(*base, "hydra.run.dir=runs/a/parts", stop).status == 130
    assert saved("parts")["steps_per_execution"] == 5
    resumed = command("resume=runs/a/parts", "~callbacks.stop", *settings, data=False)
    assert (resumed.status, resumed.err) == (0, "")
    assert f"steps_per_execution={size}, {reason}" in resumed.out
    assert saved("parts")["steps_per_execution"] == size
    assert_same("whole", "parts", counts=False)


KEPT = "+callbacks.{0}={{_target_: lightning.pytorch.callbacks.ModelCheckpoint, every_n_{0}: 4}}"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["+trainer.gradient_clip_val=1"], "trainer.gradient_clip_val"),
        (["+trainer.accumulate_grad_batches=2"], "trainer.accumulate_grad_batches"),
        (["+trainer.val_check_interval=4"], "trainer.val_check_interval"),
        (["trainer.precision=bf16-true"], "trainer.precision=bf16-true"),
        (["model._target_=test_multistep.OwnStep"], "OwnStep.training_step"),
        ([KEPT.format("train_steps"), KEPT.format("epochs")], "ModelCheckpoint.on_train_batch_end"),
        ([KEPT.format("epochs")], None),
    ],
    ids=str,
)
def test_reason_for_single_steps_is_found(tiny: Tiny, settings: list[str], reason: str | None) -> None:
    cfg = tiny.compose("model=mlp", *settings)
    assert single_step_reason(make_trainer(cfg), make_model(cfg)) == reason


class Recorder(StepCallback):
    """Keeps the weights after each step."""

    weights: ClassVar[list[dict[str, Tensor]]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Recorder.weights = []

    def after_step(self, trainer: Trainer, pl_module: LightningModule, step: int, loss: Tensor) -> None:
        self.weights.append({name: value.clone() for name, value in pl_module.state_dict().items()})


def test_saved_network_is_the_moving_average_of_weights_that_do_not_depend_on_it(command: Command) -> None:
    recorder = "+callbacks.recorder._target_=test_multistep.Recorder"
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


def test_test_curve_is_that_of_averaged_weights_and_keeps_to_the_limit_of_batches(command: Command) -> None:
    averaged = "callbacks.ema={_target_: mnist_lab.training.AveragedWeights, decay: 0.9}"
    limits = ("data.val_size=0", "trainer.limit_test_batches=1")
    assert command("model=mlp", "callbacks=test_curve", averaged, *limits, f"hydra.run.dir={RUN}").status == 0
    assert RUN.curve("test/loss")[2] == pytest.approx(RUN.info["metrics"]["test/loss"], abs=1e-6)
    assert RUN.curve("test/acc")[2] == RUN.info["metrics"]["test/acc"]
