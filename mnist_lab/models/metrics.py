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
        self.pending: list[tuple[Tensor, Tensor]] = []
        self.add_state("loss_sum", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("hits", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, scores: Tensor, labels: Tensor) -> None:
        """Add one batch.

        Args:
            loss: its mean loss, ().
            scores: logits or log-probabilities, (B, K).
            labels: the classes, (B,).
        """
        self.add(loss, scores, labels)
        self.flush()

    def add(self, loss: Tensor, scores: Tensor, labels: Tensor) -> None:
        """Do as update in a tenth of the time; call finalize() before compute().

        torchmetrics' wrapper and the count of hits take as long as a small layer: the one is left out, the other is
        done for many batches at once.
        """
        self.loss_sum.add_(loss, alpha=len(labels))
        self.pending.append((scores, labels))
        if len(self.pending) == 50:
            self.flush()

    def flush(self) -> None:
        """Count the hits of the pending batches."""
        if self.pending:
            scores, labels = map(torch.cat, zip(*self.pending, strict=True))
            self.hits.add_((scores.argmax(1) == labels).sum())
            self.images.add_(len(labels))
            self.pending.clear()

    def reset(self) -> None:
        """Reset all sums, and drop the pending batches."""
        super().reset()
        self.pending.clear()

    def finalize(self) -> None:
        """Prepare for compute() after add()."""
        self.flush()
        nothing = torch.zeros(0, device=self.images.device)
        self.update(torch.zeros_like(self.loss_sum), nothing.reshape(0, 1), nothing)

    def sums(self) -> dict[str, Tensor]:
        """Return the sums so far, for a checkpoint within an epoch."""
        self.flush()
        return {name: getattr(self, name).clone() for name in ("loss_sum", "hits", "images")}

    def load_sums(self, sums: dict[str, Tensor]) -> None:
        """Continue from the sums of a checkpoint."""
        for name, value in sums.items():
            getattr(self, name).copy_(value)

    def compute(self) -> dict[str, Tensor]:
        # In float64, where the device has it, so that 9,875 of 10,000 is 0.9875 and not 0.987500011920929.
        exact = torch.float32 if self.images.device.type == "mps" else torch.float64
        return {name: total.to(exact) / self.images for name, total in (("loss", self.loss_sum), ("acc", self.hits))}
