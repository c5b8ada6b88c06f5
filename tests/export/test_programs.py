"""Each exported file, loaded as its card says, predicts as the checkpoint does; other files are refused."""

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lab import Command, Outcome, Tiny, assert_refused, same, slow, thorough
from torch import Tensor

from benchmarks.tutorials import NETWORKS as TUTORIALS
from mnist_lab import conf_dir
from mnist_lab.errors import LabError
from mnist_lab.evaluation.predictions import Predictions, TrainedRun
from mnist_lab.export import export as exporting
from mnist_lab.export.model_card import model_card
from mnist_lab.models.deployed import InferenceModule
from mnist_lab.runs.run import Run
from mnist_lab.training.train import train

NETWORKS = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml"))

PROGRAMS = {"onnx": ".onnx", "torch_export": ".pt2"}
WEIGHTS = {"safetensors": ".safetensors", "state_dict": ".pt"}
QUICK = ("trainer.max_epochs=1", "figures=false", "logger=csv", "hydra.run.dir=runs/a")
OWN = """
import torch
from torch import nn
from mnist_lab.models.classifier import Classifier

class Own(Classifier):
    image_size = 20

    def __init__(self, *, width: int = 8, asks: bool = False) -> None:
        super().__init__()
        self.asks = asks
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(400, width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, x):
        if self.asks and x.sum() > 0:
            x = -x
        return self.net(x)
"""


@pytest.fixture
def own(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a user's network, model=own, beside the configuration of the tiny data."""
    Path("own_network.py").write_text(OWN)
    (tiny.conf / "model").mkdir()
    (tiny.conf / "model" / "own.yaml").write_text("_target_: own_network.Own\nwidth: 8\nasks: false\n")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    monkeypatch.delitem(sys.modules, "own_network", raising=False)
    return Path("own_network.py")


def loaded(card: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the lines on a card in its folder, and return the names that they define."""
    (lines,) = re.findall(r"```python\n(.*?)```", card.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    with monkeypatch.context() as here:
        here.chdir(card.parent)
        exec(lines, names)
    return names


def answers(form: str, network: Any, images: np.ndarray) -> Tensor:
    """Return the probabilities that a loaded program gives."""
    if form == "onnx":
        return torch.from_numpy(network.run(None, {"images": images})[0])
    with torch.no_grad():
        return network(torch.from_numpy(images))  # type: ignore[no-any-return]


def assert_not_exported(outcome: Outcome, status: int, message: str) -> None:
    """Assert that a command failed with this status and one line, and left no file except the checkpoints."""
    assert_refused(outcome, "", message, status=status)
    assert "written" not in outcome.out
    assert not [path for path in Path().rglob("*") if re.search(r"\.(onnx|pt2|pt|safetensors|md|partial)$", path.name)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own", *thorough(*NETWORKS)])
def test_every_format_predicts_as_the_checkpoint_when_loaded_as_its_card_says(
    command: Command, tiny: Tiny, own: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    views = ["test_augmentation=views"] if name == "residual_cnn" else []
    train(tiny.compose(f"model={name}", "optimizer.lr=0.05", *QUICK, "trainer.max_epochs=3", *views))
    run = Run(Path("runs/a"))
    trained = TrainedRun(run)
    expected, pictures = trained.predictions, trained.data.raw_test_set()[0]
    assert expected.probabilities.std() > 0.05, "or all programs would look alike"
    for form, suffix in PROGRAMS.items():
        outcome = command("export", "runs/a", "--format", form, data=False)
        assert (outcome.status, outcome.err) == (0, "")
        file = run.folder / "exports" / f"{name}{suffix}"
        assert outcome.out.splitlines()[-2:] == [f"model card: {file}.md", f"written: {file}"]
        defined = loaded(file.with_name(f"{file.name}.md"), monkeypatch)
        assert tuple(defined["probabilities"].shape) == (1, 10)
        for size in (1, 5, len(pictures)):
            parts = [pictures[i : i + size] for i in range(0, 3 * size, size) if i < len(pictures)]
            found = torch.cat([answers(form, defined["network"], part) for part in parts])
            assert torch.equal(found.argmax(1), expected.predicted[: len(found)])
            torch.testing.assert_close(found, expected.probabilities[: len(found)], rtol=0, atol=1e-4)
    for form, suffix in WEIGHTS.items():
        assert command("export", "runs/a", "--format", form, data=False).status == 0
        card = run.folder / "exports" / f"{name}{suffix}.md"
        network = loaded(card, monkeypatch)["network"]
        assert ("turned by 8 degrees to either side at 0.92 and 1.08 times its size" in card.read_text()) == bool(views)
        assert same(network.state_dict(), trained.model.state_dict())
        images = trained.data.normalise(pictures)
        torch.testing.assert_close(network.probabilities(images), expected.probabilities)
    assert len(list((run.folder / "exports").iterdir())) == 8, "a card for each file, and nothing else"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", *thorough("torch_export")])
def test_program_that_differs_from_the_checkpoint_is_not_written(
    command: Command, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    train(tiny.compose("model=mlp", *QUICK))
    arguments, right = ("export", "runs/a", "--format", form), exporting.FORMATS[form]
    with monkeypatch.context() as broken:
        broken.setattr(InferenceModule, "forward", lambda self, images: self.network(images[:, None] / 255).softmax(1))
        outcome = command(*arguments, data=False)
        assert_not_exported(outcome, 1, f"exports/mlp{PROGRAMS[form]}: not written: on 57 test images, ")
    assert command(*arguments, data=False).status == 0
    before = Path(f"runs/a/exports/mlp{PROGRAMS[form]}").read_bytes()
    wrong = dataclasses.replace(right, convert=lambda trained: b"no program")
    monkeypatch.setitem(exporting.FORMATS, form, wrong)
    outcome = command(*arguments, data=False)
    last_line = outcome.err.splitlines()[-1]  # Torch logs the broken file before that.
    assert outcome.status == 1 and ": not written: " in last_line and last_line.endswith("; try another --format")
    assert Path(f"runs/a/exports/mlp{PROGRAMS[form]}").read_bytes() == before, "what was there stays"
    assert not list(Path().rglob("*.partial"))


def test_check_runs_every_image_in_batches_of_several_sizes_and_refuses_nan() -> None:
    images = torch.arange(2100).reshape(-1, 1, 1).expand(-1, 28, 28)
    probabilities = torch.eye(10)[torch.arange(2100) % 10]
    expected, sizes = Predictions(torch.zeros(2100).long(), probabilities), []

    def program(batch: Tensor) -> Tensor:
        sizes.append(len(batch))
        return probabilities[batch[:, 0, 0]]

    assert exporting.check_program(program, images, expected).max_difference == 0
    assert sizes == [1, 2, 7, 64, 1000, 1000, 26]
    nearly = exporting.check_program(lambda batch: program(batch) + 5e-5, images, expected)
    assert 0 < nearly.max_difference < 1e-4
    for wrong in (2e-4, float("nan")):
        last = torch.zeros(2100, 10)
        last[2099, 9] = wrong  # The image's own class stays the most probable one.
        with pytest.raises(LabError, match="differ"):
            exporting.check_program(lambda batch, last=last: program(batch) + last[batch[:, 0, 0]], images, expected)


@pytest.mark.slow
def test_missing_requirement_is_named(command: Command, tiny: Tiny, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tiny.compose("model=own", "model.asks=true", *QUICK))
    for form in PROGRAMS:
        outcome = command("export", "runs/a", "--format", form, data=False)
        assert_not_exported(outcome, 1, "Own: torch cannot trace it (")
    for module, form in (("onnxruntime", "onnx"), ("onnxscript", "onnx"), ("safetensors.torch", "safetensors")):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, module, None)
            outcome = command("export", "runs/a", "--format", form, data=False)
            assert_not_exported(outcome, 2, f"pip install 'mnist-lab[{form}]'")
    for file in tiny.raw.iterdir():
        file.unlink()
    assert_not_exported(command("export", "runs/a", "--format", "onnx", data=False), 2, "Tiny is incomplete")
    for form in WEIGHTS:
        assert command("export", "runs/a", "--format", form, data=False).status == 0


@pytest.mark.slow
def test_card_says_what_the_run_was_and_what_the_file_takes(command: Command, tiny: Tiny) -> None:
    command("experiment=lenet", "trainer.max_epochs=2", "hydra.run.dir=runs/a")
    command("export", "runs/a", "--format", "torch_export", data=False)
    run, card = Run(Path("runs/a")), Path("runs/a/exports/lenet.pt2.md").read_text()
    for message in (
        "# lenet.pt2: lenet, trained on Tiny",
        "“MNIST using LeNet”, Y.-K. Kim, 2020-08-19, experiment=lenet",
        "`LeNet`, 61,706 parameters",
        f"{run.info['metrics']['test/acc']:.2%} on the 57 test images, measured by running this file",
        "of epoch 2 of 2, the last, seed",
        f"`{run.info['command']}`",
        "resized to 32 by 32",
        "x / 255, then minus 0.1307, then divided by 0.3081",
        "The licence of Tiny is decided by its owner.",
    ):
        assert message in card
    trained = TrainedRun(run)
    data = trained.data
    for name, licence in (("MNIST", "CC BY-SA 3.0"), ("FashionMNIST", "2017) is under the MIT licence. ")):
        data.source = dataclasses.replace(data.source, name=name)
        card = model_card(trained, "x.pt", "load", None, is_program=False)
        assert licence in card and f"trained on {name}" in card
        assert "when the run ended" in card and "measured by" not in card
    (run.folder / "checkpoints" / "last.ckpt").rename(run.folder / "checkpoints" / "best.ckpt")
    card = model_card(trained, "x.pt", "load", None, is_program=False)
    assert "of an unfinished run, after 2 epochs, best by validation accuracy" in card


@pytest.mark.parametrize("name", ["lenet", *slow("dropout_cnn"), *thorough("mlp", "simple_cnn", "compact_cnn")])
def test_state_dict_goes_from_the_tutorials_class_to_a_run_and_back(command: Command, name: str) -> None:
    theirs = TUTORIALS[name]().state_dict()
    torch.save(theirs, "tutorial.pt")
    outcome = command(f"experiment={name}", "init_from=tutorial.pt", "trainer.max_epochs=0", "hydra.run.dir=runs/a/b")
    assert outcome.status == 0, outcome.err
    assert command("export", "latest", "--format", "state_dict", "--to", "new/my.pt", data=False).status == 0
    assert same(torch.load("new/my.pt", weights_only=True), theirs)


@pytest.mark.parametrize(
    ("opset", "ir"), [*slow((18, 8)), *thorough((None, None), (19, 9), (20, 9), (21, 10), (22, 10), (23, 11))]
)
def test_onnx_file_has_the_opset_that_was_asked_for_and_telling_names(
    command: Command, opset: int | None, ir: int | None
) -> None:
    onnx = pytest.importorskip("onnx")
    command("model=lenet", "test_augmentation=views", *QUICK)  # Views need the operator with the most versions.
    arguments = () if opset is None else ("--opset", str(opset))
    outcome = command("export", "runs/a", "--format", "onnx", *arguments, data=False)
    assert outcome.status == 0, outcome.err
    model = onnx.load("runs/a/exports/lenet.onnx")
    (found,) = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    expected = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", found)])
    assert (found, model.ir_version) == (opset or found, ir or expected)
    for values, name, rest in ((model.graph.input, "images", [28, 28]), (model.graph.output, "probabilities", [10])):
        (value,) = values
        dimensions = value.type.tensor_type.shape.dim
        assert (value.name, dimensions[0].dim_param) == (name, "batch")
        assert [dimension.dim_value for dimension in dimensions[1:]] == rest


def test_impossible_export_is_reported_in_one_line(command: Command) -> None:
    command("model=mlp", "trainer.max_epochs=1", "hydra.run.dir=runs/a/b")
    Path("file").write_text("")
    for arguments, message in (
        (("runs/a/b", "--format", "word"), "--format=word: unknown format; choose from onnx, torch_export"),
        (("runs/a/b",), "--format"),
        (("runs/a/b", "--format", "onnx", "--opset", "7"), "--opset=7: must be from 18 to 23"),
        (("runs/a/b", "--format", "onnx", "--opset", "99"), "--opset=99: must be from 18 to 23"),
        (("runs/a/b", "--format", "html", "--opset", "18"), "--opset=18: only valid with --format onnx"),
        (("runs/a/b", "--format", "state_dict", "--to", "file/x.pt"), "--to=file/x.pt: cannot be written"),
        (("runs/a/b", "--format", "state_dict", "--to", "/dev/null"), "--to=/dev/null: exists and is not a file"),
    ):
        assert_refused(command("export", *arguments, data=False), "", message)
    assert not list(Path().rglob("*.pt"))


@pytest.mark.slow
def test_state_dict_that_does_not_fit_is_refused_with_the_first_misfit(command: Command) -> None:
    lenet = {key: tuple(tensor.shape) for key, tensor in TUTORIALS["lenet"]().state_dict().items()}
    for shapes, message in (
        (lenet | {"fc3.weight": (7, 84)}, "holds no weights of LeNet: its fc3.weight is (7, 84), not (10, 84)"),
        (
            {name: shape for name, shape in lenet.items() if name != "fc3.bias"},
            "holds no weights of LeNet: its fc3.bias is missing, not (10,)",
        ),
        (lenet | {"fc4.bias": (1,)}, "holds no weights of LeNet: its fc4.bias is (1,), not missing"),
        ({1: (3,)}, "holds no weights of LeNet: its conv1.weight is missing"),  # type: ignore[dict-item]
    ):
        torch.save({name: torch.zeros(shape) for name, shape in shapes.items()}, "some.pt")
        assert_refused(command("model=lenet", "init_from=some.pt"), f"init_from=some.pt: {message}")
        assert not Path("runs").exists()
