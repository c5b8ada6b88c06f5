"""The callbacks of a run, except those that save checkpoints and show progress."""

import random
import time
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.loggers import Logger
from pydantic import Field
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mnist_lab.config.metric_names import EXAMPLES_SEEN, IMAGES_PER_SECOND, LEARNING_RATE, TRAIN_LOSS_STEP
from mnist_lab.data.batches import limit_batches
from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.formatting import print_lines
from mnist_lab.models.classifier import Classifier
from mnist_lab.runs.checkpoints import read_checkpoint
from mnist_lab.runs.run import Run
from mnist_lab.training.loggers import MetricsCSV
from mnist_lab.training.multistep import StepCallback, find_callbacks, training_batches


class StepLog(StepCallback):
    """Logs loss and learning rate of some steps, and each epoch's last learning rate and images per second.

    Each row also has the number of training images seen so far, the tutorials' other axis. Losses are read only at
    logged steps and at the ends of epochs: reading waits for a GPU.
    """

    def __init__(self) -> None:
        self.images_before = self.images = 0  # Counts training images before this epoch, and in it.
        self.epoch_ended = False
        self.logged_before: dict[str, Tensor] = {}  # Lightning keeps an epoch's metrics until they are replaced.

    def state_dict(self) -> dict[str, int]:
        return {"seen_before": self.images_before, "images": self.images}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.images_before, self.images = state_dict["seen_before"], state_dict["images"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write every curve up to the checkpoint, so that a run that is killed after it loses no point."""
        for logger in trainer.loggers:
            if not isinstance(logger, MetricsCSV):
                logger.save()
                continue
            if self.epoch_ended:  # Lightning logs the epoch's metrics only after its checkpoint.
                metrics, before = trainer.logged_metrics, self.logged_before
                new = {name: float(value) for name, value in metrics.items() if value is not before.get(name)}
                logger.log_metrics({"epoch": trainer.current_epoch, **new}, step=trainer.global_step - 1)
            logger.write()
            checkpoint["metrics_crc"] = logger.checksum()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        self.optimizer, self.batches = trainer.optimizers[0], training_batches(trainer)
        self.lr = self.next_lr = self.optimizer.param_groups[0]["lr"]
        self.logged_before = {}
        self._start_timer()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.images_before, self.images = self.images_before + self.images, 0
        self.epoch_ended = False
        self.next_lr = self.optimizer.param_groups[0]["lr"]  # ReduceLROnPlateau moves after the last step.
        self.logged_before = dict(trainer.logged_metrics)
        self._start_timer()

    def after_step(self, trainer: Trainer, pl_module: LightningModule, step: int, loss: Tensor) -> None:
        self.images = self.batches.seen
        self.lr, self.next_lr = self.next_lr, self.optimizer.param_groups[0]["lr"]  # A scheduler has moved by now.
        if step % self.every == 0:
            assert isinstance(pl_module, Classifier)
            pl_module.check_losses()
            self._log(trainer, {TRAIN_LOSS_STEP: loss.item(), LEARNING_RATE: self.lr})
        self.ended = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        pl_module.check_losses()
        self.epoch_ended = True
        seconds = max(self.ended - self.started, 1e-9)  # Validation is over by now and does not count.
        pl_module.log(IMAGES_PER_SECOND, (self.images - self.untimed_images) / seconds)
        self._log(trainer, {LEARNING_RATE: self.lr})

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have a checkpoint that is saved after training log nothing: all metrics are logged by then."""
        self.epoch_ended = False

    def _start_timer(self) -> None:
        """Time the epoch from here; a run resumed within an epoch times the rest of it."""
        self.untimed_images = self.images
        self.started = self.ended = time.perf_counter()

    def _log(self, trainer: Trainer, values: dict[str, float]) -> None:
        axes = {"epoch": trainer.current_epoch, EXAMPLES_SEEN: self.images_before + self.images}
        for logger in trainer.loggers:
            logger.log_metrics(axes | values, step=trainer.global_step - 1)  # Lightning numbers steps from 0.


class RandomState(Callback):
    """Saves the random states of torch, NumPy and Python, so that a resumed run draws the same numbers."""

    def __init__(self) -> None:
        self.loaded: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        name, keys, *rest = np.random.get_state(legacy=True)
        return {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
            "numpy": (name, keys.tolist(), *rest),  # type: ignore[union-attr]
            "python": random.getstate(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._set(state_dict)  # An invalid state is refused here, while the checkpoint is restored.
        self.loaded = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.loaded:  # Starting has drawn numbers.
            self._set(self.loaded)

    def _set(self, state: dict[str, Any]) -> None:
        torch.set_rng_state(state["torch"])
        np.random.set_state(state["numpy"])
        random.setstate(state["python"])
        if len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])
        if state.get("mps") is not None and torch.backends.mps.is_available():
            torch.mps.set_rng_state(state["mps"])


class TestCurve(Callback):
    """Evaluates the test set after every epoch, as the tutorials do. It is for display only.

    Args:
        before_training: whether to evaluate it before training, too. That row of metrics.csv has epoch and step -1.
    """

    def __init__(self, *, before_training: bool = False) -> None:
        self.before_training = before_training
        self.before: dict[str, float] = {}
        self.loggers: list[Logger] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.before_training or trainer.global_step:
            return
        model = self._evaluate(trainer, pl_module)
        self.before = {f"test/{name}": value.item() for name, value in model.take_means(model.test_metrics).items()}
        for logger in trainer.loggers:
            logger.log_metrics({"epoch": -1, **self.before}, step=-1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._evaluate(trainer, pl_module).on_test_epoch_end()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do not log the final test: the curve has a point for each epoch already."""
        self.loggers = trainer.loggers
        trainer.loggers = [] if trainer.global_step else self.loggers

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.loggers = self.loggers

    @torch.no_grad()
    def _evaluate(self, trainer: Trainer, pl_module: LightningModule) -> Classifier:
        """Compute the network's test metrics; weights and random states do not change."""
        assert isinstance(pl_module, Classifier)
        averaging = find_callbacks(trainer, WeightAveraging)
        for callback in averaging:
            callback.on_validation_epoch_start(trainer, pl_module)  # The average takes the place of the weights.
        data: MNISTDataModule = trainer.datamodule  # type: ignore[attr-defined]
        data.setup("test")
        batches = data.test_dataloader()
        count = limit_batches(len(batches), trainer.limit_test_batches)
        precision = trainer.precision_plugin
        pl_module.eval()
        with precision.test_step_context():
            for i, batch in enumerate(islice(batches, count)):
                pl_module.test_step(precision.convert_input(batch), i)
        pl_module.train()
        for callback in averaging:
            callback.on_validation_epoch_end(trainer, pl_module)
        return pl_module


class ElapsedTime(Callback):
    """Counts the seconds of a run from the creation of this object, and saves them in each checkpoint.

    A resumed run continues from the count of its checkpoint; time after that checkpoint is dropped.
    """

    def __init__(self) -> None:
        self.earlier = {"total": 0.0, "fit": 0.0}
        self.started = time.perf_counter()
        self.fit_started = self.fit_seconds = 0.0

    def seconds(self) -> dict[str, float]:
        """Return the seconds of the run until now, in total and in fit."""
        now = time.perf_counter()
        fit = now - self.fit_started if self.fit_started else self.fit_seconds
        return {"total": self.earlier["total"] + now - self.started, "fit": self.earlier["fit"] + fit}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the seconds now, since the run may be killed later."""
        if trainer.is_global_zero:
            Run(Path(trainer.default_root_dir)).update(seconds=self.seconds())

    def state_dict(self) -> dict[str, float]:
        return self.seconds()

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.earlier = self.earlier | state_dict

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self.fit_started = time.perf_counter()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self.fit_seconds, self.fit_started = time.perf_counter() - self.fit_started, 0.0


class AveragedWeights(StepCallback, WeightAveraging):
    """Keeps an exponential moving average of the weights and of batch normalisation's statistics.

    Validation, test and the checkpoints' state_dict use the average; training continues with the weights themselves,
    which a checkpoint has as current_model_state. It is Lightning's WeightAveraging, also within a group of steps.

    Args:
        decay: the share of the old average that each step keeps; it reaches back about 1 / (1 - decay) steps. The n-th
            step keeps (1 + n) / (10 + n) where that is less, so that the first weights are soon forgotten.
    """

    def __init__(self, *, decay: Annotated[float, Field(gt=0, lt=1)] = 0.999) -> None:
        super().__init__(device="cpu")
        self.decay = decay

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the averages to the weights. Their count stays on the CPU: reading it there waits for no GPU."""
        assert self._average_model is not None
        self._average_model.module.to(pl_module.device)

    @torch.no_grad()
    def after_step(self, trainer: Trainer, pl_module: LightningModule, step: int, loss: Tensor) -> None:
        """Move the averages towards the weights, as AveragedModel does, which waits for a GPU."""
        averaged_model = self._average_model
        assert averaged_model is not None
        if step <= self._latest_update_step:
            return
        steps, averaged, current = averaged_model.n_averaged, [], []
        values = ((*network.parameters(), *network.buffers()) for network in (averaged_model.module, pl_module))
        for average, value in zip(*values, strict=True):
            if steps and average.is_floating_point():
                averaged.append(average)
                current.append(value)
            else:  # The first weights, and batch normalisation's count of its batches.
                average.copy_(value)
        if averaged:
            change = 1 - ((1 + steps) / (10 + steps)).clamp(max=self.decay)
            move = get_ema_multi_avg_fn(1 - change.item())  # type: ignore[no-untyped-call]
            move(averaged, current, steps)
        averaged_model.n_averaged += 1
        self._latest_update_step = step


class PauseAfter(Callback):
    """Ends training after an epoch that is not the last. The run is not tested, and `train` records it as paused.

    Args:
        epochs: the number of epochs after which the run pauses; a run of so many epochs or fewer is not paused.
    """

    def __init__(self, *, epochs: Annotated[int, Field(ge=1)]) -> None:
        self.epochs = epochs
        self.has_paused = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pause at once if the run was killed after its pause, before that was recorded."""
        self._pause(trainer, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pause(trainer, trainer.current_epoch + 1)

    def _pause(self, trainer: Trainer, done: int) -> None:
        if self.epochs <= done < (trainer.max_epochs or 0) and not trainer.should_stop:
            self.has_paused = trainer.should_stop = True


class ReloadNetwork(Callback):
    """Clears network and optimizer after some epochs, and loads both from checkpoints/last.ckpt.

    Args:
        after: the number of epochs before that; less than trainer.max_epochs.
    """

    def __init__(self, *, after: Annotated[int, Field(ge=1)]) -> None:
        self.after = after

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch != self.after:
            return
        checkpoint = read_checkpoint(Run(Path(trainer.default_root_dir)).checkpoint_path("last"))
        with torch.no_grad():
            for parameter in pl_module.parameters():
                parameter.zero_()  # Training continues from the file alone.
        pl_module.load_state_dict(checkpoint.get("current_model_state", checkpoint["state_dict"]))
        trainer.optimizers[0].load_state_dict(checkpoint["optimizer_states"][0])
        if trainer.is_global_zero:
            print_lines(f"saved after epoch {self.after}; network and optimizer are loaded from the file")
