"""A run that ended within an epoch, by steps or by time, continues within it; what measured a part is marked."""

import csv
import shutil
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lab import Command, Tiny, slow, thorough
from torch import nn

from benchmarks.kills import losses
from mnist_lab.models.classifier import Classifier
from mnist_lab.runs.ranking import Results
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep

WHOLE, PARTS = Run(Path("runs/a/whole")), Run(Path("runs/a/parts"))
PLAIN = ("model=dropout_cnn", "scheduler=onecycle", "trainer.max_epochs=3")


def columns(run: Run) -> list[dict[str, str]]:
    """The cells of metrics.csv as they are written, but for the speed."""
    with run.metrics_path.open() as file:
        return [{**row, "images_per_second": ""} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("settings", "steps", "limits"),
    [
        ([], [17], [-1]),  # 12 steps an epoch
        *slow(
            (["steps_per_execution=5", "callbacks=test_curve"], [1, 14], [14, -1]),
            (["callbacks=ema", "callbacks.ema.decay=0.9"], [12, 35], [35, -1]),
        ),
        *thorough(
            (["steps_per_execution=1", "trainer.log_every_n_steps=3"], [15], [-1]),
            (["scheduler=step", "+trainer.accumulate_grad_batches=5"], [4], [-1]),
            (["steps_per_execution=5"], [15, 23], [23, 100]),
            (["steps_per_execution=4", "trainer.limit_train_batches=7"], [10], [-1]),
        ),
    ],
    ids=str,
)
def test_run_that_reached_max_steps_continues_within_the_epoch(
    command: Command, settings: list[str], steps: list[int], limits: list[int]
) -> None:
    assert command(*PLAIN, *settings, f"hydra.run.dir={WHOLE}").status == 0
    first = command(*PLAIN, *settings, f"trainer.max_steps={steps[0]}", f"hydra.run.dir={PARTS}")
    assert first.status == 0 and not first.err, first.err
    for step, limit in zip(steps, limits, strict=True):
        assert (PARTS.info["status"], PARTS.info["steps"]) == ("finished", step)
        resumed = command(f"resume={PARTS}", f"trainer.max_steps={limit}", data=False)
        assert resumed.status == 0 and not resumed.err, resumed.err
    assert losses(WHOLE, PARTS) == []
    assert columns(PARTS) == columns(WHOLE)
    assert (PARTS.info["epochs"], PARTS.info["steps"]) == (WHOLE.info["epochs"], WHOLE.info["steps"])


class Clock(pl.Callback):
    """Has time run out at a batch: a run has 12 of them an epoch."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch - 1:
            (timer,) = [each for each in trainer.callbacks if isinstance(each, pl.callbacks.Timer)]  # type: ignore[attr-defined]
            timer._start_time["train"] = time.monotonic() - 3600


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "batch", "steps"),
    [([], 17, 17), *thorough((["+trainer.accumulate_grad_batches=5"], 14, 4), ([], 12, 12))],
)
def test_run_whose_time_is_up_continues_within_the_epoch(
    command: Command, settings: list[str], batch: int, steps: int
) -> None:
    settings = [*PLAIN, *settings, "scheduler=step"]
    assert command(*settings, f"hydra.run.dir={WHOLE}").status == 0
    clock = f"+callbacks.clock={{_target_: test_early_end.Clock, batch: {batch}}}"
    limit = "+trainer.max_time=00:01:00:00"
    assert command(*settings, clock, limit, f"hydra.run.dir={PARTS}").status == 0
    assert PARTS.info["steps"] == steps
    longer = "~trainer.max_time" if settings[-2].endswith("5") else "+trainer.max_time=01:00:00:00"
    resumed = command(f"resume={PARTS}", longer, "~callbacks.clock", data=False)
    assert resumed.status == 0, resumed.err
    assert losses(WHOLE, PARTS) == []


class Stateful(pl.Callback):
    """Has a state of its own, with names that Lightning's checkpoints use."""

    loaded: Any = None

    def state_dict(self) -> dict[str, Any]:
        return {"best_model_path": 3, "best_k_models": None, "dirpath": {"/x": (1, "y")}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        Stateful.loaded = state_dict


@pytest.mark.slow
@pytest.mark.parametrize(("place", "moved"), [("${folder}/top", True), *thorough(("elsewhere", False))])
def test_own_checkpoints_stay_where_they_are_and_move_with_the_run_folder(
    command: Command, place: str, moved: bool
) -> None:
    top = f"_target_: lightning.pytorch.callbacks.ModelCheckpoint, dirpath: '{place}', filename: '{{epoch}}'"
    top = f"+callbacks.top={{{top}, monitor: train/loss, save_top_k: 2}}"
    own = ("+trainer.max_time=00:01:00:00", "+callbacks.own._target_=test_early_end.Stateful")
    assert command("model=mlp", top, *own, f"hydra.run.dir={PARTS}").status == 0
    run = Run(Path("runs/b/moved")) if moved else PARTS
    if moved:
        run.folder.parent.mkdir()
        shutil.move(PARTS.folder, run.folder)
    again = [] if moved else [top]  # it writes outside the run folder
    resumed = command(f"resume={run}", "trainer.max_epochs=4", *again, data=False)
    assert resumed.status == 0 and not resumed.err, resumed.err
    kept = {path.name for path in Path(place.replace("${folder}", str(run.folder))).iterdir()}
    best = sorted(run.epochs(), key=lambda row: row["train/loss"])[:2]
    assert kept == {f"epoch={row['epoch']:.0f}.ckpt" for row in best}
    assert {path.name for path in run.checkpoints_folder.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert Stateful.loaded == Stateful().state_dict()


@pytest.mark.slow
def test_metrics_of_a_part_are_marked_and_not_ranked_among_those_of_whole_sets(command: Command) -> None:
    limits = ("trainer.limit_test_batches=null,1", "optimizer.lr=0.001,0.1")
    swept = command("-m", "sweep=s", "model=mlp", "trainer.max_epochs=1", *limits)
    assert swept.status == 0, swept.err
    results = Results.of(Sweep(Path("runs/sweeps/s")))
    assert len(results.ranked) == 2 and not any(group[0].info["partial"] for group in results.ranked)
    (part, *_) = [Run(job.folder) for job in results.jobs if job.info["partial"]]
    assert part.info["partial"] == ["test"]
    assert "partial" in command("ls", "--columns", "run,status,test/acc", data=False).out
    selected = command("ls", "--where", "test/acc >= 0 and status == finished", "--json", data=False).out
    assert part.folder.name not in selected and results.ranked[0][0].folder.name in selected
    assert command("report", str(part), data=False).status == 0
    assert "Its test metrics are those of a part of the set" in part.report_path.read_text()


class NormalisedMLP(Classifier):
    """Has batch normalisation of a layer without pixels, which needs two images."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.net(x)
        return scores


NORMALISED = ("model=mlp", "model._target_=test_early_end.NormalisedMLP")


def test_single_image_that_is_left_joins_the_batch_before(command: Command, tiny: Tiny) -> None:
    size = "data.batch_size=27"  # one left of 190
    outcome = command(*NORMALISED, size, "trainer.max_epochs=1", f"hydra.run.dir={PARTS}")
    assert (outcome.status, outcome.err) == (0, "")
    assert PARTS.info["steps"] == 7 and PARTS.epochs()[-1]["examples_seen"] == 190
    own = ("--config-dir", str(tiny.conf), "data=tiny", "--steps", "60")
    tried = command("lr", *NORMALISED, size, *own, data=False)
    assert tried.status == 0, tried.err


def test_steps_of_one_image_that_a_network_cannot_take_end_in_a_line(command: Command, tiny: Tiny) -> None:
    for start in ([], ["lr"]):
        outcome = command(
            *start, *NORMALISED, "data.batch_size=1", "data=tiny", "--config-dir", str(tiny.conf), data=False
        )
        assert (outcome.status, outcome.err.count("\n")) == (1, 1), outcome.err
        assert "batch normalisation cannot be trained on a step of one image; use two or more" in outcome.err
