"""Save checkpoints within an epoch, at intervals and on Ctrl-C, SIGTERM and SIGHUP; check those that are resumed."""

import math
import signal
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from pydantic import Field
from torch import Tensor, nn

from mnist_lab.config.distributed import launched_process
from mnist_lab.config.metric_names import VAL_ACC, VAL_LOSS
from mnist_lab.errors import UsageError, handle_signals, ignore_repeated_hangup
from mnist_lab.models.classifier import Classifier
from mnist_lab.runs.run import Run
from mnist_lab.streams import stop_waiting_for_readers
from mnist_lab.training.multistep import StepCallback, find_callbacks, has_stepped

MAX_KEPT, SMALL = 10, 300_000  # epochs, and bytes of a network's weights, for SaveWithinEpochs(keep_small=True)
# These functions of Lightning restore a checkpoint within `fit`.
RESTORING = {"_restore_modules_and_callbacks", "restore_training_state", "_load_combined_loader_states"}


class Hangup(SIGTERMException):
    """SIGHUP: the terminal was closed; it ends a run as SIGTERM does."""


# SIGQUIT (Ctrl-\) is not among them: it ends a process that nothing else ends, at once and without saving.
STOP_SIGNALS: dict[int, type[BaseException]] = {
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGTERM: SIGTERMException,
    signal.SIGHUP: Hangup,
}


def stop_signal(error: BaseException) -> signal.Signals | None:
    """Return the signal that caused an exception, also if Lightning replaced KeyboardInterrupt by its own; or None."""
    numbers: dict[type, signal.Signals] = {kind: signal.Signals(number) for number, kind in STOP_SIGNALS.items()}
    return numbers.get(type(error)) or numbers.get(type(error.__context__))


def raise_stop_signals() -> AbstractContextManager[None]:
    """Turn SIGTERM and SIGHUP into exceptions within the block, as Python does with Ctrl-C."""
    return handle_signals(dict.fromkeys(STOP_SIGNALS.keys() - {signal.SIGINT}, _raise_stop_signal))


def _raise_stop_signal(number: int, frame: Any) -> None:
    ignore_repeated_hangup(number)
    raise STOP_SIGNALS[number]


class SaveWithinEpochs(StepCallback, Checkpoint):
    """Saves checkpoints/last.ckpt between two training steps: at intervals, and on Ctrl-C, SIGTERM and SIGHUP.

    A signal waits for the end of its step, so that the checkpoint is consistent; a second Ctrl-C does not wait. Nothing
    is saved between an epoch's last step and its validation, which Lightning would skip on resume: a run that is to
    stop there stops after the epoch, whose checkpoint follows soon. A run of several processes stops at once, since
    each receives the signal at another step, and resumes from its last checkpoint. last.ckpt is also saved where
    trainer.max_steps or max_time ends training within an epoch.

    Args:
        every_n_train_steps: steps between two checkpoints; None for the ends of epochs only.
        every_n_seconds: seconds between two checkpoints; None for the ends of epochs only.
        every_n_epochs: epochs between two checkpoints that are kept, as epoch-1.ckpt and so on; None to keep none.
        keep_small: if every_n_epochs is None, keep up to ten epochs of a network whose weights take less than 300 kB.
    """

    def __init__(
        self,
        *,
        every_n_train_steps: Annotated[int, Field(ge=1)] | None = None,
        every_n_seconds: Annotated[float, Field(gt=0)] | None = None,
        every_n_epochs: Annotated[int, Field(ge=1)] | None = None,
        keep_small: bool = False,
    ) -> None:
        self.every_n_train_steps, self.every_n_seconds = every_n_train_steps, every_n_seconds
        self.every_n_epochs, self.keep_small = every_n_epochs, keep_small
        self.saved_time, self.saved_step = time.monotonic(), -1
        self.stop_is_postponed = False
        self.stop: BaseException | None = None
        self.handlers = ExitStack()  # Closing it restores the handlers of signals from before training.

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved_time = time.monotonic()
        epochs = trainer.max_epochs or 0
        if self.keep_small and self.every_n_epochs is None and epochs > 1:
            size = sum(tensor.nbytes for tensor in pl_module.state_dict().values())
            self.every_n_epochs = math.ceil(epochs / MAX_KEPT) if size < SMALL else None
        if trainer.world_size == 1:
            self.handlers.enter_context(handle_signals(dict.fromkeys(STOP_SIGNALS, self._stop_after_step)))
        elif launched_process():
            # Lightning's handler of SIGTERM must not run in launched processes: it broadcasts to the others, which may
            # be in another collective, and hangs. In processes that Lightning starts, it forwards the signal to them.
            self.handlers.enter_context(handle_signals({signal.SIGTERM: _raise_stop_signal}))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._raise_stop()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        # Accumulated gradients are in no checkpoint, so training stops only after a step of the optimizer.
        is_to_stop = trainer.should_stop or self.stop_is_postponed
        trainer.should_stop = is_to_stop and has_stepped(trainer)
        self.stop_is_postponed = is_to_stop and not trainer.should_stop
        super().on_train_batch_end(trainer, *args)

    def after_step(self, trainer: Trainer, pl_module: LightningModule, step: int, loss: Tensor) -> None:
        if trainer.is_last_batch:
            return
        is_due = self.stop is not None or step == trainer.max_steps
        is_due |= trainer.should_stop and trainer.fit_loop._can_stop_early
        is_due |= self.every_n_train_steps is not None and step % self.every_n_train_steps == 0
        if self.every_n_seconds is not None:
            is_due |= bool(trainer.strategy.broadcast(time.monotonic() - self.saved_time >= self.every_n_seconds))
        if is_due:
            trainer.save_checkpoint(Run(Path(trainer.default_root_dir)).checkpoint_path("last"))
            self.saved_time, self.saved_step = time.monotonic(), step
        self._raise_stop()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epochs = trainer.current_epoch + 1
        if self.every_n_epochs and epochs % self.every_n_epochs == 0 and self.saved_step != trainer.global_step:
            trainer.save_checkpoint(Run(Path(trainer.default_root_dir)).epoch_checkpoint_path(epochs))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.handlers.close()  # Lightning restores its own handlers after that.
        self._raise_stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.handlers.close()

    def _stop_after_step(self, number: int, frame: Any) -> None:
        """Handle a signal: have training stop, and save, at the end of the step."""
        ignore_repeated_hangup(number)  # This comes first: the next one may come within this handler.
        self.stop = STOP_SIGNALS[number]()
        stop_waiting_for_readers()
        self.handlers.close()  # The next Ctrl-C does not wait for the end of a step.

    def _raise_stop(self) -> None:
        if self.stop is not None:
            raise self.stop


class EpochCheckpoint(ModelCheckpoint):
    """Saves checkpoints/last.ckpt after every epoch or, with a monitor, checkpoints/best.ckpt after the best so far.

    Of epochs with the same value the one with the lower validation loss is the best, then the one with the higher
    validation accuracy, then the first. An epoch in which trainer.max_steps or max_time ends training is left to
    SaveWithinEpochs, since a resumed run completes it.

    Args:
        monitor: the metric; None to save every epoch.
        mode: min if its least value is the best, max if its greatest is.
    """

    def __init__(self, *, monitor: str | None = None, mode: Literal["min", "max"] | None = None) -> None:
        super().__init__(
            filename="best" if monitor else "last",
            monitor=monitor,
            mode=mode or "min",
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )
        self.tie_break = (math.inf, 0.0)  # validation loss and -accuracy of the best epoch

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.dirpath = str(Run(Path(trainer.default_root_dir)).checkpoints_folder)
        super().setup(trainer, pl_module, stage)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"tie_break": self.tie_break}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # The folder may have been moved, which a checkpoint of version 0.2.0 does not show.
        assert self.dirpath is not None
        path = str(Path(self.dirpath, f"{self.filename}.ckpt"))
        best = {path: state_dict["best_model_score"]} if state_dict["best_k_models"] else {}
        paths = {"best_model_path": path, "kth_best_model_path": path, "best_k_models": best}
        super().load_state_dict(state_dict | paths | {"dirpath": self.dirpath})
        self.tie_break = tuple(state_dict.get("tie_break", (-math.inf, 0.0)))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        savers = find_callbacks(trainer, SaveWithinEpochs)
        if all(saver.saved_step != trainer.global_step for saver in savers):
            super().on_train_epoch_end(trainer, pl_module)

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        metrics, best = trainer.callback_metrics, self.best_model_score
        tie_break = (float(metrics.get(VAL_LOSS, math.inf)), -float(metrics.get(VAL_ACC, 0)))
        is_tie = current is not None and best is not None and bool(current == best)
        is_best = super().check_monitor_top_k(trainer, current) or (is_tie and tie_break < self.tie_break)
        if is_best:
            self.tie_break = tie_break
        return is_best


def check_optimizer_state(checkpoint: Mapping[str, Any], model: Classifier, path: str) -> None:
    """Raise UsageError if a checkpoint's states of optimizer and scheduler do not fit the model's."""
    parameters = [nn.Parameter(torch.zeros_like(parameter)) for parameter in model.parameters()]
    optimizer, scheduler, _ = model.make_optimizer(parameters, steps_per_epoch=100)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    schedulers = [] if scheduler is None else [scheduler.state_dict()]
    expected = {"global_step": 0, "optimizer_states": [optimizer.state_dict()], "lr_schedulers": schedulers}
    found = _structure({key: checkpoint.get(key) for key in expected})
    for place, kind in _structure(expected).items():
        if place in found and found[place] != kind:
            raise UsageError(f"resume={path}: not a checkpoint of this run: {place[1:]} has another type or shape")
        if place not in found and ".state." not in place:  # A layer that is not used has no state.
            raise UsageError(f"resume={path}: not a checkpoint of this run: {place[1:]} is missing")


def _structure(state: Any, place: str = "") -> dict[str, object]:
    """Return types and shapes of the values in a nested state by their dotted keys; an integer may be a float."""
    if isinstance(state, Tensor):
        return {place: (state.shape, state.layout, state.is_meta, state.is_floating_point())}
    if not isinstance(state, dict | list | tuple):
        return {place: float if type(state) is int else type(state)}
    items = state.items() if isinstance(state, dict) else enumerate(state)
    return {key: kind for name, value in items for key, kind in _structure(value, f"{place}.{name}").items()}


@contextmanager
def explain_failed_restore(path: str) -> Iterator[None]:
    """Turn an error of Lightning or torch in restoring a checkpoint, but not one in training, into a UsageError."""
    try:
        yield
    except Exception as error:
        functions = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
        if functions.isdisjoint(RESTORING):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UsageError(f"resume={path}: not a checkpoint of this run: {reason}") from error
