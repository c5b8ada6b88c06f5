"""Networks as programs that include the preprocessing: bytes in, probabilities out."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.data.normalisation import normalise_pixels
from mnist_lab.errors import LabError, not_installed
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.models.classifier import Classifier

TOLERANCE = 1e-4  # of a program's probabilities

Program = Callable[[Tensor], Tensor]


class InferenceModule(nn.Module):
    """Map images as in MNIST's files, (B, 28, 28) bytes, to the probabilities of the classes, (B, K).

    Args:
        network: the network; it is switched to eval mode.
        mean: of the normalisation (x / 255 - mean) / std; None for each image's own.
        std: of the same.
    """

    rows: Tensor

    def __init__(self, network: Classifier, mean: float | None, std: float | None) -> None:
        super().__init__()
        # torch.export warns of channels_last, which training uses.
        self.network = network.eval().to(memory_format=torch.contiguous_format)
        self.mean, self.std = mean, std
        self.resizes = network.image_size != 28
        if self.resizes:
            weights, self.unit = resize_weights(network.image_size)
            self.register_buffer("rows", weights)

    def forward(self, images: Tensor) -> Tensor:  # (B, 28, 28) bytes
        pixels = images.unsqueeze(1).float()  # (B, 1, 28, 28)
        if self.resizes:
            pixels = self._rounded(pixels @ self.rows.T)  # (B, 1, 28, S)
            pixels = self._rounded(self.rows @ pixels)  # (B, 1, S, S)
        scores = self.network(normalise_pixels(pixels.div(255), self.mean, self.std))
        probabilities: Tensor = scores.float().softmax(1)  # (B, K), of log-probabilities too
        return probabilities

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


def trace(network: Classifier, mean: float | None, std: float | None) -> torch.export.ExportedProgram:
    """Trace a network with its preprocessing, for any number of images.

    Raises:
        LabError: torch cannot trace the network.
    """
    example = torch.zeros(2, 28, 28, dtype=torch.uint8)
    shapes = {"images": {0: torch.export.Dim("batch")}}
    try:
        with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")  # of torch's internals; it prints them, too
            program = InferenceModule(network, mean, std)
            return torch.export.export(program, (example,), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # of any kind
        reason = str(error).strip().splitlines()[0]
        raise LabError(f"{type(network).__name__}: torch cannot trace it ({reason}); try another --format") from error


def to_torch_export(network: Classifier, data: MNISTDataModule) -> bytes:
    """Return a .pt2 file's content."""
    content = io.BytesIO()
    torch.export.save(trace(network, data.mean, data.std), content)
    return content.getvalue()


def to_onnx(network: Classifier, data: MNISTDataModule) -> bytes:
    """Return an ONNX file's content. Its input is named images, its output probabilities.

    Raises:
        UsageError: onnxruntime or onnxscript is not installed.
    """
    try:
        import onnxruntime  # noqa: F401  # for the check, before the work
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise not_installed("--format=onnx", "onnx") from error
    program = trace(network, data.mean, data.std)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        converted = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=["images"], output_names=["probabilities"]
        )
    assert converted is not None
    content: bytes = converted.model_proto.SerializeToString()
    return content


def load_torch_export(path: Path) -> Program:
    """Load the program in a .pt2 file."""
    with path.open("rb") as file:  # torch warns of a path with another suffix
        return torch.export.load(file).module()


def load_onnx(path: Path) -> Program:
    """Load the program in an ONNX file, to be run by onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def max_difference(program: Program, images: Tensor, expected: Predictions) -> float:
    """Return the maximum difference of a program's probabilities from those expected.

    Args:
        program: is run in batches of 1, 2, 7, 64 and then 1,000 images.
        images: (N, 28, 28) bytes.
        expected: the checkpoint's predictions for them.

    Raises:
        LabError: a class differs, or the difference exceeds TOLERANCE.
    """
    *few, rest = images.tensor_split([1, 3, 10, 74])
    with torch.no_grad():
        found = torch.cat([program(batch) for batch in (*few, *torch.split(rest, 1000)) if len(batch)])
    wrong = (found.argmax(1) != expected.predicted).sum().item()
    difference = (found - expected.probabilities).abs().max().item()
    if wrong or not difference <= TOLERANCE:  # NaN is refused, too
        raise LabError(
            f"not written: on {len(images):,} test images, {wrong:,} classes differ from the checkpoint's, and "
            f"probabilities by up to {difference:.2g}; try another --format, or other versions of torch"
        )
    return difference
