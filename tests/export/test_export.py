"""Weights can be exchanged between a tutorial's own class and a run; those that do not fit are refused."""

from pathlib import Path

import pytest
import torch
from lab import Command, Tiny, same, slow, thorough
from torch import Tensor, nn

from benchmarks.tutorials import NETWORKS
from mnist_lab.runs.run import Run
from mnist_lab.training.build import make_data, make_model


def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in NETWORKS[name]().state_dict().items()}


def whole_test_set(tiny: Tiny, name: str) -> tuple[Tensor, Tensor]:
    """All test images as the network takes them, and their classes."""
    cfg = tiny.compose(f"experiment={name}")
    return make_data(cfg, make_model(cfg)).examples(1000)


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    images = images if any(isinstance(layer, nn.Conv2d) for layer in network.modules()) else images.flatten(1)
    with torch.no_grad():
        return (network.eval()(images).argmax(1) == labels).float().mean().item()


@pytest.mark.parametrize("name", ["lenet", *slow("dropout_cnn"), *thorough("mlp", "simple_cnn", "compact_cnn")])
def test_state_dict_goes_from_the_tutorials_class_to_a_run_and_back(command: Command, tiny: Tiny, name: str) -> None:
    torch.manual_seed(3)
    theirs = NETWORKS[name]()
    torch.save(theirs.state_dict(), "tutorial.pt")
    untrained = ("init_from=tutorial.pt", "trainer.max_epochs=0", "hydra.run.dir=runs/a/b")
    outcome = command(f"experiment={name}", *untrained)
    assert outcome.status == 0, outcome.err
    expected = accuracy(theirs, *whole_test_set(tiny, name))
    assert 0 < expected < 1
    assert Run(Path("runs/a/b")).info["metrics"]["test/acc"] == pytest.approx(expected)
    assert command("export", "latest", "--format", "state_dict", "--to", "new/my.pt", data=False).status == 0
    exported = torch.load("new/my.pt", weights_only=True)
    NETWORKS[name]().load_state_dict(exported, strict=True)
    assert same(exported, theirs.state_dict())


def test_impossible_export_is_reported_in_one_line(command: Command) -> None:
    command("model=mlp", "trainer.max_epochs=1", "hydra.run.dir=runs/a/b")
    Path("file").write_text("")
    for arguments, message in (
        (("runs/a/b", "--format", "word"), "--format=word: unknown format; choose from onnx, torch_export"),
        (("runs/a/b",), "--format"),
        (("runs/a/b", "--format", "state_dict", "--to", "file/x.pt"), "--to=file/x.pt: cannot be written"),
        (("runs/a/b", "--format", "state_dict", "--to", "/dev/null"), "--to=/dev/null: exists and is not a file"),
    ):
        outcome = command("export", *arguments, data=False)
        assert outcome.status == 2
        assert message in outcome.err and outcome.err.count("\n") == 1
    assert not list(Path().rglob("*.pt"))


@pytest.mark.slow
def test_state_dict_that_does_not_fit_is_identified_by_its_shapes(command: Command, tiny: Tiny) -> None:
    lenet = shapes_of("lenet")
    shapes: dict[str, tuple[int, ...]]
    for shapes, message in (
        (shapes_of("dropout_cnn"), "looks like weights of dropout_cnn, by their shapes, not of LeNet"),
        (lenet | {"fc3.weight": (7, 84)}, "holds no weights of LeNet: its fc3.weight is (7, 84), not (10, 84)"),
        (
            {name: shape for name, shape in lenet.items() if name != "fc3.bias"},
            "holds no weights of LeNet: its fc3.bias is missing, not (10,)",
        ),
        (lenet | {"fc4.bias": (1,)}, "holds no weights of LeNet: its fc4.bias is (1,), not missing"),
        ({1: (3,)}, "holds no weights of LeNet: its conv1.weight is missing"),  # type: ignore[dict-item]
    ):
        torch.save({name: torch.zeros(shape) for name, shape in shapes.items()}, "some.pt")
        outcome = command("model=lenet", "init_from=some.pt")
        assert (outcome.status, outcome.err.count("\n")) == (2, 1)
        assert outcome.err.startswith(f"mnist_lab: init_from=some.pt: {message}")
        assert not Path("runs").exists()
