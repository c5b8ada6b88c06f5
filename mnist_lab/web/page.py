"""A network as one HTML file: draw a digit, see the answer, and look into the layers, without a server."""

import base64
import copy
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from mnist_lab.config.metric_names import TEST_ACC
from mnist_lab.errors import LabError
from mnist_lab.evaluation.predictions import Predictions, TrainedRun
from mnist_lab.formatting import render_template
from mnist_lab.models.deployed import Ensemble, InferenceModule, resize_weights
from mnist_lab.runs.checkpoints import load_weights
from mnist_lab.runs.run import Run
from mnist_lab.web.graph import Arrays, Step, to_graph

TEMPLATES = Path(__file__).with_name("templates")
MAX_WRONG = 20  # test images
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
CHECK_SECONDS = 7200
# Added to the page, this has the browser write down the probabilities of images, 784 bytes each.
CHECK = """<script>
{
  const bytes = Uint8Array.from(atob("%s"), (letter) => letter.charCodeAt(0)), answers = [];
  for (let i = 0; i < bytes.length; i += 784) answers.push([...classify(bytes.subarray(i, i + 784)).probabilities]);
  const list = Object.assign(document.createElement("pre"), {id: "checked", textContent: JSON.stringify(answers)});
  document.body.append(list);
}
</script></body>"""
POINTWISE = {"relu", "leaky_relu", "elu", "sigmoid", "tanh", "silu", "gelu", "scale"}


def page_of(run: Run) -> str:
    """Return the page of a run's tested weights, with wrong test images if the data set is on this machine."""
    trained = TrainedRun(run)
    trained.data.download = False
    try:
        predictions = trained.predictions
    except LabError:  # The data are missing or have changed.
        predictions = None
    return to_page(trained, predictions)


def to_page(trained: TrainedRun, predictions: Predictions | None) -> str:
    """Return the page of a network, with its worst errors in the test set and the epochs that its run has kept."""
    run, network, data = trained.run, trained.model, trained.data
    arrays = Arrays()
    members = [InferenceModule(network, data.mean, data.std, network.views)]
    if isinstance(network, Ensemble):
        members = [cast(InferenceModule, member) for member in network.members]
    networks = [_add_network(member, arrays) for member in members]
    epochs = []
    for epoch, path in run.epoch_checkpoints().items():
        earlier = copy.deepcopy(members[0])
        earlier.network.load_state_dict(load_weights(earlier.network, path))
        epochs.append({"epoch": epoch, "shift": arrays.length})
        _add_network(earlier, arrays)
    content = arrays.to_bytes()
    wrong = []
    if predictions:
        for index in predictions.worst(MAX_WRONG).tolist():
            label, predicted = int(predictions.labels[index]), int(predictions.predicted[index])
            wrong.append({"index": index, "label": label, "predicted": predicted, "start": len(content)})
            content += data.test_set()[0][index].tobytes()
    noun, invitation = "picture", f"Draw one of {len(data.classes)}: see the list."
    if data.has_digits:
        noun, invitation = "digit", "Draw a digit, or several in a row."
    title, accuracy = str(run.info["model"]), run.info["metrics"].get(TEST_ACC)
    if accuracy is not None:
        title += f", test accuracy {accuracy:.2%}"
    page = {
        "classes": data.classes,
        "invitation": invitation,
        "networks": networks,
        "epochs": epochs,
        "tested": run.tested_epoch,
        "wrong": wrong,
        "digits": data.has_digits,
        "background": data.background,
    }
    arrays_text = base64.b64encode(content).decode()
    return render_template(TEMPLATES / "page.html", noun=noun, network=title, arrays=arrays_text, page=page)


def _add_network(member: InferenceModule, arrays: Arrays) -> dict[str, Any]:
    """Add a network's arrays; return it with its preprocessing, views and layers, as engine.js reads it."""
    network, size = member.network, member.network.image_size
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
    """Return what the page shows of each convolution and linear layer except the last, after its activations."""
    steps = {"input": {"operator": "image", "shape": [1, size, size]}} | {step["name"]: step for step in graph}
    layers = []
    for step in graph:
        if step["operator"] not in ("convolution", "linear"):
            continue
        if step["operator"] == "linear":
            source = steps[step["inputs"][0]]
            while source["operator"] in POINTWISE:
                source = steps[source["inputs"][0]]
            flattens = source["operator"] == "reshape"
            step["form"] = steps[source["inputs"][0]]["shape"] if flattens else [step["weight"]["shape"][1]]
        shown = step
        while (activation := _only_activation(graph, shown)) is not None:
            shown = activation
        layers.append({"name": step["layer"], "shape": step["shape"], "weights": step["name"], "shown": shown["name"]})
    return layers[:-1]


def _only_activation(graph: list[Step], step: Step) -> Step | None:
    """Return the step that takes a step's value if it is the only one and acts on each element; else None."""
    users = [user for user in graph if step["name"] in user["inputs"]]
    return users[0] if len(users) == 1 and users[0]["operator"] in POINTWISE else None


def find_browser() -> str | None:
    """Return the path of the first installed browser of BROWSERS; None if there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def load_page(path: Path) -> Callable[[Tensor], Tensor] | None:
    """Load a page as a program that a browser runs; return None if there is no browser."""
    browser = find_browser()
    if browser is None:
        return None

    def run(images: Tensor) -> Tensor:
        with tempfile.TemporaryDirectory() as folder:
            page, check = Path(folder) / "page.html", CHECK % base64.b64encode(images.numpy().tobytes()).decode()
            page.write_text(path.read_text(encoding="utf-8").replace("</body>", check))
            options = ["--headless", "--disable-gpu", f"--user-data-dir={folder}/profile", "--dump-dom"]
            if hasattr(os, "geteuid") and os.geteuid() == 0:
                options.append("--no-sandbox")
            command = [browser, *options, page.as_uri()]
            done = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_SECONDS)
        answers = re.search(r'<pre id="checked">(.*?)</pre>', done.stdout)
        if answers is None:
            raise LabError(f"{browser}: ended without an answer ({done.stderr.strip()[-200:]})")
        return torch.tensor(json.loads(answers[1]))

    return run
