"""Every figure: for files, TensorBoard, notebooks and reports."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_lab.viz.curves import plot_accuracy, plot_comparison, plot_examples_seen, plot_loss
    from mnist_lab.viz.dashboard import Dashboard
    from mnist_lab.viz.model import plot_images
    from mnist_lab.viz.sweep import plot_heat_map

_MODULES = {"Dashboard": "dashboard", "plot_heat_map": "sweep", "plot_images": "model"}
__all__ = [
    "Dashboard", "plot_accuracy", "plot_comparison", "plot_examples_seen", "plot_heat_map", "plot_images", "plot_loss",
]  # fmt: skip


def __getattr__(name: str) -> Any:  # The dashboard imports torch, which curves do not need.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'curves')}"), name)
