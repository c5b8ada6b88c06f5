"""Write a run's network in a file for use elsewhere, with a model card."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.errors import LabError, not_installed
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.export.model_card import Measured, constructor, model_card
from mnist_lab.export.programs import Program, loaded_onnx, loaded_torch_export, max_difference, onnx, torch_export
from mnist_lab.files import atomic_write, require_writable_file, user_output
from mnist_lab.models.classifier import Classifier
from mnist_lab.runs.environment import package_versions
from mnist_lab.runs.run import Run
from mnist_lab.training.build import load_trained_model, make_data


def state_dict(network: Classifier, data: MNISTDataModule) -> bytes:
    """A torch file's content: the weights alone, under the tutorial's names."""
    content = io.BytesIO()
    torch.save({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, content)
    return content.getvalue()


def safetensors(network: Classifier, data: MNISTDataModule) -> bytes:
    """A safetensors file's content: the weights, with what they belong to as metadata.

    Raises:
        UsageError: the package is missing.
    """
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise not_installed("--format=safetensors", "safetensors") from error
    metadata = {
        "format": "pt",  # of tensors, by the libraries that read this key
        "mnist_lab": package_versions()["mnist-lab"],
        "class": f"{type(network).__module__}.{type(network).__qualname__}",
        "data": data.source.name,
        "input": json.dumps({"image_size": network.image_size, "mean": data.mean, "std": data.std}),
    }
    return save({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, metadata)


@dataclass(frozen=True)
class Format:
    """A kind of file: its suffix, its content, how it is loaded, and, if it is a program, how that is checked.

    Attributes:
        loading: lines of Python, with {file} for its name, {module}, {name} and {made} for the network's class.
    """

    suffix: str
    content: Callable[[Classifier, MNISTDataModule], bytes]
    loading: str
    program: Callable[[Path], Program] | None = None


FORMATS = {
    "onnx": Format(
        ".onnx",
        onnx,
        "import numpy, onnxruntime\n"
        'network = onnxruntime.InferenceSession("{file}")\n'
        '(probabilities,) = network.run(None, {{"images": numpy.zeros((1, 28, 28), numpy.uint8)}})',
        loaded_onnx,
    ),
    "torch_export": Format(
        ".pt2",
        torch_export,
        "import torch\n"
        'network = torch.export.load("{file}").module()\n'
        "probabilities = network(torch.zeros(1, 28, 28, dtype=torch.uint8))",
        loaded_torch_export,
    ),
    "safetensors": Format(
        ".safetensors",
        safetensors,
        "from safetensors.torch import load_file\n"
        "from {module} import {name}\n"
        "network = {made}.eval()\n"
        'network.load_state_dict(load_file("{file}"))',
    ),
    "state_dict": Format(
        ".pt",
        state_dict,
        "import torch\n"
        "from {module} import {name}\n"
        "network = {made}.eval()\n"
        'network.load_state_dict(torch.load("{file}", weights_only=True))',
    ),
}


def export(run: Run, form: str, path: Path | None = None) -> tuple[Path, str]:
    """Write a run's tested weights in a form, and a model card beside; where they are, and how to load them.

    A file that is a program (onnx, torch_export) is run on the whole test set before it takes its place.

    Args:
        run: the run.
        form: a name in FORMATS.
        path: where to; None for exports/<model> in the run folder. The card's name has .md after it.

    Raises:
        UsageError: the run has no checkpoint, a package is missing, or the file cannot be written.
        LabError: the network cannot be traced, or what was written gives other classes or probabilities.
        DataUnavailable: the test set could not be had.
    """
    chosen = FORMATS[form]
    path = path or run.folder / "exports" / f"{run.info['model']}{chosen.suffix}"
    require_writable_file(path, f"--to={path}")
    network = load_trained_model(run)
    data = make_data(run.config, network)
    expected = Predictions.on_test_set(network, data) if chosen.program else None
    content = chosen.content(network, data)
    how = chosen.loading.format(file=path.name, **constructor(run.config))
    card = path.with_name(f"{path.name}.md")
    with user_output(path, f"--to={path}") as partial, atomic_write(card) as partial_card:
        partial.write_bytes(content)
        measured = checked(path, partial, chosen.program, data, expected) if chosen.program and expected else None
        partial_card.write_text(model_card(run, network, data, path.name, how, measured), encoding="utf-8")
    return path, how


def checked(
    path: Path, written: Path, program: Callable[[Path], Program], data: MNISTDataModule, expected: Predictions
) -> Measured:
    """What a program that was written for a path comes to on the test set; LabError if it is not as expected."""
    images = torch.from_numpy(data.test_set()[0])
    try:
        difference = max_difference(program(written), images, expected)
    except LabError as error:
        raise LabError(f"{path}: {error}") from error
    except Exception as error:  # of every kind, by the library that runs it
        reason = str(error).strip().splitlines()[0]
        raise LabError(f"{path}: not written, for it cannot be run ({reason}); try another --format") from error
    return Measured(len(images), expected.accuracy, difference)
