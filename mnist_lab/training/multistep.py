"""Take several optimizer steps in one turn of Lightning's loop, which costs as much as a small network's step.

The idea is Keras' steps_per_execution. The data module hands Lightning groups of batches. `MultiStep` takes all steps
of a group except the last, which Lightning takes as always. Steps and their order do not depend on the size of the
groups, so weights and curves are the same to the last bit.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from mnist_lab.data.batches import Batches, Group, Groups
from mnist_lab.models.classifier import Classifier

# Hooks of callbacks and of the network that Lightning calls at every step: a user's own needs single steps.
HOOKS = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)
MODEL_HOOKS = (*HOOKS, "training_step", "backward", "optimizer_step", "optimizer_zero_grad", "on_before_batch_transfer")
AnyCallback = TypeVar("AnyCallback", bound=pl.Callback)


class StepCallback(pl.Callback):
    """A callback that is called after every optimizer step, also within a group."""

    def after_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int, loss: Tensor) -> None:
        """Act after a step, which is counted from 1 over all epochs; the loss, (), is the mean over its batch."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if has_stepped(trainer):
            self.after_step(trainer, pl_module, trainer.global_step, outputs["loss"])


def has_stepped(trainer: pl.Trainer) -> bool:
    """Return whether the optimizer has taken a step with the latest batch, and has not only accumulated gradients."""
    return trainer.is_last_batch or training_batches(trainer).position % trainer.accumulate_grad_batches == 0


def training_batches(trainer: pl.Trainer) -> Batches:
    """Return the batches of the current epoch."""
    loader = trainer.train_dataloader
    assert isinstance(loader, Batches | Groups)
    return loader.batches if isinstance(loader, Groups) else loader


def find_callbacks(trainer: pl.Trainer, kind: type[AnyCallback]) -> list[AnyCallback]:
    """Return the callbacks of a class, or derived from it."""
    return [callback for callback in trainer.callbacks if isinstance(callback, kind)]  # type: ignore[attr-defined]


class MultiStep(pl.Callback):
    """Takes all steps of each group except the last, which it leaves to Lightning, as it does single batches."""

    def __init__(self) -> None:
        self.max_steps: int | None = None  # the trainer's limit, which is lifted while a checkpoint is restored

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count a group in which the checkpoint was saved as not begun: Lightning begins it again."""
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
        own_steps, batch.steps = steps[:-1], steps[-1:]
        if 0 <= left < len(steps):
            # Training ends within the group. Lightning takes no step of it: Classifier.on_train_batch_start.
            own_steps, batch.steps = steps[:left], steps[:0]
            trainer._results.batch = None  # type: ignore[union-attr]  # Lightning would count the images of the group.
        progress = trainer.fit_loop.epoch_loop.batch_progress
        is_last_group = progress.is_last_batch
        progress.is_last_batch = False
        for step in own_steps:
            self._take_step(trainer, pl_module, batch.batch(step))
        progress.is_last_batch = is_last_group

    def _take_step(self, trainer: pl.Trainer, model: pl.LightningModule, batch: Any) -> None:
        """Take an optimizer step as Lightning does, and count it where Lightning counts its own steps."""
        assert isinstance(model, Classifier)
        (optimizer,) = trainer.optimizers
        with trainer.precision_plugin.train_step_context():
            loss = model.training_loss(batch)
        # The same as optimizer.zero_grad(), in a fraction of its time.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

        loop = trainer.fit_loop.epoch_loop
        progress = loop.automatic_optimization.optim_progress.optimizer.step
        progress.increment_ready()
        progress.increment_completed()
        loop.update_lr_schedulers("step", update_plateau_schedulers=False)
        for callback in find_callbacks(trainer, StepCallback):
            callback.after_step(trainer, model, trainer.global_step, loss.detach())
        # Lightning numbers the metrics of `self.log` by this count, not by trainer.global_step. There is no public way
        # to set it: a metric named "step" replaces it, but every user's network and callback would have to log that.
        loop._batches_that_stepped += 1

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["folder"] = os.path.realpath(trainer.default_root_dir)  # The run folder may be moved later.
        checkpoint["steps_per_execution"] = trainer.datamodule.steps_per_execution  # type: ignore[attr-defined]

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Replace the checkpoint's count of groups by one of steps, if the resumed run needs single steps."""
        # With a limit, Lightning would take a complete epoch for an incomplete one.
        self.max_steps = trainer.max_steps
        trainer.fit_loop.epoch_loop.max_steps = -1
        if checkpoint.get("steps_per_execution", 1) == trainer.datamodule.steps_per_execution:  # type: ignore[attr-defined]
            return
        loop = checkpoint["loops"]["fit_loop"]
        progress = loop["epoch_loop.batch_progress"]
        (loader,) = loop["state_dict"]["combined_loader"]
        steps = loader["position"]
        is_under_way = progress["current"]["completed"] < progress["current"]["ready"]
        progress["current"].update(ready=steps, started=steps, processed=steps, completed=steps - is_under_way)
        progress["total"].update(progress["current"])  # Lightning compares only counts of one kind with each other.


def choose_group_size(
    trainer: pl.Trainer, model: pl.LightningModule, configured: int, checkpoint: Mapping[str, Any] | None
) -> tuple[int, str]:
    """Return the number of steps in a group, and the reason if it is not the configured one.

    A resumed run keeps the size of its checkpoint; a checkpoint without a size was saved in single steps.
    """
    reason = single_step_reason(trainer, model)
    if reason is not None:
        return 1, f"for {reason}"
    if checkpoint is not None:
        return checkpoint.get("steps_per_execution", 1), "as in the checkpoint"
    return configured, ""


def single_step_reason(trainer: pl.Trainer, model: pl.LightningModule) -> str | None:
    """Return the setting, hook or callback that needs single steps in Lightning; None if steps can be grouped."""
    settings = {
        f"trainer.devices={trainer.world_size}": trainer.world_size > 1,
        f"trainer.precision={trainer.precision}": trainer.precision not in ("32-true", "bf16-mixed"),
        "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches > 1,
        "trainer.gradient_clip_val": bool(trainer.gradient_clip_val),
        "trainer.val_check_interval": trainer.val_check_interval != 1.0 or trainer.check_val_every_n_epoch is None,
        "trainer.overfit_batches": trainer.overfit_batches > 0,  # type: ignore[attr-defined]
    }
    reasons = [name for name, applies in settings.items() if applies]
    reasons += overridden_hooks(model, MODEL_HOOKS, Classifier)
    for callback in find_callbacks(trainer, pl.Callback):
        if isinstance(callback, StepCallback | MultiStep):
            continue
        # The hooks of a ModelCheckpoint do nothing unless its interval is in steps or seconds.
        saves_at_epoch_ends = isinstance(callback, ModelCheckpoint) and bool(callback.every_n_epochs)
        base = ModelCheckpoint if saves_at_epoch_ends else pl.Callback
        reasons += overridden_hooks(callback, HOOKS, base)
    return reasons[0] if reasons else None


def overridden_hooks(instance: object, hooks: Sequence[str], base: type) -> list[str]:
    """Return those hooks, as Class.hook, for which the class of an object has another method than its base."""
    kind = type(instance)
    return [f"{kind.__name__}.{hook}" for hook in hooks if getattr(kind, hook) is not getattr(base, hook)]
