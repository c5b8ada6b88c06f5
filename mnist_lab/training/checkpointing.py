"""Save checkpoints within an epoch, at intervals and on Ctrl-C, SIGTERM and SIGHUP; check those that are resumed."""

import math
import signal
import threading
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
from mnist_lab.errors import UsageError
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.dummy_batch import trained_parameters
from mnist_lab.runs.run import Run
from mnist_lab.streams import stop_waiting_for_readers
from mnist_lab.training.multistep import StepCallback, all_callbacks, has_stepped

# Lightning's functions that restore a checkpoint within `fit`.
RESTORING = {"_restore_modules_and_callbacks", "restore_training_state", "_load_combined_loader_states"}


class Hangup(SIGTERMException):
    """SIGHUP: the terminal was closed; it ends a run as SIGTERM does."""


# SIGQUIT (Ctrl-\) ends a process at once, as everywhere: it is for one that does not end otherwise, and saves nothing.
STOP_SIGNALS: dict[int, type[BaseException]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SIGTERMException}
STOP_SIGNALS[signal.SIGHUP] = Hangup


def stop_signal(error: BaseException) -> signal.Signals | None:
    """Return the signal that an exception stands for, also where Lightning has made another exception of Ctrl-C."""
    numbers: dict[type, signal.Signals] = {kind: signal.Signals(number) for number, kind in STOP_SIGNALS.items()}
    return numbers.get(type(error)) or numbers.get(type(error.__context__))


def stop_signals_raise() -> AbstractContextManager[None]:
    """Turn SIGTERM and SIGHUP into exceptions within the block, as Python does with Ctrl-C."""
    return _handled(dict.fromkeys(STOP_SIGNALS.keys() - {signal.SIGINT}, _raise_stop_signal))


def sigterm_ignored() -> AbstractContextManager[None]:
    """Ignore SIGTERM within the block: a launcher sends it to the processes that are left when one has died."""
    return _handled({signal.SIGTERM: signal.SIG_IGN})


@contextmanager
def _handled(handlers: Mapping[int, Any]) -> Iterator[None]:
    """Have handlers for signals within the block. An ignored signal, such as SIGHUP under nohup, stays ignored."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not signal.SIG_IGN or handlers[number] is signal.SIG_IGN:
                signal.signal(number, handler or signal.SIG_DFL)


def _raise_stop_signal(number: int, frame: Any) -> None:
    _ignore_repeated_hangup(number)
    raise STOP_SIGNALS[number]


def _ignore_repeated_hangup(number: int) -> None:
    """Ignore SIGHUP from the first one on: the kernel, the shell and tmux may each send one."""
    if STOP_SIGNALS[number] is Hangup:
        signal.signal(number, signal.SIG_IGN)


class SaveWithinEpochs(StepCallback, Checkpoint):
    """Saves checkpoints/last.ckpt between two training steps: at intervals, and on Ctrl-C, SIGTERM and SIGHUP.

    A signal waits for the end of its step, so that the checkpoint is consistent; a second Ctrl-C does not wait. Nothing
    is saved after an epoch's last step, before its validation: Lightning would skip the validation on resume. The
    checkpoint of the epoch's end follows soon, and a run that is to stop stops there. A run of several processes stops
    at once, since each receives a signal at a step of its own, and resumes from its last checkpoint. It is saved as
    well where trainer.max_steps or max_time ends training within an epoch.

    Args:
        every_n_train_steps: steps between two checkpoints; None for the epochs' ends alone.
        every_n_seconds: seconds between two checkpoints; None likewise.
        every_n_epochs: epochs between two checkpoints that are kept, epoch-1.ckpt and so on; None for none.
    """

    def __init__(
        self,
        *,
        every_n_train_steps: Annotated[int, Field(ge=1)] | None = None,
        every_n_seconds: Annotated[float, Field(gt=0)] | None = None,
        every_n_epochs: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        self.every_n_train_steps, self.every_n_seconds = every_n_train_steps, every_n_seconds
        self.every_n_epochs = every_n_epochs
        self.saved, self.saved_step = time.monotonic(), -1
        self.postponed = False  # Training stops once no gradients are accumulated.
        self.stop: BaseException | None = None
        self.handlers = ExitStack()  # Closing it restores the handlers of signals from before training.

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved = time.monotonic()
        if trainer.world_size == 1:
            self.handlers.enter_context(_handled(dict.fromkeys(STOP_SIGNALS, self._signalled)))
        elif launched_process():
            # Where Lightning has started the processes, its handler of SIGTERM forwards it to them. For launched ones
            # that handler must not run: it broadcasts to the others, which may be in another collective, and hangs.
            self.handlers.enter_context(_handled({signal.SIGTERM: _raise_stop_signal}))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._raise_stop()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        # Accumulated gradients are in no checkpoint: what stops training waits for the optimizer's step.
        stops = trainer.should_stop or self.postponed
        trainer.should_stop = stops and has_stepped(trainer)
        self.postponed = stops and not trainer.should_stop
        super().on_train_batch_end(trainer, *args)

    def after_step(self, trainer: Trainer, pl_module: LightningModule, step: int, loss: Tensor) -> None:
        if trainer.is_last_batch:
            return
        due = self.stop is not None or step == trainer.max_steps
        due |= trainer.should_stop and trainer.fit_loop._can_stop_early
        due |= self.every_n_train_steps is not None and step % self.every_n_train_steps == 0
        if self.every_n_seconds is not None:
            due |= bool(trainer.strategy.broadcast(time.monotonic() - self.saved >= self.every_n_seconds))
        if due:
            trainer.save_checkpoint(Run(Path(trainer.default_root_dir)).checkpoint_path("last"))
            self.saved, self.saved_step = time.monotonic(), step
        self._raise_stop()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epochs = trainer.current_epoch + 1
        if self.every_n_epochs and epochs % self.every_n_epochs == 0 and self.saved_step != trainer.global_step:
            trainer.save_checkpoint(Run(Path(trainer.default_root_dir)).epoch_checkpoint_path(epochs))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.handlers.close()  # Lightning puts back its own after that.
        self._raise_stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.handlers.close()

    def _signalled(self, number: int, frame: Any) -> None:
        _ignore_repeated_hangup(number)  # The next one may come within this handler.
        self.stop = STOP_SIGNALS[number]()
        stop_waiting_for_readers()
        self.handlers.close()  # The next Ctrl-C does not wait for the end of a step.

    def _raise_stop(self) -> None:
        if self.stop is not None:
            raise self.stop


class EpochCheckpoint(ModelCheckpoint):
    """Saves checkpoints/last.ckpt after every epoch or, with a monitor, checkpoints/best.ckpt after the best so far.

    Of epochs with the same value that of the lower validation loss is the best, then that of the higher validation
    accuracy, then the first. An epoch in which trainer.max_steps or max_time ends training is left to SaveWithinEpochs,
    since a resumed run completes it.

    Args:
        monitor: the metric; None to save every epoch.
        mode: whether its least or its greatest value is the best: min or max.
    """

    def __init__(self, *, monitor: str | None = None, mode: Literal["min", "max"] | None = None) -> None:
        super().__init__(
            filename="best" if monitor else "last",
            monitor=monitor,
            mode=mode or "min",
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )
        self.tie_break = (math.inf, 0.0)  # The best epoch has these.

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.dirpath = str(Run(Path(trainer.default_root_dir)).checkpoints_folder)
        super().setup(trainer, pl_module, stage)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"tie_break": self.tie_break}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # A run of version 0.2.0 does not record its folder, which may have been moved.
        assert self.dirpath is not None
        path = str(Path(self.dirpath, f"{self.filename}.ckpt"))
        kept = dict.fromkeys(state_dict["best_k_models"] and [path], state_dict["best_model_score"])
        paths = {"best_model_path": path, "kth_best_model_path": path, "best_k_models": kept}
        super().load_state_dict(state_dict | paths | {"dirpath": self.dirpath})
        self.tie_break = tuple(state_dict.get("tie_break", (-math.inf, 0.0)))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        within = [callback for callback in all_callbacks(trainer) if isinstance(callback, SaveWithinEpochs)]
        if all(callback.saved_step != trainer.global_step for callback in within):
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
    """Raise UsageError if a checkpoint has other optimizer or scheduler states; `load_weights` checks its weights."""
    parameters = [nn.Parameter(torch.zeros_like(parameter)) for parameter in model.parameters()]
    for parameter, is_trained in zip(parameters, trained_parameters(model), strict=True):
        parameter.grad = torch.zeros_like(parameter) if is_trained else None
    optimizer, scheduler, _ = model.make_optimizer(parameters, steps_per_epoch=100)
    if checkpoint["global_step"]:
        optimizer.step()
    schedulers = [] if scheduler is None else [scheduler.state_dict()]
    expected = {"global_step": 0, "optimizer_states": [optimizer.state_dict()], "lr_schedulers": schedulers}
    found = _structure({key: checkpoint.get(key) for key in expected})
    for place, kind in _structure(expected).items():
        if found.get(place) != kind:
            reason = "has another type or shape" if place in found else "is missing"
            raise UsageError(f"resume={path}: not a checkpoint of this run: {place[1:]} {reason}")


def _structure(state: Any, place: str = "") -> dict[str, object]:
    """Return types and shapes of the values in a nested state by their dotted keys; an integer may be a float."""
    if isinstance(state, Tensor):
        return {place: (state.shape, state.layout, state.is_meta, state.is_floating_point())}
    if not isinstance(state, dict | list | tuple):
        return {place: float if type(state) is int else type(state)}
    items = state.items() if isinstance(state, dict) else enumerate(state)
    return {key: kind for name, value in items for key, kind in _structure(value, f"{place}.{name}").items()}


@contextmanager
def refused_restore_is_user_error(path: str) -> Iterator[None]:
    """Turn what Lightning and torch raise while they restore a checkpoint, and not in training, into a UsageError."""
    try:
        yield
    except Exception as error:
        if RESTORING.isdisjoint(frame.name for frame in traceback.extract_tb(error.__traceback__)):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UsageError(f"resume={path}: not a checkpoint of this run: {reason}") from error
