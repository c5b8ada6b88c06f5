"""Loss and accuracy of a set of images."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class LossAndAccuracy(Metric):
    """Mean loss and accuracy over all images of a set, not over batches; sums stay on the device."""

    full_state_update = False
    loss_sum: Tensor
    hits: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[Tensor, Tensor]] = []
        self.add_state("loss_sum", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("hits", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, scores: Tensor, labels: Tensor) -> None:
        """Take in one batch: its mean loss, () ; its scores, (B, 10); its classes, (B,)."""
        self.add(loss, scores, labels)
        self.count()

    def add(self, loss: Tensor, scores: Tensor, labels: Tensor) -> None:
        """As update, in a tenth of the time, for a training step; seal() comes before compute().

        torchmetrics' wrapper and the count of hits take as long as a small layer: the one is left out, the other is
        done for many batches at once.
        """
        self.loss_sum.add_(loss, alpha=len(labels))
        self.waiting.append((scores, labels))
        if len(self.waiting) == 50:
            self.count()

    def count(self) -> None:
        """Count the hits among what was added."""
        if self.waiting:
            scores, labels = map(torch.cat, zip(*self.waiting, strict=True))
            self.hits.add_((scores.argmax(1) == labels).sum())
            self.images.add_(len(labels))
            self.waiting.clear()

    def reset(self) -> None:
        """Forget all sums, and the batches that were added and not counted yet."""
        super().reset()
        self.waiting.clear()

    def seal(self) -> None:
        """Make what was added ready for compute()."""
        nothing = torch.zeros(0, device=self.images.device)
        self.update(torch.zeros_like(self.loss_sum), nothing.reshape(0, 10), nothing)

    def sums(self) -> dict[str, Tensor]:
        """What has been taken in so far, for a checkpoint within an epoch."""
        self.count()
        return {name: getattr(self, name).clone() for name in ("loss_sum", "hits", "images")}

    def go_on_from(self, sums: dict[str, Tensor]) -> None:
        """Take up sums of an earlier start."""
        for name, value in sums.items():
            getattr(self, name).copy_(value)

    def compute(self) -> dict[str, Tensor]:
        # In float64, where the device has it, so that 9,875 of 10,000 is 0.9875 and not 0.987500011920929.
        exact = torch.float32 if self.images.device.type == "mps" else torch.float64
        return {name: total.to(exact) / self.images for name, total in (("loss", self.loss_sum), ("acc", self.hits))}
