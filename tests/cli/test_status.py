"""`status` shows the states of a sweep's jobs, here or on a cluster, while it runs and after its end."""

import json
import os
import re
from pathlib import Path

import pytest
from lab import Command, Tiny
from test_ls import fake

from mnist_lab.runs.locks import run_lock
from mnist_lab.runs.record import RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job, Sweep, write_job


@pytest.fixture
def sweep(tiny: Tiny) -> Sweep:
    """Return a sweep of three jobs: one failed, one running here, one waiting in the queue of a cluster."""
    jobs = {id: ["model=mlp", f"seed={seed}"] for seed, id in enumerate(("a" * 12, "b" * 12, "c" * 12))}
    made = Sweep.open(Path("runs/sweeps/three").absolute(), "python -m mnist_lab -m ... sweep=three", ["seed"], jobs)
    made.keep_submissions({"c" * 12: {"number": "12_2", "log": "12_2.out"}})
    for seed, state in enumerate((RunState.FAILED, RunState.RUNNING)):
        id, overrides = list(jobs.items())[seed]
        folder = made.folder / f"seed={seed}-{id}"
        folder.mkdir()
        Run(folder).log_path.touch()
        write_job(Job(tuple(overrides), folder, state, 1, process={"host": "node7"}))
    return made


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a program squeue that reports a job that waits for room."""
    program = tmp_path / "bin" / "squeue"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho '12_2|PENDING|Resources|'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return program


@pytest.mark.usefixtures("squeue")
def test_table_has_state_place_reason_and_the_command_to_continue(command: Command, sweep: Sweep) -> None:
    with run_lock(sweep.folder / f"seed=1-{'b' * 12}"):
        shown, *others = (command("status", *name, data=False) for name in ([], ["three"], ["runs/sweeps/three"]))
    assert [(other.status, len(other.out)) for other in others] == [(0, len(shown.out))] * 2
    assert re.search(r"^0 +failed .* node7$", shown.out, re.MULTILINE), shown.out
    assert re.search(r"^1 +running .* node7$", shown.out, re.MULTILINE)
    assert re.search(r"^2 +waiting .* Resources \(SLURM 12_2\)$", shown.out, re.MULTILINE)
    assert "logs: runs/sweeps/three/*/train.log\n3 jobs: 1 failed, 1 running, 1 waiting\n" in shown.out
    assert "to continue: python -m mnist_lab -m ... sweep=three" in shown.out


def test_run_is_shown_as_a_job_is_with_the_command_to_resume_it(command: Command, sweep: Sweep) -> None:
    fake("alone", 1, status="interrupted", max_epochs=3)
    heads, cells, *rest = command("status", "alone", data=False).out.splitlines()
    assert heads.split() == ["state", "epoch", "validation", "time", "left"]
    assert cells.split() == ["interrupted", "1/3", "12.3", "s"]
    assert rest == ["to continue: python -m mnist_lab resume=runs/alone", "run folder: runs/alone"]


@pytest.mark.usefixtures("squeue")
def test_json_has_the_same_for_programs(command: Command, sweep: Sweep) -> None:
    rows = json.loads(command("status", "--json", data=False).out)
    assert [(row["seed"], row["state"], row["where"], row["reason"]) for row in rows] == [
        ("0", "failed", "node7", None),
        ("1", "killed", "node7", None),
        ("2", "waiting", "SLURM 12_2", "Resources"),
    ]


def test_job_is_shown_by_its_record_if_slurm_does_not_answer(command: Command, sweep: Sweep, squeue: Path) -> None:
    squeue.write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1\n")
    shown = command("status", data=False)
    assert shown.status == 0
    assert re.search(r"^2 +waiting$", shown.out, re.MULTILINE), shown.out


@pytest.mark.usefixtures("squeue")
@pytest.mark.parametrize(("state", "shown_as"), [("interrupted", "queued again"), ("failed", "failed")])
def test_interrupted_job_in_the_queue_is_queued_again(
    command: Command, sweep: Sweep, state: str, shown_as: str
) -> None:
    folder = sweep.folder / f"seed=2-{'c' * 12}"
    folder.mkdir()
    write_job(Job(("model=mlp", "seed=2"), folder, RunState(state), 1, "signal 15"))
    shown = command("status", data=False)
    assert re.search(rf"^2 +{shown_as} .* Resources \(SLURM 12_2\)$", shown.out, re.MULTILINE), shown.out
    counts = {"queued again": "1 failed, 1 killed, 1 queued again", "failed": "2 failed, 1 killed"}
    assert f"\n3 jobs: {counts[shown_as]}\n" in shown.out


@pytest.mark.usefixtures("squeue")
def test_watch_ends_when_no_job_is_left(command: Command, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    def finish(seconds: float) -> None:
        for job in sweep.jobs():
            folder = sweep.folder / f"done-{job.id}" if job.state == RunState.WAITING else job.folder
            folder.mkdir(exist_ok=True)
            write_job(Job(job.overrides, folder, RunState.FAILED, 1))

    monkeypatch.setattr("mnist_lab.cli.status.time.sleep", finish)
    shown = command("status", "three", "--watch", data=False)
    assert (shown.status, shown.out.count("3 jobs: ")) == (0, 2), shown.err
    assert shown.out.rstrip().endswith("3 jobs: 3 failed")


def test_time_left_of_a_job_follows_from_the_time_of_all_its_epochs(command: Command, sweep: Sweep) -> None:
    run = Run(sweep.folder / f"seed=1-{'b' * 12}")
    info = {"status": "running", "max_epochs": 10, "seed": 1, "started": "2026-11-21T12:00:00+00:00"}
    info["seconds"] = {"fit": 160.0, "total": 160.0}
    run.record_path.write_text(json.dumps(info))
    run.metrics_path.write_text("step,epoch,train/loss\n" + "".join(f"{i},{i},0.5\n" for i in range(8)))
    with run_lock(run.folder):
        (line,) = [line for line in command("status", "three", data=False).out.splitlines() if " running " in line]
    assert "8/10" in line and re.search(r" (39|4\d)\.\d s ", line), line


@pytest.mark.parametrize("state", [RunState.PRUNED, RunState.PAUSED])
def test_job_stopped_early_is_shown(tiny: Tiny, lab: Command, state: RunState) -> None:
    jobs = {"a" * 12: ["seed=1"]}
    sweep = Sweep.open(Path("runs/sweeps/s").absolute(), "python -m mnist_lab -m sweep=s", ["seed"], jobs)
    run = Run(sweep.folder / f"seed=1-{'a' * 12}")
    run.folder.mkdir()
    write_job(Job(("seed=1",), run.folder, state, 1))
    info = {"status": state, "started": "2026-11-21T12:00:00+00:00", "seed": 1, "seconds": {"total": 1.0}}
    info |= {"config_dir": None, "max_epochs": 2, "metrics": {"val/acc": 0.1, "test/acc": 0.1}, "epochs": 1}
    run.record_path.write_text(json.dumps(info))
    assert lab("report", "runs/sweeps/s").status == 0
    for shown in (lab("status", "s").out, lab("ls").out, sweep.report_path.read_text()):
        assert state in shown
