"""Pause a run after some of its epochs, to be continued later as if it had never stopped."""

from __future__ import annotations

from typing import Annotated

import lightning.pytorch as pl
from pydantic import Field


class PauseAfter(pl.Callback):
    """Ends training after an epoch that is not the last. The run is not tested, and `train` records it as paused.

    Args:
        epochs: after how many; a run that has as many or fewer in all is not paused.
    """

    def __init__(self, *, epochs: Annotated[int, Field(ge=1)]) -> None:
        self.epochs = epochs
        self.has_paused = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Pause a run at once that was killed between its pause and the record of it."""
        self._pause(trainer, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._pause(trainer, trainer.current_epoch + 1)

    def _pause(self, trainer: pl.Trainer, done: int) -> None:
        if self.epochs <= done < (trainer.max_epochs or 0) and not trainer.should_stop:
            self.has_paused = trainer.should_stop = True
