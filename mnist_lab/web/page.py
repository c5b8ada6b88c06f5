"""A network as one HTML file: draw a digit, see the answer, and look into the layers, without a server."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import PIPE
from typing import IO, Any, cast

import torch
from torch import Tensor

from mnist_lab.config.metric_names import TEST_ACC
from mnist_lab.console import working_on
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
# Added to the page, this has the browser write down the probabilities of images, 784 bytes each, and log its progress.
CHECK = """<script>
{
  const bytes = Uint8Array.from(atob("%s"), (letter) => letter.charCodeAt(0)), answers = [];
  for (let i = 0; i < bytes.length; i += 784) {
    answers.push([...classify(bytes.subarray(i, i + 784)).probabilities]);
    if (answers.length %% 100 === 0) console.log(`checked ${answers.length}`);
  }
  const list = Object.assign(document.createElement("pre"), {id: "checked", textContent: JSON.stringify(answers)});
  document.body.append(list);
}
</script></body>"""
EarlierWeights = tuple[Mapping[str, Tensor], Arrays]  # the state_dict of an epoch, and where its arrays go
KINDS = {"convolution": "convolution", "linear": "fully connected"}  # The page names layers by these.
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
    kept = {epoch: path for epoch, path in run.epoch_checkpoints().items() if epoch != run.tested_epoch}
    earlier = [(load_weights(network, path), Arrays("<f2")) for path in kept.values()]
    networks = [_add_network(member, arrays, earlier) for member in members]
    content = arrays.to_bytes()
    epochs = []
    for epoch, (_, weights) in zip(kept, earlier, strict=True):
        epochs.append({"epoch": epoch, "start": len(content), "length": weights.length})
        content += weights.to_bytes()
    images = []
    if predictions:
        right = (predictions.labels == predictions.predicted).nonzero().flatten().tolist()
        for index in [*right[:1], *predictions.worst(MAX_WRONG).tolist()]:
            label, predicted = int(predictions.labels[index]), int(predictions.predicted[index])
            images.append({"index": index, "label": label, "predicted": predicted, "start": len(content)})
            content += data.raw_test_set()[0][index].tobytes()
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
        "images": images,
        "digits": data.has_digits,
        "background": data.background,
    }
    arrays_text = b64encode(content).decode()
    return render_template(TEMPLATES / "page.html", noun=noun, network=title, arrays=arrays_text, page=page)


def _add_network(member: InferenceModule, arrays: Arrays, earlier: Sequence[EarlierWeights]) -> dict[str, Any]:
    """Add a network's arrays; return it with its preprocessing, views and layers, as engine.js reads it."""
    network, size = member.network, member.network.image_size
    graph = to_graph(network, arrays, earlier)
    resizing = None
    if member.resizes:
        weights, unit = resize_weights(size)
        resizing = {"weight": arrays.add(weights), "unit": unit, "size": size}
    views = list(network.views.grids((1, size, size))) if network.views else []
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
    """Return each convolution and linear layer, with its activations and maxima, as places of steps in the graph."""
    steps = {"input": {"operator": "image", "shape": [1, size, size]}} | {step["name"]: step for step in graph}
    layers: list[dict[str, Any]] = []
    counts = Counter[str]()
    for step in graph:
        if (kind := KINDS.get(step["operator"])) is None:
            continue
        counts[kind] += 1
        if step["operator"] == "linear":
            source = steps[step["inputs"][0]]
            while source["operator"] in POINTWISE:
                source = steps[source["inputs"][0]]
            flattens = source["operator"] == "reshape"
            step["form"] = steps[source["inputs"][0]]["shape"] if flattens else [step["weight"]["shape"][1]]
        chain = [step]
        while (following := _only_follower(graph, chain[-1])) is not None:
            chain.append(following)
        name = step["layer"]
        if not all(map(str.isidentifier, name.split("."))):  # In nn.Sequential, names are numbers.
            name = f"{kind} {counts[kind]}"
        layers.append({"name": name, "steps": [graph.index(each) for each in chain]})
    return layers


def _only_follower(graph: list[Step], step: Step) -> Step | None:
    """Return the step that takes a step's value if it is the only one, and each of its values has one source."""
    users = [user for user in graph if step["name"] in user["inputs"]]
    is_traced = len(users) == 1 and (users[0]["operator"] in POINTWISE or users[0].get("kind") == "max")
    return users[0] if is_traced else None


def find_browser() -> str | None:
    """Return the path of the first installed browser of BROWSERS; None if there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def load_page(path: Path) -> Callable[[Tensor], Tensor] | None:
    """Load a page as a program that a browser runs; return None if there is no browser."""
    browser = find_browser()
    if browser is None:
        return None

    def run(images: Tensor) -> Tensor:
        task = f"checking the page in {Path(browser).name}"
        with tempfile.TemporaryDirectory() as folder, working_on(task) as status:
            page, answered = Path(folder) / "page.html", Path(folder) / "answers.html"
            check = CHECK % b64encode(images.numpy().tobytes()).decode()
            page.write_text(path.read_text(encoding="utf-8").replace("</body>", check))
            options = ["--headless", "--disable-gpu", f"--user-data-dir={folder}/profile", "--enable-logging=stderr"]
            if hasattr(os, "geteuid") and os.geteuid() == 0:
                options.append("--no-sandbox")
            command, errors = [browser, *options, "--dump-dom", page.as_uri()], ""
            with answered.open("w") as out, subprocess.Popen(command, stdout=out, stderr=PIPE, text=True) as process:
                try:
                    for line in cast(IO[str], process.stderr):
                        if count := re.search(r'"checked (\d+)"', line):
                            status.update(f"{task}: {int(count[1]):,} of {len(images):,} test images")
                        else:
                            errors = line
                except BaseException:  # Leaving the block would wait for the browser.
                    process.kill()
                    raise
            answers = re.search(r'<pre id="checked">(.*?)</pre>', answered.read_text(encoding="utf-8"))
        if answers is None:
            raise LabError(f"{browser}: ended without an answer ({errors.strip()[-200:]})")
        return torch.tensor(json.loads(answers[1]))

    return run
