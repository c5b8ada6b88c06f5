"""The images: where they come from, how they are prepared, in which order they are seen."""

from mnist_lab.data.augmentation import Affine
from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.data.source import Source

__all__ = ["Affine", "MNISTDataModule", "Source"]
