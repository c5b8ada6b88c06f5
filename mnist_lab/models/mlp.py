"""A multilayer perceptron, from "MNIST With PyTorch" (cybertraining-dsc)."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from mnist_lab.models.classifier import Classifier


class MLP(Classifier):
    """Five linear layers, 784-128-128-64-64-10; 130,058 parameters (ten classes); gives log-probabilities.

    The layers have the names of the tutorial's nn.Sequential, so its state_dict fits: the keys are 0.weight, 0.bias,
    2.weight, ..., 8.bias, and the odd numbers are its ReLUs.

    Args:
        num_classes: K.
    """

    image_size = 28
    loss = "nll"
    hidden = (128, 128, 64, 64)

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        widths = (28 * 28, *self.hidden, num_classes)
        self.linears = [nn.Linear(before, after) for before, after in pairwise(widths)]
        for i, linear in enumerate(self.linears):
            self.add_module(str(2 * i), linear)  # A plain list registers no layers.

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 28, 28)
        x = x.flatten(1)  # (B, 784)
        *hidden, last = self.linears
        for linear in hidden:
            x = F.relu(linear(x))  # (B, 128), (B, 128), (B, 64), (B, 64)
        return F.log_softmax(last(x), dim=1)  # (B, K)
