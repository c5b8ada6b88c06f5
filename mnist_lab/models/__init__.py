"""The networks, one a file; each is a `Classifier`."""

from mnist_lab.models.classifier import Classifier
from mnist_lab.models.compact_cnn import CompactCNN
from mnist_lab.models.deployed import Ensemble, InferenceModule, Views
from mnist_lab.models.dropout_cnn import DropoutCNN
from mnist_lab.models.fast_cnn import FastCNN
from mnist_lab.models.lenet import LeNet
from mnist_lab.models.mlp import MLP
from mnist_lab.models.residual_cnn import ResidualCNN
from mnist_lab.models.simple_cnn import SimpleCNN
from mnist_lab.models.tiny_cnn import TinyCNN

__all__ = [
    "MLP",
    "Classifier",
    "CompactCNN",
    "DropoutCNN",
    "Ensemble",
    "FastCNN",
    "InferenceModule",
    "LeNet",
    "ResidualCNN",
    "SimpleCNN",
    "TinyCNN",
    "Views",
]
