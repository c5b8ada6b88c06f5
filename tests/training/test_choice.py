"""A run tests the epoch that was asked for: the direction of a metric, ties, and settings without effect."""

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lab import Command, Tiny

from mnist_lab.config.keys import OWN_ARGUMENTS
from mnist_lab.models.mlp import MLP
from mnist_lab.runs.ranking import Results
from mnist_lab.runs.record import RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job
from mnist_lab.training.build import make_trainer
from mnist_lab.training.checkpointing import EpochCheckpoint
from mnist_lab.training.multistep import find_callbacks

RUN = Run(Path("runs/a/b"))
OWN = ("model._target_=test_choice.OwnMetric", "model=mlp")
TOP = "+callbacks.{}={{_target_: lightning.pytorch.callbacks.{}, monitor: {}}}"


class OwnMetric(MLP):
    """Logs a metric of its own, which falls from epoch to epoch."""

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        self.log("val/drop", -float(self.current_epoch))


@pytest.mark.parametrize(("monitor", "mode"), [("val/loss", "min"), ("train/acc", "max")])
def test_mode_of_every_callback_follows_from_the_metric_that_it_monitors(tiny: Tiny, monitor: str, mode: str) -> None:
    monitors = [f"callbacks.{name}.monitor={monitor}" for name in ("best", "early_stopping")]
    added = TOP.format("top", "ModelCheckpoint", monitor)
    cfg = tiny.compose("callbacks=early_stopping", *monitors, added, "hydra.run.dir=runs/a")
    callbacks: list[Any] = find_callbacks(make_trainer(cfg), pl.Callback)
    modes = [callback.mode for callback in callbacks if getattr(callback, "monitor", None)]
    assert modes == [mode] * 3


@pytest.mark.parametrize(
    "refused",
    [
        {
            "callbacks.best.mode=min": "callbacks.best.mode=min: the greatest val/acc is the best",
            "callbacks=early_stopping": "callbacks.early_stopping.mode=max: the least val/loss is the best",
            "callbacks.early_stopping.monitor=val/loss": "",
            "callbacks.early_stopping.mode=max": "",
            TOP.format("top", "ModelCheckpoint", "val/acc, mode: min"): "callbacks.top.mode=min: the greatest val/acc",
            "+callbacks.last.monitor=val/loss": "callbacks.last.monitor=val/loss: every epoch is saved",
            "+callbacks.best.save_top_k=0": "callbacks.best.save_top_k=0: EpochCheckpoint has no such setting",
            "+optimizer.momentun=1": "optimizer.momentun=1: SGD has no such setting; did you mean optimizer.momentum?",
            "+callbacks.last.filename=x": "callbacks.last.filename=x: EpochCheckpoint has no such setting",
        },
        {
            **dict.fromkeys(OWN, ""),
            "callbacks.best.monitor=val/drop": "callbacks.best.mode: required, since val/drop is a",
            TOP.format("top", "EarlyStopping", "test/loss"): "callbacks.top.monitor=test/loss: test metrics cannot",
        },
        {
            "callbacks.best.monitor=null": "callbacks.best.monitor=null: a metric is needed",
            TOP.format("top", "EarlyStopping", "val/drop"): "callbacks.top.monitor=val/drop: not logged",
            "callbacks.last._target_=lightning.pytorch.callbacks.ModelCheckpoint": "callbacks.last._target_=lightning",
        },
    ],
    ids=["contradiction", "own", "missing"],
)
def test_choice_that_contradicts_itself_or_finds_nothing_is_refused(command: Command, refused: dict[str, str]) -> None:
    outcome = command(*refused)
    assert outcome.status == 2 and not Path("runs").exists()
    assert [line for line in refused.values() if line and f"  {line}" not in outcome.err] == [], outcome.err


@pytest.mark.slow
def test_weights_are_those_of_the_lowest_loss_where_that_is_monitored_and_everything_says_so(command: Command) -> None:
    settings = ("callbacks.best.monitor=val/loss", "optimizer.lr=0.5", "optimizer.momentum=0", "trainer.max_epochs=4")
    trained = command("model=mlp", *settings, f"hydra.run.dir={RUN}")
    assert trained.status == 0, trained.err
    losses = [row["val/loss"] for row in RUN.epochs()]
    assert RUN.tested_epoch == losses.index(min(losses)) + 1
    assert command("report", str(RUN), data=False).status == 0
    assert command("export", str(RUN), "--format", "state_dict", data=False).status == 0
    (card,) = RUN.exports_folder.glob("*.md")
    pages = [trained.out, command("test", str(RUN), data=False).out, RUN.report_path.read_text(), card.read_text()]
    assert all("best by validation loss" in page and "best by validation accuracy" not in page for page in pages)
    refused = command(f"resume={RUN}", "callbacks.best.monitor=val/acc", "trainer.max_epochs=5", data=False)
    assert refused.status == 2 and "callbacks.best.monitor=val/acc: cannot change on resume" in refused.err


@pytest.mark.parametrize("monitor", ["val/acc", "val/loss"])
def test_ties_are_broken_by_loss_and_accuracy_also_after_a_resume(monitor: str) -> None:
    epochs = [(0.7, 0.30), (0.9, 0.50), (0.9, 0.20), (0.9, 0.25), (0.8, 0.20), (0.9, 0.20)]  # accuracy, loss

    def make_callback() -> EpochCheckpoint:
        callback = EpochCheckpoint(monitor=monitor, mode="max" if monitor == "val/acc" else "min")
        callback.dirpath, callback.kth_best_model_path = "", "best.ckpt"
        return callback

    best, chosen = make_callback(), -1
    for number, (accuracy, loss) in enumerate(epochs):
        state, best = best.state_dict(), make_callback()
        best.load_state_dict(state)
        metrics = {"val/acc": torch.tensor(accuracy), "val/loss": torch.tensor(loss)}
        strategy = SimpleNamespace(reduce_boolean_decision=bool)
        trainer: Any = SimpleNamespace(callback_metrics=metrics, strategy=strategy)
        if best.check_monitor_top_k(trainer, metrics[monitor]):
            chosen = number
            best.best_k_models = {"best.ckpt": metrics[monitor]}
            best.best_model_score = metrics[monitor]
    assert chosen == 2


EFFECTIVE = """
    accelerator strategy devices num_nodes precision max_epochs min_epochs max_steps min_steps max_time benchmark
    limit_train_batches limit_val_batches limit_test_batches val_check_interval check_val_every_n_epoch profiler
    num_sanity_val_steps log_every_n_steps accumulate_grad_batches deterministic gradient_clip_val inference_mode
    gradient_clip_algorithm detect_anomaly sync_batchnorm
"""


def test_every_argument_of_the_trainer_has_an_effect_or_is_refused_with_a_reason(command: Command) -> None:
    ours = {key.removeprefix("trainer.") for key in OWN_ARGUMENTS if key.startswith("trainer.")}
    effective = set(EFFECTIVE.split())
    assert effective.isdisjoint(ours) and effective | ours >= set(inspect.signature(pl.Trainer).parameters)
    outcome = command("scheduler=onecycle", *(f"++{key}=1" for key in OWN_ARGUMENTS))
    assert (outcome.status, outcome.err.count("\n")) == (2, len(OWN_ARGUMENTS) + 1), outcome.err
    for key, reason in OWN_ARGUMENTS.items():
        assert f"  {key}=1: cannot be set, {reason}; remove it with ~{key}\n" in outcome.err
    assert not Path("runs").exists()


@pytest.mark.parametrize("metric", ["val/acc", "val/balanced_acc"])
def test_of_equal_jobs_that_of_the_lower_validation_loss_is_ranked_first(metric: str) -> None:
    def make_job(name: str, accuracy: float, loss: float) -> Job:
        job = Job((f"optimizer.lr={name}",), Path(name), RunState.FINISHED)
        metrics = {metric: accuracy, "val/loss": loss, "test/acc": 0.0}
        job.__dict__["info"] = {"metrics": metrics, "partial": [], "seed": 0}
        return job

    jobs = [make_job("1", 0.8, 0.1), make_job("2", 0.9, 0.5), make_job("3", 0.9, 0.3), make_job("4", 0.9, 0.4)]
    sweep: Any = SimpleNamespace(jobs=lambda: jobs, metric=metric)
    results = Results.of(sweep)
    assert [group[0].folder.name for group in results.ranked] == ["3", "4", "2", "1"]
    assert results.best_job is jobs[2]


@pytest.mark.slow
def test_best_checkpoint_of_version_0_2_0_is_kept_in_a_moved_folder(command: Command) -> None:
    assert command("model=mlp", f"hydra.run.dir={RUN}").status == 0
    content = torch.load(RUN.checkpoint_path("last"), weights_only=True)
    del content["folder"]
    for key in [key for key in content["callbacks"] if key.startswith("EpochCheckpoint")]:
        state = content["callbacks"].pop(key)
        del state["tie_break"]
        state["best_model_score"] = torch.tensor(2.0)  # No later epoch is better.
        content["callbacks"][key.replace("Epoch", "Model")] = state
    torch.save(content, RUN.checkpoint_path("last"))
    moved = Run(RUN.folder.rename("runs/moved"))
    best = moved.checkpoint_path("best").read_bytes()
    outcome = command(f"resume={moved}", "trainer.max_epochs=4", data=False)
    assert (outcome.status, outcome.err) == (0, "")
    is_kept = moved.checkpoint_path("best").read_bytes() == best
    assert is_kept, "pytest would show the difference of two megabytes"
