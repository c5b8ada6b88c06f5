"""A callback of your own: one class here, one file in conf/callbacks/."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn.utils import get_total_norm


class WeightNorm(Callback):
    """Log the Euclidean norm of all weights after each epoch: a column of metrics.csv, a chart in TensorBoard."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.log("weight_norm", get_total_norm([weight.detach() for weight in pl_module.parameters()]))
