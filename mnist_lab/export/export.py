"""Write a run's network to a file, check it, and add a model card."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.errors import LabError, UsageError, not_installed
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.export.model_card import ProgramResult, constructor, model_card
from mnist_lab.export.programs import Program, load_onnx, load_torch_export, max_difference, to_onnx, to_torch_export
from mnist_lab.files import atomic_write, require_writable_file, user_output
from mnist_lab.formatting import shorten
from mnist_lab.models.classifier import Classifier
from mnist_lab.runs.record import package_versions
from mnist_lab.runs.run import Run
from mnist_lab.training.build import load_trained_model, make_data
from mnist_lab.web.browser import load_page
from mnist_lab.web.page import to_page


def to_state_dict(network: Classifier, data: MNISTDataModule, run: Run) -> bytes:
    """Return a torch file of the weights alone, under the tutorial's names."""
    content = io.BytesIO()
    torch.save({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, content)
    return content.getvalue()


def to_safetensors(network: Classifier, data: MNISTDataModule, run: Run) -> bytes:
    """Return a safetensors file of the weights, with the network's class, data and input as metadata.

    Raises:
        UsageError: safetensors is not installed.
    """
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise not_installed("--format=safetensors", "safetensors") from error
    metadata = {
        "format": "pt",  # of tensors; the key is safetensors' own
        "mnist_lab": package_versions()["mnist-lab"],
        "class": f"{type(network).__module__}.{type(network).__qualname__}",
        "data": str(data.source.name),
        "classes": json.dumps(data.classes),
        "input": json.dumps({"image_size": network.image_size, "mean": data.mean, "std": data.std}),
    }
    return save({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, metadata)


def to_html(network: Classifier, data: MNISTDataModule, run: Run) -> bytes:
    """Return the page of the network, with the test images that it gets most wrong."""
    return to_page(network, data, run, Predictions.on_test_set(network, data)).encode()


@dataclass(frozen=True)
class Format:
    """A format of exported files.

    Attributes:
        suffix: of the file's name.
        convert: returns the file's content.
        loading: lines of Python that load it, with {file}, and what `constructor` returns.
        load_program: loads the file to be checked, if it is a program; None for weights alone.
    """

    suffix: str
    convert: Callable[[Classifier, MNISTDataModule, Run], bytes]
    loading: str
    load_program: Callable[[Path], Program | None] | None = None


FORMATS = {
    "onnx": Format(
        ".onnx",
        to_onnx,
        "import numpy, onnxruntime\n"
        'network = onnxruntime.InferenceSession("{file}")\n'
        '(probabilities,) = network.run(None, {{"images": numpy.zeros((1, 28, 28), numpy.uint8)}})',
        load_onnx,
    ),
    "torch_export": Format(
        ".pt2",
        to_torch_export,
        "import torch\n"
        'network = torch.export.load("{file}").module()\n'
        "probabilities = network(torch.zeros(1, 28, 28, dtype=torch.uint8))",
        load_torch_export,
    ),
    "html": Format(".html", to_html, 'import webbrowser\nwebbrowser.open("{file}")', load_page),
    "safetensors": Format(
        ".safetensors",
        to_safetensors,
        "from safetensors.torch import load_file\n"
        "{imports}\n"
        "network = {call}.eval()\n{set_views}"
        'network.load_state_dict(load_file("{file}"))',
    ),
    "state_dict": Format(
        ".pt",
        to_state_dict,
        "import torch\n"
        "{imports}\n"
        "network = {call}.eval()\n{set_views}"
        'network.load_state_dict(torch.load("{file}", weights_only=True))',
    ),
}


class Exported(NamedTuple):
    """An exported file.

    Attributes:
        path: of the file.
        loading: the lines of Python that load it.
        check: what the file came to on the test set; None for weights, which are not run, or without a browser.
    """

    path: Path
    loading: str
    check: ProgramResult | None


def export(run: Run, format_name: str, path: Path | None = None) -> Exported:
    """Write a run's tested weights in a format, and a model card beside the file.

    A program (onnx, torch_export, html) is tested on the whole test set before it takes its place.

    Args:
        run: the run.
        format_name: a name in FORMATS.
        path: the file; None for exports/<model> in the run folder. The card's name has .md appended.

    Returns:
        The file.

    Raises:
        UsageError: the format is unknown, the run has no checkpoint, a package is not installed, or the file cannot be
            written.
        LabError: the network cannot be traced, or the program's classes or probabilities differ.
        DataUnavailable: the test set is not available.
    """
    if format_name not in FORMATS:
        raise UsageError(f"--format={shorten(format_name)}: unknown format; choose from {', '.join(FORMATS)}")
    chosen = FORMATS[format_name]
    path = path or run.exports_folder / f"{run.info['model']}{chosen.suffix}"
    require_writable_file(path, f"--to={path}")
    network = load_trained_model(run)
    data = make_data(run.config, network)
    expected = Predictions.on_test_set(network, data) if chosen.load_program else None
    content = chosen.convert(network, data, run)
    loading = chosen.loading.format(file=path.name, **constructor(run.config))
    card = path.with_name(f"{path.name}.md")
    with user_output(path, f"--to={path}") as partial, atomic_write(card) as partial_card:
        partial.write_bytes(content)
        measured = None
        if chosen.load_program and expected:
            try:
                program = chosen.load_program(partial)
                measured = check_program(program, data, expected) if program else None
            except LabError as error:
                raise LabError(f"{path}: {error}") from error
            except Exception as error:  # of any kind, from the library that runs it
                reason = str(error).strip().splitlines()[0]
                raise LabError(f"{path}: not written: it cannot be run ({reason}); try another --format") from error
        is_program = chosen.load_program is not None
        card_text = model_card(run, network, data, path.name, loading, measured, is_program=is_program)
        partial_card.write_text(card_text, encoding="utf-8")
    return Exported(path, loading, measured)


def check_program(program: Program, data: MNISTDataModule, expected: Predictions) -> ProgramResult:
    """Run a program on the test set.

    Raises:
        LabError: its classes or probabilities differ from those expected.
    """
    images = torch.from_numpy(data.test_set()[0])
    difference = max_difference(program, images, expected)
    return ProgramResult(len(images), expected.accuracy, difference)
