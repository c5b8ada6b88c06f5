"""A callback by which jobs wait for the test that stops them."""

import time
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lab.training.checkpointing import SaveWithinEpochs
from mnist_lab.training.multistep import find_callbacks


class Waits(Callback):
    """From their second epoch on, jobs of these seeds wait at an epoch's end until a signal ends them.

    They leave the file `waiting-SEED` in the current folder. While it is there, they do not wait again.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = seeds

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seed = trainer.datamodule.seed  # type: ignore[attr-defined]
        if seed in self.seeds and trainer.current_epoch >= 1 and not waiting(seed):
            Path(f"waiting-{seed}").touch()
            saves = find_callbacks(trainer, SaveWithinEpochs)
            while not any(callback.stop for callback in saves):  # a signal waits for the end of the step
                time.sleep(0.02)


def waiting(*seeds: int) -> bool:
    """Whether the jobs of all these seeds wait, or have waited."""
    return all(Path(f"waiting-{seed}").exists() for seed in seeds)
