"""Networks as programs that include the preprocessing: bytes in, probabilities out."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.errors import LabError, not_installed
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.deployed import InferenceModule
from mnist_lab.runs.run import Run

TOLERANCE = 1e-4  # of a program's probabilities

Program = Callable[[Tensor], Tensor]


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
            program = InferenceModule(network, mean, std).eval()
            program.to(memory_format=torch.contiguous_format)  # torch warns of channels_last, which training uses
            return torch.export.export(program, (example,), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # of any kind
        reason = str(error).strip().splitlines()[0]
        raise LabError(f"{type(network).__name__}: torch cannot trace it ({reason}); try another --format") from error


def to_torch_export(network: Classifier, data: MNISTDataModule, run: Run) -> bytes:
    """Return a .pt2 file's content."""
    content = io.BytesIO()
    torch.export.save(trace(network, data.mean, data.std), content)
    return content.getvalue()


def to_onnx(network: Classifier, data: MNISTDataModule, run: Run) -> bytes:
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
