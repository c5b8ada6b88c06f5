"""A run from its command line to its folder, and everything that reads the folder afterwards."""

import csv
import re
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lab import Command, Tiny, assert_refused, same, slow, thorough, tiny_data, weights
from lightning.pytorch import Callback, LightningModule, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from mnist_lab.config.compose import CommandLine, compose_job
from mnist_lab.config.validate import validate
from mnist_lab.errors import UsageError
from mnist_lab.evaluation.evaluate import evaluate
from mnist_lab.models.classifier import Classifier
from mnist_lab.runs.checkpoints import read_checkpoint
from mnist_lab.runs.ranking import Results
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.training.build import make_data, make_model, make_trainer
from mnist_lab.training.runtime import quiet_lightning
from mnist_lab.training.train import describe_few_steps, ensure_last_checkpoint, train

METRICS = {"train/loss", "train/acc", "val/loss", "val/acc", "test/loss", "test/acc"}
SETTINGS = ["data=tiny", "trainer.accelerator=cpu", "trainer.log_every_n_steps=4", "trainer.max_epochs=8"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Train a run from Python; tests only read it."""
    data, folder = tiny_data(tmp_path_factory.mktemp("tiny")), tmp_path_factory.mktemp("runs") / "lenet"
    data.overrides = SETTINGS
    return train(data.compose(f"hydra.run.dir={folder}", "figures=false"))


@pytest.fixture
def finished(trained: Run, tiny: Tiny) -> Run:
    """Copy the trained run to runs/, where a test may continue it."""
    return Run(shutil.copytree(trained.folder, Path("runs/a/lenet")))


def test_run_leaves_all_that_is_promised_in_its_folder(trained: Run) -> None:
    info = trained.info
    assert (info["status"], info["error"], info["model"], info["parameters"]) == ("finished", None, "lenet", 61_706)
    assert (info["seed"], info["epochs"], info["steps"]) == (0, 8, 8 * 12)
    assert info["metrics"]["test/acc"] > 0.9, "the classes are bars at ten heights, which are easy to learn"
    assert set(info["seconds"]) == {"total", "fit"}
    assert info["images_per_second"] > 0
    assert info["command"].startswith("python -m mnist_lab --config-dir ") and {*SETTINGS} <= {*info["overrides"]}
    assert {"torch", "lightning", "hydra-core", "python"} <= set(info["versions"])
    assert info["checkpoints"] == {"best": "checkpoints/best.ckpt", "last": "checkpoints/last.ckpt"}
    assert trained.config.trainer.max_epochs == 8
    for name in ("best", "last"):
        content = torch.load(trained.folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert content["architecture"] == "LeNet"
    assert isinstance(make_model(trained.config), Classifier)


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        (["model=lenet", "figures=true"], [1, 2, 3]),
        (["model=mlp", "figures=true"], []),
        *thorough((["model=lenet", "figures=false"], [])),
        *thorough((["model=lenet", "figures=true", "callbacks.checkpoint.keep_small=false"], [])),
        *thorough((["model=lenet", "figures=true", "callbacks.checkpoint.every_n_epochs=2"], [2])),
        *slow((["model=lenet", "figures=true", "trainer.max_epochs=11"], [2, 4, 6, 8, 10])),
    ],
)
def test_epochs_of_a_small_network_are_kept(tiny: Tiny, settings: list[str], epochs: list[int]) -> None:
    run = train(tiny.compose("trainer.max_epochs=3", "trainer.limit_train_batches=1", "dashboard=none", *settings))
    assert list(run.epoch_checkpoints()) == epochs
    for path in run.epoch_checkpoints().values():
        assert read_checkpoint(path)["optimizer_states"], "training can continue from each"


def test_jobs_of_a_sweep_keep_no_epochs(tiny: Tiny) -> None:
    words = [override for override in tiny.overrides if override != "figures=false"]
    for is_sweep in (False, True):
        cfg, _ = compose_job(CommandLine(tuple(words), str(tiny.conf)), is_sweep=is_sweep)
        assert cfg.callbacks.checkpoint.keep_small is not is_sweep


class NotesSeconds(Callback):
    """Notes the recorded seconds of a run at the start of its last epoch."""

    noted = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        NotesSeconds.noted = Run(Path(trainer.default_root_dir)).info["seconds"].get("total", 0.0)


def test_seconds_of_each_epoch_are_recorded_in_case_the_run_is_killed(tiny: Tiny) -> None:
    run = train(tiny.compose("model=mlp", "trainer.max_epochs=2", "+callbacks.notes._target_=test_train.NotesSeconds"))
    assert 0 < NotesSeconds.noted < run.info["seconds"]["total"]


def test_metrics_are_those_of_the_epoch_that_was_tested(trained: Run) -> None:
    epochs = trained.epochs()
    assert [row["epoch"] for row in epochs] == list(range(8))
    best = max(epochs, key=lambda row: (row["val/acc"], -row["val/loss"]))
    assert trained.info["tested"] == {"checkpoint": "best", "epoch": best["epoch"] + 1}
    metrics = trained.info["metrics"]
    assert set(metrics) == METRICS
    assert all(metrics[name] == best[name] for name in METRICS if "test" not in name)


def test_metrics_csv_and_tensorboard_have_every_curve(trained: Run) -> None:
    with (trained.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps))
    for name in (*METRICS, "lr", "images_per_second"):
        assert any(row[name] for row in rows), name
    events = EventAccumulator(str(trained.folder)).Reload()
    curves = [f"{metric}/{of}" for metric in ("Accuracy, %", "Loss") for of in ("test", "train", "val")]
    final = [f"final/{of}/{metric}" for of in ("test", "train", "val") for metric in ("acc", "loss")]
    shown = [*curves[:5], "Loss/train_step", curves[5], *final, "images_per_second", "lr"]  # in TensorBoard's order
    assert sorted(events.Tags()["scalars"]) == shown
    # This fails if Lightning renames the count that multistep.py sets, or numbers its logs by another one.
    assert [event.step for event in events.Scalars("Accuracy, %/val")] == list(range(11, 96, 12))
    accuracies = [event.value for event in events.Scalars("Accuracy, %/val")]
    assert accuracies == pytest.approx([100 * float(row["val/acc"]) for row in rows if row["val/acc"]])
    assert [row["step"] for row in trained.epochs()] == list(range(11, 96, 12))


def hparams(events: EventAccumulator, name: str) -> HParamsPluginData:
    return HParamsPluginData.FromString(events.SummaryMetadata(f"_hparams_/{name}").plugin_data.content)


def hparam_values(events: EventAccumulator) -> dict[str, str | float]:
    start = hparams(events, "session_start_info").session_start_info
    return {name: value.string_value or value.number_value for name, value in start.hparams.items()}


@pytest.mark.slow
def test_hparams_tab_has_one_line_a_run_with_its_final_metrics(command: Command, finished: Run) -> None:
    for epochs in (8, 9):
        events = EventAccumulator(str(finished.folder)).Reload()
        for name, value in finished.info["metrics"].items():
            (point,) = events.Scalars(f"final/{name}")
            assert point.value == pytest.approx(value)
            assert point.step == finished.info["steps"] == 12 * epochs
        values = hparam_values(events)
        assert values.items() >= {"model": "lenet", "lr": 0.01, "momentum": 0.9, "batch_size": 16}.items()
        assert values.items() >= {"epochs": epochs, "seed": 0, "data": "tiny"}.items() and len(values) == 7
        experiment = hparams(events, "experiment").experiment
        assert {info.name for info in experiment.hparam_infos} == set(values)
        shown = [info.display_name for info in experiment.metric_infos]
        assert shown == [f"{of} {metric}" for metric in ("acc", "loss") for of in ("val", "train", "test")]
        assert command(f"resume={finished}", "trainer.max_epochs=9", data=False).status == 0


@pytest.mark.slow
def test_hparams_tab_of_a_sweep_has_what_is_swept_and_the_states_of_jobs(command: Command) -> None:
    fails = "+callbacks.fails._target_=test_checkpoints.FailsInSecondEpoch"
    swept = ("model=mlp", "optimizer.nesterov=false,true", "seed=3", "trainer.max_epochs=1,2", fails)
    assert command("-m", *swept, "sweep=s").status == 1
    rows, names = [], set()
    for run in Run.below("runs"):
        events = EventAccumulator(str(run.folder)).Reload()
        values = hparam_values(events)
        ended = hparams(events, "session_end_info").session_end_info.status
        rows.append((values.pop("nesterov"), values.pop("epochs"), run.info["status"].value, ended))
        assert values == {}, "what all jobs share is no column"
        names.add(hparams(events, "session_start_info").session_start_info.group_name)
        if ended == 1:  # TensorBoard may take the columns from any run, and a failed one has no metrics.
            experiment = hparams(events, "experiment").experiment
            assert {info.name for info in experiment.hparam_infos} == {"nesterov", "epochs"}
            shown = [info.display_name for info in experiment.metric_infos]
            assert shown == ["val acc", "train acc", "val loss", "train loss"]
        else:
            assert "_hparams_/experiment" not in events.Tags()["tensors"]
    assert names == {"1, s", "2 failed, s", "3, s", "4 failed, s"}
    ends = ((1, "finished", 1), (2, "failed", 2))
    assert sorted(rows) == [(nesterov, *end) for nesterov in ("false", "true") for end in ends]


def test_resume_continues_to_more_epochs_in_a_moved_folder_and_refuses_fewer(command: Command, finished: Run) -> None:
    best = max(row["val/acc"] for row in finished.epochs())
    before = finished.curve("train/loss", "examples_seen")
    outcome = command("resume=latest", "trainer.max_epochs=9", data=False)
    assert outcome.status == 0
    assert re.findall(r"\d/9\b", outcome.out) == ["9/9"], "epochs done before are not shown again"
    assert (finished.info["epochs"], finished.info["steps"]) == (9, 108)
    assert [row["epoch"] for row in finished.epochs()] == list(range(9))
    assert finished.curve("train/loss", "examples_seen") == before | {190 * 9: finished.epochs()[-1]["train/loss"]}
    assert finished.info["metrics"]["val/acc"] == max(best, finished.epochs()[-1]["val/acc"])
    tested = command("test", "latest", "data.eval_batch_size=7", data=False)
    assert f"test/acc {finished.info['metrics']['test/acc']!r}" in tested.out
    assert_refused(command("resume=latest", "trainer.max_epochs=1", data=False), "trainer.max_epochs=1")
    assert_refused(command("resume=latest", "init_from=no.ckpt", data=False), "init_from=no.ckpt: ")
    assert finished.info["status"] == "finished"


@pytest.mark.slow
def test_finished_run_is_not_resumed_changed_or_overwritten(command: Command, finished: Run) -> None:
    def contents() -> dict[Path, bytes]:
        files = [path for path in finished.folder.rglob("*") if path.is_file() and path.suffix != ".log"]
        return {path: path.read_bytes() for path in files}

    before = contents()
    outcome = command("resume=latest", data=False)
    assert outcome.status == 0 and "raise trainer.max_epochs to continue" in outcome.out
    assert_refused(command(f"hydra.run.dir={finished}", "seed=5"), "", "contains a run already")
    changes = {
        "optimizer=adam": "optimizer._target_=torch.optim.Adam: cannot change on resume",
        "optimizer.lr=1": "optimizer.lr=1: cannot change on resume (this run uses 0.01)",
        "data.val_size=0": "data.val_size=0: cannot change on resume (this run uses 40)",
        "seed=3": "seed=3: cannot change on resume (this run uses 0)",
        "augmentation=affine": "augmentation.degrees=10: cannot change on resume (this run uses null)",
        "callbacks=ema": "callbacks.ema.decay=0.999: cannot change on resume (this run uses null)",
        "scheduler=step": "scheduler.gamma",
    }
    outcome = command("resume=latest", "trainer.max_epochs=9", *changes, data=False)
    assert outcome.status == 2 and [reason for reason in changes.values() if reason not in outcome.err] == []
    for change, reason in (
        ("data=mnist", "cannot change on resume (this run uses data=tiny)"),
        ("trainer.limit_val_batches=0.001", "is less than one"),
    ):
        outcome = command("resume=latest", "trainer.max_epochs=9", change, data=False)
        assert_refused(outcome, f"{change}: {reason}")
    assert "one run at a time" in command("-m", "resume=latest", data=False).err
    assert contents() == before


def test_test_command_gives_the_same_figures_to_the_last_digit(command: Command, finished: Run) -> None:
    expected = {name: finished.info["metrics"][name] for name in ("test/loss", "test/acc")}
    assert evaluate(finished) == expected
    assert evaluate(finished, ["trainer.limit_test_batches=1"]) != expected
    outcome = command("test", "latest", data=False)
    assert outcome.status == 0
    assert all(repr(value) in outcome.out for value in expected.values()) and "(as the run recorded)" in outcome.out
    finished.update(metrics=finished.info["metrics"] | {"test/acc": 0.5})
    outcome = command("test", "latest", data=False)
    assert f"(the run recorded test/loss {expected['test/loss']!r}, test/acc 0.5)" in outcome.out


def test_one_cycle_ends_with_a_limited_run_whose_last_step_accumulates_fewer_batches(command: Command) -> None:
    """Seven batches an epoch are four steps, each of two batches but the last."""
    limits = ("trainer.limit_train_batches=7", "+trainer.accumulate_grad_batches=2", "trainer.log_every_n_steps=2")
    assert command("model=mlp", "scheduler=onecycle", *limits).status == 0
    rates = {row["step"] + 1: row["lr"] for row in Run.find("latest").metrics() if "train/loss_step" in row}
    assert max(rates) == 8 and rates[8] < 1e-5 < rates[2]


@pytest.mark.slow
def test_before_training_the_untrained_network_is_tested(command: Command) -> None:
    outcome = command("experiment=compact_cnn")
    run = Run.find("latest")
    assert re.search(r"^0/2 +- +- ", outcome.out, re.MULTILINE)
    assert list(run.curve("test/acc", "examples_seen")) == [0, 230, 460]
    assert run.curve("test/loss")[0] == pytest.approx(2.3, abs=0.1), "ten classes by chance have a loss of log 10"
    assert EventAccumulator(str(run.folder)).Reload().Scalars("Loss/test")[0].step == -1
    before = run.curve("test/acc")
    assert command("resume=latest", "trainer.max_epochs=3", data=False).status == 0
    assert {epoch: value for epoch, value in run.curve("test/acc").items() if epoch < 3} == before


@pytest.mark.slow
@pytest.mark.parametrize("interrupted", [1, *thorough(0, 3)])
def test_lenet_continued_reloads_its_weights_and_trains_on(command: Command, interrupted: int) -> None:
    """It equals one run of as many epochs, to the last bit, also if it is interrupted before or after the reload."""
    arguments = ("experiment=lenet_continued", "callbacks.reload.after=2", "trainer.max_epochs=4")
    stop = f"+callbacks.stop={{_target_: test_failures.Fault, kind: Ctrl-C, epoch: {interrupted}}}"
    outcome = command(*arguments, "hydra.run.dir=runs/a/parts", *[stop] * bool(interrupted))
    if interrupted:
        assert outcome.status == 130
        outcome = command("resume=runs/a/parts", "~callbacks.stop", data=False)
    assert outcome.status == 0, outcome.err
    assert ("saved after epoch 2; network and optimizer are loaded from the file" in outcome.out) == (interrupted < 2)
    assert command("experiment=lenet", "trainer.max_epochs=4", "hydra.run.dir=runs/a/whole").status == 0
    whole, parts = Run(Path("runs/a/whole")), Run(Path("runs/a/parts"))
    assert same(weights(whole.checkpoint("last")), weights(parts.checkpoint("last")))
    assert whole.info["metrics"] == parts.info["metrics"]
    assert whole.curve("test/acc", "examples_seen") == parts.curve("test/acc", "examples_seen")


def test_onecycle_trains_with_the_momentum_that_is_recorded(tiny: Tiny) -> None:
    model = make_model(tiny.compose("model=mlp", "scheduler=onecycle", "optimizer.momentum=0.7"))
    optimizer, scheduler, interval = model.make_optimizer(model.parameters(), 10)
    assert scheduler is not None and interval == "step"
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["momentum"] == 0.7


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


def test_two_starts_at_once_get_two_folders_and_the_same_result(command: Command) -> None:
    for _ in range(2):
        assert command("model=dropout_cnn").status == 0
    first, second = (Run(path.parent) for path in sorted(Path("runs").glob("*/*/run.json")))
    assert first.info["metrics"] == second.info["metrics"]
    assert same(weights(first.checkpoint("last")), weights(second.checkpoint("last")))


def test_resume_with_a_schedule_that_is_over_is_refused(tiny: Tiny) -> None:
    resumed, longer = (tiny.compose("scheduler=onecycle", f"trainer.max_epochs={epochs}") for epochs in (2, 3))
    with pytest.raises(UsageError, match=r"^scheduler.epochs=3: cannot change on resume \(this run uses 2\)"):
        validate(longer, resumed)


def test_run_stopped_before_its_first_checkpoint_says_to_start_anew(command: Command) -> None:
    outcome = command("+callbacks.stop={_target_: test_failures.Fault, kind: Ctrl-C, epoch: 0}")
    assert outcome.status == 130
    assert f"start again: {Run.find('latest').info['command']}" in outcome.out


def test_lr_of_an_epoch_is_the_one_it_was_trained_with(command: Command) -> None:
    command("model=mlp", "scheduler=step", "scheduler.step_size=1", "scheduler.gamma=0.1", "optimizer.lr=0.02")
    assert [row["lr"] for row in Run.find("latest").epochs()] == pytest.approx([0.02, 0.002])


def test_refused_run_without_data_leaves_nothing(command: Command, tiny: Tiny) -> None:
    shutil.rmtree(tiny.root)
    assert_refused(command("data.download=false"), "", "data.download=false")
    assert not list(Path().iterdir()) and not tiny.root.exists()


@pytest.mark.slow
def test_init_from_takes_a_checkpoint(command: Command) -> None:
    command("model=mlp")
    checkpoint = Run.find("latest").checkpoint("last")
    assert checkpoint is not None
    own = ("trainer.max_epochs=0", "hydra.run.dir=runs/again/a", "figures=true")
    assert command("model=mlp", f"init_from={checkpoint}", *own).status == 0
    run = Run(Path("runs/again/a"))
    assert same(weights(run.checkpoint("last")), weights(checkpoint))
    assert run.info["epochs"] == 0
    assert evaluate(run)["test/acc"] == run.info["metrics"]["test/acc"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ([], "warning: only 24 steps in 2 epochs\ntry trainer.max_epochs=25, or fewer with a smaller data.batch"),
        (["optimizer.lr=1e-9", "data.val_size=0"], "only 30 steps in 2 epochs\nthe training accuracy is no better"),
        (["trainer.max_epochs=25"], None),
        (["trainer.limit_train_batches=3"], None),
        (["trainer.max_steps=9"], None),
        (["+trainer.max_time=00:01:00:00"], None),
    ],
    ids=lambda value: value[0].split("=")[0] if isinstance(value, list) and value else None,
)
def test_few_steps_are_said_unless_they_are_limited_on_purpose(
    command: Command, settings: list[str], words: str | None
) -> None:
    outcome = command("model=mlp", "logger=csv", *settings)
    assert outcome.status == 0, outcome.err
    assert words in outcome.out if words else "only" not in outcome.out
    assert outcome.out.splitlines()[-1].startswith("run folder: ")


@pytest.mark.parametrize(("accuracy", "is_guess"), [(0.25, True), (0.5, True), (0.51, False)])
@pytest.mark.parametrize("name", ["val", "train"])
def test_guess_of_the_most_frequent_class_is_known_by_its_share(name: str, accuracy: float, is_guess: bool) -> None:
    labels = {"validation": [0, 1, 1, 2], "training": [3, 3, 2, 0]}
    data = SimpleNamespace(batch_size=64, raw_sets=lambda: {kind: (None, each) for kind, each in labels.items()})
    info = {"steps": 15, "epochs": 5, "metrics": {"train/acc": 0.9, f"{name}/acc": accuracy}}
    assert ("no better than" in " ".join(describe_few_steps(info, data))) == is_guess  # type: ignore[arg-type]


def test_without_validation_the_last_weights_are_tested(command: Command) -> None:
    assert command("model=mlp", "data.val_size=0").status == 0
    run = Run.find("latest")
    assert run.info["checkpoints"] == {"best": None, "last": "checkpoints/last.ckpt"}
    assert set(run.info["metrics"]) == METRICS - {"val/loss", "val/acc"}
    assert evaluate(run)["test/acc"] == run.info["metrics"]["test/acc"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_gpu_run_is_tested_to_the_same_figures_and_resumed(command: Command) -> None:
    assert command("trainer.accelerator=gpu").status == 0
    run = Run.find("latest")
    assert run.info["device"] == torch.cuda.get_device_name(0)
    assert evaluate(run)["test/acc"] == run.info["metrics"]["test/acc"]
    assert command("resume=latest", "trainer.max_epochs=3", data=False).status == 0


@pytest.mark.slow
def test_run_without_checkpoint_callbacks_saves_its_last_weights(command: Command) -> None:
    assert command("model=mlp", "trainer.max_epochs=1", "callbacks.last=null", "callbacks.best=null").status == 0
    assert Run.find("latest").info["checkpoints"] == {"best": None, "last": "checkpoints/last.ckpt"}


def test_processes_save_the_last_checkpoint_if_the_first_has_none(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = tiny.compose("model=mlp", "trainer.max_epochs=0", "hydra.run.dir=runs/a")
    model = make_model(cfg)
    trainer = make_trainer(cfg)
    with quiet_lightning():
        trainer.fit(model, make_data(cfg, model))
    path = Path("runs/a/checkpoints/last.ckpt")
    path.parent.mkdir(parents=True, exist_ok=True)
    for found_by_first in (True, False):  # This process is late, and finds the file that the first one has written.
        path.write_text("another process's")
        monkeypatch.setattr(trainer.strategy, "broadcast", lambda *args, answer=found_by_first, **settings: answer)
        ensure_last_checkpoint(Run(Path("runs/a")), trainer)
        assert zipfile.is_zipfile(path) != found_by_first


@pytest.mark.slow
def test_metrics_of_a_part_are_marked_and_not_ranked_among_those_of_whole_sets(command: Command) -> None:
    limits = ("trainer.limit_test_batches=null,1", "optimizer.lr=0.001,0.1")
    assert command("-m", "sweep=s", "model=mlp", "trainer.max_epochs=1", *limits).status == 0
    results = Results.of(Sweep(Path("runs/sweeps/s")))
    assert len(results.ranked) == 2 and not any(group[0].info["partial"] for group in results.ranked)
    (part, *_) = [Run(job.folder) for job in results.jobs if job.info["partial"]]
    assert part.info["partial"] == ["test"]
    assert "partial" in command("ls", "--columns", "run,status,test/acc", data=False).out
    selected = command("ls", "--where", "test/acc >= 0 and status == finished", "--json", data=False).out
    assert part.folder.name not in selected and results.ranked[0][0].folder.name in selected
    assert command("report", str(part), data=False).status == 0
    assert "the recorded test accuracy is not that of the whole set" in part.report_path.read_text()
