"""A run from its command line to its folder, and everything that reads the folder afterwards."""

from __future__ import annotations

import csv
import json
import logging
import os
import re
import shutil
import signal
import sys
import threading
import warnings
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lab import Command, Tiny, slow
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from mnist_lab.evaluation.evaluate import evaluate
from mnist_lab.models.classifier import Classifier
from mnist_lab.runs.run import Run
from mnist_lab.training.build import make_data, make_model, make_trainer
from mnist_lab.training.loggers import MetricsCSV
from mnist_lab.training.runtime import quiet_lightning
from mnist_lab.training.train import ensure_last_checkpoint, train

METRICS = {"train/loss", "train/acc", "val/loss", "val/acc", "test/loss", "test/acc"}
FIGURES = ("loss", "accuracy", "examples_seen", "truths_3x3", "predictions_3x3", "predictions_4x4")


def only_run() -> Run:
    (path,) = Path("runs").glob("*/*/run.json")
    return Run(path.parent)


@pytest.mark.slow
def test_hparams_tab_of_a_sweep_has_what_is_swept_and_short_names(command: Command) -> None:
    swept = ("augmentation=none,affine", "model=mlp", "optimizer.nesterov=false,true", "seed=3", "trainer.max_epochs=1")
    assert command("-m", *swept, "sweep=s").status == 0
    rows = []
    for run in Run.below("runs"):
        events = EventAccumulator(str(run.folder)).Reload()
        start = hparams(events, "session_start_info").session_start_info
        values = {name: value.string_value or value.number_value for name, value in start.hparams.items()}
        main = {"model": "mlp", "lr": 0.01, "momentum": 0.9, "batch_size": 16, "epochs": 1, "seed": 3}
        rows.append((values["augmentation"], values["nesterov"]))
        assert values == main | {"augmentation": rows[-1][0], "nesterov": rows[-1][1]}
        infos = hparams(events, "experiment").experiment.hparam_infos
        assert {info.name for info in infos if info.differs} == {"augmentation", "nesterov"}
        assert {info.name for info in infos if not info.differs} == {"model", "lr", "momentum", "seed"}
        assert start.group_name == run.folder.name
    assert sorted(rows) == [("affine", "false"), ("affine", "true"), ("none", "false"), ("none", "true")]


def hparams(events: EventAccumulator, name: str) -> HParamsPluginData:
    return HParamsPluginData.FromString(events.SummaryMetadata(f"_hparams_/{name}").plugin_data.content)


class Labels(Callback):
    """Remembers the labels in the order of the training."""

    seen: ClassVar[dict[int, list[int]]] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.seen.setdefault(trainer.current_epoch, []).extend(batch[1].tolist())


def test_every_epoch_of_a_run_has_its_own_order(command: Command) -> None:
    Labels.seen.clear()
    command("model=mlp", "+callbacks.labels={_target_: test_train.Labels}")
    assert sorted(Labels.seen[0]) == sorted(Labels.seen[1])
    assert Labels.seen[0] != Labels.seen[1]


def test_onecycle_trains_with_the_momentum_that_is_recorded(command: Command) -> None:
    for momentum in (0.0, 0.9):
        folder = f"hydra.run.dir=runs/a/{momentum}"
        assert command("model=mlp", "scheduler=onecycle", f"optimizer.momentum={momentum}", folder).status == 0
    runs = [Run(Path("runs/a/0.0")), Run(Path("runs/a/0.9"))]
    assert not same(*(weights(run.checkpoint("last")) for run in runs))
    for run in runs:
        checkpoint = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert checkpoint["optimizer_states"][0]["param_groups"][0]["momentum"] == run.config.optimizer.momentum


@pytest.mark.slow
def test_test_set_after_every_epoch_is_shown_and_changes_nothing(command: Command) -> None:
    """Dropout draws from the random state that evaluating must leave alone."""
    for name in ("default", "test_curve"):
        arguments = ("model=dropout_cnn", "trainer.max_epochs=3", f"callbacks={name}", f"hydra.run.dir=runs/a/{name}")
        assert command(*arguments, "data.val_size=0").status == 0
    without, run = Run(Path("runs/a/default")), Run(Path("runs/a/test_curve"))
    assert same(weights(without.checkpoint("last")), weights(run.checkpoint("last")))
    assert without.info["metrics"] == run.info["metrics"]
    assert list(run.curve("test/acc")) == [1, 2, 3]
    assert run.curve("test/acc")[3] == run.info["metrics"]["test/acc"]
    assert list(without.curve("test/acc")) == [3]
    assert run.checkpoint("best") is None


def test_before_training_the_untrained_network_is_tested(command: Command) -> None:
    outcome = command("experiment=compact_cnn")
    run = only_run()
    assert re.search(r"^0/2 +- +- ", outcome.out, re.MULTILINE)
    assert list(run.curve("test/acc")) == [0, 1, 2]
    assert list(run.curve("test/acc", "examples_seen")) == [0, 230, 460]
    assert run.curve("test/loss")[0] == pytest.approx(2.3, abs=0.1)  # of ten classes, without an idea: log 10
    events = EventAccumulator(str(run.folder)).Reload()
    assert events.Scalars("Loss/test")[0].step == -1
    before = run.curve("test/acc")
    assert command("resume=latest", "trainer.max_epochs=3", data=False).status == 0
    assert {epoch: value for epoch, value in run.curve("test/acc").items() if epoch < 3} == before


def test_test_curve_keeps_to_the_limit_of_batches(command: Command) -> None:
    command("model=mlp", "callbacks=test_curve", "trainer.limit_test_batches=1", "data.val_size=0")
    run = only_run()
    assert run.curve("test/acc")[2] == run.info["metrics"]["test/acc"]


def test_rows_after_the_checkpoint_are_cut_on_resume(tmp_path: Path) -> None:
    old, new = MetricsCSV(tmp_path), MetricsCSV(tmp_path)
    for step in (3, 7):
        old.log_metrics({"lr": 1.0}, step=step)
    old.write()
    new.restore(4)
    assert list(new.rows) == [3]


def test_latest_is_the_newest_run_wherever_it_lies_and_test_takes_overrides(command: Command) -> None:
    command("hydra.run.dir=runs/z/first")
    command("hydra.run.dir=runs/sweeps/x/0-a")
    run = Run.find("latest")
    assert run.folder == Path("runs/sweeps/x/0-a")
    assert evaluate(run, ["trainer.limit_test_batches=1"]) != evaluate(run)
    assert "one run at a time" in command("-m", "resume=latest", data=False).err


def test_two_starts_at_once_get_two_folders_and_the_same_result(command: Command) -> None:
    command()
    command()
    first, second = (Run(path.parent) for path in sorted(Path("runs").glob("*/*/run.json")))
    assert first.info["metrics"] == second.info["metrics"]
    assert same(weights(first.checkpoint("last")), weights(second.checkpoint("last")))


class StopAfter(Callback):
    """Ctrl-C when so many epochs are done."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == self.epochs:
            raise KeyboardInterrupt


class Bomb(Callback):
    """A fault in the program."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        raise RuntimeError("out of order")


def test_resume_with_a_schedule_that_is_over_is_refused(command: Command) -> None:
    command("model=mlp", "scheduler=onecycle")
    outcome = command("resume=latest", "trainer.max_epochs=3", data=False)
    assert outcome.status == 2
    assert "scheduler.epochs=3: cannot change on resume (this run uses 2)" in outcome.err
    outcome = command("resume=latest", "trainer.max_epochs=3", "scheduler=none", data=False)
    assert outcome.status == 2
    assert "scheduler.max_lr=null: cannot change on resume (this run uses 0.01)" in outcome.err


def test_moved_run_keeps_its_best_checkpoint_when_resumed(command: Command) -> None:
    command("trainer.max_epochs=6", "optimizer.lr=0.05")
    before = only_run()
    shutil.move(before.folder, "moved")
    run = Run(Path("moved"))
    best = max(row["val/acc"] for row in run.epochs())
    arguments = ["resume=moved", "trainer.max_epochs=7", "trainer.limit_train_batches=1"]
    assert command(*arguments, data=False).status == 0
    assert run.info["metrics"]["val/acc"] == max(best, run.epochs()[-1]["val/acc"])
    assert weights(run.checkpoint("best"))


def test_interrupted_run_records_what_it_has_and_seconds_add_up(command: Command) -> None:
    stop = "+callbacks.stop={_target_: test_train.StopAfter, epochs: 1}"
    assert command("trainer.max_epochs=3", stop).status == 130
    info = only_run().info
    assert (info["epochs"], info["steps"]) == (1, 12)
    assert info["checkpoints"] == {"best": "checkpoints/best.ckpt", "last": "checkpoints/last.ckpt"}
    assert command("resume=latest", "~callbacks.stop", data=False).status == 0
    assert only_run().info["seconds"]["total"] > info["seconds"]["total"] > 0
    assert only_run().info["epochs"] == 3


def test_run_stopped_before_its_first_checkpoint_says_to_start_anew(command: Command) -> None:
    outcome = command("+callbacks.stop={_target_: test_train.StopAfter, epochs: 0}")
    assert outcome.status == 130
    assert f"start again: {only_run().info['command']}" in outcome.out


def test_lr_of_an_epoch_is_the_one_it_was_trained_with(command: Command) -> None:
    command("scheduler=step", "scheduler.step_size=1", "scheduler.gamma=0.1", "optimizer.lr=0.02")
    assert [row["lr"] for row in only_run().epochs()] == pytest.approx([0.02, 0.002])


def test_refused_run_without_data_leaves_nothing(command: Command, tiny: Tiny) -> None:
    shutil.rmtree(tiny.root)
    outcome = command("data.download=false")
    assert outcome.status == 2
    assert "data.download=false" in outcome.err
    assert not list(Path().iterdir()) and not tiny.root.exists()


@pytest.mark.slow
def test_init_from_takes_a_checkpoint_or_a_plain_state_dict(command: Command, tiny: Tiny, tmp_path: Path) -> None:
    command("model=mlp")
    checkpoint = only_run().checkpoint("last")
    assert checkpoint is not None
    torch.save(weights(checkpoint), tmp_path / "plain.pt")
    for name, source in (("a", checkpoint), ("b", tmp_path / "plain.pt")):
        folder = Path("runs/again") / name
        own = ("trainer.max_epochs=0", f"hydra.run.dir={folder}", "figures=true")
        outcome = command("model=mlp", f"init_from={source}", *own)
        assert outcome.status == 0, outcome.err
        run = Run(folder)
        assert same(weights(run.checkpoint("last")), weights(checkpoint))
        assert run.info["epochs"] == 0
        assert evaluate(run)["test/acc"] == run.info["metrics"]["test/acc"]


def test_without_validation_the_last_weights_are_tested(command: Command) -> None:
    assert command("data.val_size=0", "figures=true").status == 0
    run = only_run()
    assert run.info["checkpoints"] == {"best": None, "last": "checkpoints/last.ckpt"}
    assert set(run.info["metrics"]) == METRICS - {"val/loss", "val/acc"}
    assert evaluate(run)["test/acc"] == run.info["metrics"]["test/acc"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_gpu_run_is_tested_to_the_same_figures_and_resumed(command: Command) -> None:
    assert command("trainer.accelerator=gpu").status == 0
    run = only_run()
    assert run.info["device"] == torch.cuda.get_device_name(0)
    assert evaluate(run)["test/acc"] == run.info["metrics"]["test/acc"]
    assert command("resume=latest", "trainer.max_epochs=3", data=False).status == 0


def test_failed_run_says_so_in_run_json_and_keeps_the_traceback(command: Command) -> None:
    outcome = command("+callbacks.bomb={_target_: test_train.Bomb}")
    assert outcome.status == 1
    info = only_run().info
    assert (info["status"], info["error"]) == ("failed", "RuntimeError: out of order")
    assert "Traceback" in (only_run().folder / "train.log").read_text()


def test_train_and_test_work_from_python_alone(tiny: Tiny) -> None:
    run = train(tiny.compose("model=mlp", "trainer.max_epochs=1"))
    assert run.folder.is_relative_to(Path.cwd() / "runs")
    assert {"model=mlp", "trainer.max_epochs=1"} <= set(run.info["overrides"])
    assert run.info["command"].startswith(f"python -m mnist_lab --config-dir {tiny.conf} data=tiny")
    assert json.loads((run.folder / "run.json").read_text())["status"] == "finished"
    assert evaluate(run)["test/acc"] == run.info["metrics"]["test/acc"]
    assert isinstance(make_model(run.config), Classifier)


def test_run_without_checkpoint_callbacks_saves_its_last_weights(command: Command) -> None:
    outcome = command("model=mlp", "trainer.max_epochs=1", "callbacks.last=null", "callbacks.best=null")
    assert outcome.status == 0, outcome.err
    assert only_run().info["checkpoints"] == {"best": None, "last": "checkpoints/last.ckpt"}


def test_processes_save_the_last_checkpoint_if_the_first_one_finds_none(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny.compose("model=mlp", "trainer.max_epochs=0", "hydra.run.dir=runs/a")
    model = make_model(cfg)
    trainer = make_trainer(cfg, MetricsCSV(Path("runs/a")))
    with quiet_lightning():
        trainer.fit(model, make_data(cfg, model))
    path = Path("runs/a/checkpoints/last.ckpt")
    path.parent.mkdir(parents=True, exist_ok=True)
    for found_by_first in (True, False):  # this process, which is late, finds what the first has written by now
        path.write_text("another process's")
        monkeypatch.setattr(trainer.strategy, "broadcast", lambda *args, answer=found_by_first, **settings: answer)
        assert ensure_last_checkpoint(Run(Path("runs/a")), trainer) == path
        assert zipfile.is_zipfile(path) != found_by_first
