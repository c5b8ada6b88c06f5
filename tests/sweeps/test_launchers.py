"""Launchers of other engines, as far as that can be tried without one: tests/cluster starts a real SLURM and Ray."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mnist_lab.config.compose import CommandLine, compose_job
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps.launchers.launcher import count_processors, make_launcher


@pytest.fixture
def _signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_signals")
@pytest.mark.parametrize(
    ("sent", "goes_on", "sweep_stops", "requeued"),
    [
        (signal.SIGUSR2, False, False, True),  # the time limit
        (signal.SIGTERM, True, False, True),  # a preemption
        (signal.SIGTERM, False, False, False),  # somebody has cancelled it
        (signal.SIGUSR2, True, True, False),
        (None, True, False, False),  # it has come to its end
    ],
)
def test_job_in_a_queue_is_put_back_if_it_was_interrupted_but_not_by_its_sweep(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sent: signal.Signals | None,
    goes_on: bool,
    sweep_stops: bool,
    requeued: bool,
) -> None:
    pytest.importorskip("submitit")
    from mnist_lab.sweeps.launchers import slurm

    def trains(folder: str, id: str) -> bool:
        signal.signal(signal.SIGTERM, lambda number, frame: None)  # as training, which saves
        if sent is not None:
            os.kill(os.getpid(), sent)
        if sweep_stops:
            Sweep(Path(folder)).stop_file.touch()
        return sent is None

    monkeypatch.setattr(slurm, "run_in_own_process", trains)
    monkeypatch.setattr(slurm, "is_running", lambda: goes_on)
    put_back: list[int] = []
    signal.signal(signal.SIGUSR2, lambda number, frame: put_back.append(number))
    slurm.QueuedJob(str(tmp_path), "")()
    assert bool(put_back) is requeued


@pytest.mark.parametrize(
    ("name", "settings", "at_once", "of_a_job", "room"),
    [
        ("submitit_slurm", {"cpus_per_task": 8, "array_parallelism": 5}, 5, 8, None),
        ("ray", {"ray.init.num_cpus": 6, "ray.remote.num_cpus": 2}, 3, 2, "hydra.launcher.ray.init.num_cpus"),
        ("ray", {"ray.init.address": "auto"}, count_processors(), 1, None),
    ],
)
def test_jobs_at_once_and_their_threads_are_those_the_launcher_is_asked_for(
    name: str, settings: dict[str, Any], at_once: int, of_a_job: int, room: str | None
) -> None:
    pytest.importorskip(name.split("_")[0])
    overrides = [f"hydra/launcher={name}", *(f"hydra.launcher.{key}={value}" for key, value in settings.items())]
    launcher = make_launcher(name, compose_job(CommandLine(tuple(overrides)), is_sweep=True)[1].launcher)
    assert (launcher.parallel_jobs, launcher.threads, launcher.memory_key) == (at_once, of_a_job, room)
