"""A run that was stopped at any step and resumed ends as the one that was not, bit for bit."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lab import INGREDIENTS, RECIPE, SMALL_RESIDUAL, Command, same, slow, thorough, weights
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from benchmarks.kills import losses
from mnist_lab.data.batches import Batch, Batches
from mnist_lab.evaluation.evaluate import evaluate
from mnist_lab.runs.run import Run
from mnist_lab.training import callbacks

WHOLE, PARTS = Run(Path("runs/a/whole")), Run(Path("runs/a/parts"))


class StopAt(Callback):
    """A signal within a step; a run has 12 of them an epoch."""

    def __init__(self, step: int, sent: int = signal.SIGINT) -> None:
        self.step, self.sent = step, sent

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step - 1:
            self.step = 0  # once: a second Ctrl-C would not wait
            os.kill(os.getpid(), self.sent)


def stopped_and_resumed(command: Command, *arguments: str, step: int, sent: int = signal.SIGINT) -> None:
    stop = f"+callbacks.stop={{_target_: test_resume.StopAt, step: {step}, sent: {int(sent)}}}"
    stopped = command(*arguments, f"hydra.run.dir={PARTS}", stop)
    assert stopped.status == 128 + sent, stopped.err
    assert f"to resume: python -m mnist_lab resume={PARTS}" in stopped.out
    assert (PARTS.info["status"], PARTS.info["steps"]) == ("interrupted", step)
    resumed = command(f"resume={PARTS}", "~callbacks.stop", data=False)
    assert resumed.status == 0, resumed.err


PLAIN = ["model=dropout_cnn", "scheduler=onecycle"]
LIMITED = ["model=mlp", "trainer.limit_train_batches=7", "trainer.limit_val_batches=1"]
ADAM = ["scheduler=cosine", "optimizer=adam", "optimizer.lr=0.001"]


@pytest.mark.parametrize(
    ("settings", "step"),
    [
        (PLAIN, 12),
        *slow((RECIPE, 5), (LIMITED, 10)),
        *thorough((RECIPE, 12), (PLAIN, 5), (PLAIN, 23), (["model=mlp", "+trainer.accumulate_grad_batches=3"], 2)),
        *thorough(*((settings, step) for settings in (PLAIN, RECIPE) for step in (1, 11, 13, 24))),
        *thorough((["model=dropout_cnn", "scheduler=none"], 7), (LIMITED, 7), (LIMITED, 8), (LIMITED, 14)),
        *thorough(*(([f"model={network}", *ADAM], 7) for network in ("lenet", "simple_cnn", "compact_cnn", "mlp"))),
        *thorough(*(([*SMALL_RESIDUAL, *ingredient], 7) for ingredient in INGREDIENTS.values())),
    ],
    ids=str,
)
def test_stopped_at_any_step_and_resumed_it_ends_the_same(command: Command, settings: list[str], step: int) -> None:
    """Weights, optimizer, scheduler, best checkpoint, metrics.csv, run.json and TensorBoard; dropout and all."""
    arguments = (*settings, "trainer.max_epochs=3")
    assert command(*arguments, f"hydra.run.dir={WHOLE}").status == 0
    stopped_and_resumed(command, *arguments, step=step, sent=signal.SIGTERM if step % 2 else signal.SIGINT)
    assert losses(WHOLE, PARTS) == []
    assert evaluate(PARTS)["test/acc"] == PARTS.info["metrics"]["test/acc"]


@pytest.mark.thorough
@pytest.mark.parametrize("step", [7, 12])
def test_preset_resumes_within_an_epoch(command: Command, step: int) -> None:
    arguments = ("experiment=compact_cnn", "data.batch_size=20")
    assert command(*arguments, f"hydra.run.dir={WHOLE}").status == 0
    stopped_and_resumed(command, *arguments, step=step)
    assert not (WHOLE.folder / "checkpoints" / "best.ckpt").exists()
    assert WHOLE.curve("test/acc", "examples_seen") == PARTS.curve("test/acc", "examples_seen")
    assert same(weights(WHOLE.chosen_checkpoint()), weights(PARTS.chosen_checkpoint()))


@pytest.mark.slow
def test_speed_of_a_run_resumed_within_an_epoch_is_that_of_its_own_steps(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that moves one second a batch."""
    clock, given = [0.0], Batches.batch

    def batch(batches: Batches, step: int, order: Tensor | None) -> Batch:
        clock[0] += 1
        return given(batches, step, order)

    monkeypatch.setattr(Batches, "batch", batch)
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    stopped_and_resumed(command, "model=mlp", "trainer.max_epochs=1", step=7)
    assert PARTS.curve("images_per_second") == {1: pytest.approx((190 - 7 * 16) / 5)}


@pytest.mark.slow
def test_setting_of_averaged_weights_cannot_change_on_resume(command: Command) -> None:
    assert command("model=mlp", "callbacks=ema", "hydra.run.dir=runs/a/b").status == 0
    outcome = command("resume=runs/a/b", "callbacks.ema.decay=0.5", "trainer.max_epochs=3", data=False)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert "callbacks.ema.decay=0.5: cannot change on resume (this run uses 0.999)" in outcome.err


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["every_n_train_steps=5", *thorough("every_n_seconds=1e-9")])
def test_checkpoints_within_an_epoch_by_steps_or_by_time(command: Command, setting: str) -> None:
    """Killed in the middle of an epoch, as far as the run folder can tell."""

    stop = "+callbacks.stop={_target_: test_resume.Crash, step: 18}"
    arguments = ("model=dropout_cnn", f"callbacks.checkpoint.{setting}")
    assert command(*arguments, f"hydra.run.dir={WHOLE}").status == 0
    assert command(*arguments, f"hydra.run.dir={PARTS}", stop).status == 1
    last = torch.load(PARTS.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == (15 if "steps" in setting else 17)
    assert command(f"resume={PARTS}", "~callbacks.stop", data=False).status == 0
    assert losses(WHOLE, PARTS) == []


class Crash(Callback):
    """A fault in the program."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step - 1:
            raise RuntimeError("crash")


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [2, *thorough(0)], ids=["last", "first"])
def test_signal_during_validation_stops_after_the_epoch_is_saved(command: Command, epoch: int) -> None:
    arguments = ("model=mlp", "trainer.max_epochs=3")
    assert command(*arguments, f"hydra.run.dir={WHOLE}").status == 0
    for sent, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        folder = Run(Path(f"runs/a/{status}"))
        stop = f"+callbacks.stop={{_target_: test_resume.StopInValidation, sent: {int(sent)}, epoch: {epoch}}}"
        assert command(*arguments, f"hydra.run.dir={folder}", stop).status == status
        assert (folder.info["epochs"], folder.info["steps"]) == (epoch + 1, 12 * (epoch + 1))
        assert command(f"resume={folder}", "~callbacks.stop", data=False).status == 0
        assert losses(WHOLE, folder) == []


class StopInValidation(Callback):
    """A signal while an epoch is validated."""

    def __init__(self, sent: int, epoch: int) -> None:
        self.sent, self.epoch = sent, epoch

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            os.kill(os.getpid(), self.sent)


class StopInTest(Callback):
    """SIGTERM after training, when Lightning no longer listens."""

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
def test_signal_after_training_is_recorded_and_resume_does_the_rest(command: Command) -> None:
    arguments = ("model=mlp", "+callbacks.stop._target_=test_resume.StopInTest")
    assert command(*arguments, f"hydra.run.dir={WHOLE}").status == 143
    assert (WHOLE.info["status"], WHOLE.info["epochs"]) == ("interrupted", 2)
    assert command(f"resume={WHOLE}", "~callbacks.stop", data=False).status == 0
    assert WHOLE.info["status"] == "finished" and "test/acc" in WHOLE.info["metrics"]
