"""Commands that take a run take several, a folder of runs, or those that fulfil a condition."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome, Tiny

from mnist_lab.training.train import train

Command = Callable[..., Outcome]


@pytest.fixture
def two(tiny: Tiny) -> None:
    """Runs of mlp, runs/a/mlp, and of lenet, runs/b/lenet."""
    for folder, model in (("a", "mlp"), ("b", "lenet")):
        short = ("trainer.max_epochs=1", "dashboard=none", "figures=false")
        train(tiny.compose(f"model={model}", *short, f"hydra.run.dir=runs/{folder}/{model}"))


@pytest.mark.parametrize(
    ("words", "models"),
    [
        (["mlp", "lenet"], ["mlp", "lenet"]),
        (["runs"], ["mlp", "lenet"]),
        (["--where", "test/acc >= 0"], ["mlp", "lenet"]),
        (["--where", "model == lenet"], ["lenet"]),
        (["runs/a", "--where", "epochs == 1"], ["mlp"]),
    ],
)
def test_each_of_the_runs_is_tested(two: None, command: Command, words: list[str], models: list[str]) -> None:
    outcome = command("test", *words, "trainer.accelerator=cpu", data=False)
    assert outcome.status == 0, outcome.err
    assert outcome.out.count("as the run recorded") == len(models)
    assert [name for name in ("mlp", "lenet") if f"{name}, weights of epoch 1" in outcome.out] == models


def test_each_of_the_runs_is_exported_and_reported(two: None, command: Command) -> None:
    assert command("export", "runs", "--format", "state_dict", data=False).status == 0
    assert [path.name for path in sorted(Path("runs").rglob("exports/*.pt"))] == ["mlp.pt", "lenet.pt"]
    outcome = command("report", "mlp", "lenet", data=False)
    assert outcome.out == "written: runs/a/mlp/report.html\nwritten: runs/b/lenet/report.html\n"
    assert command("compare", "--where", "epochs == 1", "--json", data=False).status == 0
    assert command("robustness", "--where", "model == mlp", "--only", "blur", data=False).status == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["export", "runs", "--format", "state_dict", "--to", "x.pt"], "--to=x.pt: for one run; 2 are named"),
        (["report", "runs", "--out", "x.html"], "--out=x.html: for one page; 2 are named"),
        (["compare", "--where", "model == mlp"], "--where='model == mlp': holds for 1 run; 2 are needed"),
        (["robustness", "mlp", "--where", "model == lenet"], "--where='model == lenet': holds for no run"),
        (["ensemble"], "name a run, or give --where"),
    ],
)
def test_runs_that_do_not_fit_are_told_in_one_line(
    two: None, command: Command, arguments: list[str], told: str
) -> None:
    outcome = command(*arguments, data=False)
    assert (outcome.status, outcome.err) == (2, f"mnist_lab: {told}\n")
