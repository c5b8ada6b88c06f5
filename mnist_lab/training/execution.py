"""Choose how a run's steps are taken: operation by operation, as a compiled graph, or with those of other runs."""

from __future__ import annotations

from typing import Literal

import lightning.pytorch as pl
import torch

from mnist_lab.data.batches import Groups
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.compiled import CompiledSteps, compile_obstacle
from mnist_lab.models.multistep import training_batches
from mnist_lab.models.stacked import network_obstacle
from mnist_lab.training.progress import console
from mnist_lab.training.stacked_runs import StackedRun, stacked_steps

STEPS_WORTH_COMPILING = 150_000  # an empty cache costs the time that so many save: docs/results/benchmarks.md


class Execution(pl.Callback):
    """Chooses what takes a run's steps, before its first one.

    Args:
        compile: whether each step is compiled; "auto": where that is faster, which is a long run of a network of linear
            layers on a CPU. The choice follows from the settings alone, and so do a run's weights.
    """

    def __init__(self, compile: bool | Literal["auto"]) -> None:
        self.compile = compile
        self.name: Literal["eager", "compiled", "stacked"] = "eager"
        self.compiled: CompiledSteps | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        if StackedRun.current.get() is not None:
            self.name, pl_module.take_steps = "stacked", stacked_steps
        elif self.compile and (self.compile is True or _is_faster_compiled(trainer, pl_module)):
            grouped = isinstance(trainer.train_dataloader, Groups)
            obstacle = compile_obstacle(pl_module) if grouped else "single steps"
            if obstacle is None:
                torch.compiler.reset()  # torch compiles one function for at most eight networks of a process
                self.name, self.compiled = "compiled", CompiledSteps()
                pl_module.take_steps = self.compiled
            elif self.compile is True:
                console.print(f"compile=false, for {obstacle}", soft_wrap=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.__dict__.pop("take_steps", None)

    def describe(self) -> str:
        """Return how the steps were taken, for the run's record."""
        failure = self.compiled and self.compiled.failure
        return f"eager; not compiled: {failure}" if failure else self.name


def _is_faster_compiled(trainer: pl.Trainer, model: Classifier) -> bool:
    steps = len(training_batches(trainer)) * (trainer.max_epochs or 0)
    if trainer.max_steps != -1:
        steps = min(steps, trainer.max_steps)
    return network_obstacle(model) is None and steps >= STEPS_WORTH_COMPILING
