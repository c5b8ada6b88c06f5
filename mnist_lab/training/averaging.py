"""Average the weights over the steps of training; the average is what is validated, saved as the network and tested."""

from __future__ import annotations

from typing import Annotated

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from pydantic import Field
from torch import Tensor

from mnist_lab.models.multistep import StepCallback


class AveragedWeights(StepCallback, WeightAveraging):
    """Keeps an exponential moving average of the weights and of batch normalisation's statistics.

    Validation, test and the checkpoints' state_dict use the average; training continues with the weights themselves,
    which a checkpoint has as current_model_state. It is Lightning's WeightAveraging, also within a group of steps.

    Args:
        decay: of the average at each step: it reaches back about 1 / (1 - decay) steps. The n-th step has
            (1 + n) / (10 + n) where that is less, so that the first weights are soon forgotten.
    """

    def __init__(self, *, decay: Annotated[float, Field(gt=0, lt=1)] = 0.999) -> None:
        super().__init__(multi_avg_fn=self._average)
        self.decay = decay

    def after_step(self, trainer: Trainer, pl_module: LightningModule, step: int, loss: Tensor) -> None:
        WeightAveraging.on_train_batch_end(self, trainer, pl_module, None, None, 0)

    @torch.no_grad()
    def _average(self, averaged: list[Tensor], current: list[Tensor], steps: Tensor) -> None:
        """Move the averages, all of one type, towards the current values."""
        change = 1 - ((1 + steps) / (10 + steps)).clamp(max=self.decay)  # a tensor: reading it would wait for a GPU
        for mine, other in zip(averaged, current, strict=True):
            if mine.is_floating_point():
                mine.lerp_(other, change.to(mine))
            else:  # batch normalisation's count of batches
                mine.copy_(other)
