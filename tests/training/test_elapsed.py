"""The seconds of a run that was killed or interrupted, and continued."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from lab import Outcome, Tiny, run
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lab.runs.checkpoints import read_checkpoint
from mnist_lab.runs.run import Run
from mnist_lab.training.callbacks import ElapsedTime

FIT: Any = (None, None, "fit")  # what Lightning gives a hook; the trainer and the network do not matter


class SlowFirstEpoch(Callback):
    """Makes the first epoch last four seconds."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 0:
            time.sleep(4)


@pytest.mark.slow
def test_seconds_of_a_killed_run_count_when_it_is_resumed(tiny: Tiny, command: Callable[..., Outcome]) -> None:
    slow = "+callbacks.slow._target_=test_elapsed.SlowFirstEpoch"
    status, out = run(tiny, "model=mlp", slow, "+callbacks.kill={_target_: instrumented.KillProcess, rank: 0}")
    assert status == -signal.SIGKILL, out
    (killed,) = Run.below("runs")
    saved = read_checkpoint(killed.checkpoint_path("last"))["callbacks"]["ElapsedTime"]
    assert saved["total"] > saved["fit"] > 4
    assert command("resume=latest", "~callbacks.kill", data=False).status == 0
    seconds = killed.info["seconds"]
    assert seconds["total"] > saved["total"]
    assert seconds["fit"] > saved["fit"]


def test_seconds_continue_from_those_of_the_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    first = ElapsedTime()
    clock[0] += 1
    first.setup(*FIT)
    clock[0] += 10
    saved = first.state_dict()
    assert saved == {"total": 11, "fit": 10}
    clock[0] += 1000  # lost with the process
    resumed = ElapsedTime()
    resumed.load_state_dict(saved)
    resumed.setup(*FIT)
    clock[0] += 5
    resumed.teardown(*FIT)
    clock[0] += 2
    assert resumed.seconds() == {"total": 18, "fit": 15}
