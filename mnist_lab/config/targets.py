"""Find the classes that a configuration names, and refuse those of the wrong kind.

A configuration may come from a stranger, in a run folder. Hydra calls whatever a `_target_` names. So the name is
looked up first, without a call, and must mean a class of the kind that its key needs.
"""

import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from lightning.fabric.plugins import ClusterEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder, ModelSummary, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import CheckpointIO, LayerSync, Precision
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn
from torchmetrics import Metric

from mnist_lab.config.keys import OPTIONAL
from mnist_lab.config.settings import walk
from mnist_lab.config.trust import import_outside_runs
from mnist_lab.errors import Interrupted, UsageError

# The public names of the base classes, by the keys of a configuration.
BASE_CLASSES = {
    "model": "mnist_lab.models.Classifier",
    "test_augmentation": "mnist_lab.models.Views",
    "data": "mnist_lab.data.MNISTDataModule",
    "data.source": "mnist_lab.data.ImageSource",
    "distillation": "mnist_lab.training.Teacher",
    "optimizer": "torch.optim.Optimizer",
    "scheduler": "torch.optim.lr_scheduler.LRScheduler",
    "trainer": "lightning.pytorch.Trainer",
    "callbacks.best": "mnist_lab.training.EpochCheckpoint",
    "callbacks.last": "mnist_lab.training.EpochCheckpoint",
    "callbacks.*": "lightning.pytorch.Callback",
    "logger.*": "lightning.pytorch.loggers.Logger",
    "dashboard": "mnist_lab.viz.Dashboard",
}
PLUGINS = (Accelerator, CheckpointIO, ClusterEnvironment, LayerSync, Precision, Profiler, Strategy)
FOR_TRAINING = (Callback, Logger, Trainer, Metric, *PLUGINS)  # These may write or fetch; a network and data may not.
TRAINING = ("trainer.", "callbacks.", "logger.")
TUNES = "would train with another {0} than the run records; compare values in a sweep instead (-m {0}=...)"
REFUSED = {
    ProgressBar: "callbacks.progress takes its place",
    ModelSummary: "callbacks.summary takes its place",
    LearningRateFinder: TUNES.format("optimizer.lr"),
    BatchSizeFinder: TUNES.format("data.batch_size"),
}
MAX_LAYERS = 1000  # Counted over all torch classes below one key.
PARTIAL_KEYS = ("optimizer", "scheduler")  # They need the parameters, or the optimizer, when training starts.


def find_class(name: Any, key: str) -> type:
    """Return the class that a `_target_` names, if its key may have it; its module is imported, and nothing called."""
    setting = f"{key}._target_={name}"
    try:
        target: type = _locate(name)
    except Interrupted:
        raise
    except (Exception, SystemExit) as error:  # An imported module may raise anything.
        raise UsageError(f"{setting}: cannot be imported ({' '.join(str(error).split())})") from error
    kind = _kind_of_key(key)
    if kind in BASE_CLASSES:
        if not _is_a(target, _locate(BASE_CLASSES[kind])):
            raise UsageError(f"{setting}: not a class derived from {BASE_CLASSES[kind]}")
    elif kind == "augmentation":
        if not _is_augmentation(target):
            raise UsageError(f"{setting}: not a class whose objects can be called with (images, generator, black)")
    elif not _is_argument(target, key):
        raise UsageError(f"{setting}: not a class that a configuration may use here; derive it from torch.nn.Module")
    for refused, reason in REFUSED.items():
        if _is_a(target, refused):
            raise UsageError(f"{setting}: {reason}")
    return target


def resolve_node(node: Any, key: str) -> dict[str, Any]:
    """Return a node of a configuration with its interpolations resolved, after a check of its classes."""
    if not isinstance(node, DictConfig):
        raise UsageError(f"{key}={node}: not a group of settings")
    if "_target_" not in node and key not in OPTIONAL:
        raise UsageError(f"{key}._target_: missing")
    try:
        resolved: dict[str, Any] = OmegaConf.to_container(node, resolve=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise UsageError(f"{key}: {str(error).splitlines()[0]}") from error
    packages, layers = {"mnist_lab"}, 0
    for path, value in walk(resolved, key):
        if isinstance(value, str) and "${" in value:
            raise UsageError(f"{path}={value}: an interpolation that is not resolved here; give its value")
        if not isinstance(value, dict) or "_target_" not in value:
            continue
        setting = f"{path}._target_={value['_target_']}"
        target = find_class(value["_target_"], path)
        package = target.__module__.partition(".")[0]
        is_part = _kind_of_key(path) in (*BASE_CLASSES, "augmentation")
        if is_part or _is_a(target, _locate(BASE_CLASSES["model"])):
            packages.add(package)
        elif target.__module__.startswith("torch.nn.modules."):
            layers += sum(abs(n) for name, n in value.items() if "layers" in name and isinstance(n, int))
            unnamed = [argument for argument in value.get("_args_") or () if isinstance(argument, int | str)]
            if layers > MAX_LAYERS or unnamed or value.get("device") is not None:
                rule = f"arguments of torch.nn have names, no device, and at most {MAX_LAYERS} layers in all"
                raise UsageError(f"{setting}: {rule}")
        elif not path.startswith(TRAINING) and package not in packages and _is_installed(target):
            rule = f"may use here only torch.nn, {', '.join(sorted(packages))}, and modules of one's own"
            raise UsageError(f"{setting}: a configuration {rule}")
        if value.get("_partial_") and is_part and path not in PARTIAL_KEYS:
            raise UsageError(f"{path}._partial_={value['_partial_']}: only for optimizer and scheduler")
    return resolved


def _kind_of_key(key: str) -> str:
    """Return a key with * in place of the name that the user gives a callback or a logger."""
    group, *names = key.split(".")
    is_own = key not in BASE_CLASSES and group in ("callbacks", "logger") and len(names) == 1
    return f"{group}.*" if is_own else key


def _locate(name: Any) -> Any:
    """Return the object that a dotted name refers to, as Hydra finds it."""
    if not isinstance(name, str):
        raise TypeError("not the dotted name of a class")
    first, *rest = name.split(".")
    target: Any = import_outside_runs(first)
    for length, part in enumerate(rest, 2):
        if isinstance(target, ModuleType) and not hasattr(target, part):
            import_outside_runs(".".join([first, *rest][:length]))
        target = getattr(target, part)
    return target


def _is_a(target: Any, *kinds: type) -> bool:
    return inspect.isclass(target) and issubclass(target, kinds)


def _is_argument(target: Any, key: str) -> bool:
    """Return whether a class may be an argument at a key; classes for training may be one only below their groups."""
    if _is_a(target, *FOR_TRAINING) and not key.startswith(TRAINING):
        return False
    return _is_a(target, *map(_locate, BASE_CLASSES.values()), nn.Module, *PLUGINS) or _is_augmentation(target)


def _is_installed(target: type) -> bool:
    """Return whether a class belongs to an installed package, and not to a module of the user's own."""
    file = getattr(sys.modules[target.__module__], "__file__", None)
    return file is None or not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


def _is_augmentation(target: Any) -> bool:
    """Return whether the objects of a class can be called with (images, generator, black), as those of `Distortion`."""
    if not inspect.isclass(target):
        return False
    try:
        return "black" in inspect.signature(getattr(target, "forward", target.__call__)).parameters
    except (TypeError, ValueError):  # A class written in C has no signature.
        return False
