"""What can be tested of the launchers without their engines; tests/cluster starts a real SLURM and a real Ray."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from mnist_lab.config.compose import CommandLine, compose_job
from mnist_lab.runs.sweep import Sweep
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
    slurm.QueuedJob(str(tmp_path), "")()
    assert bool(received) is requeued


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
