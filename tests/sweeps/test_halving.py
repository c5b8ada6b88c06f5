"""hydra/sweeper=halving: the best candidates continue as if they had never stopped, and so does a stopped sweep."""

import itertools
import json
import re
from pathlib import Path

import pytest
from disturbances import Stops
from lab import Command, Outcome, assert_refused, same, slow, thorough, weights

from mnist_lab.runs.record import RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps.halving import plan_brackets
from mnist_lab.sweeps.launchers.launcher import LaunchedJob, Stage
from mnist_lab.sweeps.launchers.this_machine import LocalLauncher

FOLDER = Path("runs/sweeps/s")
HALVING = ("-m", "hydra/sweeper=halving", "sweep=s", "model=mlp")
THREE = (*HALVING, "trainer.max_epochs=3", "optimizer.lr=0.001,0.01,0.05")
NINE = (*HALVING, "trainer.max_epochs=9", "optimizer.lr=0.001,0.01,0.05", "optimizer.momentum=0,0.5,0.9")


def candidates(name: str = "s") -> set[str]:
    """Return the swept settings of each job of a sweep."""
    return {" ".join(job.overrides[2:]) for job in Sweep(FOLDER.with_name(name)).jobs()}


def rungs(outcome: Outcome) -> list[list[str]]:
    """Return the rows of the table of rungs: epochs, candidates, failed, continued."""
    lines = outcome.out.partition("\nrungs\n")[2].splitlines()[1:]
    rows = [line.split() for line in itertools.takewhile(lambda line: line.endswith(tuple("0123456789%")), lines)]
    return [[row[1], row[2], row[3], *(row[5:] or [""])] for row in rows]


def metrics(run: Run) -> list[dict[str, float]]:
    """Return a run's rows of metrics without the speed."""
    return [{key: value for key, value in row.items() if key != "images_per_second"} for row in run.metrics()]


@pytest.mark.slow
def test_best_third_of_each_rung_is_continued_and_the_rest_stay_paused(command: Command) -> None:
    outcome, nine = command(*NINE), Sweep(FOLDER)
    assert outcome.status == 0, outcome.err
    assert rungs(outcome) == [["1", "9", "0", "3"], ["3", "3", "0", "1"], ["9", "1", "0", ""]]
    assert "21 epochs; all candidates to the end: 81 (26%)" in outcome.out
    lengths = {job.id: len(job.epochs) for job in nine.jobs()}
    assert sorted(lengths.values()) == [1] * 6 + [3] * 2 + [9]
    for rung in (1, 3):
        best = {job.id: max(row["val/acc"] for row in job.epochs[:rung]) for job in nine.jobs()}
        climbed = [best[id] for id, length in lengths.items() if length > rung]
        stayed = [best[id] for id, length in lengths.items() if length == rung]
        assert min(climbed) >= max(stayed)
    for job in nine.jobs():
        ended = RunState.FINISHED if len(job.epochs) == 9 else RunState.PAUSED
        assert (job.state, job.info["status"], job.info["epochs"]) == (ended, ended, len(job.epochs))
        assert ("test/acc" in job.info["metrics"]) is (ended == RunState.FINISHED)
    results = json.loads(nine.results_json.read_text())
    (winner,) = [job for job in nine.jobs() if job.state == RunState.FINISHED]
    assert results["best"]["folders"] == [winner.folder.name] and len(results["jobs"]) == 9


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["local", *thorough("processes")])
def test_candidates_that_continue_equal_bit_for_bit_runs_that_never_stopped(command: Command, launcher: str) -> None:
    """They have dropout, a schedule over all epochs, averaged weights and augmentation, whose states continue too."""
    parts = ("model=dropout_cnn", "trainer.max_epochs=4", "scheduler=onecycle", "callbacks=ema", "augmentation=affine")
    more = ("hydra.sweeper.eta=2", f"hydra/launcher={launcher}", "threads=1")
    assert command(*HALVING[:3], *parts, *more, "optimizer.lr=0.01,0.02,0.05,0.1").status == 0
    jobs = sorted(Sweep(FOLDER).jobs(), key=lambda job: len(job.epochs))
    assert [len(job.epochs) for job in jobs] == [1, 1, 2, 4]
    for job in jobs[2:]:
        lr = next(override for override in job.overrides if "lr" in override)
        assert command(*parts, lr, "threads=1", "hydra.run.dir=alone").status == 0
        alone, run = Run(Path("alone")), Run(job.folder)
        rows, expected = metrics(run), metrics(alone)
        assert rows and rows == expected[: len(rows)]
        if job.state == RunState.FINISHED:
            assert same(weights(run.checkpoint("last")), weights(alone.checkpoint("last")))
            assert run.info["metrics"] == alone.info["metrics"]
        alone.clear()


RUNGS = [["1", "3", "0", "1"], ["3", "1", "0", ""]]


@pytest.mark.parametrize("at", [*slow(5), *thorough(2, 4)])
def test_stopped_sweep_continues_with_the_same_choices(command: Command, at: int) -> None:
    assert command(*(argument.replace("sweep=s", "sweep=whole") for argument in THREE)).status == 0
    Stops.begun, Stops.at = 0, at
    stops = "+callbacks.stops._target_=disturbances.Stops"
    assert command(*THREE, stops).status == 130
    again = command(*THREE, stops)
    assert again.status == 0, again.err
    assert rungs(again) == RUNGS and "5 epochs; all candidates" in again.out
    before = {job.overrides: job for job in Sweep(FOLDER.with_name("whole")).jobs()}
    for job in Sweep(FOLDER).jobs():
        whole = before[tuple(override for override in job.overrides if override != stops)]
        assert job.state == whole.state
        assert same(*(weights(Run(each.folder).checkpoint("last")) for each in (job, whole)))


@pytest.mark.parametrize("deaths", [*slow(2), *thorough(1)])
def test_candidate_whose_process_dies_before_it_continues_is_started_again(
    command: Command, monkeypatch: pytest.MonkeyPatch, deaths: int
) -> None:
    """Its record still says that it is paused, as if this rung were done. A second death makes it fail."""
    poll, died, ran = LocalLauncher.poll, [], []

    def dies(launcher: LocalLauncher) -> None:
        id = launcher.waiting[0][0] if launcher.waiting else ""
        if id and Sweep(FOLDER).job(id).state == RunState.PAUSED and died.count(id) < deaths and set(died) <= {id}:
            died.append(id)
            launcher.waiting.pop(0)
            launcher.jobs[id] = LaunchedJob(Stage.ENDED, reason="killed")
        else:
            ran.append(id)
            poll(launcher)

    monkeypatch.setattr(LocalLauncher, "poll", dies)
    outcome = command(*THREE)
    assert len(died) == deaths
    if deaths == 1:
        assert outcome.status == 0 and rungs(outcome) == RUNGS
        assert ran.count(died[0]) == 2, "it runs on each rung"
    else:
        assert outcome.status == 1 and "its process died (killed)" in outcome.err
        assert rungs(outcome) == RUNGS[:1]


@pytest.mark.slow
def test_candidates_that_fail_do_not_continue(command: Command) -> None:
    fails = "+callbacks.fails={_target_: disturbances.FailsAbove, lr: 0.04}"
    outcome = command(*THREE, fails)
    assert outcome.status == 1
    assert rungs(outcome) == [["1", "3", "1", "1"], ["3", "1", "0", ""]]
    assert outcome.err.count("too fast") == 1
    every = command(*HALVING[:2], "sweep=t", "model=mlp", "trainer.max_epochs=3", "optimizer.lr=0.05,0.1", fails)
    assert every.status == 1 and rungs(every) == []


@pytest.mark.slow
def test_of_fewer_candidates_than_eta_one_continues_and_a_grid_finishes_the_other(command: Command) -> None:
    given = ("sweep=s", "model=mlp", "trainer.max_epochs=3", "optimizer.lr=0.01,0.02")
    assert command("-m", "hydra/sweeper=halving", *given).status == 0
    assert sorted((job.state, len(job.epochs)) for job in Sweep(FOLDER).jobs()) == [("finished", 3), ("paused", 1)]
    assert command("-m", *given).status == 0
    assert [(job.state, len(job.epochs)) for job in Sweep(FOLDER).jobs()] == [("finished", 3)] * 2


@pytest.mark.thorough
def test_drawn_candidates_are_the_same_for_the_same_seed(command: Command) -> None:
    pytest.importorskip("optuna", reason="the extra optuna is not installed")
    rates = "optimizer.lr=tag(log,interval(0.001,0.1))"
    drawn = (*HALVING, "trainer.max_epochs=3", rates, "hydra.sweeper.n_candidates=4")
    assert command(*drawn).status == 0
    first = candidates()
    values = [float(re.findall(r"lr=(.*)", name)[0]) for name in first]
    assert len(values) == 4 and 0.001 <= min(values) < max(values) <= 0.1
    assert command(*drawn).status == 0
    assert candidates() == first
    assert command(*drawn, "sweep=other", "hydra.sweeper.seed=1").status == 0
    assert candidates("other").isdisjoint(first)


@pytest.mark.parametrize(
    ("arguments", "planned"),
    [
        ((27, 9, 1, 3, 1), [(27, [1, 3, 9])]),
        ((27, 81, 1, 3, 1), [(27, [1, 3, 9, 27, 81])]),
        ((22, 9, 1, 3, 3), [(12, [1, 3, 9]), (6, [3, 9]), (4, [9])]),
        ((5, 10, 1, 3, 1), [(5, [1, 3, 10])]),
        ((5, 2, 1, 3, 1), [(5, [1, 2])]),
        ((2, 9, 1, 3, 2), [(1, [1, 3, 9]), (1, [3, 9])]),
    ],
)
def test_rungs_end_with_the_whole_length_and_brackets_share_the_candidates(
    arguments: tuple[int, int, int, int, int], planned: list[tuple[int, list[int]]]
) -> None:
    assert plan_brackets(*arguments) == planned


BAD: list[tuple[list[str], str]] = [
    (["optimizer.lr=0.1", "optimizer.momentum=0"], "hydra/sweeper=halving: there is nothing to compare"),
    (["seed=range(1,1)"], "hydra/sweeper=halving: there is nothing to compare"),
    (["hydra.sweeper.eta=1"], "hydra.sweeper.eta=1: must be a whole number from 2 on"),
    (["hydra.sweeper.min_epochs=0"], "hydra.sweeper.min_epochs=0: must be a whole number from 1 on"),
    (["hydra.sweeper.min_epochs=9"], "hydra.sweeper.min_epochs=9: must be less than trainer.max_epochs=9"),
    (["hydra.sweeper.brackets=4"], "hydra.sweeper.brackets=4: these epochs and candidates make 3 at most"),
    (["data.val_size=0"], "data.val_size=0: hydra/sweeper=halving compares candidates on validation images"),
    (["trainer.max_epochs=3,9"], "trainer.max_epochs=3,9: hydra/sweeper=halving needs one for all candidates"),
    (["optimizer.lr=interval(0.1,0.2)"], "optimizer.lr=interval(0.1,0.2): only a search can draw from it; add"),
    (["hydra.sweeper.n_candidates=0"], "hydra.sweeper.n_candidates=0: must be a whole number from 1 on"),
    (["--detach"], "--detach: hydra/sweeper=halving compares jobs while it runs"),
    (["trainer=ddp"], "hydra/sweeper=halving: does not pause distributed jobs"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("overrides", "error"), [*BAD[:1], *thorough(*BAD[1:])])
def test_invalid_settings_are_refused_in_one_line(command: Command, overrides: list[str], error: str) -> None:
    keys = {override.split("=")[0] for override in overrides}
    outcome = command(*(argument for argument in NINE if argument.split("=")[0] not in keys), *overrides)
    assert_refused(outcome, error)
    assert not FOLDER.exists()
