"""Sweeps of the tests of clusters: callbacks of their jobs, how the jobs stand, and what their results are to be."""

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
Then = Callable[[subprocess.Popen[str]], None]  # is done while the command runs


class Slow(Callback):
    """Each epoch takes a third of a second, and no processor."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        time.sleep(0.3)


class Dies(Callback):
    """The process of the job with seed 1 is killed whenever it trains, as by a kernel that is out of memory."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.datamodule.seed == 1:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)


def age_locks() -> None:
    """Let a minute pass for the locks that processes on other machines have left when they died."""
    for job in jobs():
        with contextlib.suppress(FileNotFoundError):
            os.utime(job.folder / HOLDER, (0, 0))


def jobs() -> list[Job]:
    return Sweep(FOLDER).jobs() if Sweep(FOLDER).exists else []


def train(count: int) -> Callable[[], bool]:
    """Return a function that tells whether at least `count` jobs are training, each past its second epoch."""
    return lambda: sum(len(Run(job.folder).epochs()) >= 2 for job in jobs() if job.state == "running") >= count


def while_training(count: int, act: Callable[[], object] | signal.Signals) -> Then:
    """Act, or send the sweep's process a signal, as soon as `count` of its jobs are training."""

    def then(process: subprocess.Popen[str]) -> None:
        watched = f"-{process.pid}-"
        wait_for(lambda: bool(jobs()) and watched in Sweep(FOLDER).record["start"], "the sweep", seconds=180)
        wait_for(train(count), f"{count} jobs that train", seconds=240)
        time.sleep(0.5)  # until the sweep heeds signals
        process.send_signal(act) if isinstance(act, signal.Signals) else act()

    return then


def swept(tiny: Tiny, engine: Any, *overrides: str, status: int = 0, then: Then | None = None) -> str:
    """Run a sweep on a cluster, which has to end with this status; return its output."""
    ended, out = run(tiny, "-m", "model=mlp", "logger=csv", "sweep=s", *engine.launcher, *overrides, then=then)
    assert (ended, "Traceback" in out) == (status, False), out
    return out


def same_as_undisturbed(command: Command, *changes: str) -> bool:
    """Whether the jobs' metrics are those of the same sweep in one process, bit for bit."""
    assert command("-m", "model=mlp", "logger=csv", "sweep=alone", "threads=1", *changes).status == 0
    alone = Sweep(FOLDER.with_name("alone")).jobs()
    return [job.info["metrics"] for job in jobs()] == [job.info["metrics"] for job in alone]
