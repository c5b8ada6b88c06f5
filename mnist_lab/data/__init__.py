"""The images: sources, preprocessing, and batches in a reproducible order."""

from mnist_lab.data.augmentation import Affine
from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.data.source import Source

__all__ = ["Affine", "MNISTDataModule", "Source"]
