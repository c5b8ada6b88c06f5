"""Write a run's network to a file, check it, and add a model card."""

import io
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mnist_lab.console import working_on
from mnist_lab.errors import LabError, UsageError, not_installed
from mnist_lab.evaluation.predictions import Predictions, TrainedRun
from mnist_lab.export.model_card import ProgramResult, describe_constructor, model_card
from mnist_lab.files import atomic_write, require_writable_file, user_output
from mnist_lab.formatting import shorten
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.deployed import InferenceModule
from mnist_lab.runs.run import Run
from mnist_lab.web.graph import trace
from mnist_lab.web.page import load_page, to_page

OPSETS = range(18, 24)  # the operator sets of ONNX that torch can write
TOLERANCE = 1e-4  # A program's probabilities may differ by this from the checkpoint's.

Program = Callable[[Tensor], Tensor]  # (N, 28, 28) bytes in, (N, K) probabilities out


class Exported(NamedTuple):
    """An exported file, the lines of Python that load it, and its results if it was run."""

    path: Path
    loading: str
    check: ProgramResult | None


@dataclass(frozen=True)
class Format:
    """A format of exported files."""

    suffix: str
    convert: Callable[[TrainedRun], bytes]  # Returns the content of the file.
    loading: str  # lines of Python that load it, with {file} and the fields of `describe_constructor`
    load_program: Callable[[Path], Program | None] | None = None  # None for weights, which cannot be run.
    takes_batches: bool = True  # False for a program that takes one image after another.


def export(run: Run, format_name: str, path: Path | None = None, opset: int | None = None) -> Exported:
    """Write a run's tested weights in a format of FORMATS, and a model card beside the file, with .md appended.

    Without a path, the file is exports/<model> in the run folder. A program (onnx, torch_export, html) is tested on the
    whole test set before the file is put in place. Without an opset, an ONNX file has torch's default.
    """
    if format_name not in FORMATS:
        raise UsageError(f"--format={shorten(format_name)}: unknown format; choose from {', '.join(FORMATS)}")
    chosen = FORMATS[format_name]
    if opset is not None:
        if format_name != "onnx":
            raise UsageError(f"--opset={opset}: only valid with --format onnx")
        if opset not in OPSETS:
            raise UsageError(f"--opset={opset}: must be from {OPSETS[0]} to {OPSETS[-1]}")
        chosen = replace(chosen, convert=lambda trained: to_onnx(trained, opset))
    is_program = chosen.load_program is not None
    path = path or _default_path(run, chosen.suffix)
    require_writable_file(path, f"--to={path}")
    trained = TrainedRun(run)
    with working_on("reading the test set and converting the network"):
        expected = trained.predictions if is_program else None  # If there are no data, this fails before the work.
        content = chosen.convert(trained)
    loading = chosen.loading.format(file=json.dumps(path.name), **describe_constructor(run.config))
    card = path.with_name(f"{path.name}.md")
    with user_output(path, f"--to={path}") as partial, atomic_write(card) as partial_card:
        partial.write_bytes(content)
        try:
            program = chosen.load_program(partial) if chosen.load_program else None
            measured = None
            if program and expected:
                images = torch.from_numpy(trained.data.raw_test_set()[0])
                measured = check_program(program, images, expected, in_batches=chosen.takes_batches)
        except Exception as error:  # The library that runs it may raise anything.
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise LabError(f"{path}: not written: {reason}; try another --format") from error
        card_text = model_card(trained, path.name, loading, measured, is_program=is_program)
        partial_card.write_text(card_text, encoding="utf-8", errors="backslashreplace")
    return Exported(path, loading, measured)


def _default_path(run: Run, suffix: str) -> Path:
    """Return a path in the run folder, even if the record or a link of a stranger's run leads out of it."""
    if not run.exports_folder.resolve().is_relative_to(run.folder.resolve()):
        raise UsageError(f"{run.exports_folder}: is a link out of the run folder; name the file with --to")
    name = str(run.info["model"])
    is_plain = re.fullmatch(r"\w[\w.+-]{0,99}", name)
    return run.exports_folder / f"{name if is_plain else 'network'}{suffix}"


def check_program(program: Program, images: Tensor, expected: Predictions, *, in_batches: bool = True) -> ProgramResult:
    """Return the results of a program on images, (N, 28, 28) bytes, in batches of 1, 2, 7, 64 and then 1,000.

    Raise LabError if a class differs from the expected one, or a probability by more than TOLERANCE.
    """
    *few, rest = images.tensor_split([1, 3, 10, 74])
    batches = (*few, *torch.split(rest, 1000)) if in_batches else (images,)
    with torch.no_grad():
        probabilities = torch.cat([program(batch) for batch in batches if len(batch)])
    wrong = (probabilities.argmax(1) != expected.predicted).sum().item()
    difference = (probabilities - expected.probabilities).abs().max().item()
    if wrong or not difference <= TOLERANCE:  # NaN is not within it.
        differences = f"{wrong:,} classes differ from the checkpoint's, and probabilities by up to {difference:.2g}"
        raise LabError(f"on {len(images):,} test images, {differences}")
    return ProgramResult(len(images), expected.accuracy, difference)


def trace_program(trained: TrainedRun) -> torch.export.ExportedProgram:
    """Trace a network with its preprocessing, bytes in and probabilities out, for any number of images."""
    images, shapes = torch.zeros(2, 28, 28, dtype=torch.uint8), {"images": {0: torch.export.Dim("batch")}}
    program = InferenceModule(trained.model, trained.data.mean, trained.data.std)
    return trace(program, images, type(trained.model).__name__, dynamic_shapes=shapes)


def to_torch_export(trained: TrainedRun) -> bytes:
    """Return a .pt2 file's content."""
    content = io.BytesIO()
    torch.export.save(trace_program(trained), content)
    return content.getvalue()


def load_torch_export(path: Path) -> Program:
    """Load the program in a .pt2 file."""
    with path.open("rb") as file:  # Torch warns of a path without the suffix .pt2.
        return torch.export.load(file).module()


def to_onnx(trained: TrainedRun, opset: int | None = None) -> bytes:
    """Return an ONNX file's content: input images, output probabilities, and batch as the first dimension of both."""
    try:
        import onnxruntime  # noqa: F401  # The check needs it after the work.
        import onnxscript  # noqa: F401
        from onnx.helper import find_min_ir_version_for
    except ImportError as error:
        raise not_installed("--format=onnx", "onnx") from error
    program = trace_program(trained)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The warnings are about torch's internals.
        converted = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes={"images": {0: "batch"}},
        )
    assert converted is not None
    model = converted.model_proto
    # Torch writes the same version for every opset, which an opset's oldest onnxruntime does not read.
    model.ir_version = find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    content: bytes = model.SerializeToString()
    return content


def load_onnx(path: Path) -> Program:
    """Load the program in an ONNX file; onnxruntime runs it on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def to_html(trained: TrainedRun) -> bytes:
    """Return the page of the network, with the test images of its worst errors."""
    return to_page(trained, trained.predictions).encode()


def to_safetensors(trained: TrainedRun) -> bytes:
    """Return a safetensors file of the weights."""
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise not_installed("--format=safetensors", "safetensors") from error
    return save(_weights(trained.model), {"format": "pt"})


def to_state_dict(trained: TrainedRun) -> bytes:
    """Return a torch file of the weights, under the tutorial's names."""
    content = io.BytesIO()
    torch.save(_weights(trained.model), content)
    return content.getvalue()


def _weights(network: Classifier) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in network.state_dict().items()}


NETWORK = "{imports}\nnetwork = {call}.eval()\n{set_views}network.load_state_dict"
FORMATS = {
    "onnx": Format(
        ".onnx",
        to_onnx,
        "import numpy, onnxruntime\n"
        "network = onnxruntime.InferenceSession({file})\n"
        "images = numpy.zeros((1, 28, 28), numpy.uint8)\n"
        '(probabilities,) = network.run(None, {{"images": images}})',
        load_onnx,
    ),
    "torch_export": Format(
        ".pt2",
        to_torch_export,
        "import torch\n"
        "network = torch.export.load({file}).module()\n"
        "probabilities = network(torch.zeros(1, 28, 28, dtype=torch.uint8))",
        load_torch_export,
    ),
    "html": Format(".html", to_html, "import webbrowser\nwebbrowser.open({file})", load_page, takes_batches=False),
    "safetensors": Format(
        ".safetensors", to_safetensors, f"from safetensors.torch import load_file\n{NETWORK}(load_file({{file}}))"
    ),
    "state_dict": Format(".pt", to_state_dict, f"import torch\n{NETWORK}(torch.load({{file}}, weights_only=True))"),
}
