"""LeNet-5's shape with ReLU and max-pooling, from "MNIST using LeNet" (Y.-K. Kim, 2020-08-19)."""

import torch.nn.functional as F
from torch import Tensor, nn

from mnist_lab.models.classifier import Classifier


class LeNet(Classifier):
    """Two convolutions and three linear layers on 32x32 images; 61,706 parameters (ten classes); gives logits.

    Args:
        num_classes: K.
    """

    image_size = 32
    loss = "cross_entropy"

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 32, 32)
        # The tutorial has ReLU before pooling: the same values and gradients, from four times the work.
        x = F.relu(F.max_pool2d(self.conv1(x), 2))  # (B, 6, 14, 14)
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # (B, 16, 5, 5)
        x = F.relu(self.fc1(x.flatten(1)))  # (B, 120)
        x = F.relu(self.fc2(x))  # (B, 84)
        logits: Tensor = self.fc3(x)  # (B, K)
        return logits
