"""mnist_lab: five published MNIST tutorials' networks on one footing, on PyTorch Lightning and Hydra.

The names below are the public ones; each is imported when it is first used, so that `import mnist_lab` is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_lab.config import conf_dir as conf_dir
    from mnist_lab.config.compose import compose as compose
    from mnist_lab.errors import LabError as LabError
    from mnist_lab.errors import UsageError as UsageError
    from mnist_lab.evaluation.evaluate import evaluate as evaluate
    from mnist_lab.runs.run import Run as Run
    from mnist_lab.sweeps.hydra_app import sweep as sweep
    from mnist_lab.training.train import train as train

__version__ = "0.2.0"
__all__ = ["LabError", "Run", "UsageError", "compose", "conf_dir", "evaluate", "sweep", "train"]

_MODULES = {
    "LabError": "mnist_lab.errors",
    "Run": "mnist_lab.runs.run",
    "UsageError": "mnist_lab.errors",
    "compose": "mnist_lab.config.compose",
    "conf_dir": "mnist_lab.config",
    "evaluate": "mnist_lab.evaluation.evaluate",
    "sweep": "mnist_lab.sweeps.hydra_app",
    "train": "mnist_lab.training.train",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
