"""Checkpoints within an epoch: now and then, and when the run is told to stop."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Annotated, Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from pydantic import Field


class SaveWithinEpochs(Checkpoint):
    """Saves checkpoints/last.ckpt between two training steps: every so often, and on Ctrl-C and SIGTERM.

    A signal waits for the end of its step, so that what is saved is whole; a second Ctrl-C does not wait. Nothing is
    saved after an epoch's last step, before its validation: Lightning would leave the validation out on resume. The
    checkpoint of the epoch's end comes soon, and a run that is to stop stops there. A run of several processes stops
    at once, since each hears of a signal at a step of its own, and goes on from its last checkpoint.

    Args:
        every_n_train_steps: steps between two checkpoints; None for the epochs' ends alone.
        every_n_seconds: seconds between two checkpoints; None likewise.
    """

    def __init__(
        self,
        *,
        every_n_train_steps: Annotated[int, Field(ge=1)] | None = None,
        every_n_seconds: Annotated[float, Field(gt=0)] | None = None,
    ) -> None:
        self.every_n_train_steps, self.every_n_seconds = every_n_train_steps, every_n_seconds
        self.saved = time.monotonic()
        self.stop: BaseException | None = None
        self.before: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved = time.monotonic()
        alone = trainer.world_size == 1 and threading.current_thread() is threading.main_thread()
        if alone and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a shell's background
            self.before = signal.signal(signal.SIGINT, self._interrupted)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.stop is not None:
            raise self.stop

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._heed_sigterm(trainer)
        if trainer.is_last_batch or trainer.fit_loop.epoch_loop._should_accumulate():
            return  # accumulated gradients are in no checkpoint
        steps, seconds = self.every_n_train_steps, self.every_n_seconds
        due = steps is not None and trainer.global_step % steps == 0
        if seconds is not None:
            due |= bool(trainer.strategy.broadcast(time.monotonic() - self.saved >= seconds))
        if due or self.stop is not None:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt")
            self.saved = time.monotonic()
        if self.stop is not None:
            raise self.stop

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self._heed_sigterm(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore()

    def _interrupted(self, number: int, frame: Any) -> None:
        self.stop = KeyboardInterrupt()
        self._restore()  # the next one is not waited for

    def _heed_sigterm(self, trainer: Trainer) -> None:
        """Take over from Lightning, which would stop before the epoch's end is saved."""
        signals = trainer._signal_connector
        if signals.received_sigterm and trainer.world_size == 1:
            signals.received_sigterm = False
            self.stop = SIGTERMException()

    def _restore(self) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)
            self.before = None
