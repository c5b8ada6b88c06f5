"""An ensemble is a run that every command takes; its network gives the mean of its members' probabilities."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lab import Command, Tiny, assert_refused, change_settings, disk_full
from lightning.pytorch import Trainer
from omegaconf import DictConfig
from test_digits import drawn

from mnist_lab.errors import UsageError
from mnist_lab.evaluation import ensemble
from mnist_lab.evaluation.ensemble import make_ensemble
from mnist_lab.evaluation.evaluate import evaluate
from mnist_lab.evaluation.predictions import Predictions, TrainedRun
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.deployed import Ensemble
from mnist_lab.runs.record import RunState
from mnist_lab.runs.run import Run
from mnist_lab.training.train import train


@pytest.fixture(scope="module")
def trained(module_tiny: Tiny) -> Path:
    """Train a lenet, whose images are 32x32, and an mlp with another normalisation."""
    folder = module_tiny.folder / "runs"
    for name, *settings in (
        ("lenet", "optimizer.lr=0.05", "trainer.max_epochs=3"),
        ("mlp", "optimizer.lr=0.1", "trainer.max_epochs=4", "data.mean=0.5", "data.std=0.5"),
    ):
        train(module_tiny.compose("logger=csv", f"model={name}", f"hydra.run.dir={folder / name}", *settings))
    return folder


@pytest.fixture
def runs(trained: Path, tiny: Tiny) -> list[Run]:
    """Copy the two runs to runs/ below the current folder."""
    shutil.copytree(trained, "runs")
    return [Run(Path("runs/lenet")), Run(Path("runs/mlp"))]


def predictions(run: Run) -> Predictions:
    return TrainedRun(run).predictions


def test_probabilities_are_the_mean_of_the_members(runs: list[Run]) -> None:
    expected = sum(predictions(run).probabilities for run in runs) / 2
    assert (predictions(runs[0]).probabilities - predictions(runs[1]).probabilities).abs().max() > 0.1
    ensemble, images = make_ensemble(runs[::-1])
    found = predictions(ensemble)
    torch.testing.assert_close(found.probabilities, expected, rtol=0, atol=1e-6)
    assert images == len(found.labels)


def test_what_was_recorded_is_measured_again_from_the_folder_alone(runs: list[Run]) -> None:
    ensemble, _ = make_ensemble(runs)
    assert ensemble.folder.name.endswith("-ensemble") and ensemble.folder.parents[1] == Path("runs").absolute()
    for member in runs:
        shutil.rmtree(member.folder)
    moved = Run(Path(shutil.move(ensemble.folder, "moved")))
    info = moved.info
    assert evaluate(moved) == info["metrics"]
    assert info["metrics"]["test/acc"] == pytest.approx(predictions(moved).accuracy)
    assert [member["run"] for member in info["members"] or []] == ["runs/lenet", "runs/mlp"]
    assert (info["model"], info["status"], info["parameters"]) == ("ensemble", RunState.FINISHED, 61_706 + 130_058)
    checkpoint = torch.load(moved.checkpoint_path("last"), weights_only=True)
    assert sum(tensor.numel() for tensor in checkpoint["state_dict"].values()) == info["parameters"]


def test_command_compares_the_ensemble_with_its_members(command: Command, runs: list[Run]) -> None:
    recorded = [run.info["metrics"]["test/acc"] for run in runs]
    outcome = command("ensemble", "runs", "--to", "two/deep/both", data=False)
    assert (outcome.status, outcome.err) == (0, "")
    head, *lines, last = (line.split() for line in outcome.out.splitlines())
    assert head == ["model", "seed", "test/loss", "test/acc", "errors", "run"]
    accuracies = [*recorded, Run(Path("two/deep/both")).info["metrics"]["test/acc"]]
    assert [(line[0], line[3], line[4]) for line in lines] == [
        (name, f"{accuracy:.2%}", str(round(57 * (1 - accuracy))))
        for name, accuracy in zip(("lenet", "mlp", "ensemble"), accuracies, strict=True)
    ]
    assert last == ["run", "folder:", "two/deep/both"]
    outcome = command("ensemble", "runs", "--to", "again", "--json", data=False)
    assert [row["test/acc"] for row in json.loads(outcome.out)] == accuracies
    assert outcome.err == "run folder: again\n"
    ensemble = "python -m mnist_lab ensemble runs/lenet runs/mlp"
    assert Run(Path("again")).info["command"] == ensemble, "a run that is added to the folder later is not a member"


@pytest.mark.parametrize(("accuracy", "is_worse"), [(0.5, True), (1.0, False)])
def test_ensemble_worse_than_its_best_member_says_so(
    command: Command, runs: list[Run], monkeypatch: pytest.MonkeyPatch, accuracy: float, is_worse: bool
) -> None:
    measure = ensemble.evaluate_network

    def evaluate_ensemble_as(tester: Trainer, cfg: DictConfig, model: Classifier) -> dict[str, float]:
        return measure(tester, cfg, model) | ({"test/acc": accuracy} if isinstance(model, Ensemble) else {})

    monkeypatch.setattr(ensemble, "evaluate_network", evaluate_ensemble_as)
    outcome = command("ensemble", "runs", data=False)
    best = max(runs, key=lambda run: run.info["metrics"]["test/acc"])
    line = f"worse than {best} alone ({best.info['metrics']['test/acc']:.2%})\n--top K takes the K best by validation"
    assert (outcome.status, line in outcome.out) == (0, is_worse), outcome


def test_top_takes_the_best_by_validation_whatever_the_test_says(command: Command, runs: list[Run]) -> None:
    for name, accuracy, loss in (("good", 0.9, 0.3), ("better", 0.9, 0.2), ("worse", 0.8, 0.1)):
        run = Run(Path(shutil.copytree(runs[1].folder, f"several/{name}")))
        run.update(metrics={**run.info["metrics"], "val/acc": accuracy, "val/loss": loss, "test/acc": 1 - accuracy})
    for top, names in ((2, ["better", "good"]), (7, ["better", "good", "worse"])):
        outcome = command("ensemble", "several", "--top", str(top), "--to", f"top{top}", data=False)
        members = Run(Path(f"top{top}")).info["members"] or []
        assert (outcome.status, [member["run"] for member in members]) == (0, [f"several/{name}" for name in names])
        assert ("--top=7: all 3 runs that can be members are taken" in outcome.err) == (top == 7)
    assert_refused(command("ensemble", "several", "--top", "1", data=False), "--top=1: must be 2 or more")
    run.update(metrics={"test/acc": 0.9, "test/loss": 0.1})
    outcome = command("ensemble", "several", "--top", "2", "--to", "ranked", data=False)
    assert outcome.err == "mnist_lab: warning: several/worse: has no validation accuracy of all images; left out\n"
    assert len(Run(Path("ranked")).info["members"] or []) == 2


@pytest.mark.slow
def test_every_command_takes_an_ensemble(command: Command, runs: list[Run]) -> None:
    ensemble = str(make_ensemble(runs, Path("runs/both"))[0])
    accuracy = f"{Run(Path(ensemble)).info['metrics']['test/acc']:.2%}"
    for form in ("onnx", "state_dict"):
        outcome = command("export", ensemble, "--format", form, data=False)
        assert (outcome.status, outcome.err) == (0, "")
    card = Path("runs/both/exports/ensemble.pt.md").read_text()
    assert "`members.0`: resized to 32 by 32" in card and "minus 0.5, then divided by 0.5" in card
    (lines,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict[str, Any] = {}
    exec(lines.replace("ensemble.pt", "runs/both/exports/ensemble.pt"), names)
    images, network = torch.zeros(1, 1, 28, 28), TrainedRun(Run(Path(ensemble))).model
    torch.testing.assert_close(names["network"].probabilities(images), network.probabilities(images))
    drawn().save("one.png")
    for arguments in (
        ["test", ensemble],
        ["report", ensemble],
        ["robustness", ensemble, "--only", "noise"],
        ["predict", ensemble, "one.png"],
        ["compare", "runs/lenet", ensemble],
        ["ls"],
    ):
        outcome = command(*arguments, data=False)
        assert (outcome.status, outcome.err) == (0, "")
        assert accuracy in outcome.out or arguments[0] in ("report", "predict"), arguments
    page = Path("runs/both/report.html").read_text()
    assert "mean of 2 networks" in page and "resume=" not in page and "Make it again" in page


@pytest.mark.slow
def test_ensemble_is_not_trained(command: Command, runs: list[Run]) -> None:
    ensemble, _ = make_ensemble(runs, Path("runs/both"))
    before = sorted(Path("runs/both").rglob("*"))
    for arguments in (["resume=runs/both"], ["resume=latest", "trainer.max_epochs=3"]):
        refusal = "was made of trained networks, and cannot be trained itself"
        assert_refused(command(*arguments, data=False), "", refusal)
    with pytest.raises(UsageError, match="optimizer: missing"):
        train(ensemble.config)
    assert sorted(Path("runs/both").rglob("*")) == before
    assert command("resume=auto", "runs_dir=runs", "model=mlp", "trainer.max_epochs=4").status == 0


def test_unusable_run_is_left_out_with_a_warning(command: Command, runs: list[Run]) -> None:
    make_ensemble(runs, Path("runs/both"))
    shutil.copytree("runs/mlp", "runs/empty")
    shutil.rmtree("runs/empty/checkpoints")
    shutil.copytree("runs/mlp", "runs/stopped")
    Run(Path("runs/stopped")).update(status=RunState.INTERRUPTED)
    outcome = command("ensemble", "runs", "--to", "again", data=False)
    assert outcome.status == 0
    lines = sorted(outcome.err.splitlines())
    for line, words in zip(lines, ("both: is an ensemble", "empty: has no", "stopped: is not finished"), strict=True):
        assert line.startswith(f"mnist_lab: warning: runs/{words}") and line.endswith("left out")
    assert [member["run"] for member in Run(Path("again")).info["members"] or []] == ["runs/lenet", "runs/mlp"]


def test_refusal_is_one_line_and_leaves_nothing(command: Command, runs: list[Run]) -> None:
    shutil.copytree("runs/mlp", "odd/damaged")
    other = Run(Path(shutil.copytree("runs/mlp", "odd/name")))
    change_settings(other, {"data.source.name": "Other"})
    checkpoint = Run(Path("odd/damaged")).chosen_checkpoint()
    checkpoint.write_bytes(checkpoint.read_bytes()[:-200])
    Path("file").touch()
    before = sorted(Path().rglob("*"))
    for arguments, message in (
        (["runs/mlp"], "runs/mlp: finds 1 run; 2 or more are needed"),
        (["runs/mlp", "odd/name"], "odd/name: was trained on other data than runs/mlp (data.source.name=Other, not"),
        (["runs/mlp", "odd/damaged"], f"{checkpoint}: corrupt"),
        (["runs", "--to", "runs/mlp"], "--to=runs/mlp: exists already; choose another"),
        (["runs", "--to", "file/x"], "--to=file/x: cannot be written ("),
    ):
        assert_refused(command("ensemble", *arguments, data=False), message)
        assert sorted(Path().rglob("*")) == before


def test_half_filled_folder_is_removed(command: Command, runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnist_lab.evaluation.ensemble.write_record", disk_full)
    assert_refused(command("ensemble", "runs", "--to", "both", data=False), "", "No space left on device")
    assert not Path("both").exists()
