"""A multilayer perceptron, from "MNIST With PyTorch" (cybertraining-dsc)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mnist_lab.models.classifier import Classifier


class MLP(Classifier):
    """Five linear layers, 784-128-128-64-64-10; 130,058 parameters; gives log-probabilities.

    The layers bear the names they have in the tutorial's nn.Sequential: its state_dict's keys are 0.weight, 2.weight,
    ..., 8.bias, the odd numbers being ReLUs.
    """

    image_size = 28
    loss = "nll"
    widths = (28 * 28, 128, 128, 64, 64, 10)

    def __init__(self) -> None:
        super().__init__()
        self.linears = [nn.Linear(before, after) for before, after in zip(self.widths, self.widths[1:], strict=False)]
        for i, linear in enumerate(self.linears):  # a plain list registers nothing: the names are given here
            self.add_module(str(2 * i), linear)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 28, 28)
        x = x.flatten(1)  # (B, 784)
        *hidden, last = self.linears
        for linear in hidden:
            x = F.relu(linear(x))  # (B, 128), (B, 128), (B, 64), (B, 64)
        return F.log_softmax(last(x), dim=1)  # (B, 10)
