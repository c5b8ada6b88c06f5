"""A callback of one preset, which loads its network from a saved file and continues to train it."""

from pathlib import Path
from typing import Annotated

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from pydantic import Field

from mnist_lab.runs.checkpoints import read_checkpoint
from mnist_lab.runs.run import Run
from mnist_lab.training.progress import console


class ReloadNetwork(Callback):
    """Clears network and optimizer after some epochs, and loads both from checkpoints/last.ckpt.

    Args:
        after: epochs after which it does so; fewer than trainer.max_epochs.
    """

    def __init__(self, *, after: Annotated[int, Field(ge=1)]) -> None:
        self.after = after

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch != self.after:
            return
        checkpoint = read_checkpoint(Run(Path(trainer.default_root_dir)).checkpoint_path("last"))
        with torch.no_grad():
            for parameter in pl_module.parameters():
                parameter.zero_()  # what follows comes from the file alone
        pl_module.load_state_dict(checkpoint.get("current_model_state", checkpoint["state_dict"]))
        trainer.optimizers[0].load_state_dict(checkpoint["optimizer_states"][0])
        if trainer.is_global_zero:
            loaded = "network and optimizer are loaded from the file"
            console.print(f"saved after epoch {self.after}; {loaded}", soft_wrap=True)
