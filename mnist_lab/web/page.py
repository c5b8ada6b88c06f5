"""A network as one HTML file: draw a digit, see its answer, and look into its layers; no server, no network."""

from __future__ import annotations

import base64
import copy
from pathlib import Path
from typing import Any

from mnist_lab.config.metric_names import TEST_ACC
from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.errors import LabError
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.formatting import render_template
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.deployed import Ensemble, InferenceModule, resize_weights
from mnist_lab.runs.checkpoints import load_weights
from mnist_lab.runs.run import Run
from mnist_lab.training.build import load_trained_model, make_data
from mnist_lab.web.graph import Arrays, Step, to_graph

TEMPLATES = Path(__file__).with_name("templates")
WORST = 20  # test images
INVITATION = "Draw a digit, or several in a row."
POINTWISE = {"relu", "leaky_relu", "elu", "sigmoid", "tanh", "silu", "gelu", "scale"}


def page_of(run: Run) -> str:
    """Return the page of a run's tested weights, with test images if the data set is on this machine.

    Raises:
        UsageError: the run has no checkpoint.
        LabError: the network has an operator that the page lacks.
    """
    network = load_trained_model(run)
    data = make_data(run.config, network)
    data.download = False
    try:
        predictions = Predictions.on_test_set(network, data)
    except LabError:  # the data are not there, or are others by now
        predictions = None
    return to_page(network, data, run, predictions)


def to_page(network: Classifier, data: MNISTDataModule, run: Run, predictions: Predictions | None) -> str:
    """Return the page of a network.

    Args:
        network: the network with the weights that were tested.
        data: the data it was tested on.
        run: its run; the page goes through the epochs of which it kept checkpoints.
        predictions: of the network for the test set, whose worst images the page shows; None to show none.

    Raises:
        LabError: the network cannot be traced, or has an operator that the page lacks.
    """
    arrays = Arrays()
    members = (
        list(network.members)
        if isinstance(network, Ensemble)
        else [InferenceModule(network, data.mean, data.std, network.views)]
    )
    networks = [_network(member, arrays) for member in members]  # type: ignore[arg-type]
    epochs: list[Step] = []
    for epoch, path in run.epoch_checkpoints().items():
        earlier = copy.deepcopy(members[0])
        earlier.network.load_state_dict(load_weights(earlier.network, path))  # type: ignore[arg-type,union-attr]
        epochs.append({"epoch": epoch, "shift": arrays.length})
        _network(earlier, arrays)  # type: ignore[arg-type]
    content = arrays.to_bytes()
    wrong: list[Step] = []
    if predictions:
        for index in predictions.worst(WORST).tolist():
            label, predicted = int(predictions.labels[index]), int(predictions.predicted[index])
            wrong.append({"index": index, "label": label, "predicted": predicted, "start": len(content)})
            content += data.test_set()[0][index].tobytes()
    digits, accuracy = data.has_digits, run.info["metrics"].get(TEST_ACC)
    page = {
        "classes": data.classes,
        "invitation": (invitation := INVITATION if digits else f"Draw one of {len(data.classes)}: see the list."),
        "networks": networks,
        "epochs": epochs,
        "tested": run.tested_epoch,
        "wrong": wrong,
        "digits": digits,
        "background": data.background,
    }
    return render_template(
        TEMPLATES / "page.html",
        noun="digit" if digits else "picture",
        network=str(run.info["model"]) + (f", test accuracy {accuracy:.2%}" if accuracy is not None else ""),
        invitation=invitation,
        arrays=base64.b64encode(content).decode(),
        page=page,
    )


def _network(member: InferenceModule, arrays: Arrays) -> Step:
    """Return a network with its preprocessing, views and layers, as engine.js reads it."""
    network = member.network
    size = network.image_size
    resizing = None
    if member.resizes:
        weights, unit = resize_weights(size)
        resizing = {"weight": arrays.add(weights), "unit": unit, "size": size}
    views = list(network.views.grids((1, size, size))) if network.views else []
    graph = to_graph(network, arrays)
    return {
        "size": size,
        "mean": member.mean,
        "std": member.std,
        "resizing": resizing,
        "graph": graph,
        "views": [arrays.add(grid) for grid in views],
        "layers": _layers(graph, size),
    }


def _layers(graph: list[Step], size: int) -> list[dict[str, Any]]:
    """Return what the page shows of each convolution and linear layer but the last.

    A layer is shown behind its activation, if that has the same size.
    """
    users: dict[str, list[Step]] = {}
    for step in graph:
        for name in step["inputs"]:
            users.setdefault(name, []).append(step)
    by_name = {step["name"]: step for step in graph}
    shapes = {"input": [1, size, size]} | {step["name"]: step["shape"] for step in graph}
    layers = []
    for step in graph:
        if step["operator"] == "linear":
            source = step
            while (source["operator"] in POINTWISE or source is step) and source["inputs"][0] in by_name:
                source = by_name[source["inputs"][0]]
            flattened = source["operator"] == "reshape" and shapes[source["inputs"][0]]
            step["form"] = flattened or [step["weight"]["shape"][1]]
        if step["operator"] in ("convolution", "linear"):
            shown = step
            while len(after := users.get(shown["name"], [])) == 1 and after[0]["operator"] in POINTWISE:
                shown = after[0]
            layers.append(
                {"name": step["layer"], "shape": step["shape"], "weights": step["name"], "shown": shown["name"]}
            )
    return layers[:-1]
