"""Sweeps through submitit's local executor and a local Ray cluster; a real SLURM is not tried."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lab import Command, Tiny, run, slow
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lab.config.overrides import compose_with_hydra
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps.launchers.launcher import make_launcher, processors
from mnist_lab.sweeps.launchers.on_this_machine import ctrl_c_kept_from_children

FOLDER = Path("runs/sweeps/s")
LAUNCHERS = ("submitit_local", "ray")
LONG = ("-m", "model=mlp", "seed=0,1", "sweep=s", "trainer.max_epochs=150", "logger=csv")


class Dies(Callback):
    """The process of the job with seed 1 is killed, as by a kernel that is out of memory."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.datamodule.seed == 1:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)


def test_children_are_started_where_signals_cannot_be_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "pthread_sigmask")  # as on Windows
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    with ctrl_c_kept_from_children():
        ended.set()
    thread.join()


@pytest.fixture(params=slow(*LAUNCHERS))
def launcher(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The override that chooses a launcher that is installed."""
    name: str = request.param
    package = name.split("_")[0]
    pytest.importorskip(package, reason=f"the extra {package} is not installed")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else Ray writes a token into the user's home
    return f"hydra/launcher={name}"


def when_two_have_done_an_epoch(process: subprocess.Popen[str], act: Callable[[], None]) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        runs = Run.below(FOLDER) if FOLDER.exists() else []
        if len(runs) == 2 and all(run.epochs() for run in runs):
            return act()
        time.sleep(0.02)
    return None


def test_same_table_as_in_one_process(tiny: Tiny, command: Command, launcher: str) -> None:
    grid = ("-m", "model=mlp", "optimizer.lr=0.001,0.01", "seed=0,1", "trainer.max_epochs=1")
    status, out = run(tiny, *grid, "sweep=s", launcher)
    assert status == 0, out
    assert "Warning" not in out
    before = torch.get_num_threads()
    try:
        assert command(*grid, "sweep=t", "threads=1").status == 0
    finally:
        torch.set_num_threads(before)
    apart, one = (json.loads((FOLDER.with_name(name) / "results.json").read_text()) for name in ("s", "t"))
    for results in (apart, one):
        for job in (*results["jobs"], *results["ranked"], results["best"]):
            job.pop("seconds", None)
        del results["sweep"], results["command"]
    assert apart == one
    assert len(one["jobs"]) == 4
    assert {run.info["device"] for run in Run.below(FOLDER)} == {"cpu, 1 thread"}


def test_halving_makes_the_same_choices_as_in_one_process(tiny: Tiny, command: Command, launcher: str) -> None:
    given = ("-m", "hydra/sweeper=halving", "model=mlp", "optimizer.lr=0.001,0.01,0.05", "trainer.max_epochs=3")
    status, out = run(tiny, *given, "sweep=s", launcher)
    assert status == 0, out
    before = torch.get_num_threads()
    try:
        assert command(*given, "sweep=t", "threads=1").status == 0
    finally:
        torch.set_num_threads(before)
    found, here = (
        [(job.overrides, job.state, job.info["metrics"]) for job in Sweep(folder).jobs()]
        for folder in (FOLDER, FOLDER.with_name("t"))
    )
    assert found == here
    assert sorted(state for _, state, _ in found) == ["finished", "paused", "paused"]


def test_job_whose_process_dies_is_failed_and_the_others_run(tiny: Tiny, launcher: str) -> None:
    once = ["hydra.launcher.ray.remote.max_retries=0"] if launcher.endswith("ray") else []
    dies = "+callbacks.dies._target_=test_launchers.Dies"
    status, out = run(tiny, "-m", "model=mlp", "seed=0,1,2", "sweep=s", dies, launcher, *once)
    assert status == 1
    assert "Traceback" not in out, out
    assert [job.state for job in Sweep(FOLDER).jobs()] == ["finished", "failed", "finished"]
    assert "1 of 3 jobs failed" in out and "its process died" in out, out


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_lets_every_job_save(tiny: Tiny, launcher: str, sent: signal.Signals, status: int) -> None:
    """Ctrl-C as a terminal sends it: to every process."""

    def stop(process: subprocess.Popen[str]) -> None:
        send = os.killpg if sent == signal.SIGINT else os.kill
        when_two_have_done_an_epoch(process, lambda: send(process.pid, sent))

    ended, out = run(tiny, *LONG, launcher, then=stop)
    assert ended == status, out
    assert "Traceback" not in out, out
    jobs = Sweep(FOLDER).jobs()
    assert [job.state for job in jobs] == ["interrupted", "interrupted"]
    assert {job.info["status"] for job in jobs} == {"interrupted"}  # told by the jobs themselves, which have saved
    assert all(job.info["steps"] > 0 for job in jobs)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["submitit_local"], indirect=True)
def test_job_that_is_preempted_saves_and_continues_in_a_new_process(
    tiny: Tiny, command: Command, launcher: str
) -> None:
    def preempt(process: subprocess.Popen[str]) -> None:
        job = Sweep(FOLDER).jobs
        when_two_have_done_an_epoch(process, lambda: os.kill(job()[1].process["pid"], signal.SIGUSR2))

    status, out = run(tiny, *LONG, launcher, then=preempt)
    assert status == 0, out
    whole, preempted = Sweep(FOLDER).jobs()
    assert (whole.attempts, preempted.attempts) == (1, 2)
    assert [len(Run(job.folder).epochs()) for job in (whole, preempted)] == [150, 150]
    assert command("model=mlp", "seed=1", "trainer.max_epochs=150", "logger=csv", "threads=1").status == 0
    assert Run.find("latest").info["metrics"] == preempted.info["metrics"]


@pytest.mark.parametrize(
    ("name", "settings", "at_once", "of_a_job", "room"),
    [
        ("submitit_local", {}, processors(), 1, "hydra.launcher.cpus_per_task"),
        ("submitit_local", {"cpus_per_task": processors()}, 1, processors(), "hydra.launcher.cpus_per_task"),
        ("submitit_slurm", {"cpus_per_task": 8, "array_parallelism": 5}, 5, 8, None),
        ("ray", {"ray.init.num_cpus": 6, "ray.remote.num_cpus": 2}, 3, 2, "hydra.launcher.ray.init.num_cpus"),
        ("ray", {"ray.init.address": "auto"}, processors(), 1, None),
    ],
)
def test_jobs_at_once_and_their_threads_are_those_the_launcher_is_asked_for(
    name: str, settings: dict[str, Any], at_once: int, of_a_job: int, room: str | None
) -> None:
    pytest.importorskip(name.split("_")[0])
    overrides = [f"hydra/launcher={name}", *(f"hydra.launcher.{key}={value}" for key, value in settings.items())]
    launcher = make_launcher(compose_with_hydra(overrides, sweep=True).hydra)
    assert (launcher.at_once, launcher.threads, launcher.memory_key) == (at_once, of_a_job, room)
