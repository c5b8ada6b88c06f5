"""The images: sources, preprocessing, and batches in a reproducible order."""

from mnist_lab.data.array_file import ArrayFile, IDXFolder
from mnist_lab.data.augmentation import Distortion
from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.data.image_folder import ImageFolder
from mnist_lab.data.image_source import ImageSource
from mnist_lab.data.mnist_files import Source

__all__ = ["ArrayFile", "Distortion", "IDXFolder", "ImageFolder", "ImageSource", "MNISTDataModule", "Source"]
