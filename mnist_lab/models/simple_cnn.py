"""A plain convolutional network, from "Pytorch MNIST simple CNN 001" (blog post, 2019-03-25)."""

import torch.nn.functional as F
from torch import Tensor, nn

from mnist_lab.models.classifier import Classifier


class SimpleCNN(Classifier):
    """Convolutions of 20 and 50 channels, two linear layers; 431,080 parameters (ten classes); gives log-probabilities.

    Args:
        num_classes: K.
    """

    image_size = 28
    loss = "nll"

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(50 * 4 * 4, 500)
        self.fc2 = nn.Linear(500, num_classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 28, 28)
        # The tutorial has ReLU before pooling: the same values and gradients, from four times the work.
        x = F.relu(F.max_pool2d(self.conv1(x), 2))  # (B, 20, 12, 12)
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # (B, 50, 4, 4)
        x = F.relu(self.fc1(x.flatten(1)))  # (B, 500)
        return F.log_softmax(self.fc2(x), dim=1)  # (B, K)
