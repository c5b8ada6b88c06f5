"""Trained networks in use: averaged over views of an image, with their preprocessing, or several as one."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mnist_lab.data.augmentation import affine_matrix
from mnist_lab.data.batches import upload
from mnist_lab.data.datamodule import normalise_pixels
from mnist_lab.models.classifier import Classifier, log_mean_probability


class Views:
    """The image itself, and the image turned to either side, smaller and larger: five views; three if an amount is 0.

    Args:
        degrees: rotation of the turned views.
        scale: change of size: 0.08 means 0.92 and 1.08 times.
    """

    def __init__(
        self, *, degrees: Annotated[float, Field(ge=0, le=180)] = 8.0, scale: Annotated[float, Field(ge=0, lt=1)] = 0.08
    ) -> None:
        self.degrees, self.scale = degrees, scale
        angles = sorted({-math.radians(degrees), math.radians(degrees)})
        zooms = sorted({1 - scale, 1 + scale})
        self.changes = list(itertools.product(angles, zooms))

    def __call__(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the views of images, each (B, 1, S, S). Pixels from outside the image are as bright as its edge."""
        yield images
        batch, *shape = images.shape  # torch.export would take len(images) for a constant.
        for grid in upload(self.grids(shape), images):  # (S, S, 2)
            yield F.grid_sample(images, grid.expand(batch, -1, -1, -1), align_corners=False)

    def grids(self, shape: Sequence[int]) -> Tensor:
        """Return where each changed view takes its pixels from, (V, S, S, 2), for images of a shape, (1, S, S)."""
        angle, zoom = torch.tensor(self.changes).T
        edge = 1 - 1 / shape[-1]  # The middle of the outermost pixels. Apple's GPUs have no padding_mode="border".
        return F.affine_grid(affine_matrix(angle, zoom), [len(angle), *shape], align_corners=False).clamp(-edge, edge)


class InferenceModule(nn.Module):
    """Map images as in MNIST's files, (B, 28, 28) bytes, to the probabilities of the classes, (B, K).

    The network's inputs equal those from the data module, to the last bit.

    Args:
        network: the network, which keeps its own image size.
        mean: mean of the normalisation (x / 255 - mean) / std; None for each image's own.
        std: its standard deviation; None for each image's own.
        views: the network's views in eval mode; None for those that it has.
    """

    rows: Tensor

    def __init__(
        self,
        network: Classifier,
        mean: Annotated[float, Field(allow_inf_nan=False)] | None,
        std: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None,
        views: Views | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        network.views = views or network.views
        self.mean, self.std = mean, std
        self.resizes = network.image_size != 28
        if self.resizes:
            weights, self.unit = resize_weights(network.image_size)
            self.register_buffer("rows", weights, persistent=False)  # A checkpoint holds trained weights only.

    def forward(self, images: Tensor) -> Tensor:  # (B, 28, 28)
        return self.scores(images).softmax(1)  # (B, K); the softmax of log-probabilities is the probabilities

    def scores(self, images: Tensor) -> Tensor:
        """Return the network's scores, (B, K) float32, for images, (B, 28, 28): whole numbers of any type."""
        pixels = images.unsqueeze(1).float()  # (B, 1, 28, 28)
        if self.resizes:
            pixels = self._rounded(pixels @ self.rows.T)  # (B, 1, 28, S)
            pixels = self._rounded(self.rows @ pixels)  # (B, 1, S, S)
        return self.network.scores(normalise_pixels(pixels.div(255), self.mean, self.std)).float()

    def _rounded(self, sums: Tensor) -> Tensor:
        return sums.mul(self.unit).add(0.5).floor().clamp(0, 255)


def resize_weights(size: int) -> tuple[Tensor, float]:
    """Return integer weights, (size, 28), that resize bytes as F.interpolate(antialias=True) does, and their unit.

    Torch resizes bytes in integers: the weights have 16 bits, at the highest precision that fits, and each of the two
    passes, rows first, is rounded to bytes (ATen's UpSampleKernel.cpp). No operator of ONNX does the same, but matrix
    products of whole numbers in float32 are exact.
    """
    identity = torch.eye(28, dtype=torch.float64, device="cpu")[None, None]
    weights = F.interpolate(identity, (28, size), mode="bilinear", antialias=True)[0, 0].T.contiguous()
    peak = weights.max().item()
    precision = next(bits for bits in range(22, -1, -1) if int(0.5 + peak * 2**bits) < 2**15)
    return (weights * 2**precision + 0.5).floor().float(), 2.0**-precision


class Ensemble(Classifier):
    """Networks whose probabilities are averaged; gives the logarithm of the mean.

    It takes the images of MNIST's files divided by 255, so its mean is 0 and its std 1. Each member resizes and
    normalises them as in its training, so networks of different image sizes and normalisations can be members.

    Args:
        members: the networks with their preprocessing, for the same classes in the same order.
        num_classes: K.
    """

    image_size = 28
    loss = "nll"

    def __init__(self, members: Sequence[InferenceModule], num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 28, 28)
        members = cast(Sequence[InferenceModule], self.members)
        images = x.mul(255).round().squeeze(1)  # (B, 28, 28) bytes
        each = torch.stack([member.scores(images).log_softmax(1) for member in members])  # (N, B, K)
        return log_mean_probability(each)  # (B, K)
