"""Classifier: what all networks share. It has the loss, the metrics and the optimizer, but no layers."""

import inspect
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from pydantic import Field
from torch import Tensor, nn

from mnist_lab.data.batches import Batch, Group
from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.errors import LabError
from mnist_lab.models.metrics import LossAndAccuracy, compute_means

if TYPE_CHECKING:
    from mnist_lab.models.deployed import Views
    from mnist_lab.training.distillation import Teacher

Width = Annotated[int, Field(ge=1)]  # channels of a layer
LOSSES: dict[str, Callable[..., Tensor]] = {"nll": F.nll_loss, "cross_entropy": F.cross_entropy}


class Classifier(LightningModule):
    """A network that classifies images, (B, 1, S, S), into K classes, and how it is trained and tested.

    A subclass is one architecture. It defines the layers, forward, and these two:

    Attributes:
        image_size: S, the side in pixels of the network's images; the data module resizes to it.
        loss: "nll" if forward returns log-probabilities, "cross_entropy" if it returns logits.

    Args:
        num_classes: K, which the data decide. A subclass without this argument is for ten classes.

    Training sets these from the configuration:

    Attributes:
        optimizer: makes an optimizer for parameters; None for a network that is only tested.
        label_smoothing: the share of each training label that is spread over all classes (Szegedy et al., "Rethinking
            the Inception Architecture for Computer Vision", 2016).
        class_weights: the weight of each class in the training loss, (K,); None if all are equal.
        teacher: the network from whose probabilities this one learns beside the labels; None for the labels alone.
        views: the views of an image over which validation, test and prediction average; None for the image alone.
        scheduler: makes a learning-rate scheduler for an optimizer, or None. One with a parameter steps_per_epoch gets
            it and steps after every optimizer step; any other steps once an epoch.
        scheduler_metric: the metric whose value the scheduler's step gets; None for a scheduler without one.
    """

    image_size: ClassVar[int] = 28
    loss: ClassVar[Literal["nll", "cross_entropy"]] = "cross_entropy"

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.optimizer: Callable[..., torch.optim.Optimizer] | None = None
        self.scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler] | None = None
        self.scheduler_metric: str | None = None
        self.label_smoothing = 0.0
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", None, persistent=False)  # Checkpoints do not need it.
        self.teacher: Teacher | None = None
        self.views: Views | None = None
        self.test_scores: list[Tensor] = []  # scores of the last test's batches, in this process
        self.unread_losses: list[tuple[int, Tensor]] = []  # Training losses on a GPU, each with the steps before it.
        self.train_metrics, self.val_metrics, self.test_metrics = (LossAndAccuracy() for _ in range(3))

    def on_train_batch_start(self, batch: Batch | Group, batch_idx: int) -> int | None:
        """End the epoch at a group without further steps, since training has ended within it."""
        return -1 if isinstance(batch, Group) and not batch.steps else None

    def training_step(self, batch: Batch | Group, batch_idx: int) -> Tensor:
        if isinstance(batch, Group):
            (batch,) = batch  # MultiStep has taken all steps but one.
        return self.training_loss(batch)

    def training_loss(self, batch: Batch) -> Tensor:
        """Return the loss, (), of a training batch, and add it to the training metrics.

        Raises:
            NotFinite: it is NaN or infinite. On a GPU `check_losses` finds it later.
        """
        images, labels = batch
        scores = self.scores(images)
        loss = self.objective(images, scores, labels)
        self.train_metrics.add(loss.detach(), scores.detach(), labels)
        if self.reads_every_loss:
            self._require_finite("training loss", loss.item())
        else:
            self.unread_losses.append((self.trainer.global_step, loss.detach()))
        return loss

    @property
    def reads_every_loss(self) -> bool:
        """Whether each training loss is read at once. Not on a GPU, where reading waits for the step."""
        return self.device.type == "cpu"

    def check_losses(self) -> None:
        """Raise NotFinite if a training loss that was not read yet is NaN or infinite."""
        unread, self.unread_losses = self.unread_losses, []
        if unread:
            steps, losses = zip(*unread, strict=True)
            for step, loss in zip(steps, torch.stack(losses).tolist(), strict=True):
                self._require_finite("training loss", loss, step)

    def _require_finite(self, name: str, loss: float, step: int | None = None) -> None:
        if not math.isfinite(loss):
            raise NotFinite(f"{self._place(step)}: the {name} is {loss}")

    def _place(self, step: int | None = None) -> str:
        return f"epoch {self.trainer.current_epoch + 1}, step {self.trainer.global_step if step is None else step}"

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, self.val_metrics)

    def on_test_start(self) -> None:
        self.test_scores = []

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self._evaluate(batch, self.test_metrics)
        if self.trainer.testing:  # TestCurve calls this outside of a test.
            self.test_scores.append(scores)

    def on_train_epoch_end(self) -> None:
        self._log("train", self.train_metrics)
        if self.scheduler_metric is not None:
            self._step_by_metric(self.scheduler_metric)

    def on_validation_epoch_end(self) -> None:
        loss = self._log("val", self.val_metrics)["loss"].item()
        self.check_losses()  # A training loss that is not finite makes the validation loss so.
        self._require_finite("validation loss", loss)

    def on_test_epoch_end(self) -> None:
        self._log("test", self.test_metrics)

    def _evaluate(self, batch: Batch, metrics: LossAndAccuracy) -> Tensor:
        """Return the scores, (B, K), of a batch, and add its loss to the metrics."""
        images, labels = batch
        scores = self.scores(images)
        metrics.add(self.loss_of(scores, labels).detach(), scores.detach(), labels)
        return scores

    def _log(self, prefix: str, metrics: LossAndAccuracy) -> dict[str, Tensor]:
        values = self.take_means(metrics)
        self.log_dict({f"{prefix}/{name}": value for name, value in values.items()})
        return values

    def take_means(self, metrics: LossAndAccuracy) -> dict[str, Tensor]:
        """Return the means over the images of all processes, and reset the metrics."""
        sums = self._sums_of_processes(metrics)
        metrics.reset()
        return compute_means(sums)

    def _sums_of_processes(self, metrics: LossAndAccuracy) -> dict[str, Tensor]:
        reduce = self.trainer.strategy.reduce
        return {name: reduce(value.to(self.device), reduce_op="sum") for name, value in metrics.sums().items()}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        if self.optimizer is None:
            return None
        # trainer.estimated_stepping_batches would make Lightning forget the loader's state on resume (issue 20550).
        data: MNISTDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        steps_per_epoch = math.ceil(len(data.train_batches()) / self.trainer.accumulate_grad_batches)
        optimizer, scheduler, interval = self.make_optimizer(self.parameters(), steps_per_epoch)
        if scheduler is None:
            return optimizer
        # Lightning would step one that follows a metric after the epoch's checkpoint, and a resumed run would miss it.
        frequency = 1 if self.scheduler_metric is None else sys.maxsize
        config = {"scheduler": scheduler, "interval": interval, "frequency": frequency, "reduce_on_plateau": False}
        return {"optimizer": optimizer, "lr_scheduler": config}  # type: ignore[return-value]

    def _step_by_metric(self, name: str) -> None:
        """Step the scheduler by the value of a metric, unless the epoch has no validation."""
        trainer = self.trainer
        if (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1):
            return
        if name in trainer.callback_metrics:
            trainer.lr_scheduler_configs[0].scheduler.step(trainer.callback_metrics[name])  # type: ignore[arg-type]
        elif trainer.global_step != trainer.max_steps:
            raise LabError(f"scheduler.monitor={name}: not logged; choose from {', '.join(trainer.callback_metrics)}")

    def make_optimizer(
        self, parameters: Iterable[nn.Parameter], steps_per_epoch: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler | None, str]:
        """Return an optimizer for the parameters, its scheduler, and when that steps: each "step" or "epoch"."""
        assert self.optimizer is not None
        optimizer = self.optimizer(parameters)
        if self.scheduler is None:
            return optimizer, None, "epoch"
        if "steps_per_epoch" in inspect.signature(self.scheduler).parameters:
            return optimizer, self.scheduler(optimizer, steps_per_epoch=steps_per_epoch), "step"
        return optimizer, self.scheduler(optimizer), "epoch"

    def scores(self, images: Tensor) -> Tensor:
        """Return scores of the kind that the loss needs, (B, K), for normalised images, (B, 1, S, S).

        In eval mode they are the logarithm of the mean of the views' probabilities, if there are views.
        """
        if self.training or self.views is None:
            scores: Tensor = self(images)
            return scores
        return log_mean_probability(torch.stack([self(view).log_softmax(1) for view in self.views(images)]))

    @torch.no_grad()
    def probabilities(self, images: Tensor, batch_size: int = 1000) -> Tensor:
        """Return class probabilities, (N, K), on the CPU, for normalised images, (N, 1, S, S).

        The network stays in eval mode.
        """
        self.eval()
        parameter = next(self.parameters())
        return _to_probabilities([self.scores(batch.to(parameter)) for batch in torch.split(images, batch_size)])

    def probabilities_of_test_set(self, images: Tensor) -> Tensor:
        """Return class probabilities of the test images, (N, K); those of the last test if it had all the images."""
        if sum(map(len, self.test_scores)) == len(images):
            return _to_probabilities(self.test_scores)
        return self.probabilities(images)

    def predict(self, images: Tensor) -> Tensor:
        """Return the most probable classes, (N,), for normalised images, (N, 1, S, S)."""
        return self.probabilities(images).argmax(1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a resumed run needs; loss or weights that are not finite are not saved, but raise NotFinite."""
        self.check_losses()
        if not torch.stack([parameter.isfinite().all() for parameter in self.parameters()]).all():
            raise NotFinite(f"{self._place()}: a step has made the weights NaN or infinite, and they were not saved")
        checkpoint["architecture"] = type(self).__name__
        checkpoint["train_metrics"] = self._sums_of_processes(self.train_metrics)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.trainer.is_global_zero and "train_metrics" in checkpoint:  # The sums are those of all processes.
            self.train_metrics.load_sums(checkpoint["train_metrics"])

    def objective(self, images: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, (), that training minimises: with label smoothing, class weights, and the teacher's part."""
        if self.class_weights is None:
            loss = self.loss_of(scores, labels, self.label_smoothing)
        else:
            # By the number of images and not by the sum of their weights, so that each counts the same in any batch.
            loss = (self.class_weights[labels] * self.loss_of(scores, labels, self.label_smoothing, "none")).mean()
        if self.teacher is None:
            return loss
        return self.teacher.total_loss(loss, images, scores)

    def loss_of(
        self, scores: Tensor, labels: Tensor, label_smoothing: float = 0.0, reduction: Literal["mean", "none"] = "mean"
    ) -> Tensor:
        """Return the mean loss, (), of scores, (B, K), for labels, (B,); with reduction "none" each image's, (B,)."""
        if label_smoothing:
            # The softmax of log-probabilities is the probabilities, so this is right for "nll", too.
            return F.cross_entropy(scores, labels, label_smoothing=label_smoothing, reduction=reduction)
        return LOSSES[self.loss](scores, labels, reduction=reduction)


class NotFinite(LabError):
    """The loss or the weights became NaN or infinite, and training stopped."""


def log_mean_probability(log_probabilities: Tensor) -> Tensor:
    """Return the logarithm, (B, K), of the mean over the N probabilities whose logarithms are given, (N, B, K)."""
    # log(mean(exp)) may be -inf.
    return log_probabilities.logsumexp(0) - math.log(len(log_probabilities))


def _to_probabilities(scores: Sequence[Tensor]) -> Tensor:
    """Return the probabilities, (N, K), on the CPU, of batches of logits or log-probabilities."""
    return torch.cat([batch.float() for batch in scores]).softmax(1).cpu()
