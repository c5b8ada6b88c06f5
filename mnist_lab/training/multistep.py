"""Take several optimizer steps in one turn of Lightning's loop, which costs as much as a small network's step.

The idea is Keras' steps_per_execution. The data module hands Lightning groups of batches. `MultiStep` takes all steps
of a group but the last, and Lightning takes that as always. The steps and their order are the same, and so are weights
and curves, to the last bit, whatever the size of a group.
"""

import os
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from mnist_lab.data.batches import Batches, Group, Groups
from mnist_lab.models.classifier import Classifier

# Lightning calls these hooks at every step, those of the callbacks and those of the network.
HOOKS = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)
MODEL_HOOKS = (*HOOKS, "training_step", "backward", "optimizer_step", "optimizer_zero_grad", "on_before_batch_transfer")


class StepCallback(pl.Callback):
    """A callback that is called after every optimizer step, also within a group."""

    def after_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int, loss: Tensor) -> None:
        """Act after a step, counted from 1 over all epochs, with the mean loss of its batch, ()."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if has_stepped(trainer):
            self.after_step(trainer, pl_module, trainer.global_step, outputs["loss"])


def has_stepped(trainer: pl.Trainer) -> bool:
    """Return whether the optimizer has taken a step with the latest batch, and does not accumulate gradients."""
    return trainer.is_last_batch or training_batches(trainer).position % trainer.accumulate_grad_batches == 0


def training_batches(trainer: pl.Trainer) -> Batches:
    """Return the batches of the current epoch."""
    loader = trainer.train_dataloader
    assert isinstance(loader, Batches | Groups)
    return loader.batches if isinstance(loader, Groups) else loader


def group_size(
    trainer: pl.Trainer, model: pl.LightningModule, configured: int, checkpoint: Mapping[str, Any] | None
) -> tuple[int, str]:
    """Return how many steps a group has, and what decides it if that is not the configuration.

    A resumed run keeps the size of its checkpoint; one without a size was saved in single steps.
    """
    reason = single_step_reason(trainer, model)
    if reason is not None:
        return 1, f"for {reason}"
    if checkpoint is not None:
        return checkpoint.get("steps_per_execution", 1), "as in the checkpoint"
    return configured, ""


def single_step_reason(trainer: pl.Trainer, model: pl.LightningModule) -> str | None:
    """Return the setting, hook or callback that needs single steps in Lightning; None if steps can be grouped."""
    wanted = {
        f"trainer.devices={trainer.world_size}": trainer.world_size > 1,
        f"trainer.precision={trainer.precision}": trainer.precision not in ("32-true", "bf16-mixed"),
        "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches > 1,
        "trainer.gradient_clip_val": bool(trainer.gradient_clip_val),
        "trainer.val_check_interval": trainer.val_check_interval != 1.0 or trainer.check_val_every_n_epoch is None,
        "trainer.overfit_batches": trainer.overfit_batches > 0,  # type: ignore[attr-defined]
    }
    for hook in MODEL_HOOKS:
        wanted[f"{type(model).__name__}.{hook}"] = getattr(type(model), hook) is not getattr(Classifier, hook)
    for callback in all_callbacks(trainer):
        # A ModelCheckpoint has one of three intervals: epochs, steps or seconds.
        saves_at_epoch_ends = isinstance(callback, ModelCheckpoint) and bool(callback.every_n_epochs)
        base = ModelCheckpoint if saves_at_epoch_ends else pl.Callback
        if not isinstance(callback, StepCallback | MultiStep):
            for hook in HOOKS:
                overridden = getattr(type(callback), hook) is not getattr(base, hook)
                wanted[f"{type(callback).__name__}.{hook}"] = overridden
    return next((name for name, is_wanted in wanted.items() if is_wanted), None)


def all_callbacks(trainer: pl.Trainer) -> list[pl.Callback]:
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks


class MultiStep(pl.Callback):
    """Takes the steps of each group but the last, which it leaves to Lightning; single batches it leaves alone."""

    max_steps: int | None = None  # of the trainer, while a checkpoint is restored

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count a group that was begun when the checkpoint was saved as not begun: Lightning begins it again."""
        if self.max_steps is not None:
            trainer.fit_loop.epoch_loop.max_steps = self.max_steps
        progress = trainer.fit_loop.epoch_loop.batch_progress.total
        progress.ready = progress.processed  # type: ignore[attr-defined]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if not isinstance(batch, Group):
            return
        steps, left = batch.steps, trainer.max_steps - trainer.global_step
        leading, batch.steps = steps[:-1], steps[-1:]
        if 0 <= left < len(steps):  # Training ends within the group: the network has Lightning take no step of it.
            leading, batch.steps = steps[:left], steps[:0]
            trainer._results.batch = None  # type: ignore[union-attr]  # Lightning would count its images
        loop = trainer.fit_loop.epoch_loop
        is_last_group, loop.batch_progress.is_last_batch = loop.batch_progress.is_last_batch, False
        for step in leading:
            self._take_step(trainer, pl_module, batch.batch(step))
        loop.batch_progress.is_last_batch = is_last_group

    def _take_step(self, trainer: pl.Trainer, model: pl.LightningModule, batch: Any) -> None:
        """Take an optimizer step as Lightning does, and count it where Lightning counts its own."""
        assert isinstance(model, Classifier)
        (optimizer,) = trainer.optimizers
        with trainer.precision_plugin.train_step_context():
            loss = model.training_loss(batch)
        for settings in optimizer.param_groups:  # what optimizer.zero_grad() does, in a fraction of its time
            for parameter in settings["params"]:
                parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

        loop = trainer.fit_loop.epoch_loop
        progress = loop.automatic_optimization.optim_progress.optimizer.step
        progress.increment_ready()
        progress.increment_completed()
        loop.update_lr_schedulers("step", update_plateau_schedulers=False)
        for callback in all_callbacks(trainer):
            if isinstance(callback, StepCallback):
                callback.after_step(trainer, model, trainer.global_step, loss.detach())
        # Lightning numbers what `self.log` logs by this count, not by trainer.global_step, and has no public way to set
        # it. A metric of the name "step" would replace it, but each user's network and callback would have to log it.
        loop._batches_that_stepped += 1

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["folder"] = os.path.realpath(trainer.default_root_dir)
        checkpoint["steps_per_execution"] = trainer.datamodule.steps_per_execution  # type: ignore[attr-defined]

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Count the epoch's steps in the place of its groups, where the resumed run needs single steps."""
        # With a limit Lightning would take an epoch that was complete for one that was not.
        self.max_steps, trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps, -1
        loop = checkpoint["loops"]["fit_loop"]
        if checkpoint.get("steps_per_execution", 1) == trainer.datamodule.steps_per_execution:  # type: ignore[attr-defined]
            return
        progress = loop["epoch_loop.batch_progress"]
        (loader,) = loop["state_dict"]["combined_loader"]
        is_under_way = progress["current"]["completed"] < progress["current"]["ready"]
        done = loader["position"]
        progress["current"].update(ready=done, started=done, processed=done, completed=done - is_under_way)
        progress["total"].update(progress["current"])  # Lightning only compares the counts of one kind with each other
