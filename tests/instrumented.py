"""Parts for runs of the tests: a network that notes its images, and ways to end a process within an epoch."""

import os
import signal
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mnist_lab.models.mlp import MLP
from mnist_lab.training.callbacks import StepLog


class Spy(MLP):
    """Notes the sum of each image's pixels, which identifies it, in the folder `seen` if there is one."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        sums = " ".join(str(float(image.double().sum())) for image in batch[0])
        if Path("seen").is_dir():
            Path("seen", f"{self.trainer.current_epoch}-{self.trainer.global_rank}-{batch_idx}").write_text(sums)
        return super().training_step(batch, batch_idx)


def assert_each_image_is_seen_once_an_epoch(epochs: int, images: int) -> None:
    """Check what `Spy` has noted in a run of two processes."""
    for epoch in range(epochs):
        files = list(Path("seen").glob(f"{epoch}-*"))
        assert {path.name.split("-")[1] for path in files} == {"0", "1"}
        counts = Counter(word for path in files for word in path.read_text().split())
        assert len(counts) == images and set(counts.values()) == {1}


class KillProcess(Callback):
    """Kills one process in the middle of an epoch, as kill -9 does, and touches the file `killed`.

    Args:
        rank: its rank.
        epoch: the epoch, from 0.
        seed: the seed of the run in which it does so; None for every run.
    """

    def __init__(self, rank: int, epoch: int = 1, seed: int | None = None) -> None:
        self.rank, self.epoch, self.seed = rank, epoch, seed

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        seed = trainer.datamodule.seed  # type: ignore[attr-defined]
        is_its_step = (trainer.global_rank, trainer.current_epoch, batch_idx) == (self.rank, self.epoch, 1)
        if is_its_step and self.seed in (None, seed):
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)


def program_signalled(number: int, after: int) -> None:
    """Run `python -m mnist_lab` in this process, which gets a signal after some steps of training."""
    from mnist_lab.__main__ import program

    after_step, steps = StepLog.after_step, count(1)

    def signal_after_step(self: StepLog, *args: Any) -> None:
        after_step(self, *args)
        if next(steps) == after:
            os.kill(os.getpid(), number)

    StepLog.after_step = signal_after_step  # type: ignore[method-assign]
    program()
