"""Class weights, balanced accuracy, and a scheduler that follows a metric, on data with unequal classes."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lab import Command, Tiny, assert_refused, slow, thorough
from test_multistep import assert_same
from test_resume import PARTS, THREE, WHOLE, stop_run
from torch import nn

from benchmarks.kills import losses
from mnist_lab.evaluation.evaluate import evaluate
from mnist_lab.evaluation.predictions import TrainedRun
from mnist_lab.runs.ranking import Results
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps.optuna_search import open_study
from mnist_lab.training.build import make_data, make_model

CLASSES = "abcd"
COUNTS = {"train": (120, 40, 30, 0), "val": (20, 12, 8, 0), "test": (20, 10, 0, 5)}  # images of each class
RUN = Run(Path("runs/a/b"))
BALANCED = "val/balanced_acc"
PLATEAU = ["scheduler=plateau", "scheduler.patience=0", "scheduler.threshold=9", "scheduler.factor=0.5"]


@pytest.fixture
def unequal(tmp_path: Path) -> list[str]:
    """Write data with unequal classes, of which one has no training image, and return the overrides that use them."""
    random = np.random.default_rng(3)
    arrays: dict[str, Any] = {"classes": list(CLASSES)}
    for kind, counts in COUNTS.items():
        labels = random.permutation(np.repeat(range(len(CLASSES)), counts))
        images = random.integers(0, 200, (len(labels), 28, 28))
        for image, label in zip(images, labels, strict=True):
            image[6 * label + 2 : 6 * label + 4] = 255
        arrays |= {f"{kind}_images": images.astype(np.uint8), f"{kind}_labels": labels}
    np.savez(tmp_path / "unequal.npz", **arrays)
    sizes = ["data.batch_size=16", "data.eval_batch_size=9"]
    return ["data=arrays", f"data.source.path={tmp_path / 'unequal.npz'}", "model=mlp", "optimizer.lr=0.02", *sizes]


def test_balanced_weights_give_the_classes_equal_shares_of_the_training_images_alone(tiny: Tiny) -> None:
    cfg = tiny.compose("model=mlp", "class_weights=balanced")
    data = make_data(cfg, make_model(cfg))
    data.setup("fit")
    counts = data.train_batches().labels.bincount()
    assert counts.min() < counts.max() and counts.sum() == 190
    balanced, given, ten_times = (
        data.class_weights(weights) for weights in ("balanced", [1.0, *[3.0] * 9], [10.0, *[30.0] * 9])
    )
    assert balanced is not None and given is not None and ten_times is not None
    assert torch.allclose(balanced, 190 / (10 * counts))
    assert torch.allclose(given, ten_times) and torch.isclose((given * counts).sum(), torch.tensor(190.0))


@pytest.mark.parametrize("weights", ["balanced", *thorough("[1,3,4,5]")])
def test_every_result_has_the_mean_recall_of_the_classes_that_the_set_has(
    command: Command, unequal: list[str], weights: str
) -> None:
    trained = command(*unequal, f"class_weights={weights}", "callbacks=test_curve", f"hydra.run.dir={RUN}")
    assert trained.status == 0, trained.err
    metrics, rows = RUN.info["metrics"], RUN.epochs()
    recalls = TrainedRun(RUN).predictions.recall()
    assert recalls.isnan().tolist() == [False, False, True, False]
    assert metrics["test/balanced_acc"] == pytest.approx(recalls.nanmean().item())
    assert (
        metrics["test/balanced_acc"]
        != metrics["test/acc"]
        == pytest.approx((torch.tensor(COUNTS["test"]) * recalls.nan_to_num()).sum().item() / 35)
    )
    assert metrics[BALANCED] == rows[RUN.tested_epoch - 1][BALANCED]  # type: ignore[operator]
    assert rows[-1]["test/balanced_acc"] >= 0 and "train/balanced_acc" not in rows[-1]
    shown = f"{metrics['test/balanced_acc']:.2%}"
    assert command("report", str(RUN), data=False).status == 0
    outputs = [command(*words, data=False).out for words in (("test", str(RUN)), ("ls", "--columns=test/balanced_acc"))]
    assert all(shown in text for text in (trained.out, *outputs, RUN.report_path.read_text()))
    assert re.search("^set .* balanced accuracy$", trained.out, re.MULTILINE)
    assert evaluate(RUN)["test/balanced_acc"] == metrics["test/balanced_acc"]


@pytest.mark.parametrize("monitors", [(), ("callbacks.best.monitor=val/balanced_acc",)])
def test_equal_classes_have_no_balanced_accuracy_unless_it_is_monitored(
    command: Command, monitors: tuple[str, ...]
) -> None:
    outcome = command("model=mlp", *monitors, f"hydra.run.dir={RUN}")
    assert outcome.status == 0 and ("balanced" in outcome.out) == bool(monitors)
    assert (BALANCED in RUN.info["metrics"]) == (BALANCED in RUN.epochs()[0]) == bool(monitors)
    if monitors:
        values = [row[BALANCED] for row in RUN.epochs()]
        assert RUN.info["metrics"][BALANCED] == max(values)
        assert "best by validation balanced accuracy" in outcome.out


@pytest.mark.parametrize("monitor", [BALANCED, *thorough("val/loss", "train/loss")])
def test_learning_rate_falls_when_the_metric_stops_improving(
    command: Command, unequal: list[str], monitor: str
) -> None:
    settings = ["scheduler=plateau", f"scheduler.monitor={monitor}", "scheduler.patience=0", "scheduler.threshold=0.5"]
    settings += ["trainer.max_epochs=9", "trainer.log_every_n_steps=1", f"hydra.run.dir={RUN}"]
    assert command(*unequal, *settings).status == 0
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.02)
    mode: Any = "min" if monitor.endswith("loss") else "max"
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode, patience=0, threshold=0.5)
    rates: list[set[float]] = [set() for _ in range(9)]
    for row in RUN.metrics():
        if "lr" in row:
            rates[int(row["epoch"])].add(row["lr"])
    expected = []
    for row in RUN.epochs():
        expected.append(optimizer.param_groups[0]["lr"])
        scheduler.step(row[monitor])
    assert rates == [{rate} for rate in expected] and expected[-1] < expected[0]


@pytest.mark.parametrize(
    ("settings", "size", "steps"),
    [
        *slow((["scheduler.monitor=val/loss"], 5, (31,))),
        *thorough((["scheduler.monitor=val/balanced_acc", "callbacks=ema"], 1, (12, 24, 29))),
        *thorough((["scheduler.monitor=train/loss", "optimizer=adam"], 5, (24, 36))),
    ],
    ids=str,
)
def test_stopped_after_a_reduction_and_resumed_it_ends_the_same(
    command: Command, unequal: list[str], settings: list[str], size: int, steps: tuple[int, ...]
) -> None:
    arguments = (*unequal, *PLATEAU, "class_weights=balanced", *settings, THREE.replace("3", "4"))
    assert command(*arguments, f"steps_per_execution={size}", f"hydra.run.dir={WHOLE}").status == 0
    rates = [row["lr"] for row in WHOLE.epochs()]
    assert rates[2] == rates[1] / 2 == rates[3] * 2
    stop = f"+callbacks.stop={{_target_: test_multistep.StopWithin, step: {steps[0]}}}"
    stop_run(command, *arguments, f"hydra.run.dir={PARTS}", stop, step=steps[0], size=size)
    for step in steps[1:]:
        stop_run(command, f"resume={PARTS}", f"callbacks.stop.step={step}", step=step, size=size)
    refused = command(f"resume={PARTS}", "class_weights=null", data=False)
    assert_refused(refused, "class_weights=null: cannot change on resume (this run uses balanced)")
    assert command(f"resume={PARTS}", "callbacks.stop.step=0", data=False).status == 0
    assert losses(WHOLE, PARTS) == []
    assert_same("whole", "parts", counts=True)


TORCHS = [
    *("scheduler=step", "~scheduler.step_size", "~scheduler.gamma"),
    "scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau",
]


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            ["class_weights={a:1}"],
            "class_weights={'a': 1}: input should be 'balanced', or input should be a valid list",
        ),
        (["class_weights=equal"], "class_weights=equal: input should be 'balanced', or input should be a valid list"),
        (
            ["class_weights=[1,0,2,3]"],
            "class_weights=[1, 0, 2, 3]: input should be 'balanced', or input should be greater",
        ),
        (["class_weights=[1,2]"], "class_weights=[1, 2]: has 2 numbers; give one for each of the 4 classes"),
        (["scheduler=plateau", "data.val_size=0"], "scheduler.monitor=val/loss: not logged; choose from train/loss"),
        (["scheduler=plateau", "scheduler.monitor=test/acc"], "scheduler.monitor=test/acc: test metrics cannot be"),
        (["scheduler=plateau", "scheduler.mode=max"], "scheduler.mode=max: the least val/loss is the best"),
        (["scheduler=plateau", "scheduler.factor=1"], "scheduler.factor=1: input should be less than 1"),
        (TORCHS, "scheduler.monitor: required; scheduler=plateau has it, or add +scheduler.monitor=val/loss"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_settings_that_cannot_work_are_refused_in_a_line(
    command: Command, unequal: list[str], settings: list[str], line: str
) -> None:
    for check in ([], ["--check"]):
        assert_refused(command(*unequal, *settings, *check), line)
    assert not Path("runs").exists()


def test_torchs_own_plateau_scheduler_follows_the_metric_in_its_direction(tiny: Tiny) -> None:
    model = make_model(tiny.compose("model=mlp", *TORCHS, "+scheduler.monitor=val/acc"))
    _, scheduler, interval = model.make_optimizer(model.parameters(), 1)
    assert (model.scheduler_metric, scheduler.mode, interval) == ("val/acc", "max", "epoch")  # type: ignore[union-attr]


@pytest.mark.slow
def test_range_test_uses_the_weights_and_takes_any_scheduler(command: Command, unequal: list[str]) -> None:
    options = ("--steps", "60", "--lowest", "0.001", "--highest", "1", "--json")
    plain, same, weighted = (
        json.loads(command("lr", *unequal, *settings, *options, data=False).out)["loss"]
        for settings in ([], ["scheduler=plateau"], ["class_weights=balanced"])
    )
    assert plain == same != weighted


def test_jobs_are_ranked_by_balanced_accuracy_where_that_chooses_the_epoch(
    command: Command, unequal: list[str]
) -> None:
    monitor = f"callbacks.best.monitor={BALANCED}"
    swept = ("-m", "sweep=s", *unequal, monitor, "optimizer.lr=0.01,0.02,0.03", "trainer.max_epochs=1")
    outcome = command(*swept)
    assert outcome.status == 0 and "by validation balanced accuracy" in outcome.out
    sweep = Sweep(Path("runs/sweeps/s"))
    for place, job in enumerate(sweep.jobs()):  # One kind of accuracy rises where the other falls.
        metrics = {"val/acc": 0.9 - place / 10, BALANCED: 0.5 + place / 10}
        Run(job.folder).update(metrics=job.info["metrics"] | metrics)
    results = Results.of(sweep)
    assert [results.settings(group[0])["optimizer.lr"] for group in results.ranked] == ["0.03", "0.02", "0.01"]
    results.write()
    assert json.loads(sweep.results_json.read_text())["best"][BALANCED]["mean"] == pytest.approx(0.7)
    assert command("report", "runs/sweeps/s", data=False).status == 0
    page = sweep.report_path.read_text()
    assert (
        "By validation balanced accuracy" in page and "best validation balanced accuracy" in page and "70.00%" in page
    )


@pytest.mark.slow
@pytest.mark.parametrize("sweeper", ["optuna", *thorough("halving")])
def test_search_and_halving_compare_balanced_accuracies(command: Command, unequal: list[str], sweeper: str) -> None:
    monitor, rates = f"callbacks.best.monitor={BALANCED}", "optimizer.lr=0.003,0.03"
    words = ("-m", "sweep=s", *unequal, monitor, rates, f"hydra/sweeper={sweeper}", "trainer.max_epochs=2")
    if sweeper == "optuna":
        words += ("hydra.sweeper.n_trials=2", "optimizer.momentum=0.9", "hydra.sweeper.prune_after=null")
    outcome = command(*words)
    assert outcome.status == 0, outcome.err
    jobs = Sweep(Path("runs/sweeps/s")).jobs()
    if sweeper == "optuna":
        values = [trial.value for trial in open_study(Path("runs/sweeps/s")).trials]
        assert sorted(values) == sorted(job.info["metrics"][BALANCED] for job in jobs)  # type: ignore[type-var]
    else:
        assert f"{max(job.epochs[0][BALANCED] for job in jobs):.2%}" in outcome.out.split("rungs")[1]
