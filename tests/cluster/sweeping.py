"""Sweeps on a cluster: callbacks for their jobs, and functions that run them, wait for them and compare them."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab import Command, Tiny, run, wait_for
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lab.runs.locks import HOLDER
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job, Sweep

FOLDER = Path("runs/sweeps/s")
SLOW = ("+callbacks.slow._target_=sweeping.Slow", "trainer.max_epochs=40")
DIES = "+callbacks.dies._target_=sweeping.Dies"
Then = Callable[[subprocess.Popen[str]], None]  # Acts on the sweep's process while it runs.


class Slow(Callback):
    """Makes each epoch 0.3 seconds longer, without use of the processor."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        time.sleep(0.3)


class Dies(Callback):
    """Kills the process of the job with seed 1 whenever it trains, as a kernel does that is out of memory."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.datamodule.seed == 1:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)


def age_locks() -> None:
    """Make the locks of dead processes on other machines look old enough to be broken."""
    for job in jobs():
        with contextlib.suppress(FileNotFoundError):
            os.utime(job.folder / HOLDER, (0, 0))


def jobs() -> list[Job]:
    """Return the jobs of the sweep; none before it has begun."""
    return Sweep(FOLDER).jobs() if Sweep(FOLDER).exists else []


def are_training(count: int) -> bool:
    """Return whether at least `count` jobs are training and have done two epochs."""
    return sum(len(Run(job.folder).epochs()) >= 2 for job in jobs() if job.state == "running") >= count


def while_training(count: int, act: Callable[[], object] | signal.Signals) -> Then:
    """Return a function that acts, or signals the sweep's process, as soon as `count` of its jobs are training."""

    def then(process: subprocess.Popen[str]) -> None:
        wait_for(lambda: jobs() and f"-{process.pid}-" in Sweep(FOLDER).record["start"], "the sweep", seconds=180)
        wait_for(lambda: are_training(count), f"{count} jobs that train", seconds=240)
        time.sleep(0.5)  # The sweep sets its signal handlers after its jobs have started.
        process.send_signal(act) if isinstance(act, signal.Signals) else act()

    return then


def swept(tiny: Tiny, engine: Any, *overrides: str, status: int = 0, then: Then | None = None) -> str:
    """Run a sweep on a cluster, check its exit status, and return its output."""
    ended, out = run(tiny, "-m", "model=mlp", "logger=csv", "sweep=s", *engine.launcher, *overrides, then=then)
    assert (ended, "Traceback" in out) == (status, False), out
    return out


def same_as_undisturbed(command: Command, *changes: str) -> bool:
    """Return whether the jobs have the metrics of the same sweep in one process, bit for bit."""
    assert command("-m", "model=mlp", "logger=csv", "sweep=alone", "threads=1", *changes).status == 0
    alone = Sweep(FOLDER.with_name("alone")).jobs()
    return [job.info["metrics"] for job in jobs()] == [job.info["metrics"] for job in alone]
