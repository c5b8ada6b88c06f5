"""A network with its preprocessing as one torch module: bytes in, scores or probabilities out."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mnist_lab.data.datamodule import normalise_pixels
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.views import Views


class InferenceModule(nn.Module):
    """Map images as in MNIST's files, (B, 28, 28) bytes, to the probabilities of the classes, (B, K).

    Each value that the network is given is the data module's to the last bit.

    Args:
        network: the network, which keeps its own image size.
        mean: of the normalisation (x / 255 - mean) / std; None for each image's own.
        std: likewise.
        views: the network's views in eval mode; None for those it has.
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
            self.register_buffer("rows", weights, persistent=False)  # checkpoints hold what was trained

    def forward(self, images: Tensor) -> Tensor:  # (B, 28, 28)
        return self.scores(images).softmax(1)  # (B, K), of log-probabilities too

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
    """Return the weights with which F.interpolate(..., mode="bilinear", antialias=True) resizes 28 bytes.

    For bytes torch computes in integers: the weights have 16 bits, at the highest precision that fits, and each of the
    two passes, rows first, is rounded to bytes (ATen's UpSampleKernel.cpp). No operator of ONNX does the same, but
    matrix products of whole numbers in float32 are exact.

    Args:
        size: the number of pixels after resizing.

    Returns:
        The weights, (size, 28), whole numbers, and their unit.
    """
    identity = torch.eye(28, dtype=torch.float64)[None, None]
    weights = F.interpolate(identity, (28, size), mode="bilinear", antialias=True)[0, 0].T.contiguous()
    peak = weights.max().item()
    precision = next(bits for bits in range(22, -1, -1) if int(0.5 + peak * 2**bits) < 2**15)
    return (weights * 2**precision + 0.5).floor().float(), 2.0**-precision
