"""The network that pytorch/examples had for MNIST, from "Pytorch with the MNIST Dataset" (RPI Analytics Dojo)."""

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mnist_lab.models.classifier import Classifier


class DropoutCNN(Classifier):
    """Two small convolutions with dropout of whole channels; 21,840 parameters (ten classes); gives log-probabilities.

    Args:
        num_classes: K.
        dropout: probability for the second convolution's channels and before the last layer.
    """

    image_size = 28
    loss = "nll"

    def __init__(self, num_classes: int = 10, *, dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5) -> None:
        super().__init__(num_classes)
        self.dropout = dropout
        self.conv1 = nn.Conv2d(1, 10, 5)
        self.conv2 = nn.Conv2d(10, 20, 5)
        self.conv2_drop = nn.Dropout2d(dropout)
        self.fc1 = nn.Linear(20 * 4 * 4, 50)
        self.fc2 = nn.Linear(50, num_classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 28, 28)
        x = F.relu(F.max_pool2d(self.conv1(x), 2))  # (B, 10, 12, 12)
        x = F.relu(F.max_pool2d(self.conv2_drop(self.conv2(x)), 2))  # (B, 20, 4, 4)
        x = F.relu(self.fc1(x.flatten(1)))  # (B, 50)
        x = F.dropout(x, self.dropout, training=self.training)
        return F.log_softmax(self.fc2(x), dim=1)  # (B, K)
