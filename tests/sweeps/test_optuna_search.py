"""hydra/sweeper=optuna: a search that finds good settings, prunes bad jobs, and continues where it was stopped."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from lab import Command, assert_refused, thorough

pytest.importorskip("optuna", reason="the extra optuna is not installed")
import optuna
from disturbances import FailsAbove, Stops
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from lightning.pytorch import Callback, LightningModule, Trainer
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from mnist_lab.errors import UsageError
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps import optuna_search
from mnist_lab.sweeps.optuna_search import draw_params, make_distribution, next_batch, open_study

FOLDER = Path("runs/sweeps/s")
SEARCH = ("-m", "hydra/sweeper=optuna", "sweep=s", "model=mlp", "data.batch_size=16,32", "trainer.max_epochs=2")

SLOW = ("trainer.max_epochs=4", "hydra.sweeper.n_trials=7", "optimizer.lr=interval(0.001,0.01)")


class Learns(Callback):
    """Sets validation accuracies to 0.9, and to 0.1 from the seventh job on."""

    begun = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Learns.begun += 1

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = pl_module.val_metrics
        metrics.flush()  # type: ignore[union-attr, operator]
        metrics.hits.fill_(int(metrics.images) * (9 if Learns.begun < 7 else 1) // 10)  # type: ignore[union-attr, operator]


def trials() -> list[optuna.trial.FrozenTrial]:
    return open_study(FOLDER).get_trials()


def test_search_tries_as_many_as_asked_and_names_the_best(command: Command) -> None:
    outcome = command(*SEARCH, "hydra.sweeper.n_trials=3", "trainer.max_epochs=1")
    assert outcome.status == 0, outcome.err
    assert re.findall(r"^(\d+/\d+) \S", outcome.out, re.MULTILINE) == ["1/3", "2/3", "3/3"]
    results = json.loads((FOLDER / "results.json").read_text())
    study = open_study(FOLDER)
    assert len(trials()) == 3
    assert results["best"]["val/acc"]["mean"] == study.best_value
    assert set(results["best"]["settings"]) == {"optimizer.lr", "optimizer.momentum", "data.batch_size"}
    for run in Run.below(FOLDER):
        assert 0.001 <= run.config.optimizer.lr <= 0.3
        assert 0 <= run.config.optimizer.momentum <= 0.95
        assert run.config.data.batch_size in (16, 32)
        assert run.info["model"] == "mlp", "one value on the command line takes the key out of the search"


@pytest.mark.slow
def test_failed_job_does_not_stop_the_search_and_runs_again(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = ("hydra.sweeper.n_trials=5", "+callbacks.fails={_target_: disturbances.FailsAbove, lr: 0.02}")
    assert command(*SEARCH, *fails).status == 1
    jobs = Sweep(FOLDER).jobs()
    failed = [job.id for job in jobs if job.state == "failed"]
    assert len(failed) >= 1
    assert len(jobs) == len({job.overrides for job in jobs}) == 5
    monkeypatch.setattr(FailsAbove, "on", False)
    assert command(*SEARCH, *fails).status == 0
    assert [job.id for job in Sweep(FOLDER).jobs()] == [job.id for job in jobs]
    assert [trial.state for trial in trials()] == [TrialState.COMPLETE] * 5


@pytest.mark.thorough
def test_settings_that_are_drawn_again_after_their_job_was_pruned_count_as_pruned(command: Command) -> None:
    FOLDER.mkdir(parents=True)
    study, space = open_study(FOLDER), {"data.batch_size": CategoricalDistribution(["16", "32"])}
    for _ in range(4):
        good = {"params": {"data.batch_size": "16"}, "intermediate_values": {1: 2.0}, "value": 2.0}
        study.add_trial(optuna.create_trial(distributions=space, **good))
    command(*SEARCH, "optimizer.lr=0.01", "optimizer.momentum=0.9", "hydra.sweeper.n_trials=7")
    assert len(Sweep(FOLDER).jobs()) < 3, "three trials draw from two settings"
    assert [trial.state for trial in trials()] == [TrialState.COMPLETE] * 4 + [TrialState.PRUNED] * 3


class Killed(Exception):
    """Ends the search, as kill -9 does."""


def run_killed(folder: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int) -> tuple[list[dict[str, Any]], int]:
    """Run six trials, two at once, in a search that is killed at a change of its study and then continued.

    Return the settings of the trials, and the number of changes.
    """
    folder.mkdir()
    space = {"a": FloatDistribution(0.001, 1, log=True), "b": CategoricalDistribution(["x", "y"])}
    changes = 0

    def change() -> None:
        nonlocal changes
        changes += 1
        if changes == killed_at:
            raise Killed

    def run() -> None:
        study, tried = open_study(folder), set()
        while batch := next_batch(study, 6, 2, tried):
            tried |= set(batch)
            params = [draw_params(study, number, space, seed=0) for number in batch]
            for number, values in zip(batch, params, strict=True):
                change()
                study.tell(number, values["a"])

    suggest = optuna_search.suggest
    with monkeypatch.context() as patch:
        patch.setattr(optuna_search, "suggest", lambda *arguments: (change(), suggest(*arguments))[1])
        try:
            run()
        except Killed:
            run()
    return [trial.params for trial in open_study(folder).get_trials()], changes


def test_killed_search_continues_with_the_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, changes = run_killed(tmp_path / "whole", monkeypatch, killed_at=0)
    assert len({str(params) for params in whole}) == 6
    for moment in range(1, changes + 1):
        assert run_killed(tmp_path / str(moment), monkeypatch, killed_at=moment)[0] == whole


@pytest.mark.thorough
def test_hydras_own_optuna_sweeper_may_be_installed_too(command: Command) -> None:
    theirs = {"defaults": ["_self_"], "_target_": "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"}
    ConfigStore.instance().store("optuna", theirs, group="hydra/sweeper", provider="optuna_sweeper")
    assert command(*SEARCH, "hydra.sweeper.n_trials=1", "trainer.max_epochs=1").status == 0
    assert len(trials()) == 1


@pytest.mark.slow
def test_interrupted_search_continues_with_the_job_it_was_at(command: Command) -> None:
    Stops.begun, Stops.at = 0, 6  # The third job is in its second epoch.
    stops = "+callbacks.stops._target_=disturbances.Stops"
    assert command(*SEARCH, "hydra.sweeper.n_trials=4", stops).status == 130
    assert [job.state for job in Sweep(FOLDER).jobs()] == ["finished", "finished", "interrupted"]
    stopped = Sweep(FOLDER).jobs()[2]
    assert command(*SEARCH, "hydra.sweeper.n_trials=4", stops).status == 0
    jobs = {job.id: job for job in Sweep(FOLDER).jobs()}
    assert (len(jobs), {job.state for job in jobs.values()}) == (4, {"finished"})
    assert jobs[stopped.id].info["started"] == stopped.info["started"], "it continues"
    assert sum(trial.state == TrialState.COMPLETE for trial in trials()) == 4
    before = {id: job.info["started"] for id, job in jobs.items()}
    assert command(*SEARCH, "hydra.sweeper.n_trials=5", stops).status == 0
    assert before.items() <= {job.id: job.info["started"] for job in Sweep(FOLDER).jobs()}.items()
    assert len(trials()) == 5


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], *thorough(["hydra.sweeper.prune_after=null"])])
def test_job_that_falls_behind_is_stopped_early_and_tested(command: Command, more: list[str]) -> None:
    Learns.begun = 0
    learns = "+callbacks.learns._target_=test_optuna_search.Learns"
    assert command(*SEARCH, *SLOW, learns, *more).status == 0
    last = TrialState.COMPLETE if more else TrialState.PRUNED
    assert [trial.state for trial in trials()] == [TrialState.COMPLETE] * 6 + [last]
    assert [job.info["epochs"] for job in Sweep(FOLDER).jobs()] == [4] * 6 + [4 if more else 1]
    assert "test/acc" in Sweep(FOLDER).jobs()[6].info["metrics"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a=x,y", CategoricalDistribution(["x", "y"])),
        ("a=range(1,4)", CategoricalDistribution(["1", "2", "3"])),
        ("a=interval(0,0.5)", FloatDistribution(0, 0.5)),
        ("a=int(interval(1,8))", IntDistribution(1, 8)),
        ("a=tag(log,interval(0.001,0.1))", FloatDistribution(0.001, 0.1, log=True)),
    ],
)
def test_hydras_grammar_says_what_is_drawn(override: str, expected: Any) -> None:
    assert make_distribution(OverridesParser.create().parse_override(override)) == expected


@pytest.mark.parametrize("override", ["a=interval(2,1)", "a=tag(log,interval(0,1))"])
def test_invalid_interval_is_reported(override: str) -> None:
    with pytest.raises(UsageError, match="needs low < high"):
        make_distribution(OverridesParser.create().parse_override(override))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["hydra.sweeper.n_trials=0"], "n_trials=0: must be 1 or more"),
        (["optimizer.lr=1", "optimizer.momentum=0", "data.batch_size=16"], "there is nothing to search"),
    ],
)
def test_search_that_is_invalid_is_reported(command: Command, arguments: list[str], error: str) -> None:
    outcome = command(*(word for word in SEARCH if word.split("=")[0] not in str(arguments)), *arguments)
    assert_refused(outcome, "", error)
    assert not Path("runs").exists()


def test_search_says_at_its_start_what_it_searches(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optuna_search.Search, "search", lambda *args: None)
    outcome = command("-m", "hydra/sweeper=optuna", "sweep=s", "model=mlp", "optimizer.lr=interval(0.01,0.3)")
    assert outcome.status == 0
    message = "searched: optimizer.lr, optimizer.momentum, data.batch_size (KEY=VALUE takes one out)"
    assert outcome.out.startswith(message), outcome.out
