"""A network with its preprocessing inside, as a program of its own: bytes in, probabilities out."""

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
from mnist_lab.errors import LabError, not_installed
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.models.classifier import Classifier

TOLERANCE = 1e-4  # how far a program's probabilities may be from the network's

Program = Callable[[Tensor], Tensor]


class InferenceModule(nn.Module):
    """A network that takes images as they are in MNIST's files and gives the probabilities of the ten classes.

    Args:
        network: the network; it is put into eval mode.
        mean, std: of the normalisation (x / 255 - mean) / std.
    """

    rows: Tensor

    def __init__(self, network: Classifier, mean: float, std: float) -> None:
        super().__init__()
        # Plainly in memory, not channels_last as in training: torch.export writes no other way without a warning.
        self.network = network.eval().to(memory_format=torch.contiguous_format)
        self.mean, self.std = mean, std
        self.resizes = network.image_size != 28
        if self.resizes:
            weights, self.unit = byte_weights(network.image_size)
            self.register_buffer("rows", weights)

    def forward(self, images: Tensor) -> Tensor:  # (B, 28, 28) bytes
        pixels = images.unsqueeze(1).float()  # (B, 1, 28, 28)
        if self.resizes:
            pixels = self._rounded(pixels @ self.rows.T)  # (B, 1, 28, S)
            pixels = self._rounded(self.rows @ pixels)  # (B, 1, S, S)
        scores = self.network(pixels.div(255).sub(self.mean).div(self.std))
        probabilities: Tensor = scores.float().softmax(1)  # (B, 10); of log-probabilities, too, softmax gives them
        return probabilities

    def _rounded(self, sums: Tensor) -> Tensor:
        return sums.mul(self.unit).add(0.5).floor().clamp(0, 255)


def byte_weights(size: int) -> tuple[Tensor, float]:
    """What F.interpolate(..., mode="bilinear", antialias=True) resizes the rows of 28 bytes with, to so many.

    For bytes torch reckons in whole numbers: the weights as 16-bit integers, of the highest precision that these have
    room for, and each of the two passes, rows first, rounded to bytes. No operator of ONNX does the same, so it is
    done here, by matrix products; of whole numbers in float32 they are exact. (ATen's UpSampleKernel.cpp.)

    Returns:
        The weights, (size, 28), whole numbers, and the unit that they are in.
    """
    each = torch.eye(28, dtype=torch.float64)[None, None]
    weights = F.interpolate(each, (28, size), mode="bilinear", antialias=True)[0, 0].T.contiguous()
    peak = weights.max().item()
    precision = next(bits for bits in range(22, -1, -1) if int(0.5 + peak * 2**bits) < 2**15)
    return (weights * 2**precision + 0.5).floor().float(), 2.0**-precision


def traced(network: Classifier, mean: float, std: float) -> torch.export.ExportedProgram:
    """A network with its preprocessing, for any number of images, as torch.export has it.

    Raises:
        LabError: torch cannot trace the network.
    """
    example = torch.zeros(2, 28, 28, dtype=torch.uint8)
    shapes = {"images": {0: torch.export.Dim("batch")}}
    try:
        with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")  # of torch's insides, which a user cannot change; it prints those, too
            program = InferenceModule(network, mean, std)
            return torch.export.export(program, (example,), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch's errors for what it cannot trace are of every kind
        reason = str(error).strip().splitlines()[0]
        raise LabError(f"{type(network).__name__}: torch cannot trace it ({reason}); try another --format") from error


def torch_export(network: Classifier, data: MNISTDataModule) -> bytes:
    """A .pt2 file's content."""
    content = io.BytesIO()
    torch.export.save(traced(network, data.mean, data.std), content)
    return content.getvalue()


def onnx(network: Classifier, data: MNISTDataModule) -> bytes:
    """An ONNX file's content; its input is called images, its output probabilities.

    Raises:
        UsageError: a package is missing.
    """
    try:
        import onnxruntime  # noqa: F401  # for the check, before the work
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise not_installed("--format=onnx", "onnx") from error
    program = traced(network, data.mean, data.std)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        converted = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=["images"], output_names=["probabilities"]
        )
    assert converted is not None
    content: bytes = converted.model_proto.SerializeToString()
    return content


def loaded_torch_export(path: Path) -> Program:
    """The program in a .pt2 file."""
    with path.open("rb") as file:  # not the path: torch warns of one that ends otherwise
        return torch.export.load(file).module()


def loaded_onnx(path: Path) -> Program:
    """The program in an ONNX file, run by onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def max_difference(program: Program, images: Tensor, expected: Predictions) -> float:
    """The most that a program's probabilities of images, (N, 28, 28) bytes, differ from those expected.

    It is asked in batches of 1, 2, 7, 64 and then 1,000.

    Raises:
        LabError: by more than TOLERANCE, or a class differs.
    """
    *few, rest = images.tensor_split([1, 3, 10, 74])
    with torch.no_grad():
        found = torch.cat([program(batch) for batch in (*few, *torch.split(rest, 1000)) if len(batch)])
    others = (found.argmax(1) != expected.predicted).sum().item()
    difference = (found - expected.probabilities).abs().max().item()
    if others or not difference <= TOLERANCE:  # which NaN is not, either
        raise LabError(
            f"on {len(images):,} test images it gives {others:,} other classes than the checkpoint, and probabilities "
            f"that differ by up to {difference:.2g}: not written; try another --format, or other versions of torch"
        )
    return difference
