"""mnist_lab: five published MNIST tutorials' networks on one footing, on PyTorch Lightning and Hydra."""

from pathlib import Path

__version__ = "0.1.0"


def conf_dir() -> Path:
    """The folder of configurations: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).absolute().parent
    return next(conf for conf in (package / "conf", package.parent / "conf") if (conf / "train.yaml").is_file())
