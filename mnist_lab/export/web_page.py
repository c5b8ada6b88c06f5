"""A network as one HTML file: draw a digit, see its answer, and look into its layers; no server, no network."""

from __future__ import annotations

import base64
import copy
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.errors import LabError
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.export.graph import Arrays, Step, to_graph
from mnist_lab.export.programs import Program
from mnist_lab.formatting import render_template
from mnist_lab.inference.server import WEB, invitation
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.ensemble import Ensemble
from mnist_lab.models.inference_module import InferenceModule, resize_weights
from mnist_lab.runs.checkpoints import load_weights
from mnist_lab.runs.run import Run

WORST = 20  # test images
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
POINTWISE = {"relu", "leaky_relu", "elu", "sigmoid", "tanh", "silu", "gelu", "scale"}
CHECK_SECONDS = 1800


def to_page(network: Classifier, data: MNISTDataModule, run: Run) -> bytes:
    """Return the page of a network.

    Args:
        network: the network with the weights that were tested.
        data: the data it was tested on.
        run: its run; the page goes through the epochs of which it kept checkpoints.

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
    predictions = Predictions.on_test_set(network, data)
    content = arrays.to_bytes()
    wrong: list[Step] = []
    images = data.test_set()[0]
    for index in predictions.worst(WORST).tolist():
        wrong.append(
            {
                "index": index,
                "label": int(predictions.labels[index]),
                "predicted": int(predictions.predicted[index]),
                "start": len(content),
            }
        )
        content += images[index].tobytes()
    digits = data.has_digits
    page = {
        "networks": networks,
        "epochs": epochs,
        "tested": run.tested_epoch,
        "wrong": wrong,
        "digits": digits,
        "background": data.background,
    }
    text = render_template(
        WEB / "page.html",
        noun="digit" if digits else "picture",
        network=f"{type(network).__name__}, test accuracy {predictions.accuracy:.2%}",
        classes=data.classes,
        invitation=invitation(data.classes, digits=digits),
        arrays=base64.b64encode(content).decode(),
        page=page,
    )
    return text.encode()


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


def find_browser() -> str | None:
    """Return the path of a Chromium that can run without a screen; None if there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def load_page(path: Path) -> Program | None:
    """Load a page as a program that a browser runs; None where there is no browser."""
    browser = find_browser()
    if browser is None:
        return None
    page = path.read_text(encoding="utf-8")

    def run(images: Tensor) -> Tensor:
        with tempfile.TemporaryDirectory() as folder:
            checked = Path(folder) / "page.html"
            checked.write_text(page.replace("</body>", _CHECK % base64.b64encode(images.numpy().tobytes()).decode()))
            options = ["--headless", "--disable-gpu", f"--user-data-dir={folder}/profile", "--dump-dom"]
            if hasattr(os, "geteuid") and os.geteuid() == 0:
                options.append("--no-sandbox")
            done = subprocess.run(
                [browser, *options, checked.as_uri()], capture_output=True, text=True, timeout=CHECK_SECONDS
            )
        found = re.search(r'<pre id="checked">(.*?)</pre>', done.stdout)
        if found is None:
            raise LabError(f"{browser}: ended without an answer ({done.stderr.strip()[-200:]})")
        return torch.tensor(json.loads(found[1]))

    return run


_CHECK = """<script>
{
  const bytes = Uint8Array.from(atob("%s"), (letter) => letter.charCodeAt(0)), found = [];
  for (let i = 0; i < bytes.length; i += 784) found.push(classify(bytes.subarray(i, i + 784)));
  const list = document.body.appendChild(document.createElement("pre"));
  list.id = "checked";
  list.textContent = JSON.stringify(found.map((each) => [...each]));
}
</script></body>"""
