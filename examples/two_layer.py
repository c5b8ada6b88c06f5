"""A network of your own: one class here, one file in conf/model/."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mnist_lab.models import Classifier


class TwoLayer(Classifier):
    """Two linear layers with ReLU between them; gives logits.

    Args:
        num_classes: the number of classes, which comes from the data.
        width: units of the hidden layer.
    """

    image_size = 28
    loss = "cross_entropy"

    def __init__(self, num_classes: int = 10, *, width: int = 64) -> None:
        super().__init__(num_classes)
        self.hidden = nn.Linear(28 * 28, width)
        self.output = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 28, 28)
        logits: Tensor = self.output(F.relu(self.hidden(x.flatten(1))))  # (B, num_classes)
        return logits
