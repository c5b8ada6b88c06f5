"""A network that learns fast: three small convolutions with batch normalisation."""

import torch.nn.functional as F
from torch import Tensor, nn

from mnist_lab.models.classifier import Classifier, Width


class FastCNN(Classifier):
    """Convolutions of 16, 32 and 64 channels, one linear layer; 29,546 parameters (ten classes); gives logits.

    Args:
        num_classes: K.
        widths: channels after each convolution.
    """

    image_size = 28
    loss = "cross_entropy"

    def __init__(self, num_classes: int = 10, *, widths: tuple[Width, Width, Width] = (16, 32, 64)) -> None:
        super().__init__(num_classes)
        self.conv1 = nn.Conv2d(1, widths[0], 5)
        self.norm1 = nn.BatchNorm2d(widths[0])
        self.conv2 = nn.Conv2d(widths[0], widths[1], 3)
        self.norm2 = nn.BatchNorm2d(widths[1])
        self.conv3 = nn.Conv2d(widths[1], widths[2], 3)
        self.norm3 = nn.BatchNorm2d(widths[2])
        self.fc = nn.Linear(widths[2] * 9, num_classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 28, 28)
        # Batch normalisation after pooling has a quarter of the work.
        x = F.relu(self.norm1(F.max_pool2d(self.conv1(x), 2)))  # (B, C1, 12, 12)
        x = F.relu(self.norm2(F.max_pool2d(self.conv2(x), 2)))  # (B, C2, 5, 5)
        x = F.relu(self.norm3(self.conv3(x)))  # (B, C3, 3, 3)
        logits: Tensor = self.fc(x.flatten(1))  # (B, K)
        return logits
