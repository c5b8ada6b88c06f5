"""mnist_lab: five published MNIST tutorials' networks on one footing, on PyTorch Lightning and Hydra.

The names below are public. Those that need torch or Hydra are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mnist_lab.config import conf_dir
from mnist_lab.errors import LabError, UsageError

if TYPE_CHECKING:
    from mnist_lab.config.compose import compose
    from mnist_lab.evaluation.evaluate import evaluate
    from mnist_lab.runs.run import Run
    from mnist_lab.sweeps.sweep import sweep
    from mnist_lab.training.train import train

__version__ = "0.2.0"
__all__ = ["LabError", "Run", "UsageError", "compose", "conf_dir", "evaluate", "sweep", "train"]

_MODULES = {
    "Run": "mnist_lab.runs.run",
    "compose": "mnist_lab.config.compose",
    "evaluate": "mnist_lab.evaluation.evaluate",
    "sweep": "mnist_lab.sweeps.sweep",
    "train": "mnist_lab.training.train",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
