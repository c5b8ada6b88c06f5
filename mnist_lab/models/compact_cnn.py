"""A compact convolutional network, from "Tutorial on recognizing digits in PyTorch" (jumpml, 2020-07-23)."""

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mnist_lab.models.classifier import Classifier


class CompactCNN(Classifier):
    """Convolutions of 32 and 16 channels, two linear layers; 46,566 parameters (ten classes); gives log-probabilities.

    Args:
        num_classes: K.
        dropout: probability before the last layer; the tutorial's text says 0.2, and its code uses 0.5.
    """

    image_size = 28
    loss = "nll"

    def __init__(self, num_classes: int = 10, *, dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5) -> None:
        super().__init__(num_classes)
        self.dropout = dropout
        self.conv1 = nn.Conv2d(1, 32, 5)
        self.conv2 = nn.Conv2d(32, 16, 3)
        self.fc1 = nn.Linear(16 * 5 * 5, 100)
        self.fc2 = nn.Linear(100, num_classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 28, 28)
        x = F.relu(F.max_pool2d(self.conv1(x), 2))  # (B, 32, 12, 12)
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # (B, 16, 5, 5)
        x = F.relu(self.fc1(x.flatten(1)))  # (B, 100)
        x = F.dropout(x, self.dropout, training=self.training)
        return F.log_softmax(self.fc2(x), dim=1)  # (B, K)
