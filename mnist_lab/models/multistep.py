"""Several optimizer steps in one call of Lightning's loop, whose own cost is that of a small network's step.

The idea is Keras' steps_per_execution. The steps and their order are the same, and so are weights and checkpoints, to
the last bit, whatever the size of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from mnist_lab.data.batches import Batch, Batches, Group, Groups
from mnist_lab.models.lightning_private import count_logged_step

if TYPE_CHECKING:
    from mnist_lab.models.classifier import Classifier

HOOKS = (  # that Lightning calls at every step
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)
# Takes the optimizer steps of a group, and yields the loss of each, (), once it is taken.
Stepper = Callable[["Classifier", Group], Iterator[Tensor]]
MODEL_HOOKS = (*HOOKS, "training_step", "backward", "optimizer_step", "optimizer_zero_grad", "on_before_batch_transfer")


def training_batches(trainer: pl.Trainer) -> Batches:
    """Return the batches of the current epoch."""
    loader = trainer.train_dataloader
    assert isinstance(loader, Batches | Groups)
    return loader.batches if isinstance(loader, Groups) else loader


class StepCallback(pl.Callback):
    """A callback that is called after every optimizer step, also within a group.

    Attributes:
        needs_weights: whether `after_step` needs the weights as they are after its step; without them, steps of a group
            may be taken before it is called for the first of them.
    """

    needs_weights = True

    def after_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int, loss: Tensor) -> None:
        """Act after a step.

        Args:
            trainer: Lightning's Trainer.
            pl_module: the network.
            step: number of the step, counted from 1 over all epochs.
            loss: mean loss of its batch, ().
        """

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.after_step(trainer, pl_module, trainer.global_step, outputs["loss"])


def single_step_reason(
    trainer: pl.Trainer, model: pl.LightningModule, classifier: type[pl.LightningModule]
) -> str | None:
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
        wanted[f"{type(model).__name__}.{hook}"] = getattr(type(model), hook) is not getattr(classifier, hook)
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        # A ModelCheckpoint has one of three intervals: epochs, steps or seconds.
        saves_at_epoch_ends = type(callback) is ModelCheckpoint and bool(callback.every_n_epochs)
        if not (saves_at_epoch_ends or isinstance(callback, StepCallback)):
            for hook in HOOKS:
                overridden = getattr(type(callback), hook) is not getattr(pl.Callback, hook)
                wanted[f"{type(callback).__name__}.{hook}"] = overridden
    return next((name for name, is_wanted in wanted.items() if is_wanted), None)


def run_leading_steps(group: Group, model: Classifier) -> Batch:
    """Take all optimizer steps of a group but the last, which Lightning takes.

    Args:
        group: the batches.
        model: the network.

    Returns:
        The last batch.
    """
    trainer = model.trainer
    loop = trainer.fit_loop.epoch_loop
    progress = loop.automatic_optimization.optim_progress.optimizer.step
    steps_scheduler = any(config.interval == "step" for config in trainer.lr_scheduler_configs)
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    step_callbacks = [callback for callback in callbacks if isinstance(callback, StepCallback)]
    last = len(group.steps)
    if trainer.max_steps != -1:
        last = min(last, trainer.max_steps - trainer.global_step)
    is_last_group, loop.batch_progress.is_last_batch = loop.batch_progress.is_last_batch, False
    for loss in model.take_steps(model, Group(group.batches, group.order, group.steps[: last - 1])):
        progress.increment_ready()
        progress.increment_completed()
        if steps_scheduler:
            loop.update_lr_schedulers("step", update_plateau_schedulers=False)
        for callback in step_callbacks:
            callback.after_step(trainer, model, progress.total.completed, loss)
        count_logged_step(trainer)
    loop.batch_progress.is_last_batch = is_last_group
    return group.batch(group.steps[last - 1])


def eager_steps(model: Classifier, group: Group) -> Iterator[Tensor]:
    """Take the steps of a group one operation after the other, as Lightning does."""
    optimizer = model.trainer.optimizers[0]
    parameters = [parameter for settings in optimizer.param_groups for parameter in settings["params"]]
    # Lightning leaves the forward pass's autocast, which keeps no cast weights, before it goes backward.
    autocast = model.trainer.precision != "32-true"
    full_precision = torch.autocast(model.device.type, enabled=False) if autocast else nullcontext()
    for batch in group:
        loss = model.training_loss(batch)
        for parameter in parameters:  # what optimizer.zero_grad() does, in a fraction of its time
            parameter.grad = None
        with full_precision:
            loss.backward()  # type: ignore[no-untyped-call]
        model.on_before_optimizer_step(optimizer)
        optimizer.step()
        yield loss.detach()


def progress_to_steps(loops: dict[str, Any], batches: Batches) -> None:
    """Convert the progress of a checkpoint's loops from groups to steps, before it is saved."""
    fit = loops["fit_loop"]
    progress, optimizer = fit["epoch_loop.batch_progress"], fit["epoch_loop.automatic_optimization.optim_progress"]
    current, done = progress["current"], batches.position
    if current["ready"]:
        under_way = current["completed"] != current["ready"]
        current.update(ready=done, started=done, processed=done, completed=done - under_way)
        before = (fit["epoch_progress"]["current"]["ready"] - 1) * len(batches)
        progress["total"].update({name: count + before for name, count in current.items()})
    for part in ("total", "current"):
        taken = optimizer["optimizer"]["step"][part]
        taken["ready"] = taken["completed"]  # Lightning has started the group's last
        optimizer["optimizer"]["zero_grad"][part].update(taken, started=taken["completed"])


def progress_to_groups(loops: dict[str, Any], size: int) -> None:
    """Convert the progress of a checkpoint's loops from steps to groups of this size, after it is read."""
    progress = loops["fit_loop"]["epoch_loop.batch_progress"]
    current = progress["current"]
    if current["completed"] == current["ready"]:
        whole = -(-current["ready"] // size)
        current.update(ready=whole, started=whole, processed=whole, completed=whole)
    else:
        whole, within = divmod(current["ready"], size)
        started = whole + (within > 0)
        current.update(ready=started, started=started, processed=whole, completed=whole - (within == 0))
    progress["total"].update(current)  # what matters to Lightning is how they compare
