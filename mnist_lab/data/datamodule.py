"""The data module: split, resize and normalise the images once, then batch them from memory."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule
from pydantic import Field
from torch import Tensor

from mnist_lab.data.augmentation import Distortion
from mnist_lab.data.batches import Batches, Groups, count_batches
from mnist_lab.data.image_folder import ImageFolder
from mnist_lab.data.image_source import DIGITS, Arrays, ImageSource, Labelled
from mnist_lab.data.images import DARK
from mnist_lab.data.mnist_files import Source
from mnist_lab.errors import UsageError

MIN_STD = 1 / 255  # A blank image is divided by this instead of 0.
UNEQUAL = 1.5  # Classes are unequal if the largest has more than this many times the images of the smallest.


class MNISTDataModule(LightningDataModule):
    """MNIST, or a data set of its shape, in training, validation and test sets.

    Args:
        source: the data set and where its files come from.
        root: the folder of the data sets that are downloaded; None for the variable MNIST_LAB_DATA or the user's cache
            folder.
        download: whether missing files may be fetched.
        batch_size: training images a step, on each device.
        eval_batch_size: images a step of validation and test.
        val_size: training images held out for validation: their number, or their share, below 1. If the data have a
            validation set of their own, 0 leaves it out, and any other value uses it as it is.
        split_seed: seed of the choice of these images.
        mean: mean of the normalisation (x / 255 - mean) / std; None for each image's own, after augmentation.
        std: its standard deviation; None if and only if mean is None.
        image_size: side of the network's square input in pixels; the images have 28.
        seed: the training order is a function of (seed, epoch).
    """

    def __init__(
        self,
        *,
        source: ImageSource,
        root: str | None = None,
        download: bool = True,
        batch_size: Annotated[int, Field(ge=1)] = 64,
        eval_batch_size: Annotated[int, Field(ge=1)] = 1000,
        val_size: Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)] = 5000,
        split_seed: Annotated[int, Field(ge=0)] = 0,
        mean: Annotated[float, Field(allow_inf_nan=False)] | None = 0.1307,
        std: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 0.3081,
        image_size: Annotated[int, Field(ge=1)] = 28,
        seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        super().__init__()
        if not isinstance(source, ImageSource):
            raise TypeError("source is not a mnist_lab.data.ImageSource")
        if (mean is None) != (std is None):
            raise ValueError("mean and std must both be numbers, or both be null for each image's own")
        self.source, self.root, self.download = source, root, download
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.val_size, self.split_seed, self.seed = val_size, split_seed, seed
        self.mean, self.std, self.image_size = mean, std, image_size
        self.steps_per_execution = 1  # The training loader groups this many batches.
        self.limit_train_batches: int | float | None = None
        self.augmentation: Callable[..., Tensor] | None = None  # A Distortion, or a function with its arguments.
        self._arrays: Arrays | None = None
        self._sets: dict[str, tuple[Tensor, Tensor]] = {}

    def prepare_data(self) -> None:
        """Fetch missing files; Lightning calls this in one process of each machine."""
        self._load()

    def _load(self) -> Arrays:
        if self._arrays is None:
            self._arrays = self.source.load(self.root, download=self.download)
        return self._arrays

    def setup(self, stage: str | None = None) -> None:
        """Decode the sets that a stage needs."""
        arrays = self._load()
        if stage != "test" and "train" not in self._sets:
            (images, labels), (val_images, val_labels), _ = self.raw_sets().values()
            # Augmentation comes before the normalisation of each image by its own mean.
            prepare = self._resize if self.mean is None else self.normalise
            self._sets["train"] = (prepare(images), torch.from_numpy(labels).long())
            self._sets["val"] = (self.normalise(val_images), torch.from_numpy(val_labels).long())
        if stage != "fit" and "test" not in self._sets:
            self._sets["test"] = (self.normalise(arrays.test_images), torch.from_numpy(arrays.test_labels).long())

    def split(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of the training and the validation images; a validation set of the data's own is last."""
        if recorded := int(self.source.read_settings().get("validation", 0)):
            return np.arange(count - recorded), np.arange(count - recorded, count if self.val_size else 0)
        held_out = round(self.val_size * count) if isinstance(self.val_size, float) else self.val_size
        if self.val_size and not 0 < held_out < count:
            what = "to train on" if held_out else "for validation"
            raise UsageError(f"data.val_size={self.val_size}: leaves none of {count} images {what}")
        if held_out == 0:
            return np.arange(count), np.arange(0)
        order = np.random.default_rng(self.split_seed).permutation(count)
        return np.sort(order[held_out:]), np.sort(order[:held_out])

    def batch_counts(self, world_size: int = 1) -> dict[str, int]:
        """Return the number of batches of each set, train, val and test, in each of world_size processes."""
        arrays = self._load()
        train, val = self.split(len(arrays.train_labels))
        return {
            "train": count_batches(len(train), self.batch_size, world_size),
            "val": count_batches(len(val), self.eval_batch_size, world_size),
            "test": count_batches(len(arrays.test_labels), self.eval_batch_size, world_size),
        }

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the labels."""
        return list(self.source.classes or self.source.read_settings()["classes"])

    @property
    def has_unequal_classes(self) -> bool:
        """Whether the classes have unequal numbers of images for training and validation."""
        counts = np.bincount(self._load().train_labels, minlength=len(self.classes))
        return bool(counts.max() > UNEQUAL * counts.min())

    def class_weights(self, weights: Literal["balanced"] | Sequence[float] | None) -> Tensor | None:
        """Return the weight of each class, (K,), scaled so that the mean over the training images is 1."""
        if weights is None:
            return None
        labels = self._load().train_labels
        counts = np.bincount(labels[self.split(len(labels))[0]], minlength=len(self.classes))
        given = 1 / counts.clip(1) if weights == "balanced" else np.array(weights, float)
        return torch.tensor(given * counts.sum() / (given @ counts), dtype=torch.float32)

    @property
    def background(self) -> int:
        """Brightness of the images' edges, from 0 to 255."""
        if self.source.background is not None:
            return self.source.background
        return int(self.source.read_settings()["background"])

    @property
    def has_digits(self) -> bool:
        """Whether the classes are MNIST's digits, so that prediction looks for digits in a picture."""
        return isinstance(self.source, Source) and self.classes == list(DIGITS)

    @property
    def is_ink(self) -> bool:
        """Whether bright pixels are ink on dark paper, as in MNIST; images from image files are shown as they are."""
        return self.background < DARK and not isinstance(self.source, ImageFolder)

    def train_batches(self) -> Batches:
        """Return the data loader of the training set, a batch a step."""
        change, draw, augmentation = self.augmentation, None, self.augmentation
        if type(augmentation) is Distortion:  # A class derived from it may use the generator in its own way.
            change, draw = augmentation.apply, augmentation.draw
        augment = None if change is None and self.mean is not None else partial(self._augment, change)
        return self._batches("train", shuffle=True, limit=self.limit_train_batches, augment=augment, draw=draw)

    def _augment(self, change: Callable[..., Tensor] | None, images: Tensor, amounts: Any) -> Tensor:
        """Change the images of a training batch, and normalise each by its own mean and std if none are configured."""
        if change is not None:
            black = (self.background / 255 - (self.mean or 0)) / (self.std or 1)
            images = change(images, amounts, black=black)
        return normalise_pixels(images, None, None) if self.mean is None else images

    def train_dataloader(self) -> Batches | Groups:
        batches = self.train_batches()
        return Groups(batches, self.steps_per_execution) if self.steps_per_execution > 1 else batches

    def val_dataloader(self) -> Batches | list[Any]:
        return self._batches("val") if self.val_size else []

    def test_dataloader(self) -> Batches:
        return self._batches("test")

    def _batches(self, name: str, **settings: Any) -> Batches:
        images, labels = self._sets[name]
        device = images.device
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            settings |= {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
        world_size = settings.get("world_size", 1)
        if len(images) < world_size:
            raise UsageError(f"the {name} set has {len(images)} images: too few for trainer.devices={world_size}")
        batch_size = self.batch_size if name == "train" else self.eval_batch_size
        return Batches(images.to(device), labels.to(device), batch_size=batch_size, seed=self.seed, **settings)

    def examples(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the first test images, normalised, (count, 1, S, S), and their labels, (count,)."""
        self.setup("test")
        images, labels = self._sets["test"]
        return images[:count], labels[:count]

    def raw_test_set(self) -> Labelled:
        """Return the raw test images, (N, 28, 28) uint8, and their labels, (N,)."""
        return self._load()[2:]

    def raw_sets(self) -> dict[str, Labelled]:
        """Return the raw images and labels of the training, validation and test set, as `raw_test_set` does."""
        images, labels, *_ = self._load()
        train, val = self.split(len(labels))
        sets = {"training": (images[train], labels[train]), "validation": (images[val], labels[val])}
        return sets | {"test": self.raw_test_set()}

    def image_names(self) -> dict[str, np.ndarray]:
        """Return the names of the raw sets' images: their files, or their indices in the data as they were read."""
        _, labels, _, test_labels = self._load()
        names, test_names = self.source.image_names() or (np.arange(len(labels)), np.arange(len(test_labels)))
        train, val = self.split(len(labels))
        return {"training": names[train], "validation": names[val], "test": test_names}

    def normalise(self, images: np.ndarray) -> Tensor:
        """Resize and normalise images, (N, 28, 28) uint8 with background 0, to (N, 1, S, S) float32."""
        return normalise_pixels(self._resize(images), self.mean, self.std, inplace=True)

    def _resize(self, images: np.ndarray) -> Tensor:
        """Resize images, (N, 28, 28) uint8, to (N, 1, S, S) float32 from 0 to 1."""
        size = (self.image_size, self.image_size)
        pixels = torch.from_numpy(images).unsqueeze(1)
        if pixels.shape[2:] != size and len(pixels):
            # Torch resizes four channels at once, and each as it does alone, so up to four images become channels.
            channels = pixels.view(-1, math.gcd(len(pixels), 4), *pixels.shape[2:])
            pixels = F.interpolate(channels, size, mode="bilinear", antialias=True).view(-1, 1, *size)
        return pixels.float().div_(255)


def normalise_pixels(pixels: Tensor, mean: float | None, std: float | None, *, inplace: bool = False) -> Tensor:
    """Return (pixels - mean) / std of images from 0 to 1, (B, 1, S, S); None for each image's own mean and std."""
    if mean is not None and std is not None:  # The values equal those of torchvision's Normalize, to the last bit.
        return (pixels.sub_(mean) if inplace else pixels.sub(mean)).div_(std)
    centred = pixels - pixels.mean((-2, -1), keepdim=True)
    return centred / centred.square().mean((-2, -1), keepdim=True).sqrt().clamp_min(MIN_STD)
