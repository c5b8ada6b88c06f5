"""Every picture: for files, TensorBoard, notebooks and reports."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_lab.viz.comparison import plot_comparison as plot_comparison
    from mnist_lab.viz.curves import plot_accuracy as plot_accuracy
    from mnist_lab.viz.curves import plot_examples_seen as plot_examples_seen
    from mnist_lab.viz.curves import plot_loss as plot_loss
    from mnist_lab.viz.dashboard import Dashboard as Dashboard
    from mnist_lab.viz.heatmap import plot_heat_map as plot_heat_map
    from mnist_lab.viz.images import plot_images as plot_images

_MODULES = {
    "Dashboard": "dashboard",
    "plot_accuracy": "curves",
    "plot_comparison": "comparison",
    "plot_examples_seen": "curves",
    "plot_heat_map": "heatmap",
    "plot_images": "images",
    "plot_loss": "curves",
}


def __getattr__(name: str) -> Any:  # curves are drawn without torch, which the dashboard imports
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
