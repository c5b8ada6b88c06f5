"""Kill -9 of a sweep side by side leaves no process and loses nothing: a quick version of benchmarks.kills --sweep."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lab import Outcome, Tiny, run

from benchmarks.sweep_kills import results, session
from mnist_lab.runs.locks import holder_of
from mnist_lab.runs.sweep import Sweep

pytestmark = pytest.mark.slow
FOLDER = Path("runs/sweeps/s")


def kill_when_it_trains(process: subprocess.Popen[str], worker: bool) -> None:
    """Kill a sweep's process, or one of its workers, when one of its jobs has done two epochs."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        jobs = Sweep(FOLDER).jobs() if (FOLDER / "sweep.json").exists() else []
        holders = [holder_of(job.folder) for job in jobs if job.state == "running" and len(job.epochs) >= 2]
        with contextlib.suppress(ProcessLookupError):  # the one of the start before
            for holder in filter(None, holders):
                os.kill(holder.pid if worker else process.pid, signal.SIGKILL)
                return
        time.sleep(0.05)


def test_a_killed_sweep_and_a_killed_worker_leave_no_process_and_lose_nothing(
    tiny: Tiny, command: Callable[..., Outcome]
) -> None:
    grid = ("-m", "model=mlp", "seed=0,1,2", "trainer.max_epochs=60", "logger=csv", "threads=1", "sweep=s")
    side_by_side = ("hydra/launcher=processes", "hydra.launcher.n_jobs=2")
    leaders = []

    def kill(process: subprocess.Popen[str], *, worker: bool) -> None:
        leaders.append(process.pid)
        kill_when_it_trains(process, worker)

    status, _ = run(tiny, *grid, *side_by_side, then=lambda process: kill(process, worker=False))
    assert status == -signal.SIGKILL
    until = time.monotonic() + 60
    while time.monotonic() < until and list(session(leaders[0])):
        time.sleep(0.1)
    assert list(session(leaders[0])) == []
    status, out = run(tiny, *grid, *side_by_side, then=lambda process: kill(process, worker=True))
    assert (status, "Traceback" in out) == (0, False), out
    threads = torch.get_num_threads()
    try:
        assert command(*grid, "runs_dir=alone").status == 0
    finally:
        torch.set_num_threads(threads)
    assert results(Path("runs")) == results(Path("alone"))
