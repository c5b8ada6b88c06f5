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


def weights(path: Path | None) -> dict[str, Any]:
    assert path is not None
    state: dict[str, Any] = torch.load(path, weights_only=True)["state_dict"]
    return state


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_run_leaves_all_that_is_promised_in_its_folder(command: Command) -> None:
    outcome = command("model=lenet", "trainer.max_epochs=8", "figures=true")
    assert outcome.status == 0, outcome.err
    run = only_run()
    assert run.folder.name.endswith("-lenet")
    assert outcome.out.splitlines()[-1] == f"run folder: {run.folder}"
    info = run.info
    assert (info["status"], info["error"], info["model"], info["parameters"]) == (
        "finished",
        None,
        "lenet",
        61_706,
    )
    assert (info["seed"], info["epochs"], info["steps"]) == (0, 8, 8 * 12)
    assert set(info["metrics"]) == METRICS
    assert info["metrics"]["test/acc"] > 0.9  # the classes are bars at ten heights: a network that learns finds them
    assert set(info["seconds"]) == {"total", "fit"}
    assert info["images_per_second"] > 0
    assert info["command"].startswith("python -m mnist_lab")
    assert "model=lenet" in info["overrides"]
    assert {"torch", "lightning", "hydra-core", "python"} <= set(info["versions"])
    assert info["checkpoints"] == {"best": "checkpoints/best.ckpt", "last": "checkpoints/last.ckpt"}
    assert run.config.trainer.max_epochs == 8
    assert (run.folder / "train.log").stat().st_size > 0
    for name in FIGURES:
        assert imread(run.folder / "figures" / f"{name}.png").std() > 0.01
    for name in ("best", "last"):
        content = torch.load(run.folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert content["architecture"] == "LeNet"


def test_metrics_are_those_of_the_epoch_that_was_tested(command: Command) -> None:
    command("trainer.max_epochs=4", "optimizer.lr=0.05")
    run = only_run()
    epochs = run.epochs()
    assert [row["epoch"] for row in epochs] == [0, 1, 2, 3]
    best = max(epochs, key=lambda row: row["val/acc"])  # max keeps the first of equals, as the checkpoint does
    assert run.info["tested"] == {"checkpoint": "best", "epoch": best["epoch"] + 1}
    assert {name: value for name, value in run.info["metrics"].items() if "test" not in name} == {
        name: best[name] for name in METRICS if "test" not in name
    }


def test_metrics_csv_and_tensorboard_have_every_curve(command: Command) -> None:
    command("figures=true")
    run = only_run()
    with (run.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps))
    for name in (*METRICS, "lr", "images_per_second"):
        assert any(row[name] for row in rows), name
    events = EventAccumulator(str(run.folder)).Reload()
    curves = [f"{metric}/{of}" for metric in ("Accuracy", "Loss") for of in ("test", "train", "val")]
    assert (
        sorted(events.Tags()["scalars"])
        == [  # as TensorBoard sorts its charts: the curves come first
            *curves[:5],
            "Loss/train_step",
            curves[5],
            *(f"final/{of}/{metric}" for of in ("test", "train", "val") for metric in ("acc", "loss")),
            "images_per_second",
            "lr",
        ]
    )
    assert [event.step for event in events.Scalars("Accuracy/val")] == [11, 23]
    assert {f"figures/{name}" for name in FIGURES} <= set(events.Tags()["images"])
    for name in FIGURES:
        (image,) = events.Images(f"figures/{name}")
        assert (image.height, image.width) == imread(run.folder / "figures" / f"{name}.png").shape[:2]


def test_hparams_tab_has_one_line_a_run_with_its_final_metrics(command: Command) -> None:
    command("model=mlp", "optimizer.lr=0.02")
    for epochs in (2, 3):
        run = only_run()
        events = EventAccumulator(str(run.folder)).Reload()
        for name, value in run.info["metrics"].items():
            (point,) = events.Scalars(f"final/{name}")
            assert point.value == pytest.approx(value)
            assert point.step == run.info["steps"] == 12 * epochs
        start = hparams(events, "session_start_info").session_start_info
        values = {name: value.string_value or value.number_value for name, value in start.hparams.items()}
        assert start.group_name == run.folder.name
        assert values == {
            "model": "mlp",
            "lr": 0.02,
            "momentum": 0.9,
            "batch_size": 16,
            "epochs": epochs,
            "seed": 0,
            "data": "tiny",
        }
        experiment = hparams(events, "experiment").experiment
        assert {info.name for info in experiment.hparam_infos} == set(values)
        assert {info.name for info in experiment.hparam_infos if info.differs} == {"model", "lr", "momentum", "seed"}
        shown = [info.display_name for info in experiment.metric_infos]
        assert shown == ["val acc", "test acc", "val loss", "test loss", "train acc", "train loss"]
        assert {info.name.tag for info in experiment.metric_infos} == {f"final/{name}" for name in run.info["metrics"]}
        assert command("resume=latest", "trainer.max_epochs=3", data=False).status == 0


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


def test_onecycle_moves_at_every_step_and_ends_within_a_limited_run(command: Command) -> None:
    command("model=mlp", "scheduler=onecycle", "trainer.limit_train_batches=4")
    rows = [row for row in only_run().metrics() if "train/loss_step" in row]
    assert [row["step"] for row in rows] == [3, 7]  # trainer.log_every_n_steps=4, counted from 0
    assert rows[-1]["lr"] < 1e-5 < rows[0]["lr"]


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


def test_examples_seen_count_every_image_across_a_resume(command: Command) -> None:
    command("model=mlp", "data.val_size=0")
    command("resume=latest", "trainer.max_epochs=3", data=False)
    run = only_run()
    assert list(run.curve("train/loss", "examples_seen")) == [230, 460, 690]
    steps = [row for row in run.metrics() if "train/loss_step" in row]  # every fourth of 15 steps, the last of 6 images
    assert [row["examples_seen"] for row in steps[:4]] == [64, 128, 192, 230 + 16]


@pytest.mark.slow
@pytest.mark.parametrize("interrupted", [1, *slow(0, 3)])
def test_lenet_continued_reloads_its_weights_and_trains_on(command: Command, interrupted: int) -> None:
    """As one run of so many epochs, to the last bit; and so if it was interrupted before or after the reload."""
    arguments = (
        "experiment=lenet_continued",
        "callbacks.reload.after=2",
        "trainer.max_epochs=4",
        "hydra.run.dir=runs/a/parts",
    )
    if interrupted:
        stop = f"+callbacks.stop={{_target_: test_train.StopAfter, epochs: {interrupted}}}"
        assert command(*arguments, stop).status == 130
        outcome = command("resume=runs/a/parts", "~callbacks.stop", data=False)
    else:
        outcome = command(*arguments)
    assert outcome.status == 0, outcome.err
    assert ("saved after epoch 2; network and optimizer are loaded from the file" in outcome.out) == (interrupted < 2)
    assert "lenet, weights of epoch 4 (last)" in outcome.out
    assert command("experiment=lenet", "trainer.max_epochs=4", "hydra.run.dir=runs/a/whole").status == 0
    whole, parts = Run(Path("runs/a/whole")), Run(Path("runs/a/parts"))
    assert same(weights(whole.checkpoint("last")), weights(parts.checkpoint("last")))
    assert whole.info["metrics"] == parts.info["metrics"]
    assert whole.curve("test/acc", "examples_seen") == parts.curve("test/acc", "examples_seen")
    assert parts.info["epochs"] == 4 and parts.config.trainer.max_epochs == 4


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


def test_folder_that_holds_a_run_is_not_taken_again(command: Command) -> None:
    assert command("hydra.run.dir=runs/a/b").status == 0
    before = (Path("runs/a/b") / "run.json").read_text()
    outcome = command("hydra.run.dir=runs/a/b", "seed=5")
    assert outcome.status == 2
    assert "contains a run already" in outcome.err
    assert (Path("runs/a/b") / "run.json").read_text() == before


@pytest.mark.parametrize("network", ["dropout_cnn", *slow("mlp", "simple_cnn", "compact_cnn")])
def test_test_command_gives_the_same_figures_to_the_last_digit(command: Command, network: str) -> None:
    command(f"model={network}", "trainer.max_epochs=1")
    run = only_run()
    expected = {name: run.info["metrics"][name] for name in ("test/loss", "test/acc")}
    assert evaluate(run) == expected
    outcome = command("test", "latest", data=False)
    assert outcome.status == 0
    assert all(repr(value) in outcome.out for value in expected.values()) and "(as the run recorded)" in outcome.out
    cells = [line.split() for line in outcome.out.splitlines() if "│ test" in line]
    assert cells == [["│", "test", "│", f"{expected['test/loss']:.4f}", "│", f"{expected['test/acc']:.2%}", "│"]]
    run.update(metrics=run.info["metrics"] | {"test/acc": 0.5})
    outcome = command("test", "latest", data=False)
    assert f"(the run recorded test/loss {expected['test/loss']!r}, test/acc 0.5)" in outcome.out


def test_run_folder_can_be_moved_and_tested_elsewhere(command: Command, tmp_path: Path) -> None:
    command()
    run = only_run()
    shutil.move(run.folder, tmp_path / "moved")
    tested = evaluate(Run(tmp_path / "moved"))
    assert tested["test/acc"] == Run(tmp_path / "moved").info["metrics"]["test/acc"]


@pytest.mark.parametrize("scheduler", ["onecycle", *slow("none", "step", "cosine")])
@pytest.mark.parametrize("network", ["dropout_cnn", *slow("lenet")])
def test_resumed_run_ends_as_the_uninterrupted_one(command: Command, network: str, scheduler: str) -> None:
    """At an epoch's end, dropout and all; in the same folder, the same metrics.csv, the same TensorBoard run."""
    settings = [f"model={network}", f"scheduler={scheduler}", "optimizer.momentum=0.5"]
    command(*settings, "trainer.max_epochs=4", "hydra.run.dir=runs/whole/run")
    whole = Run(Path("runs/whole/run"))
    interrupt = "+callbacks.stop={_target_: test_train.StopAfter, epochs: 2}"
    stopped = command(*settings, "trainer.max_epochs=4", "hydra.run.dir=runs/parts/run", interrupt)
    assert stopped.status == 130, stopped.err
    parts = Run(Path("runs/parts/run"))
    assert parts.info["status"] == "interrupted"
    assert "resume=" in stopped.out
    resumed = command("resume=runs/parts/run", "~callbacks.stop", data=False)
    assert resumed.status == 0, resumed.err
    assert parts.info["status"] == "finished"
    assert same(weights(whole.checkpoint("last")), weights(parts.checkpoint("last")))
    assert whole.info["metrics"] == parts.info["metrics"]

    def curves(run: Run) -> list[dict[str, float]]:
        return [{name: row[name] for name in row if name != "images_per_second"} for row in run.metrics()]

    assert curves(whole) == curves(parts)
    events = EventAccumulator(str(parts.folder)).Reload()
    assert [event.step for event in events.Scalars("Loss/train")] == [11, 23, 35, 47]


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


def test_resume_continues_to_more_epochs_and_says_when_there_is_nothing_to_do(command: Command) -> None:
    command("model=mlp")
    outcome = command("resume=latest", "trainer.max_epochs=3", data=False)
    assert outcome.status == 0
    assert re.findall(r"\d/3\b", outcome.out) == ["3/3"], "epochs done before are not shown again"
    run = only_run()
    assert (run.info["epochs"], run.info["steps"]) == (3, 36)
    assert [row["epoch"] for row in run.epochs()] == [0, 1, 2]
    assert run.config.model._target_.endswith("MLP")
    fewer = command("resume=latest", "trainer.max_epochs=1", data=False)
    assert fewer.status == 2
    assert "trainer.max_epochs=1" in fewer.err
    assert run.info["status"] == "finished"


def test_resume_of_a_finished_run_says_so_and_changes_nothing(command: Command) -> None:
    command("model=mlp")
    run = only_run()
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file() and path.suffix != ".log"}
    outcome = command("resume=latest", data=False)
    assert outcome.status == 0
    assert "already trained for 2 epochs; raise trainer.max_epochs to continue" in outcome.out
    after = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file() and path.suffix != ".log"}
    assert before == after


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            "optimizer=adam",
            "optimizer._target_=torch.optim.Adam: cannot change on resume",
        ),
        *slow(
            ("optimizer.lr=1", "optimizer.lr=1: cannot change on resume (this run uses 0.01)"),
            ("data.val_size=0", "data.val_size=0: cannot change on resume (this run uses 40)"),
            ("seed=3", "seed=3: cannot change on resume (this run uses 0)"),
            ("data.source.mirrors=null", "data.source.mirrors=null: cannot change on resume (this run uses [])"),
        ),
    ],
)
def test_resumed_run_keeps_its_settings(command: Command, change: str, told: str) -> None:
    command("model=mlp")
    before = (only_run().folder / "run.json").read_text()
    outcome = command("resume=latest", "trainer.max_epochs=3", change, data=False)
    assert outcome.status == 2
    assert told in outcome.err
    assert (only_run().folder / "run.json").read_text() == before


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


@pytest.mark.parametrize("precision", ["bf16-mixed", *slow("bf16-true", "64-true")])
def test_other_precisions_run_to_the_end(command: Command, precision: str) -> None:
    outcome = command("model=mlp", f"trainer.precision={precision}", "trainer.max_epochs=1", "figures=true")
    assert outcome.status == 0, outcome.err


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


def test_own_network_is_one_class_and_one_yaml(
    command: Command, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_net.py").write_text(
        "from torch import nn\n"
        "from mnist_lab.models.classifier import Classifier\n\n"
        "class MyNet(Classifier):\n"
        "    def __init__(self, *, width: int = 32) -> None:\n"
        "        super().__init__()\n"
        "        self.net = nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))\n\n"
        "    def forward(self, x):\n"
        "        return self.net(x)\n"
    )
    (tiny.conf / "model").mkdir()
    (tiny.conf / "model" / "my_net.yaml").write_text("_target_: my_net.MyNet\nwidth: 16\n")
    assert command("model=my_net", "figures=true").status == 0
    run = only_run()
    assert run.info["model"] == "my_net"
    assert command("test", "latest", data=False).status == 0
    assert command("resume=latest", "trainer.max_epochs=3", data=False).status == 0
    assert run.info["epochs"] == 3


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


class Settings(Callback):
    """Changes what a process has one of."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark


def process_state() -> dict[str, Any]:
    names = (None, "lightning", "lightning.pytorch", "lightning.fabric", "mnist_lab")
    return {
        "threads": torch.get_num_threads(),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "matmul": torch.get_float32_matmul_precision(),
        "filters": warnings.filters[:],
        "hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook),
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
        "loggers": [(logging.getLogger(name).handlers[:], logging.getLogger(name).level) for name in names],
        "environment": dict(os.environ),
        "folder": Path.cwd(),
    }


def test_train_from_python_leaves_the_process_as_it_was_found(tiny: Tiny) -> None:
    torch.set_num_threads(2)
    changed = ("threads=1", "++trainer.deterministic=true", "figures=true")
    settings = "+callbacks.settings._target_=test_train.Settings"
    cfg = tiny.compose("model=mlp", "trainer.max_epochs=1", *changed, settings)
    before = process_state()
    try:
        train(cfg)
        assert process_state() == before
    finally:
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision("highest")
