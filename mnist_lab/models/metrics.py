"""Mean loss, accuracy and balanced accuracy over a set of images."""

from collections.abc import Mapping

import torch
from torch import Tensor


class LossAndAccuracy:
    """Sums over a set: losses, hits and images, the last two for each class if `by_class`. They stay on the device."""

    def __init__(self) -> None:
        self.by_class = False
        self.reset()

    def reset(self) -> None:
        self.loss_sum, self.hits, self.images = torch.tensor(0.0), torch.tensor(0), torch.tensor(0)
        self.pending: list[tuple[Tensor, Tensor]] = []

    def add(self, loss: Tensor, scores: Tensor, labels: Tensor) -> None:
        """Add a batch: its mean loss, (), logits or log-probabilities, (B, K), and classes, (B,)."""
        self.loss_sum = torch.add(self.loss_sum, loss, alpha=len(labels))
        self.pending.append((scores, labels))
        if len(self.pending) == 50:
            self.flush()

    def flush(self) -> None:
        """Count the hits of all pending batches at once, since counting those of one takes as long as a small layer."""
        if self.pending:
            scores, labels = map(torch.cat, zip(*self.pending, strict=True))
            right = scores.argmax(1) == labels
            if self.by_class:
                members = labels == torch.arange(scores.shape[1], device=labels.device).unsqueeze(1)  # (K, N)
                self.hits, self.images = self.hits + (members & right).sum(1), self.images + members.sum(1)
            else:
                self.hits, self.images = self.hits + right.sum(), self.images + len(labels)
            self.pending.clear()

    def sums(self) -> dict[str, Tensor]:
        """Return copies of the sums so far."""
        self.flush()
        return {name: getattr(self, name).clone() for name in ("loss_sum", "hits", "images")}

    def load_sums(self, sums: Mapping[str, Tensor]) -> None:
        """Continue from the sums of a checkpoint."""
        self.loss_sum, self.hits, self.images = sums["loss_sum"], sums["hits"], sums["images"]


def compute_means(sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the means over all images, not batches; config/metric_names.py has their names.

    Sums for each class also give the balanced accuracy: the mean recall of the classes that have images.
    """
    # In float32, 9,875 of 10,000 would be 0.987500011920929. On the CPU, because some GPUs have no float64.
    loss_sum, hits, images = (sums[name].cpu().double() for name in ("loss_sum", "hits", "images"))
    means = {"loss": loss_sum / images.sum(), "acc": hits.sum() / images.sum()}
    return means | {"balanced_acc": (hits / images)[images > 0].mean()} if images.ndim else means
