"""The five networks as the tutorials write them: plain torch modules, with the names of the tutorials' layers."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn


class SimpleCNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv1(x).relu(), 2, 2)
        x = F.max_pool2d(self.conv2(x).relu(), 2, 2)
        return F.log_softmax(self.fc2(self.fc1(x.view(-1, 800)).relu()), dim=1)


class CompactCNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 5), nn.Conv2d(32, 16, 3)
        self.fc1, self.fc2 = nn.Linear(400, 100), nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv1(x), 2).relu()
        x = F.max_pool2d(self.conv2(x), 2).relu()
        x = F.dropout(self.fc1(x.view(-1, 400)).relu(), training=self.training)
        return F.log_softmax(self.fc2(x), dim=1)


class LeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv1(x).relu(), (2, 2))
        x = F.max_pool2d(self.conv2(x).relu(), (2, 2))
        x = self.fc1(x.view(x.shape[0], -1)).relu()
        return self.fc3(self.fc2(x).relu())


class DropoutCNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 10, 5), nn.Conv2d(10, 20, 5)
        self.conv2_drop = nn.Dropout2d()
        self.fc1, self.fc2 = nn.Linear(320, 50), nn.Linear(50, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv1(x), 2).relu()
        x = F.max_pool2d(self.conv2_drop(self.conv2(x)), 2).relu()
        x = F.dropout(self.fc1(x.view(-1, 320)).relu(), training=self.training)
        return F.log_softmax(self.fc2(x), dim=1)


class MLP(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = super().forward(x.view(x.shape[0], -1))  # The tutorial flattens images in its loop.
        return scores


def mlp() -> nn.Module:
    widths = [(784, 128), (128, 128), (128, 64), (64, 64)]
    hidden = [layer for width in widths for layer in (nn.Linear(*width), nn.ReLU())]
    return MLP(*hidden, nn.Linear(64, 10), nn.LogSoftmax(dim=1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "simple_cnn": SimpleCNN,
    "compact_cnn": CompactCNN,
    "lenet": LeNet,
    "dropout_cnn": DropoutCNN,
    "mlp": mlp,
}
