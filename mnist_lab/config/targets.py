"""Find the classes that a configuration names, and refuse those of the wrong kind.

A configuration may come from a stranger, in a run folder. Hydra calls whatever a `_target_` names, so the name is
looked up first, without a call, and must be a class of the kind that its key needs.
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
from mnist_lab.config.trust import import_module, walk
from mnist_lab.errors import Interrupted, UsageError

# The base class for each key of the configuration, by its public name.
BASE_CLASSES = {
    "model": "mnist_lab.models.Classifier",
    "test_augmentation": "mnist_lab.models.Views",
    "data": "mnist_lab.data.MNISTDataModule",
    "data.source": "mnist_lab.data.ImageSource",
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
FOR_TRAINING = (Callback, Logger, Trainer, Metric, *PLUGINS)  # may write or fetch, which a network and data may not
TRAINING = ("trainer.", "callbacks.", "logger.")
TUNERS = {LearningRateFinder: "optimizer.lr", BatchSizeFinder: "data.batch_size"}
MAX_LAYERS = 1000  # of all torch classes in a part together
PARTIAL = ("optimizer", "scheduler")  # made from parameters, or from an optimizer


def find_class(name: Any, key: str) -> type:
    """Return the class that a `_target_` names, if it is of the kind that its key needs; nothing is called.

    The module that holds it is imported.
    """
    setting = f"{key}._target_={name}"
    try:
        target: type = _locate(name)
    except Interrupted:
        raise
    except (Exception, SystemExit) as error:  # of a module that is imported
        raise UsageError(f"{setting}: cannot be imported ({' '.join(str(error).split())})") from error
    place = _place(key)
    if place in BASE_CLASSES:
        if not _is_a(target, _locate(BASE_CLASSES[place])):
            raise UsageError(f"{setting}: not a class derived from {BASE_CLASSES[place]}")
    elif place == "augmentation":
        if not _is_augmentation(target):
            raise UsageError(f"{setting}: not a class whose objects can be called with (images, generator, black)")
    elif (_is_a(target, *FOR_TRAINING) and not place.startswith(TRAINING)) or not (
        _is_a(target, *map(_locate, BASE_CLASSES.values()), nn.Module, *PLUGINS) or _is_augmentation(target)
    ):
        raise UsageError(f"{setting}: not a class that a configuration may use here; derive it from torch.nn.Module")
    if _is_a(target, ProgressBar, ModelSummary):
        raise UsageError(f"{setting}: callbacks.progress and callbacks.summary take its place")
    for tuner, changed in TUNERS.items():
        if _is_a(target, tuner):
            raise UsageError(
                f"{setting}: would train with another {changed} than the run records; "
                f"compare values in a sweep instead (-m {changed}=...)"
            )
    return target


def resolve_node(node: Any, key: str) -> dict[str, Any]:
    """Return a node of a configuration with its interpolations resolved, and its classes checked."""
    if not isinstance(node, DictConfig):
        raise UsageError(f"{key}={node}: not a group of settings")
    if "_target_" not in node and key not in OPTIONAL:
        raise UsageError(f"{key}._target_: missing")
    try:
        resolved: dict[str, Any] = OmegaConf.to_container(node, resolve=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise UsageError(f"{key}: {str(error).splitlines()[0]}") from error
    packages, layers = {"mnist_lab"}, 0
    for place, value in walk(resolved, key):
        if isinstance(value, dict) and "_target_" in value:
            target = find_class(value["_target_"], place)
            known = _place(place) in (*BASE_CLASSES, "augmentation")
            if known or _is_a(target, _locate(BASE_CLASSES["model"])):
                packages.add(target.__module__.partition(".")[0])
            elif target.__module__.startswith("torch.nn.modules."):
                layers += sum(abs(n) for name, n in value.items() if "layers" in name and isinstance(n, int))
                unnamed = [each for each in value.get("_args_") or () if isinstance(each, int | str)]
                if layers > MAX_LAYERS or unnamed or value.get("device") is not None:
                    rule = f"arguments of torch.nn have names, no device, and at most {MAX_LAYERS} layers in all"
                    raise UsageError(f"{place}._target_={value['_target_']}: {rule}")
            elif (
                not place.startswith(TRAINING)
                and target.__module__.partition(".")[0] not in packages
                and _is_installed(target)
            ):
                rule = f"may use here only torch.nn, {', '.join(sorted(packages))}, and modules of one's own"
                raise UsageError(f"{place}._target_={value['_target_']}: a configuration {rule}")
            if value.get("_partial_") and known and place not in PARTIAL:
                raise UsageError(f"{place}._partial_={value['_partial_']}: only for optimizer and scheduler")
        elif isinstance(value, str) and "${" in value:
            raise UsageError(f"{place}={value}: an interpolation that is not resolved here; give its value")
    return resolved


def _place(key: str) -> str:
    """Return a key with a callback's or logger's own name replaced by *."""
    group, *names = key.split(".")
    if key in BASE_CLASSES:
        return key
    return f"{group}.*" if group in ("callbacks", "logger") and len(names) == 1 else key


def _locate(name: Any) -> Any:
    """Return the object that a dotted name refers to, as Hydra finds it."""
    if not isinstance(name, str):
        raise TypeError("not the dotted name of a class")
    first, *rest = name.split(".")
    found: Any = import_module(first)
    for length, part in enumerate(rest, 2):
        if isinstance(found, ModuleType) and not hasattr(found, part):
            import_module(".".join([first, *rest][:length]))
        found = getattr(found, part)
    return found


def _is_a(target: Any, *kinds: type) -> bool:
    return inspect.isclass(target) and issubclass(target, kinds)


def _is_installed(target: type) -> bool:
    """Return whether a class comes from an installed package, and not from a module of the user's own."""
    file = getattr(sys.modules[target.__module__], "__file__", None)
    return file is None or not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


def _is_augmentation(target: Any) -> bool:
    """Return whether a class's instances can be called with (images, generator, black), as `Distortion`'s."""
    if not inspect.isclass(target):
        return False
    try:
        return "black" in inspect.signature(getattr(target, "forward", target.__call__)).parameters
    except (TypeError, ValueError):  # a class written in C
        return False
