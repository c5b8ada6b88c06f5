"""Sweeps finish whatever happens to their jobs, can be continued, and report the best settings."""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import hydra
import pytest
from disturbances import waiting
from lab import (
    Command,
    Outcome,
    Tiny,
    assert_refused,
    held_by_another_process,
    run,
    thorough,
    tiny_data,
    wait_for,
)
from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks.sweep_kills import results as plain_results
from mnist_lab.__main__ import main
from mnist_lab.config.compose import CommandLine
from mnist_lab.console import PlainConsole
from mnist_lab.errors import Interrupted
from mnist_lab.runs.locks import run_lock
from mnist_lab.runs.ranking import Results
from mnist_lab.runs.record import RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job, Sweep, read_job, write_job
from mnist_lab.sweeps.launchers.launcher import LaunchedJob, Stage
from mnist_lab.sweeps.launchers.this_machine import LocalLauncher
from mnist_lab.sweeps.loop import forward_signals
from mnist_lab.sweeps.plan import UNNAMED, Plan, combine_overrides
from mnist_lab.sweeps.progress import SweepDisplay
from mnist_lab.training import train as training

FOLDER = Path("runs/sweeps/s")
GRID = ("-m", "sweep=s", "model=mlp", "optimizer.lr=0.001,0.01", "optimizer.momentum=0.5,0.9", "trainer.max_epochs=1")


class Trouble(Callback):
    """Raises an error in the job with seed 1, exits in that with seed 2, and makes pixels NaN in that with seed 3."""

    on = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        seed = trainer.datamodule.seed if self.on else 0  # type: ignore[attr-defined]
        if seed == 1:
            raise RuntimeError("out of order")
        if seed == 2:
            sys.exit(3)
        if seed == 3:
            batch[0][:] = float("nan")


class FailsAtFirst(Callback):
    """Fails once for each digit in the file `times`."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        left = Path("times").read_text()
        if left:
            Path("times").write_text(left[1:])
            raise RuntimeError("not yet [/pair.cc:545]")  # A table must not take this, from gloo, for markup.


made: list[Outcome] = []


@pytest.fixture
def grid(tiny: Tiny, command: Command, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Return the outcome of GRID, trained once for all tests; each test has a copy of its runs."""
    tiny.folder = tmp_path_factory.getbasetemp() / "grid"
    if not tiny.folder.exists():
        tiny_data(tiny.folder)
        made[:] = [command(*GRID)]
        assert made[0].status == 0, made[0].err
        shutil.copytree("runs", tiny.folder / "runs")
    else:
        shutil.copytree(tiny.folder / "runs", "runs")
    return made[0]


def results() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / "results.json").read_text())
    return content


def started() -> dict[str, str]:
    """Return when the run of each job began, by its folder."""
    return {run.folder.name: run.info["started"] for run in Run.below(FOLDER)}


def test_every_combination_is_a_run_and_the_best_by_validation_is_reported(grid: Outcome) -> None:
    runs = Run.below(FOLDER)
    assert {(run.config.optimizer.lr, run.config.optimizer.momentum) for run in runs} == {
        (lr, momentum) for lr in (0.001, 0.01) for momentum in (0.5, 0.9)
    }
    best = max(runs, key=lambda run: (run.info["metrics"]["val/acc"], -run.info["metrics"]["val/loss"]))
    found = results()["best"]
    assert found["folders"] == [best.folder.name]
    assert found["val/acc"]["mean"] == best.info["metrics"]["val/acc"]
    assert found["test/acc"]["mean"] == best.info["metrics"]["test/acc"]
    assert f"best, test accuracy {best.info['metrics']['test/acc']:.2%}: {found['command']}" in grid.out
    assert (FOLDER / "heat_map.png").stat().st_size > 5000
    rows = list(csv.DictReader((FOLDER / "results.csv").read_text().splitlines()))
    ranked = [("1", True), ("2", False), ("3", False), ("4", False)]
    assert [(row["rank"], bool(row["test/acc"])) for row in rows] == ranked
    assert [float(row["val/acc"]) for row in rows] == sorted((float(row["val/acc"]) for row in rows), reverse=True)


@pytest.mark.slow
@pytest.mark.usefixtures("grid")
def test_job_is_not_resumed_alone_but_can_be_trained_again(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    run, other = Run.below(FOLDER)[:2]
    before = results()
    for name in (str(run.folder), f"{run.folder}/checkpoints/last.ckpt"):
        outcome = command(f"resume={name}", "trainer.max_epochs=2", data=False)
        start = f"resume={name}: a job of the sweep s, which continues with "
        assert_refused(outcome, start, before["command"], "init_from=CHECKPOINT starts a new run")
    monkeypatch.setattr("sys.argv", shlex.split(other.info["command"])[2:])
    main()
    assert Run.find("latest").info["metrics"] == other.info["metrics"]


@pytest.mark.slow
@pytest.mark.usefixtures("grid")
def test_latest_and_auto_are_the_last_run_outside_of_sweeps(command: Command) -> None:
    assert_refused(command("resume=latest", data=False), "", "no run below", "a job of a sweep")
    assert command("resume=auto", "model=mlp").status == 0
    (own,) = [run for run in Run.below("runs") if FOLDER not in run.folder.parents]
    shutil.copytree(FOLDER, FOLDER.with_name("t"))
    assert Run.find("latest") == own
    assert Run.find("latest", FOLDER).folder.parent == FOLDER
    assert command("resume=auto", "model=mlp", "trainer.max_epochs=3").status == 0
    assert own.info["epochs"] == 3
    assert len(Run.below("runs")) == 9


@pytest.mark.slow
@pytest.mark.usefixtures("grid")
def test_two_processes_do_not_run_one_sweep(command: Command) -> None:
    before = started()
    with held_by_another_process(FOLDER):
        outcome = command(*GRID, "seed=1")
    assert_refused(outcome, "", f"{FOLDER}: in use by process ")
    assert started() == before


class NeverBegins(LocalLauncher):
    """A launcher whose first processes die before their jobs begin."""

    def __init__(self, deaths: int) -> None:
        super().__init__()
        self.deaths = deaths

    def poll(self) -> None:
        if self.deaths and self.waiting:
            self.deaths -= 1
            self.jobs[self.waiting.pop(0)[0]] = LaunchedJob(Stage.ENDED, reason="killed")
        else:
            super().poll()


@pytest.mark.slow
def test_jobs_that_die_before_they_begin_are_started_again(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnist_lab.sweeps.plan.make_launcher", lambda *chosen: NeverBegins(3))
    assert command(*GRID).status == 0
    assert len(results()["ranked"]) == 4
    monkeypatch.setattr("mnist_lab.sweeps.plan.make_launcher", lambda *chosen: NeverBegins(10))
    outcome = command(*GRID, "seed=1")
    assert outcome.status == 1
    assert "seed=1: ended before it began (killed)" in outcome.err


@pytest.mark.usefixtures("grid")
def test_a_second_signal_does_not_wait_for_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    (job, *_) = Sweep(FOLDER).jobs()
    launcher = LocalLauncher()
    monkeypatch.setattr(launcher, "cancel", lambda: [job.id])
    second = threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM))
    second.start()
    begun = time.monotonic()
    with run_lock(job.folder), pytest.raises(Interrupted) as stop, forward_signals(Sweep(FOLDER), launcher):
        os.kill(os.getpid(), signal.SIGTERM)
    assert (stop.value.code, time.monotonic() - begun < 30) == (143, True)
    assert (FOLDER / ".stop").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("grid")
def test_same_command_skips_what_is_done_and_adds_what_is_new(command: Command) -> None:
    before = started()
    again = command(*GRID)
    assert (again.status, started()) == (0, before)
    wider = [argument.replace("0.001,0.01", "0.01,0.1") for argument in GRID]
    assert command(*wider).status == 0
    after = started()
    assert len(after) == 6
    assert {name: after[name] for name in before} == before
    assert command(*GRID, "seed=0").status == 0, "0 is the default"
    assert started() == after
    assert command(*GRID[:3], "optimizer.lr=0.01", *GRID[4:], "data.batch_size=32").status == 0
    assert len(started()) == 8 and after.items() <= started().items()


@pytest.mark.slow
def test_jobs_that_fail_leave_the_others_and_run_again(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("-m", "sweep=s", "model=mlp", "seed=0,1,2,3,4", "+callbacks.trouble._target_=test_grid.Trouble")
    outcome = command(*arguments)
    assert outcome.status == 1
    assert "3 of 5 jobs failed" in outcome.err
    runs = {run.config.seed: run for run in Run.below("runs")}
    assert [runs[seed].info["status"] for seed in range(5)] == ["finished", *["failed"] * 3, "finished"]
    for seed, message in ((1, "RuntimeError: out of order"), (2, "SystemExit: 3"), (3, "training loss is nan")):
        assert message in runs[seed].info["error"]
        assert message in outcome.err
        assert "Traceback" in (runs[seed].folder / "train.log").read_text()
    done = {seed: runs[seed].info["started"] for seed in (0, 4)}
    monkeypatch.setattr(Trouble, "on", False)
    assert command(*arguments[:3], "seed=5", arguments[4]).status == 0, "a start for other values runs them, too"
    runs = {run.config.seed: run for run in Run.below("runs")}
    assert {runs[seed].info["status"] for seed in range(6)} == {"finished"}
    assert {seed: runs[seed].info["started"] for seed in (0, 4)} == done
    assert "out of order" in (runs[1].folder / "train.log").read_text(), "the log keeps the first attempt"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("retries", "attempts", "state"), [(1, 2, "failed"), *thorough((0, 1, "failed"), (3, 3, "finished"))]
)
def test_retries_are_as_many_as_asked_for(command: Command, retries: int, attempts: int, state: str) -> None:
    Path("times").write_text("12")
    fails = "+callbacks.fails._target_=test_grid.FailsAtFirst"
    outcome = command("-m", "sweep=s", "model=mlp", "seed=5", f"retries={retries}", fails, "trainer.max_epochs=1")
    (job,) = Sweep(FOLDER).jobs()
    assert (job.attempts, job.state, outcome.status) == (attempts, state, int(state == "failed"))
    assert "Traceback" not in outcome.err and "sweep folder: " in outcome.out


@pytest.mark.slow
def test_fail_fast_begins_no_further_job(command: Command) -> None:
    trouble = "+callbacks.trouble._target_=test_grid.Trouble"
    arguments = ("-m", "sweep=s", "model=mlp", "seed=0,1,4", "fail_fast=true", trouble, "trainer.max_epochs=1")
    outcome = command(*arguments)
    assert outcome.status == 1
    assert [job.state for job in Sweep(FOLDER).jobs()] == ["finished", "failed", "waiting"]
    assert "2 of 3 jobs not finished; to continue:" in outcome.out


def test_job_that_met_nan_is_not_offered_again_but_what_helps(command: Command) -> None:
    outcome = command("-m", "sweep=s", "model=mlp", "optimizer.lr=0.01,1e30", "trainer.max_epochs=1")
    assert (outcome.status, [job.state for job in Sweep(FOLDER).jobs()]) == (1, ["finished", "failed"])
    remedy = "start a new sweep=NAME with smaller values of optimizer.lr"
    assert f"1 of 2 jobs met NaN or infinity and would again; {remedy}" in outcome.out
    assert "to continue" not in outcome.out


def test_sweep_of_one_job_is_counted_and_named_as_one(command: Command) -> None:
    sweep = ("-m", "sweep=s", "model=mlp", "trainer.max_epochs=1")
    checked = command(*sweep, "--check")
    assert "\n1 job; 0 finished\n" in checked.out, checked
    outcome = command(*sweep)
    (job,) = Sweep(FOLDER).jobs()
    assert (outcome.status, job.folder.name) == (0, f"job-{job.id}")
    assert re.search(rf"^1/1 job-{job.id}: [\d.]+%, [\d.]+ s$", outcome.out, re.MULTILINE), outcome.out
    assert "\n1 job: 1 finished\n" in command("status", "s", data=False).out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["-m", "sweep=s", "model=mlp,lenet"], "is a sweep over optimizer.lr, optimizer.momentum, not model; choose"),
        (["-m", "sweep=t", "steps_per_execution=1,50"], "steps_per_execution: jobs do not differ by it"),
        (["-m", "hydra/sweeper=halving", "dashboard=default,none"], "dashboard: jobs do not differ by it"),
        (["-m", "sweep=t", "seed=range(3)", "model=mlp,mlp"], "seed, model: 6 jobs of which 3 differ"),
        (["-m", "sweep=t", "model=mlp", "data.batch_size=50,0"], "data.batch_size=0: input should be greater"),
        (["-m", "sweep=t", "seed=range(1,1)"], "there is nothing to sweep"),
        (["-m", "sweep=größe", "data=image_folder", "data.source.path=a,b"], "data.source.path=a: not found; no job"),
        (["-m", "sweep=t,u", "seed=1,2"], "applies to the whole sweep and cannot be swept"),
        (["retries=1"], "only valid in a sweep; add -m"),
        (["-m", "sweep=t", "seed=1,2", "hydra/launcher=basic"], "choose local, processes, "),
        (["-m", "seed=1,2", "resume=latest"], "one run at a time"),
        (["-m", "seed=1,2", "hydra/sweeper=basic"], "choose grid, halving or optuna"),
    ],
)
def test_sweep_that_is_invalid_is_reported_in_a_line_and_leaves_nothing(
    command: Command, arguments: list[str], error: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr("mnist_lab.config.compose.find_spec", lambda name: None)
    if "optimizer.lr" in error:
        request.getfixturevalue("grid")
    before = sorted(Path().rglob("*"))
    assert_refused(command(*arguments), "", error)
    assert sorted(Path().rglob("*")) == before


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["1", "nan", "2026-11-21"])
def test_name_of_a_sweep_may_look_like_a_number(command: Command, name: str) -> None:
    assert command("-m", f"sweep={name}", "model=mlp", "seed=0,1", "trainer.max_epochs=1").status == 0
    assert [job.state for job in Sweep(Path("runs/sweeps") / name).jobs()] == ["finished", "finished"]


@pytest.mark.slow
def test_sweep_that_ctrl_c_ends_has_its_table_and_continues_at_the_next_start(tiny: Tiny, command: Command) -> None:
    waits = "+callbacks.waits={_target_: disturbances.Waits, seeds: [1]}"
    arguments = ("-m", "model=mlp", "seed=0,1,2", "trainer.max_epochs=4", "logger=csv", waits)

    def stop(process: subprocess.Popen[str]) -> None:
        wait_for(lambda: waiting(1) and (FOLDER / "results.json").exists() and results()["ranked"], "the second job")
        process.send_signal(signal.SIGINT)

    status, out = run(tiny, *arguments, "sweep=s", then=stop)
    assert (status, "Traceback" in out) == (130, False), out
    assert [job.state for job in Sweep(FOLDER).jobs()] == ["finished", "interrupted", "waiting"]
    assert len((FOLDER / "results.csv").read_text().splitlines()) == 4
    assert len(results()["ranked"]) == 1
    assert "interrupted: seed=1: stopped by Ctrl-C\n" in out
    assert re.search(r"2 of 3 jobs not finished; to continue: python -m mnist_lab .*sweep=s", out)
    first, second = Run.below(FOLDER)
    before = first.info["started"], second.info["started"]
    assert command(*arguments, "sweep=s").status == 0
    assert (first.info["started"], second.info["started"], second.info["steps"]) == (*before, 48)
    assert [int(row["epoch"]) for row in second.epochs()] == list(range(4))
    assert second.config.resume.endswith("last.ckpt")


@pytest.mark.slow
@pytest.mark.usefixtures("grid")
def test_job_that_another_process_runs_is_left_alone(command: Command) -> None:
    (job, *_) = Sweep(FOLDER).jobs()
    write_job(Job(job.overrides, job.folder, RunState.RUNNING, 1))
    with held_by_another_process(job.folder):
        before = started()
        assert command(*GRID).status == 0
        assert started() == before
        assert read_job(job.folder).state == "running"
    assert read_job(job.folder).state == "killed"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("job.json", ""),
        *thorough(
            ("run.json", '{"status": "finished"}'), ("job.json", '{"overrides": [], "state": "odd"}'), ("run.json", "")
        ),
    ],
)
@pytest.mark.usefixtures("grid")
def test_job_of_a_damaged_record_is_run_again_and_leaves_the_others(command: Command, file: str, content: str) -> None:
    first = Sweep(FOLDER).jobs()[0]
    before, others = plain_results(Path("runs")), started()
    (first.folder / file).write_text(content)
    assert [job.state for job in Sweep(FOLDER).jobs()] == ["killed", *["finished"] * 3]
    assert command("report", str(FOLDER), data=False).status == 0
    assert command(*GRID).status == 0
    assert plain_results(Path("runs")) == before
    del others[first.folder.name]
    assert others.items() <= started().items()


@pytest.mark.parametrize("content", ["[]", {"jobs": {"a": [1]}}, *thorough("", {"start": "x"})])
def test_a_sweep_whose_record_is_damaged_is_reported_in_a_line(command: Command, content: Any) -> None:
    FOLDER.mkdir(parents=True)
    whole = {"command": "c", "start": "host-1-a", "swept": [], "jobs": {}}
    (FOLDER / "sweep.json").write_text(content if isinstance(content, str) else json.dumps(whole | content))
    for arguments in (GRID, ("report", str(FOLDER))):
        refusal = "sweep.json: corrupt, or not a sweep's record; remove the folder"
        assert_refused(command(*arguments, data=arguments is GRID), "", refusal)


@pytest.mark.parametrize(
    ("arguments", "first", "jobs"),
    [
        (["model=mlp"], 1, 0),
        (["-m", "model=mlp", "seed=1,2"], 1, 2),
        (["-m", "model=mlp", "trainer.gradient_clip_val=1,2"], 3, 2),  # The first finds that a + is missing.
    ],
)
def test_each_job_is_composed_and_validated_once(
    command: Command, monkeypatch: pytest.MonkeyPatch, arguments: list[str], first: int, jobs: int
) -> None:
    composed, validated = mock.Mock(wraps=hydra.compose), mock.Mock(wraps=training.validate)
    monkeypatch.setattr(hydra, "compose", composed)
    monkeypatch.setattr(training, "validate", validated)
    assert command(*arguments, "trainer.max_epochs=1").status == 0
    assert (composed.call_count, validated.call_count) == (first + jobs, jobs or 1)
    assert not [path for path in Path().rglob("*") if UNNAMED in path.name]


def test_number_of_a_job_is_known_when_it_is_planned(tiny: Tiny) -> None:
    words = (*tiny.overrides, "seed=4,5", "label_smoothing=0.${hydra:job.num}")
    plan = Plan.of(CommandLine(words, str(tiny.conf)))
    planned = [plan.compose_job(job, number)[1] for number, job in enumerate(combine_overrides(plan.overrides))]
    assert [str(cfg.label_smoothing) for cfg in planned] == ["0.0", "0.1"]


@pytest.mark.usefixtures("grid")
def test_table_on_a_terminal_shows_how_each_job_stands() -> None:
    sweep = Sweep(FOLDER)
    first = sweep.jobs()[0]
    write_job(Job(first.overrides, first.folder, RunState.RUNNING, 1))
    Run(first.folder).record_path.touch()
    console = PlainConsole(width=120, height=40, record=True, force_terminal=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    with run_lock(first.folder):
        console.print(SweepDisplay(sweep, LocalLauncher(), console=console).render(Results.of(sweep)))
    text = console.export_text()
    console.file.close()
    assert "4 jobs: 3 finished, 1 running" in text
    assert re.search(r"0\.001 +0\.5 +running +1/1 +\d+\.\d\d% +\d+\.\d s", text), text
    assert text.count(" finished ") == 3
