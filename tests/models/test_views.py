"""Test-time augmentation: validation, test, prediction and exported files average the same views of an image."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lab import SMALL_RESIDUAL, Command
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from mnist_lab.evaluation.evaluate import evaluate
from mnist_lab.evaluation.predictions import TrainedRun
from mnist_lab.export.export import check_program, trace_program
from mnist_lab.models.deployed import Views
from mnist_lab.models.lenet import LeNet
from mnist_lab.runs.run import Run
from mnist_lab.training.build import load_trained_model


def spot(size: int = 28) -> Tensor:
    """A bright square off the middle, whose edges are smooth enough for two ways of sampling to agree."""
    image = torch.zeros(2, 1, size, size)
    image[..., 6:14, 16:24] = 1.0
    return transforms.gaussian_blur(image, [7, 7], [2.0])


def test_views_are_the_image_turned_to_either_side_smaller_and_larger() -> None:
    image = spot()
    first, *others = Views(degrees=10, scale=0.1)(image)
    assert torch.equal(first, image)
    bilinear = transforms.InterpolationMode.BILINEAR
    expected = [
        transforms.affine(image, angle, [0, 0], zoom, [0.0, 0.0], bilinear)
        for angle in (10, -10)
        for zoom in (0.9, 1.1)
    ]
    assert len(others) == 4
    for view, turned in zip(others, expected, strict=True):
        assert torch.allclose(view, turned, atol=0.03)


@pytest.mark.parametrize(("degrees", "scale", "count"), [(8, 0.08, 5), (8, 0, 3), (0, 0.08, 3)])
def test_amount_of_0_leaves_its_views_out(degrees: float, scale: float, count: int) -> None:
    assert len(list(Views(degrees=degrees, scale=scale)(spot()))) == count


def test_edges_keep_their_brightness() -> None:
    assert all(torch.allclose(view, torch.full_like(view, -0.4)) for view in Views()(torch.full((3, 1, 28, 28), -0.4)))


def test_scores_are_the_mean_of_the_views_probabilities_in_eval_mode_alone() -> None:
    torch.manual_seed(0)
    network, images = LeNet(), torch.randn(6, 1, 32, 32)
    network.views = Views()
    each = torch.stack([network(view).softmax(1) for view in network.views(images)])
    assert torch.allclose(network.eval().scores(images).exp(), each.mean(0), atol=1e-6)
    assert torch.allclose(network.probabilities(images), each.mean(0), atol=1e-6)
    assert torch.equal(network.train().scores(images), network(images))


def test_mean_of_certain_views_has_a_finite_logarithm() -> None:
    class Certain(LeNet):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[1e5] + [0.0] * 9]).repeat(len(x), 1)

    network = Certain().eval()
    network.views = Views()
    assert network.scores(torch.zeros(2, 1, 32, 32)).isfinite().all()


@pytest.mark.slow
def test_run_is_validated_and_tested_with_its_views(command: Command) -> None:
    settings = (*SMALL_RESIDUAL, "test_augmentation=views", "trainer.max_epochs=1", "hydra.run.dir=runs/a/b")
    assert command(*settings).status == 0
    run = Run(Path("runs/a/b"))
    trained = TrainedRun(run)
    network, data, predictions = trained.model, trained.data, trained.predictions
    loss = torch.nn.functional.nll_loss(predictions.probabilities.log(), predictions.labels).item()
    assert run.info["metrics"]["test/loss"] == pytest.approx(loss, abs=1e-5)
    assert evaluate(run)["test/loss"] == run.info["metrics"]["test/loss"]
    network.views = None
    assert not math.isclose(
        loss, torch.nn.functional.nll_loss(network.probabilities(data.examples(57)[0]).log(), predictions.labels).item()
    )
    network.views = Views()
    program = trace_program(network, data).module()
    images = torch.from_numpy(data.test_set()[0])
    assert check_program(program, images, predictions).max_difference < 1e-4


def test_weights_are_loaded_with_their_views_as_the_card_says(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("model=mlp", "test_augmentation=views", "trainer.max_epochs=1", "hydra.run.dir=runs/a/b").status == 0
    outcome = command("export", "runs/a/b", "--format", "state_dict", data=False)
    assert outcome.status == 0, outcome.err
    run = Run(Path("runs/a/b").absolute())
    card = (run.exports_folder / "mlp.pt.md").read_text(encoding="utf-8")
    assert "turned by 8 degrees to either side at 0.92 and 1.08 times its size" in card
    monkeypatch.chdir(run.exports_folder)
    names: dict[str, Any] = {}
    exec(card.split("```python\n")[1].split("```")[0], names)
    images = torch.randn(5, 1, 28, 28)
    expected = load_trained_model(run).probabilities(images)
    assert torch.equal(names["network"].probabilities(images), expected)


@pytest.mark.slow
def test_onnx_file_of_a_run_with_views_is_checked_and_written(command: Command) -> None:
    settings = (*SMALL_RESIDUAL, "test_augmentation=views", "trainer.max_epochs=1", "hydra.run.dir=runs/a/b")
    assert command(*settings).status == 0
    outcome = command("export", "runs/a/b", "--format", "onnx", data=False)
    assert outcome.status == 0, outcome.err


@pytest.mark.slow
def test_member_of_an_ensemble_keeps_its_views(command: Command) -> None:
    for name, views in (("plain", "none"), ("views", "views")):
        settings = ("model=mlp", f"test_augmentation={views}", "trainer.max_epochs=1", f"hydra.run.dir=runs/a/{name}")
        assert command(*settings).status == 0
    assert command("ensemble", "runs/a/plain", "runs/a/views", "--to", "runs/a/both", data=False).status == 0
    runs = [Run(Path("runs/a") / name) for name in ("plain", "views", "both")]
    probabilities = [TrainedRun(run).predictions.probabilities for run in runs]
    assert torch.allclose(torch.stack(probabilities[:2]).mean(0), probabilities[2], atol=1e-5)
