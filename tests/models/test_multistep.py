"""Steps taken together are the steps taken one by one: weights, curves and checkpoints, to the last bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lab import INGREDIENTS, RECIPE, SMALL_RESIDUAL, Command, slow
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lab.data.batches import Batches, Groups
from mnist_lab.models.mlp import MLP
from mnist_lab.runs.run import Run

NETWORKS = ["lenet", "mlp", "simple_cnn", "compact_cnn", "dropout_cnn"]


def left_by(name: str) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """The last checkpoint and the curves of a run, without what names its folder and its speed."""
    run = Run(Path("runs/a") / name)
    checkpoint = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)
    callbacks = checkpoint["callbacks"].items()
    own = ("ModelCheckpoint", "ElapsedTime")
    checkpoint["callbacks"] = {key: value for key, value in callbacks if not key.startswith(own)}
    # Resumed within an epoch's last group, Lightning counts the validation to come twice; it goes by none of it.
    del checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    rows = [{name: value for name, value in row.items() if name != "images_per_second"} for row in run.metrics()]
    return checkpoint, rows


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two checkpoints differ."""
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [path]
    if isinstance(one, list | tuple):
        one, other = dict(enumerate(one)), dict(enumerate(other))
    if isinstance(one, dict):
        keys = one.keys() | other.keys()
        return [place for key in keys for place in differences(one.get(key), other.get(key), f"{path}/{key}")]
    return [] if one == other else [f"{path}: {one} and {other}"]


def same(first: str, second: str) -> None:
    one, other = left_by(first), left_by(second)
    assert differences(one[0], other[0]) == []
    assert one[1] == other[1]


@pytest.mark.parametrize(
    "settings",
    [
        ["model=dropout_cnn"],
        RECIPE,
        *slow(*([f"model={network}"] for network in ("lenet", "mlp", "simple_cnn", "compact_cnn"))),
        *slow(*([*SMALL_RESIDUAL, *ingredient] for ingredient in INGREDIENTS.values())),
    ],
    ids=" ".join,
)
def test_run_leaves_the_same_however_many_steps_are_taken_together(command: Command, settings: list[str]) -> None:
    for size in (1, 3, 5, 50):
        folder = f"hydra.run.dir=runs/a/{size}"
        outcome = command(*settings, f"steps_per_execution={size}", folder)
        assert (outcome.status, outcome.err) == (0, "")
        assert "steps_per_execution" not in outcome.out
        same("1", str(size))


def test_epoch_is_logged_at_its_last_step_however_many_are_taken_together(command: Command) -> None:
    """It fails when Lightning calls the count by another name, or numbers its logs otherwise: lightning_private.py."""
    assert command("model=mlp", "steps_per_execution=5", "hydra.run.dir=runs/a/b").status == 0
    run = Run(Path("runs/a/b"))
    steps = run.info["steps"] // 2
    assert [(row["epoch"], row["step"]) for row in run.epochs()] == [(0, steps - 1), (1, 2 * steps - 1)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ["scheduler=onecycle"],
        ["scheduler=step", "optimizer=adam"],
        ["trainer.max_steps=15"],
        ["trainer.limit_train_batches=0.5"],
        ["trainer.limit_train_batches=7"],
        ["trainer.precision=bf16-mixed", "model=dropout_cnn"],
        ["callbacks=early_stopping", "callbacks.early_stopping.monitor=train/loss"],
        ["callbacks=test_curve", "data.val_size=0"],
        ["callbacks.checkpoint.every_n_train_steps=5", "data.val_size=0"],
    ],
    ids=lambda settings: " ".join(settings),
)
def test_settings_that_count_steps_count_them_in_a_group_too(command: Command, settings: list[str]) -> None:
    for size in (1, 5):
        folder = f"hydra.run.dir=runs/a/{size}"
        outcome = command("model=mlp", f"steps_per_execution={size}", folder, "trainer.max_epochs=3", *settings)
        assert (outcome.status, outcome.err) == (0, ""), outcome.err
        assert "steps_per_execution" not in outcome.out
    same("1", "5")


class OwnStep(MLP):
    """A network with a training step of its own."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return super().training_step(batch, batch_idx) * 2


class StopWithin(Callback):
    """SIGTERM after a step, also of those within a group; with hooks that leave groups alone."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        batches = trainer.train_dataloader
        batches = batches.batches if isinstance(batches, Groups) else batches
        given = batches.batch

        def batch(step: int, order: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
            if trainer.global_step + 1 == self.step:
                self.step = 0  # once: a second one would not wait
                os.kill(os.getpid(), signal.SIGTERM)
            return given(step, order)

        batches.batch = batch


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 4, 5, 6, 11, 12, 13, 17, 22, 23])
@pytest.mark.parametrize("base", [["model=dropout_cnn", "scheduler=onecycle"], RECIPE], ids=["plain", "recipe"])
def test_stopped_within_a_group_and_resumed_with_another_size_it_ends_the_same(
    command: Command, base: list[str], step: int
) -> None:
    assert command(*base, "steps_per_execution=5", "hydra.run.dir=runs/a/whole").status == 0
    stop = f"+callbacks.stop={{_target_: test_multistep.StopWithin, step: {step}}}"
    assert command(*base, "steps_per_execution=5", "hydra.run.dir=runs/a/parts", stop).status == 143
    parts = Run(Path("runs/a/parts"))
    assert parts.info["steps"] == step
    sizes = ("steps_per_execution=1", "steps_per_execution=3", "steps_per_execution=5")
    resumed = command("resume=runs/a/parts", "~callbacks.stop", sizes[step % 3], data=False)
    assert (resumed.status, resumed.err) == (0, "")
    same("whole", "parts")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("+trainer.gradient_clip_val=1", "trainer.gradient_clip_val"),
        ("+trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches"),
        ("+trainer.val_check_interval=4", "trainer.val_check_interval"),
        ("trainer.precision=64-true", "trainer.precision=64-true"),
        ("+callbacks.lr._target_=lightning.pytorch.callbacks.LearningRateMonitor", "LearningRateMonitor."),
        ("+callbacks.last.every_n_train_steps=4", "ModelCheckpoint.on_train_batch_end"),
        ("model._target_=test_multistep.OwnStep", "OwnStep.training_step"),
    ],
)
def test_what_needs_every_step_falls_back_to_one_and_says_so(command: Command, setting: str, told: str) -> None:
    outcome = command("model=mlp", setting, "hydra.run.dir=runs/a/b")
    assert (outcome.status, outcome.err) == (0, "")
    assert f"steps_per_execution=1, for {told}" in outcome.out


def test_groups_are_the_batches_in_their_order() -> None:
    def made() -> Batches:
        return Batches(torch.arange(100.0).reshape(-1, 1, 1, 1), torch.arange(100), batch_size=7, shuffle=True)

    for size in (2, 4, 15, 100):
        groups = Groups(made(), size)
        together = [labels.tolist() for group in groups for _, labels in group]
        assert together == [labels.tolist() for _, labels in made()]
        assert len(list(groups)) == len(groups)


def test_continued_epoch_keeps_its_groups() -> None:
    batches = Batches(torch.zeros(100, 1, 1, 1), torch.arange(100), batch_size=7)  # fifteen
    groups = Groups(batches, 4)
    groups.load_state_dict({"epoch": 0, "position": 6})
    assert [list(group.steps) for group in groups] == [[6, 7], [8, 9, 10, 11], [12, 13, 14]]
