"""Kill -9 of a parallel sweep leaves no process and loses nothing: a quick version of benchmarks.kills --sweep."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from disturbances import waiting
from lab import Command, Tiny, run, wait_for

from benchmarks.sweep_kills import results, session
from mnist_lab.runs.locks import holder_of
from mnist_lab.runs.sweep import Sweep

pytestmark = pytest.mark.slow
FOLDER = Path("runs/sweeps/s")


def test_a_killed_sweep_and_a_killed_worker_leave_no_process_and_lose_nothing(tiny: Tiny, command: Command) -> None:
    waits = "+callbacks.waits={_target_: disturbances.Waits, seeds: [0, 1]}"
    grid = ("-m", "model=mlp", "seed=0,1,2", "trainer.max_epochs=4", "logger=csv", "threads=1", "sweep=s", waits)
    parallel = ("hydra/launcher=processes", "hydra.launcher.n_jobs=2")
    leaders = []

    def kill(process: subprocess.Popen[str], *, worker: bool) -> None:
        leaders.append(process.pid)
        wait_for(lambda: waiting(0, 1), "two jobs that wait")
        holder = holder_of(next(job.folder for job in Sweep(FOLDER).jobs() if "seed=1" in job.overrides))
        os.kill(holder.pid if worker and holder else process.pid, signal.SIGKILL)

    status, _ = run(tiny, *grid, *parallel, then=lambda process: kill(process, worker=False))
    assert status == -signal.SIGKILL
    wait_for(lambda: not list(session(leaders[0])), "the ends of its processes")
    Path("waiting-1").unlink()
    status, out = run(tiny, *grid, *parallel, then=lambda process: kill(process, worker=True))
    assert (status, "Traceback" in out) == (0, False), out
    threads = torch.get_num_threads()
    try:
        assert command(*grid, "runs_dir=alone").status == 0
    finally:
        torch.set_num_threads(threads)
    assert results(Path("runs")) == results(Path("alone"))
