"""The data module splits, resizes and normalises by seed, with torchvision's values, and leaves the test set whole."""

import numpy as np
import pytest
import torch
from lab import TEST, TRAIN, Tiny, thorough
from PIL import Image
from torchvision import transforms

from mnist_lab.config.compose import compose
from mnist_lab.data.augmentation import Distortion
from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.training.build import make_data, make_model


def module(tiny: Tiny, **settings: object) -> MNISTDataModule:
    defaults: dict[str, object] = {"source": tiny.source(), "root": str(tiny.root), "val_size": 40}
    data = MNISTDataModule(**(defaults | settings))  # type: ignore[arg-type]
    data.setup()
    return data


def test_default_split_is_55000_and_5000() -> None:
    cfg = compose()
    train, val = make_data(cfg, make_model(cfg)).split(60_000)
    assert (len(train), len(val)) == (55_000, 5_000)
    assert sorted([*train, *val]) == list(range(60_000))


def test_split_depends_on_split_seed_only(tiny: Tiny) -> None:
    first = module(tiny, seed=0).split(TRAIN)[1]
    np.random.seed(5)
    assert (module(tiny, seed=1).split(TRAIN)[1] == first).all()
    assert (module(tiny, split_seed=1).split(TRAIN)[1] != first).any()


def test_training_order_is_drawn_anew_from_the_seed(tiny: Tiny) -> None:
    def labels(seed: int) -> list[int]:
        return [int(label) for _, batch in module(tiny, seed=seed).train_dataloader() for label in batch]

    assert labels(0) == labels(0) != labels(1)
    assert labels(0) != sorted(labels(0))


def test_training_and_validation_images_are_the_training_files(tiny: Tiny) -> None:
    data = module(tiny)
    decoded = torch.cat([images for loader in (data.train_dataloader(), data.val_dataloader()) for images, _ in loader])
    raw = tiny.source().load(tiny.root).train_images
    expected = torchvision_values(raw, size=28, mean=0.1307, std=0.3081)
    assert sorted(decoded.double().sum((1, 2, 3)).tolist()) == sorted(expected.double().sum((1, 2, 3)).tolist())


def test_test_set_is_all_of_the_official_one_in_its_order_and_its_own_batches(tiny: Tiny) -> None:
    batches = [labels for _, labels in module(tiny, batch_size=16, eval_batch_size=25).test_dataloader()]
    assert torch.cat(batches).tolist() == [i % 10 for i in range(TEST)]
    assert [len(labels) for labels in batches] == [25, 25, 7]


@pytest.mark.parametrize("batch_size", [16, 27, 500])
def test_batches_are_counted_as_the_loaders_have_them(tiny: Tiny, batch_size: int) -> None:
    data = module(tiny, batch_size=batch_size, eval_batch_size=batch_size)
    loaders = {"train": data.train_dataloader(), "val": data.val_dataloader(), "test": data.test_dataloader()}
    assert data.batch_counts() == {name: len(loader) for name, loader in loaders.items()}


def test_val_size_0_trains_on_everything_and_validates_on_nothing(tiny: Tiny) -> None:
    data = module(tiny, val_size=0)
    assert sum(len(labels) for _, labels in data.train_dataloader()) == TRAIN
    assert data.val_dataloader() == []


def torchvision_values(bytes_: np.ndarray, *, size: int, mean: float, std: float) -> torch.Tensor:
    """Return images, (N, 28, 28), from a tutorial's pipeline: through PIL, one by one."""
    steps = [transforms.Resize((size, size))] if size != 28 else []
    pipeline = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize((mean,), (std,))])
    return torch.stack([pipeline(Image.fromarray(image)) for image in bytes_])


@pytest.mark.parametrize("augmentation", [None, Distortion(shift=3, cutout=9)])
def test_image_is_normalised_by_its_own_values_after_augmentation(tiny: Tiny, augmentation: Distortion | None) -> None:
    data = module(tiny, mean=None, std=None)
    data.augmentation = augmentation
    data.setup()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for images, _ in loader:
            assert images.mean((1, 2, 3)).abs().max() < 1e-5
            assert (images.std((1, 2, 3), correction=0) - 1).abs().max() < 1e-4


def test_blank_image_is_normalised_to_zeros(tiny: Tiny) -> None:
    blank = module(tiny, mean=None, std=None).normalise(np.full((1, 28, 28), 7, np.uint8))
    assert blank.abs().max() < 1e-3


def test_mean_without_std_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="mean and std must both be numbers, or both be null"):
        module(tiny, mean=None)


@pytest.mark.parametrize(("size", "mean", "std"), [(28, 0.1307, 0.3081), (28, 0.5, 0.5), (32, 0.1307, 0.3081)])
def test_pixels_are_torchvisions(tiny: Tiny, size: int, mean: float, std: float) -> None:
    data = module(tiny, image_size=size, mean=mean, std=std)
    expected = torchvision_values(tiny.source().load(tiny.root).test_images, size=size, mean=mean, std=std)
    assert (data.examples(TEST)[0] - expected).abs().max() <= (0 if size == 28 else 1 / 255 / std + 1e-6)


@pytest.mark.parametrize(("size", "count"), [(20, 3), (32, 2), (32, 6), (32, 8), *thorough((28, 4), (20, 1))])
def test_images_are_resized_together_as_each_alone(tiny: Tiny, size: int, count: int) -> None:
    data = module(tiny, image_size=size)
    raw = tiny.source().load(tiny.root).test_images[:count]
    before = raw.copy()
    alone = [data.normalise(raw[i : i + 1]) for i in range(count)]
    assert torch.equal(data.normalise(raw), torch.cat(alone))
    np.testing.assert_array_equal(raw, before)
