"""What can be tested of the launchers without their engines; tests/cluster starts a real SLURM and a real Ray."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from lab import Command, assert_refused

from mnist_lab.config.compose import CommandLine, compose_job
from mnist_lab.runs.record import RunState
from mnist_lab.runs.sweep import Job, Sweep, write_job
from mnist_lab.sweeps.launchers.launcher import count_processors, make_launcher


@pytest.mark.parametrize(
    ("sent", "is_running", "sweep_stops", "requeued"),
    [
        pytest.param(signal.SIGUSR2, False, False, True, id="time limit"),
        pytest.param(signal.SIGTERM, True, False, True, id="preempted"),
        pytest.param(signal.SIGTERM, False, False, False, id="cancelled"),
        pytest.param(signal.SIGUSR2, True, True, False, id="sweep stops"),
        pytest.param(None, True, False, False, id="finished"),
    ],
)
def test_job_returns_to_the_queue_if_it_was_interrupted_but_not_by_its_sweep(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sent: signal.Signals | None,
    is_running: bool,
    sweep_stops: bool,
    requeued: bool,
) -> None:
    pytest.importorskip("submitit")
    from mnist_lab.sweeps.launchers import slurm

    def train(folder: str, id: str) -> bool:
        signal.signal(signal.SIGTERM, lambda number, frame: None)  # Training has such a handler, which saves.
        if sent is not None:
            os.kill(os.getpid(), sent)
        if sweep_stops:
            Sweep(Path(folder)).stop_file.touch()
        return sent is None

    monkeypatch.setattr(slurm, "run_in_own_process", train)
    monkeypatch.setattr(slurm, "is_running", lambda: is_running)
    received: list[int] = []
    signal.signal(signal.SIGUSR2, lambda number, frame: received.append(number))
    slurm.QueuedJob(str(tmp_path), "", "")()
    assert bool(received) is requeued


def test_job_without_a_restart_left_is_interrupted_by_its_time_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    from submitit.core.utils import UncompletedJobError

    from mnist_lab.sweeps.launchers import slurm

    id = "a" * 12
    sweep = Sweep.open(tmp_path, "", ["seed"], {id: ["seed=1"]})
    (tmp_path / f"seed=1-{id}").mkdir()

    def train(folder: str, id: str) -> bool:
        write_job(Job(("seed=1",), tmp_path / f"seed=1-{id}", RunState.INTERRUPTED, 1, "signal 15"))
        return False

    def refuse(number: int, frame: object) -> None:
        raise UncompletedJobError("Job not requeued because: timed-out too many times.")

    monkeypatch.setattr(slurm, "run_in_own_process", train)
    monkeypatch.setattr(slurm, "is_running", lambda: True)
    signal.signal(signal.SIGUSR2, refuse)
    with pytest.raises(UncompletedJobError):
        slurm.QueuedJob(str(tmp_path), id, "the limit")()
    assert (sweep.job(id).state, sweep.job(id).error) == (RunState.INTERRUPTED, "the limit")


@pytest.mark.parametrize(
    ("message", "setting"),
    [
        ("Batch job submission failed: Invalid partition name specified", "hydra.launcher.partition=mine"),
        ("Invalid account or account/partition combination specified", "hydra.launcher.account=null"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "hydra.launcher.timeout_min=60"),
        ("Memory specification can not be satisfied", "hydra.launcher.mem_gb=4"),
        ("CPU count per node can not be satisfied", "hydra.launcher.cpus_per_task=1"),
        ("Socket timed out on send/recv operation", "hydra/launcher=submitit_slurm"),
    ],
)
def test_refusal_of_sbatch_names_its_setting(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, setting: str
) -> None:
    pytest.importorskip("submitit")
    (tmp_path / "bin").mkdir()
    for name in ("sbatch", "srun", "squeue", "scontrol"):
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\necho 'sbatch: error: {message}' >&2; exit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    arguments = ("hydra/launcher=submitit_slurm", "hydra.launcher.partition=mine")
    outcome = command("-m", "model=mlp", "seed=0,1", "sweep=s", *arguments)
    assert_refused(outcome, f"{setting}: sbatch refuses the jobs: {message}")
    assert not Path("runs/sweeps/s").exists()


@pytest.mark.parametrize(
    ("name", "settings", "jobs", "threads", "memory_key"),
    [
        ("submitit_slurm", {"cpus_per_task": 8, "array_parallelism": 5}, 5, 8, None),
        ("ray", {"ray.init.num_cpus": 6, "ray.remote.num_cpus": 2}, 3, 2, "hydra.launcher.ray.init.num_cpus"),
        ("ray", {"ray.init.address": "auto"}, count_processors(), 1, None),
    ],
)
def test_parallel_jobs_and_their_threads_follow_from_the_settings(
    name: str, settings: dict[str, Any], jobs: int, threads: int, memory_key: str | None
) -> None:
    pytest.importorskip(name.split("_")[0])
    overrides = [f"hydra/launcher={name}", *(f"hydra.launcher.{key}={value}" for key, value in settings.items())]
    launcher = make_launcher(name, compose_job(CommandLine(tuple(overrides)), is_sweep=True)[1].launcher)
    assert (launcher.parallel_jobs, launcher.threads, launcher.memory_key) == (jobs, threads, memory_key)
