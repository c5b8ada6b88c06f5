"""Steps taken in groups are the steps taken one by one: weights, curves and checkpoints, to the last bit."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lab import INGREDIENTS, RECIPE, SMALL_RESIDUAL, Command, slow, thorough
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lab.data.batches import Batches, Groups
from mnist_lab.models.mlp import MLP
from mnist_lab.runs.run import Run
from mnist_lab.training.multistep import StepCallback, training_batches

NETWORKS = ("lenet", "mlp", "simple_cnn", "compact_cnn")
PLAIN = ["model=dropout_cnn", "scheduler=onecycle"]


def saved(name: str) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(f"runs/a/{name}/checkpoints/last.ckpt", weights_only=True)
    return content


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


def assert_same(first: str, second: str, *, counts: bool) -> None:
    """Compare checkpoints and curves of two runs, but for folders and speed, and Lightning's counts if asked to."""
    contents = [saved(first), saved(second)]
    for content in contents:
        kept = content["callbacks"].items()
        content["callbacks"] = {key: state for key, state in kept if not key.startswith(("EpochCheckpoint", "Elapsed"))}
        # Resumed within an epoch's last group, Lightning counts the validation to come twice; it goes by none of it.
        del content["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"], content["folder"]
        if not counts:
            del content["loops"], content["steps_per_execution"]
    assert differences(*contents) == []
    curves = [Run(Path("runs/a") / name).metrics() for name in (first, second)]
    one, other = ([{**row, "images_per_second": None} for row in rows] for rows in curves)
    assert one == other


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "size"),
    [
        (RECIPE, 5),
        *slow((["model=mlp", "scheduler=step", "optimizer=adam", "trainer.max_epochs=3"], 5)),
        *thorough((PLAIN, 50), (["model=mlp", "trainer.max_steps=15"], 5)),
        *thorough((["model=mlp", "trainer.limit_train_batches=7"], 5)),
        *thorough((["model=dropout_cnn", "trainer.precision=bf16-mixed"], 5)),
        *thorough((["model=mlp", "callbacks=early_stopping", "callbacks.early_stopping.monitor=train/loss"], 5)),
        *slow((["model=mlp", "callbacks=test_curve", "data.val_size=0"], 5)),
        *thorough((["model=mlp", "callbacks.checkpoint.every_n_train_steps=5", "data.val_size=0"], 3)),
        *thorough(*(([f"model={network}"], 3) for network in NETWORKS)),
        *thorough(*(([*SMALL_RESIDUAL, *ingredient], 50) for ingredient in INGREDIENTS.values())),
    ],
    ids=str,
)
def test_run_leaves_the_same_in_groups_as_in_single_steps(command: Command, settings: list[str], size: int) -> None:
    for steps in (1, size):
        outcome = command(*settings, f"steps_per_execution={steps}", f"hydra.run.dir=runs/a/{steps}")
        assert (outcome.status, outcome.err) == (0, "")
        assert "steps_per_execution" not in outcome.out
    assert_same("1", str(size), counts=False)


def test_epoch_is_logged_at_its_last_step(command: Command) -> None:
    """It fails when Lightning calls the count by another name, or numbers its logs otherwise: multistep.py."""
    assert command("model=mlp", "steps_per_execution=5", "hydra.run.dir=runs/a/b").status == 0
    run = Run(Path("runs/a/b"))
    steps = run.info["steps"] // 2
    assert [(row["epoch"], row["step"]) for row in run.epochs()] == [(0, steps - 1), (1, 2 * steps - 1)]


class OwnStep(MLP):
    """A network with a training step of its own."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return super().training_step(batch, batch_idx) * 2


class Watches(Callback):
    """Sees every batch."""

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        assert isinstance(trainer.train_dataloader, Batches)


class StopWithin(StepCallback):
    """SIGTERM while a step is taken, also within a group."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        batches = training_batches(trainer)
        given = batches.batch

        def batch(step: int, order: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
            if trainer.global_step + 1 == self.step:
                self.step = 0  # once: a second one would not wait
                os.kill(os.getpid(), signal.SIGTERM)
            return given(step, order)

        batches.batch = batch  # type: ignore[method-assign]


class CrashAfter(StepCallback):
    """A fault in the program after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def after_step(self, trainer: Trainer, pl_module: LightningModule, step: int, loss: torch.Tensor) -> None:
        if step == self.step:
            raise RuntimeError("crash")


@pytest.mark.parametrize(
    ("base", "steps"),
    [
        (RECIPE, (8,)),
        *slow((PLAIN, (4, 11, 12, 13))),
        *thorough(*((PLAIN, steps) for steps in [(1, 2), (5, 6, 7), (10,), (18, 23)])),
        *thorough(*((RECIPE, (step,)) for step in (1, 4, 5, 6, 11, 12, 13, 17, 22, 23))),
    ],
)
def test_run_stopped_at_any_step_of_a_group_ends_as_if_it_had_not_been(
    command: Command, base: list[str], steps: tuple[int, ...]
) -> None:
    assert command(*base, "steps_per_execution=5", "hydra.run.dir=runs/a/whole").status == 0
    parts = Run(Path("runs/a/parts"))
    stop = f"+callbacks.stop={{_target_: test_multistep.StopWithin, step: {steps[0]}}}"
    assert command(*base, "steps_per_execution=5", f"hydra.run.dir={parts}", stop).status == 143
    for step in steps[1:]:
        assert command(f"resume={parts}", f"callbacks.stop.step={step}", data=False).status == 143
    assert parts.info["steps"] == steps[-1]
    resumed = command(f"resume={parts}", "callbacks.stop.step=0", data=False)
    assert (resumed.status, resumed.err) == (0, "")
    assert_same("whole", "parts", counts=True)


@pytest.mark.slow
def test_run_that_crashed_resumes_from_a_checkpoint_within_a_group(command: Command) -> None:
    base = (*PLAIN, "steps_per_execution=5", "callbacks.checkpoint.every_n_train_steps=3")
    assert command(*base, "hydra.run.dir=runs/a/whole").status == 0
    crash = "+callbacks.crash={_target_: test_multistep.CrashAfter, step: 20}"
    assert command(*base, "hydra.run.dir=runs/a/parts", crash).status == 1
    assert saved("parts")["global_step"] == 18
    assert command("resume=runs/a/parts", "~callbacks.crash", data=False).status == 0
    assert_same("whole", "parts", counts=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "size", "reason"),
    [
        (["steps_per_execution=3"], 5, "as in the checkpoint"),
        (["+callbacks.watches._target_=test_multistep.Watches"], 1, "for Watches.on_train_batch_start"),
    ],
)
def test_resumed_run_keeps_its_groups_unless_something_needs_single_steps(
    command: Command, settings: list[str], size: int, reason: str
) -> None:
    base = ("model=mlp", "steps_per_execution=5", "logger=csv")
    assert command(*base, "hydra.run.dir=runs/a/whole").status == 0
    stop = "+callbacks.stop={_target_: test_multistep.StopWithin, step: 8}"
    assert command(*base, "hydra.run.dir=runs/a/parts", stop).status == 143
    assert saved("parts")["steps_per_execution"] == 5
    resumed = command("resume=runs/a/parts", "~callbacks.stop", *settings, data=False)
    assert (resumed.status, resumed.err) == (0, "")
    assert f"steps_per_execution={size}, {reason}" in resumed.out
    assert saved("parts")["steps_per_execution"] == size
    assert_same("whole", "parts", counts=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("+trainer.gradient_clip_val=1", "trainer.gradient_clip_val"),
        *thorough(
            ("model._target_=test_multistep.OwnStep", "OwnStep.training_step"),
            ("+trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches"),
            ("+trainer.val_check_interval=4", "trainer.val_check_interval"),
            ("trainer.precision=64-true", "trainer.precision=64-true"),
            (
                "+callbacks.top={_target_: lightning.pytorch.callbacks.ModelCheckpoint, every_n_train_steps: 4}",
                "ModelCheckpoint.on_train_batch_end",
            ),
        ),
    ],
)
def test_what_needs_every_step_falls_back_to_one_and_says_so(command: Command, setting: str, reason: str) -> None:
    outcome = command("model=mlp", setting, "hydra.run.dir=runs/a/b")
    assert (outcome.status, outcome.err) == (0, "")
    assert f"steps_per_execution=1, for {reason}" in outcome.out


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
