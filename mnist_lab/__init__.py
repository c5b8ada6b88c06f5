"""mnist_lab: five published MNIST tutorials' networks on one footing, on PyTorch Lightning and Hydra."""

__version__ = "0.1.0"
