"""A run that fails, also through the machine or the data, ends in one line; its last good checkpoint is kept."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lab import Command, Tiny, assert_refused, same, weights
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from mnist_lab import files
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.mlp import MLP
from mnist_lab.runs.run import Run
from mnist_lab.training.multistep import StepCallback

RUN = Path("runs/a/b")
FAULTS = {
    "crash": RuntimeError("out of order"),
    "Ctrl-C": KeyboardInterrupt(),
    "GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has ..."),
}


class Fault(StepCallback):
    """Raises an error after a step, or before an epoch."""

    def __init__(self, kind: str, step: int | None = None, epoch: int | None = None) -> None:
        self.kind, self.step, self.epoch = kind, step, epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            raise FAULTS[self.kind]

    def after_step(self, trainer: Trainer, pl_module: LightningModule, step: int, loss: torch.Tensor) -> None:
        if step == self.step:
            raise FAULTS[self.kind]


class Poison(Callback):
    """Makes the pixels of one step NaN or infinite."""

    def __init__(self, step: int, value: float) -> None:
        self.step, self.value = step, value

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            batch[0][:] = self.value


@pytest.mark.parametrize(
    ("value", "every", "logged"),
    [("nan", True, 5), ("inf", False, 5), ("inf", False, 1000)],
    ids=["every loss is read", "as on a GPU", "as on a GPU, and no step is logged"],
)
def test_loss_that_is_not_finite_stops_the_run_and_nothing_of_it_is_saved(
    command: Command, monkeypatch: pytest.MonkeyPatch, value: str, every: bool, logged: int
) -> None:
    monkeypatch.setattr(Classifier, "reads_every_loss", every)
    poison = f"+callbacks.poison={{_target_: test_failures.Poison, step: 17, value: {value}}}"
    settings = ("trainer.max_epochs=3", "optimizer.momentum=0", f"trainer.log_every_n_steps={logged}")
    outcome = command("model=mlp", *settings, f"hydra.run.dir={RUN}", poison)
    good = f"the last good checkpoint is {(RUN / 'checkpoints' / 'last.ckpt').absolute()}"
    assert_refused(outcome, "epoch 2, step 17: the training loss is nan; ", good, status=1)
    run = Run(RUN)
    assert run.info["status"] == "failed" and "the training loss is nan" in run.info["error"]
    assert run.info["epochs"] == 1
    for name in ("last.ckpt", "best.ckpt"):
        assert all(tensor.isfinite().all() for tensor in weights(run.folder / "checkpoints" / name).values())
    assert command(f"resume={RUN}", "~callbacks.poison", data=False).status == 0
    assert Run(RUN).info["epochs"] == 3


class Infinite(Callback):
    """Makes the weights infinite after a step."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == 24:
            torch.nn.init.constant_(next(pl_module.parameters()), float("inf"))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("data.val_size=40", "epoch 2, step 24: the validation loss is nan; the last good checkpoint is "),
        ("data.val_size=0", "epoch 2, step 24: a step has made the weights NaN or infinite, and they were not saved; "),
    ],
)
def test_weights_that_are_not_finite_are_not_saved(command: Command, extra: str, message: str) -> None:
    limits = ("trainer.limit_train_batches=12", "model=mlp", f"hydra.run.dir={RUN}")
    outcome = command(*limits, extra, "+callbacks.infinite._target_=test_failures.Infinite")
    assert_refused(outcome, message, "try a smaller optimizer.lr", status=1)
    assert (Run(RUN).info["status"], Run(RUN).info["epochs"]) == ("failed", 1)
    for path in RUN.rglob("*.ckpt"):
        assert all(tensor.isfinite().all() for tensor in weights(path).values())


@pytest.mark.slow
def test_corrupt_last_checkpoint_falls_back_to_the_newest_good_one(command: Command) -> None:
    arguments = ("model=mlp", "trainer.max_epochs=2")
    assert command(*arguments, f"hydra.run.dir={RUN}").status == 0
    last = RUN / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    outcome = command(f"resume={RUN}", "trainer.max_epochs=3", data=False)
    assert outcome.status == 0, outcome.err
    best = last.with_name("best.ckpt")
    assert f"{last} is corrupt" in outcome.err and str(best) in outcome.err and outcome.err.count("\n") == 1
    assert command(*arguments[:1], "trainer.max_epochs=3", "hydra.run.dir=runs/a/whole").status == 0
    assert same(weights(last), weights(Path("runs/a/whole/checkpoints/last.ckpt")))


def test_corrupt_checkpoint_that_is_named_is_refused_with_the_good_one(command: Command) -> None:
    command("model=mlp", f"hydra.run.dir={RUN}")
    last, best = (RUN / "checkpoints" / name for name in ("last.ckpt", "best.ckpt"))
    last.write_bytes(b"")
    outcome = command(f"resume={last}", "trainer.max_epochs=3", data=False)
    assert_refused(outcome, f"resume={last}: corrupt, or not a checkpoint; the newest good one is ", str(best))
    best.write_bytes(b"")
    outcome = command(f"resume={RUN}", "trainer.max_epochs=3", data=False)
    assert_refused(outcome, "", "the run has no good one; start it anew: python -m mnist_lab")


class Hungry(MLP):
    """Needs more memory than there is for the last batch of an epoch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) not in (1, 16):
            torch.empty(2**60, dtype=torch.uint8)
        scores: torch.Tensor = super().forward(x)
        return scores


class RemovesRun(Callback):
    """Removes the run folder in the second epoch."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            shutil.rmtree(RUN)


@pytest.mark.parametrize(
    ("name", "status", "left"), [("config.yaml", 2, []), ("last.ckpt", 1, ["best.ckpt", "last.ckpt"])]
)
def test_disk_that_is_full_leaves_the_checkpoints_before_whole_and_no_litter(
    command: Command, monkeypatch: pytest.MonkeyPatch, name: str, status: int, left: list[str]
) -> None:
    """The disk is full when the file is written in the second epoch, or before there is a checkpoint."""
    sync = files.sync

    def full(path: Path) -> None:
        if path.name.startswith(f".{name}") and (not left or (RUN / "checkpoints" / name).exists()):
            raise OSError(28, "No space left on device")
        sync(path)

    monkeypatch.setattr(files, "sync", full)
    place = f"checkpoints/{name}: " if left else "hydra.run.dir="
    outcome = command("model=mlp", f"hydra.run.dir={RUN}")
    assert_refused(outcome, "", place, "No space left on device", status=status)
    assert not list(RUN.rglob("*.partial"))
    assert sorted(path.name for path in RUN.rglob("*.ckpt")) == left
    assert not left or Run(RUN).info["status"] == "failed"
    assert not left or torch.load(RUN / "checkpoints" / name, weights_only=True)["epoch"] == 0


def test_out_of_memory_suggests_smaller_batches(command: Command) -> None:
    full = "+callbacks.full={_target_: test_failures.Fault, kind: GPU, epoch: 1}"
    outcome = command("model=mlp", f"hydra.run.dir={RUN}", full)
    remedy = "data.batch_size=16: out of memory; try data.batch_size=8"
    assert_refused(outcome, remedy, "data.eval_batch_size=12", status=1)
    assert Run(RUN).info["status"] == "failed" and Run(RUN).info["epochs"] == 1
    assert "Tried to allocate" in Run(RUN).info["error"] and "Traceback" in (RUN / "train.log").read_text()
    outcome = command("model=mlp", "model._target_=test_failures.Hungry")
    assert_refused(outcome, remedy, "DefaultCPUAllocator", status=1)


@pytest.mark.parametrize(
    ("setting", "package"),
    [
        ("logger=mlflow", "mlflow"),
        ("logger=wandb", "wandb"),
        ("+logger.wandb._target_=lightning.pytorch.loggers.WandbLogger", "wandb>=9999"),
    ],
)
def test_logger_that_is_not_installed_is_reported_with_the_pip_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, setting: str, package: str
) -> None:
    from lightning.pytorch.loggers import wandb

    monkeypatch.setattr(wandb, "_WANDB_AVAILABLE", wandb.RequirementCache("wandb>=9999"))
    monkeypatch.setitem(sys.modules, package, None)
    missing = f"needs a package that is not installed: pip install '{package}'"
    assert_refused(command("model=mlp", setting), "", missing)
    assert not Path("runs").exists()


@pytest.mark.slow
def test_truncated_curves_leave_the_rest_to_be_read_and_resumed(command: Command) -> None:
    command("model=mlp", f"hydra.run.dir={RUN}")
    path = RUN / "metrics.csv"
    head, first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([head, first.replace(".", "\0garbage"), *rest]))
    for events in RUN.glob("events.*"):
        content = events.read_bytes()
        events.write_bytes(content[: len(content) // 2] + b"\xff" * 9 + content[len(content) // 2 + 9 :])
    outcome = command(f"resume={RUN}", "trainer.max_epochs=3", data=False)
    assert outcome.status == 0
    (warning,) = outcome.err.splitlines()
    assert f"{path}: changed since step 24 was saved; curves may have gaps" in warning
    assert [row["epoch"] for row in Run(RUN).epochs()] == [0, 1, 2]


def test_run_whose_folder_is_removed_ends_in_1_and_one_line(command: Command) -> None:
    removes = "+callbacks.removes._target_=test_failures.RemovesRun"
    outcome = command("model=mlp", f"hydra.run.dir={RUN}", removes)
    assert_refused(outcome, f"{RUN}: the run folder was removed during", status=1)
    assert not RUN.exists()


def test_current_folder_that_was_removed_is_refused_in_one_line(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = tmp_path / "removed"
    removed.mkdir()
    monkeypatch.chdir(removed)
    removed.rmdir()
    assert_refused(command("ls", data=False), "the current folder was removed; change to another one")


class NormalisedMLP(Classifier):
    """Normalises over a batch values that are no pixels, which needs two images."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.net(x)
        return scores


NORMALISED = ("model=mlp", "model._target_=test_failures.NormalisedMLP")


def test_single_image_that_is_left_joins_the_batch_before(command: Command, tiny: Tiny) -> None:
    size = "data.batch_size=27"  # one left of 190
    outcome = command(*NORMALISED, size, "trainer.max_epochs=1", f"hydra.run.dir={RUN}")
    assert (outcome.status, outcome.err) == (0, "")
    assert Run(RUN).info["steps"] == 7 and Run(RUN).epochs()[-1]["examples_seen"] == 190
    own = ("--config-dir", str(tiny.conf), "data=tiny", "--steps", "60")
    assert command("lr", *NORMALISED, size, *own, data=False).status == 0


def test_steps_of_one_image_that_a_network_cannot_take_end_in_a_line(command: Command, tiny: Tiny) -> None:
    for start in ([], ["lr"]):
        outcome = command(
            *start, *NORMALISED, "data.batch_size=1", "data=tiny", "--config-dir", str(tiny.conf), data=False
        )
        assert_refused(outcome, "", "batch normalisation cannot be trained on a step of one image", status=1)
