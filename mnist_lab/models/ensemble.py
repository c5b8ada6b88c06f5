"""Several trained networks as one, by the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mnist_lab.models.classifier import Classifier, mean_probability
from mnist_lab.models.inference_module import InferenceModule


class Ensemble(Classifier):
    """Networks whose probabilities are averaged; gives the logarithm of the mean.

    Its images are those of MNIST's files divided by 255, with mean 0 and std 1. Each member resizes and normalises them
    as it was trained, so that networks of different image sizes and normalisations can be members.

    Args:
        members: the networks with their preprocessing, for the same classes in the same order.
        num_classes: K.
    """

    image_size = 28
    loss = "nll"

    def __init__(self, members: Sequence[InferenceModule], num_classes: int = 10) -> None:
        super().__init__(num_classes)
        if not members:
            raise ValueError("an ensemble has one member or more")
        for i, member in enumerate(members):
            if member.network.num_classes != num_classes:
                raise ValueError(f"member {i} distinguishes {member.network.num_classes} classes, not {num_classes}")
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 28, 28)
        members = cast(Sequence[InferenceModule], self.members)
        images = x.mul(255).round().squeeze(1)  # (B, 28, 28), the bytes again
        return mean_probability(torch.stack([member.scores(images).log_softmax(1) for member in members]))  # (B, K)
