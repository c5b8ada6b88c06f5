"""Augmentation changes only training images, each by its own amounts, and is a function of (seed, epoch, step)."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from lab import Tiny

from mnist_lab.data import batches
from mnist_lab.data.augmentation import HALF, Distortion
from mnist_lab.data.batches import Batches, Groups
from mnist_lab.training.build import make_data, make_model

BLACK = -0.4


def digit(size: int = 28) -> torch.Tensor:
    """Return a bright square, off the middle, on black."""
    image = torch.full((1, 1, size, size), BLACK)
    image[..., size // 4 : size // 2, size // 4 : size // 2] = 2.0
    return image


def distort(count: int = 1000, size: int = 28, **settings: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return Distortion(**settings)(digit(size).expand(count, 1, size, size), generator, BLACK)


def middle(images: torch.Tensor) -> torch.Tensor:
    """Return where the bright square's centre is, in pixels from the image's, (B, 2)."""
    light = (images - BLACK).squeeze(1)
    places = torch.arange(images.shape[-1]) - (images.shape[-1] - 1) / 2
    total = light.sum((1, 2))
    return torch.stack([(light.sum(1) * places).sum(1) / total, (light.sum(2) * places).sum(1) / total], dim=1)


@pytest.mark.parametrize("size", [28, 32])
def test_shift_is_up_to_so_many_pixels_of_28_and_each_images_own(size: int) -> None:
    moved = (middle(distort(shift=3.0, size=size)) - middle(digit(size))) * 28 / size
    assert moved.abs().max() == pytest.approx(3, abs=0.05)
    assert moved.mean(0).abs().max() < 0.2
    assert len(moved.unique(dim=0)) == 1000
    assert distort(shift=3.0).min() == pytest.approx(BLACK, abs=1e-5), "what comes in at the edge is black"


def test_shift_is_bounded_whatever_the_turn_and_the_scale() -> None:
    image = torch.full((1, 1, 28, 28), BLACK)
    image[..., 12:16, 12:16] = 2.0  # Turn and scale leave the middle in its place.
    distortion = Distortion(shift=3.0, degrees=180.0, scale=0.5)
    moved = middle(distortion(image.expand(1000, 1, 28, 28), torch.Generator().manual_seed(0), BLACK))
    assert moved.abs().max() == pytest.approx(3, abs=0.05)


def test_turn_is_up_to_so_many_degrees_about_the_middle() -> None:
    x, y = middle(distort(degrees=30.0)).T
    angles = torch.rad2deg(torch.atan2(y, x)) - torch.rad2deg(torch.atan2(*middle(digit()).T.flip(0)))
    assert angles.abs().max() == pytest.approx(30, abs=0.5)
    assert torch.allclose(torch.hypot(x, y), torch.linalg.norm(middle(digit())), atol=0.1)


def test_scale_is_up_to_so_much_either_way() -> None:
    areas = (distort(scale=0.2) - BLACK).sum((1, 2, 3)) / (digit() - BLACK).sum()
    assert areas.max().sqrt() == pytest.approx(1.2, abs=0.02)
    assert areas.min().sqrt() == pytest.approx(0.8, abs=0.02)


def test_shear_slants_upright_strokes_by_up_to_so_many_degrees() -> None:
    image = torch.full((1, 1, 28, 28), BLACK)
    image[..., 4:24, 13:15] = 2.0
    sheared = Distortion(shear=20.0)(image.expand(500, 1, 28, 28), torch.Generator().manual_seed(0), BLACK)
    light = (sheared - BLACK).squeeze(1)
    columns = (light * torch.arange(28.0)).sum(2) / light.sum(2)  # place of the stroke in each row
    angles = torch.rad2deg(torch.atan((columns[:, 20] - columns[:, 7]) / 13))
    assert angles.abs().max() == pytest.approx(20, abs=0.7)
    assert angles.mean().abs() < 2
    assert torch.allclose(middle(sheared)[:, 1], torch.zeros(500), atol=0.02), "rows keep their places"


def test_crop_keeps_a_square_of_the_image_and_resizes_it() -> None:
    ramp = torch.arange(28.0).expand(1, 1, 28, 28)  # Each pixel is the number of its column.
    cropped = Distortion(crop=8.0)(ramp.expand(2000, 1, 28, 28), torch.Generator().manual_seed(0), 0.0)
    left, right = cropped[:, 0, 14, 2], cropped[:, 0, 14, 25]
    sides = (right - left) * 28 / 23
    assert sides.min() == pytest.approx(20, abs=0.1) and sides.max() == pytest.approx(28, abs=0.1)
    assert cropped[..., 1:-1, 1:-1].min() >= 0 and (left >= 1.2).all(), "nothing from outside the image"
    assert left.max() > 8


def test_elastic_displacements_are_smooth_and_of_the_standard_deviation_asked_for() -> None:
    distortion = Distortion(elastic=1.5, elastic_points=4)
    points = distortion.draw(2000, 28, torch.Generator().manual_seed(0))[:, 6:]
    moved = distortion._displace(points, 28) * HALF
    assert moved.shape == (2000, 28, 28, 2)
    assert moved[:, 0, 0].std() == pytest.approx(1.5, rel=0.05), "at a point of the grid"
    assert moved.mean().abs() < 0.05
    assert (moved[:, 1:] - moved[:, :-1]).abs().mean() < 0.3
    assert not torch.allclose(distort(elastic=1.5), digit().expand(1000, 1, 28, 28), atol=0.1)


@pytest.mark.parametrize("size", [28, 32])
def test_cutout_fills_a_square_around_a_random_pixel(size: int) -> None:
    bright = torch.full((2000, 1, size, size), 2.0)
    cut = Distortion(cutout=7)(bright, torch.Generator().manual_seed(0), BLACK)
    side = round(7 * size / 28)
    filled = (cut - BLACK).abs() < 1e-4
    areas = filled.sum((1, 2, 3))
    assert areas.max() == side**2
    assert areas.min() >= (side // 2) ** 2, "its centre is in the image"
    assert len(filled.flatten(1).unique(dim=0)) > size * size / 2


def test_amounts_do_not_depend_on_which_other_distortions_are_on() -> None:
    """This allows a comparison with and without one of them."""
    shifted, also_cut = distort(shift=3.0), distort(shift=3.0, cutout=5)
    unchanged = ((shifted - also_cut).abs() < 1e-4).float().mean()
    assert unchanged > 0.9


def test_changes_are_a_function_of_seed_epoch_step_and_rank() -> None:
    def augmented(seed: int = 0, epoch: int = 0, rank: int = 0) -> list[torch.Tensor]:
        augment: Any = partial(Distortion(shift=2, elastic=1, cutout=7), black=BLACK)
        settings = {"seed": seed, "rank": rank, "world_size": 2}
        images = digit().expand(50, 1, 28, 28).clone()
        loader = Batches(images, torch.arange(50), batch_size=16, shuffle=True, augment=augment, **settings)
        loader.set_epoch(epoch)
        torch.manual_seed(seed * 7 + epoch)  # The changes must not depend on torch's own generator.
        return [images for images, _ in loader]

    first = augmented()
    assert all(torch.equal(one, other) for one, other in zip(first, augmented(), strict=True))
    others = [first[1], augmented(epoch=1)[0], augmented(seed=1)[0], augmented(rank=1)[0]]
    assert not any(torch.equal(first[0][:9], other[:9]) for other in others)


def test_amounts_drawn_ahead_for_a_group_and_uploaded_once_change_images_as_those_of_a_step(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny.compose("augmentation=elastic", "augmentation.crop=3", "augmentation.cutout=7", "data.batch_size=7")
    data = make_data(cfg, make_model(cfg))
    data.setup()
    groups = Groups(data.train_batches(), size=5)
    uploaded: list[int] = []

    def upload(values: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        uploaded.append(len(values))
        return values

    monkeypatch.setattr(batches, "upload", upload)
    grouped = [images for group in groups for images, _ in group]
    steps = len(groups.batches)
    assert len(uploaded) == 1 + math.ceil(steps / 5), "the order, and the amounts of each group"
    assert sum(uploaded[1:]) == uploaded[0] == len(groups.batches.images)
    assert data.augmentation is not None
    augment: Any = partial(data.augmentation, black=(0 - 0.1307) / 0.3081)
    single = replace(groups.batches, augment=augment, draw=None)
    assert len(grouped) == steps
    assert all(torch.equal(one, other) for one, (other, _) in zip(grouped, single, strict=True))


def test_only_training_images_are_changed(tiny: Tiny) -> None:
    configs = (tiny.compose(), tiny.compose("augmentation=affine", "augmentation.shift=1"))
    plain, augmented = (make_data(cfg, make_model(cfg)) for cfg in configs)
    for data in (plain, augmented):
        data.setup()
    for name in ("val_dataloader", "test_dataloader"):
        for one, other in zip(getattr(plain, name)(), getattr(augmented, name)(), strict=True):
            assert torch.equal(one[0], other[0])
    pairs = zip(plain.train_dataloader(), augmented.train_dataloader(), strict=True)
    assert all(torch.equal(one[1], other[1]) and not torch.equal(one[0], other[0]) for one, other in pairs)
