"""A run that is stopped at any step, or by its limit of steps or time, and resumed ends as one that is not."""

import csv
import os
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lab import RECIPE, Command, slow, thorough
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from test_multistep import assert_same, saved

from benchmarks.kills import losses
from mnist_lab.data.batches import Batch, Batches
from mnist_lab.runs.run import Run
from mnist_lab.training import callbacks
from mnist_lab.training.multistep import find_callbacks

WHOLE, PARTS = Run(Path("runs/a/whole")), Run(Path("runs/a/parts"))
PLAIN = ["model=dropout_cnn", "scheduler=onecycle"]
THREE = "trainer.max_epochs=3"
LIMITED = ["model=mlp", "trainer.limit_train_batches=7", "trainer.limit_val_batches=1"]
ADAM = ["scheduler=cosine", "optimizer=adam", "optimizer.lr=0.001"]


def stop_run(command: Command, *arguments: str, step: int, size: int) -> None:
    """Stop a run, with groups of a size, within a step: by SIGTERM if its number is odd, by Ctrl-C if it is even."""
    number = signal.SIGTERM if step % 2 else signal.SIGINT
    outcome = command(*arguments, f"steps_per_execution={size}", data=arguments[0] != f"resume={PARTS}")
    assert outcome.status == 128 + number, outcome.err
    assert f"to resume: python -m mnist_lab resume={PARTS}" in outcome.out
    assert (PARTS.info["status"], PARTS.info["steps"]) == ("interrupted", step)


@pytest.mark.parametrize(
    ("settings", "size", "steps"),
    [
        (PLAIN, 1, (12,)),
        *slow((RECIPE, 5, (8,)), (LIMITED, 1, (10,)), (["model=lenet", *ADAM], 1, (7,))),
        *slow((["model=mlp", "+trainer.accumulate_grad_batches=3"], 1, (2,)), (PLAIN, 5, (1, 5, 7, 12, 23))),
        *thorough((PLAIN, 5, (2, 4, 6, 10, 11, 13, 18)), (RECIPE, 1, (12,))),
        *thorough((PLAIN, 1, (1, 5, 11, 13, 23, 24)), (RECIPE, 1, (1, 11, 13, 24)), (LIMITED, 1, (7, 8, 14))),
        *thorough((RECIPE, 5, (1, 4, 5, 6, 11, 12, 13, 17, 22, 23))),
        *thorough((["model=dropout_cnn", "scheduler=none"], 1, (7,))),
    ],
    ids=str,
)
def test_stopped_at_any_step_and_resumed_it_ends_the_same(
    command: Command, settings: list[str], size: int, steps: tuple[int, ...]
) -> None:
    """Compare weights, optimizer, scheduler, best checkpoint, metrics.csv, run.json and TensorBoard's events."""
    arguments = (*settings, THREE)
    assert command(*arguments, f"steps_per_execution={size}", f"hydra.run.dir={WHOLE}").status == 0
    stop = f"+callbacks.stop={{_target_: test_multistep.StopWithin, step: {steps[0]}}}"
    stop_run(command, *arguments, f"hydra.run.dir={PARTS}", stop, step=steps[0], size=size)
    for step in steps[1:]:
        stop_run(command, f"resume={PARTS}", f"callbacks.stop.step={step}", step=step, size=size)
    resumed = command(f"resume={PARTS}", "callbacks.stop.step=0", data=False)
    assert (resumed.status, resumed.err) == (0, "")
    assert losses(WHOLE, PARTS) == []
    assert_same("whole", "parts", counts=True)


@pytest.mark.slow
def test_speed_of_a_run_resumed_within_an_epoch_is_its_own(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock moves one second at each batch."""
    clock, original = [0.0], Batches.batch

    def batch(batches: Batches, step: int, *arguments: Any) -> Batch:
        clock[0] += 1
        return original(batches, step, *arguments)

    monkeypatch.setattr(Batches, "batch", batch)
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    stop = "+callbacks.stop={_target_: test_multistep.StopWithin, step: 7}"
    stop_run(command, "model=mlp", "trainer.max_epochs=1", f"hydra.run.dir={PARTS}", stop, step=7, size=1)
    assert command(f"resume={PARTS}", "~callbacks.stop", data=False).status == 0
    assert PARTS.curve("images_per_second") == {1: pytest.approx((190 - 7 * 16) / 5)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "size", "saved_at"), [("every_n_train_steps=6", 5, 18), *thorough(("every_n_seconds=1e-9", 1, 19))]
)
def test_crashed_run_resumes_within_an_epoch(command: Command, setting: str, size: int, saved_at: int) -> None:
    arguments = (*PLAIN, f"callbacks.checkpoint.{setting}", f"steps_per_execution={size}")
    assert command(*arguments, f"hydra.run.dir={WHOLE}").status == 0
    crash = "+callbacks.crash={_target_: test_failures.Fault, kind: crash, step: 20}"
    assert command(*arguments, f"hydra.run.dir={PARTS}", crash).status == 1
    content = saved("parts")
    assert content["global_step"] == saved_at and PARTS.info["error"] == "RuntimeError: out of order"
    content["callbacks"]["ElapsedTime"] = {"total": 2000.0, "fit": 1000.0}
    torch.save(content, PARTS.checkpoint_path("last"))
    assert command(f"resume={PARTS}", "~callbacks.crash", data=False).status == 0
    assert losses(WHOLE, PARTS) == []
    assert_same("whole", "parts", counts=True)
    seconds = PARTS.info["seconds"]
    assert 2000 < seconds["total"] < 2300 and 1000 < seconds["fit"] < 1300


class StopIn(Callback):
    """Sends a signal in an epoch's validation or, without an epoch, in the test, when Lightning no longer listens."""

    def __init__(self, number: int, epoch: int | None = None) -> None:
        self.number, self.epoch = number, epoch

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            os.kill(os.getpid(), self.number)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.epoch is None:
            os.kill(os.getpid(), self.number)


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [2, *thorough(0)], ids=["last", "first"])
def test_signal_during_validation_stops_after_the_epoch_is_saved(command: Command, epoch: int) -> None:
    arguments, number = ("model=mlp", THREE), signal.SIGINT if epoch else signal.SIGTERM
    assert command(*arguments, f"hydra.run.dir={WHOLE}").status == 0
    stop = f"+callbacks.stop={{_target_: test_resume.StopIn, number: {int(number)}, epoch: {epoch}}}"
    assert command(*arguments, f"hydra.run.dir={PARTS}", stop).status == 128 + number
    assert (PARTS.info["epochs"], PARTS.info["steps"]) == (epoch + 1, 12 * (epoch + 1))
    assert command(f"resume={PARTS}", "~callbacks.stop", data=False).status == 0
    assert losses(WHOLE, PARTS) == []


@pytest.mark.slow
def test_signal_after_training_is_recorded_and_resume_does_the_rest(command: Command) -> None:
    arguments = ("model=mlp", f"+callbacks.stop={{_target_: test_resume.StopIn, number: {int(signal.SIGTERM)}}}")
    assert command(*arguments, f"hydra.run.dir={WHOLE}").status == 143
    assert (WHOLE.info["status"], WHOLE.info["epochs"]) == ("interrupted", 2)
    assert command(f"resume={WHOLE}", "~callbacks.stop", data=False).status == 0
    assert WHOLE.info["status"] == "finished" and "test/acc" in WHOLE.info["metrics"]


def columns(run: Run) -> list[dict[str, str]]:
    """Return the cells of metrics.csv as they are written, without the speed."""
    with run.metrics_path.open() as file:
        return [{**row, "images_per_second": ""} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("settings", "steps", "limits"),
    [
        *slow(
            ([], [17], [-1]),  # 12 steps an epoch
            (["scheduler=step", "+trainer.accumulate_grad_batches=5"], [4], [-1]),
            (["callbacks=ema", "callbacks.ema.decay=0.9"], [12, 35], [35, -1]),
        ),
        *thorough(
            (["steps_per_execution=5", "callbacks=test_curve"], [1, 14], [14, -1]),
            (["steps_per_execution=1", "trainer.log_every_n_steps=3"], [15], [-1]),
            (["steps_per_execution=5"], [15, 23], [23, 100]),
            (["steps_per_execution=4", "trainer.limit_train_batches=7"], [10], [-1]),
        ),
    ],
    ids=str,
)
def test_run_that_reached_max_steps_continues_within_the_epoch(
    command: Command, settings: list[str], steps: list[int], limits: list[int]
) -> None:
    assert command(*PLAIN, THREE, *settings, f"hydra.run.dir={WHOLE}").status == 0
    first = command(*PLAIN, THREE, *settings, f"trainer.max_steps={steps[0]}", f"hydra.run.dir={PARTS}")
    assert first.status == 0 and not first.err, first.err
    for step, limit in zip(steps, limits, strict=True):
        assert (PARTS.info["status"], PARTS.info["steps"]) == ("finished", step)
        resumed = command(f"resume={PARTS}", f"trainer.max_steps={limit}", data=False)
        assert resumed.status == 0 and not resumed.err, resumed.err
    assert losses(WHOLE, PARTS) == []
    assert columns(PARTS) == columns(WHOLE)
    assert (PARTS.info["epochs"], PARTS.info["steps"]) == (WHOLE.info["epochs"], WHOLE.info["steps"])


class Clock(Callback):
    """Lets the time run out at a batch; an epoch has 12 batches."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch - 1:
            (timer,) = find_callbacks(trainer, Timer)
            timer._start_time["train"] = time.monotonic() - 3600


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "batch", "steps"),
    [(["+trainer.accumulate_grad_batches=5"], 14, 4), *thorough(([], 12, 12), ([], 17, 17))],
)
def test_run_out_of_time_continues_in_the_epoch(command: Command, settings: list[str], batch: int, steps: int) -> None:
    settings = [*PLAIN, THREE, *settings, "scheduler=step"]
    assert command(*settings, f"hydra.run.dir={WHOLE}").status == 0
    clock = f"+callbacks.clock={{_target_: test_resume.Clock, batch: {batch}}}"
    limit = "+trainer.max_time=00:01:00:00"
    assert command(*settings, clock, limit, f"hydra.run.dir={PARTS}").status == 0
    assert PARTS.info["steps"] == steps
    longer = "~trainer.max_time" if settings[-2].endswith("5") else "+trainer.max_time=01:00:00:00"
    assert command(f"resume={PARTS}", longer, "~callbacks.clock", data=False).status == 0
    assert losses(WHOLE, PARTS) == []


class Stateful(Callback):
    """Has a state of its own, with names that Lightning's checkpoints use."""

    loaded: Any = None

    def state_dict(self) -> dict[str, Any]:
        return {"best_model_path": 3, "best_k_models": None, "dirpath": {"/x": (1, "y")}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        Stateful.loaded = state_dict


@pytest.mark.slow
@pytest.mark.parametrize(("place", "moved"), [("${folder}/top", True), *thorough(("elsewhere", False))])
def test_own_checkpoints_stay_in_place_and_move_with_the_run_folder(command: Command, place: str, moved: bool) -> None:
    top = f"_target_: lightning.pytorch.callbacks.ModelCheckpoint, dirpath: '{place}', filename: '{{epoch}}'"
    top = f"+callbacks.top={{{top}, monitor: train/loss, save_top_k: 2}}"
    own = ("+trainer.max_time=00:01:00:00", "+callbacks.own._target_=test_resume.Stateful")
    assert command("model=mlp", top, *own, f"hydra.run.dir={PARTS}").status == 0
    run = Run(Path("runs/b/moved")) if moved else PARTS
    if moved:
        run.folder.parent.mkdir()
        shutil.move(PARTS.folder, run.folder)
    again = [] if moved else [top]  # A run does not resume to write outside its folder unless it is given again.
    resumed = command(f"resume={run}", "trainer.max_epochs=4", *again, data=False)
    assert resumed.status == 0 and not resumed.err, resumed.err
    kept = {path.name for path in Path(place.replace("${folder}", str(run.folder))).iterdir()}
    best = sorted(run.epochs(), key=lambda row: row["train/loss"])[:2]
    assert kept == {f"epoch={row['epoch']:.0f}.ckpt" for row in best}
    assert {path.name for path in run.checkpoints_folder.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert Stateful.loaded == Stateful().state_dict()


def test_random_state_of_apples_gpu_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, restored = torch.arange(4, dtype=torch.uint8), []
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.setattr("torch.mps.get_rng_state", lambda: numbers)
    monkeypatch.setattr("torch.mps.set_rng_state", restored.append)
    state = callbacks.RandomState().state_dict()
    callbacks.RandomState().load_state_dict(state)
    del state["mps"]  # as in a checkpoint of another version
    callbacks.RandomState().load_state_dict(state)
    assert [list(state) for state in restored] == [[0, 1, 2, 3]]
