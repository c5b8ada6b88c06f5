"""Callbacks with which jobs wait for a signal, stop or fail."""

import time
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lab.training.checkpointing import SaveWithinEpochs
from mnist_lab.training.multistep import find_callbacks


class Waits(Callback):
    """Makes jobs with these seeds wait at the end of their second epoch until a signal ends them.

    A job that waits leaves the file `waiting-SEED` in the current folder. While it exists, the job does not wait again.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = seeds

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seed = trainer.datamodule.seed  # type: ignore[attr-defined]
        if seed in self.seeds and trainer.current_epoch >= 1 and not waiting(seed):
            Path(f"waiting-{seed}").touch()
            saves = find_callbacks(trainer, SaveWithinEpochs)
            while not any(callback.stop for callback in saves):
                time.sleep(0.02)


def waiting(*seeds: int) -> bool:
    """Return whether the jobs with all these seeds wait, or have waited."""
    return all(Path(f"waiting-{seed}").exists() for seed in seeds)


class Stops(Callback):
    """Raises KeyboardInterrupt in epoch number `at`, counted over all jobs."""

    begun, at = 0, 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Stops.begun += 1
        if Stops.begun == Stops.at:
            raise KeyboardInterrupt


class FailsAbove(Callback):
    """Fails above a learning rate."""

    on = True

    def __init__(self, lr: float) -> None:
        self.lr = lr

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.on and trainer.optimizers[0].param_groups[0]["lr"] > self.lr:
            raise RuntimeError("too fast")
