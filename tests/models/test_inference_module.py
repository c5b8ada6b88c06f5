"""The preprocessing inside a torch module is the data module's, to the last bit."""

import numpy as np
import pytest
import torch
from lab import Tiny
from torch import Tensor

from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.deployed import InferenceModule


@pytest.mark.parametrize("mean", [0.2, None])
@pytest.mark.parametrize("size", [14, 28, 32, 45])
def test_bytes_are_resized_and_normalised_exactly_as_by_the_data_module(
    tiny: Tiny, size: int, mean: float | None
) -> None:
    class Seeing(Classifier):
        image_size = size

        def forward(self, x: Tensor) -> Tensor:
            self.seen = x
            return x.flatten(1)[:, :10]

    images = np.random.default_rng(0).integers(0, 256, (300, 28, 28), np.uint8)
    images[:100] = np.where(images[:100] > 127, 255, 0)
    data = MNISTDataModule(source=tiny.source(), image_size=size, mean=mean, std=mean and 0.4)
    network = Seeing()
    InferenceModule(network, data.mean, data.std)(torch.from_numpy(images))
    assert torch.equal(network.seen, data.normalise(images))
