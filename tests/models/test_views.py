"""Test-time augmentation: validation, test, prediction and exported files average the same views of an image."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lab import Command, thorough
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from mnist_lab.data.augmentation import affine_matrix
from mnist_lab.evaluation.evaluate import evaluate
from mnist_lab.evaluation.predictions import TrainedRun
from mnist_lab.models.deployed import Views
from mnist_lab.models.lenet import LeNet
from mnist_lab.runs.run import Run


def spot(size: int = 28) -> Tensor:
    """Return a bright square off the middle, with edges so smooth that two ways of sampling agree."""
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


@pytest.mark.parametrize(("size", "degrees"), [(28, 8), (32, 8), *thorough((28, 180), (12, 45))])
def test_views_are_those_that_repeat_the_pixels_at_the_edges(size: int, degrees: float) -> None:
    torch.manual_seed(size)
    images, views = torch.rand(6, 1, size, size) * 3 - 0.4, Views(degrees=degrees)
    angle, zoom = torch.tensor(views.changes).T
    grids = F.affine_grid(affine_matrix(angle, zoom), [len(angle), 1, size, size], align_corners=False)
    for view, grid in zip(list(views(images))[1:], grids, strict=True):
        places = grid.expand(len(images), -1, -1, -1)
        repeated = F.grid_sample(images, places, padding_mode="border", align_corners=False)
        assert torch.allclose(view, repeated, rtol=0, atol=1e-5)


def test_scores_are_the_mean_of_the_views_probabilities_only_in_eval_mode() -> None:
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
def test_run_is_tested_with_its_views_and_keeps_them_in_an_ensemble(command: Command) -> None:
    for name, views in (("plain", "none"), ("views", "views")):
        settings = ("model=mlp", f"test_augmentation={views}", "trainer.max_epochs=1", f"hydra.run.dir=runs/a/{name}")
        assert command(*settings).status == 0
    assert command("ensemble", "runs/a/plain", "runs/a/views", "--to", "runs/a/both", data=False).status == 0
    plain, views, both = (Run(Path("runs/a") / name) for name in ("plain", "views", "both"))
    labels = TrainedRun(views).predictions.labels
    p_plain, p_views, p_both = (TrainedRun(run).predictions.probabilities for run in (plain, views, both))
    assert torch.allclose((p_plain + p_views) / 2, p_both, atol=1e-5)
    loss = F.nll_loss(p_views.log(), labels).item()
    assert views.info["metrics"]["test/loss"] == pytest.approx(loss, abs=1e-5)
    assert evaluate(views)["test/loss"] == views.info["metrics"]["test/loss"] != plain.info["metrics"]["test/loss"]
    assert not torch.allclose(p_plain, p_views, atol=1e-3)
