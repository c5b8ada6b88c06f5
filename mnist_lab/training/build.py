"""Build network, data module and Trainer from a configuration."""

import copy
import inspect
import re
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import MISSING, DictConfig, OmegaConf
from torch import nn

from mnist_lab.config.distributed import world_size_problems
from mnist_lab.config.keys import READ_FROM_DATA
from mnist_lab.config.metric_names import VAL_BALANCED_ACC, direction
from mnist_lab.config.settings import flatten, to_plain, walk
from mnist_lab.config.targets import find_class, resolve_node
from mnist_lab.config.validate import enabled_callbacks, parameter_types, validate_parts
from mnist_lab.data.batches import limit_batches
from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.data.image_source import DIGITS, ImageSource
from mnist_lab.errors import UsageError
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.dummy_batch import describe_error
from mnist_lab.runs.checkpoints import SafeCheckpointIO, load_weights
from mnist_lab.runs.run import Run
from mnist_lab.training.loggers import MetricsCSV
from mnist_lab.training.runtime import cluster_environment


def instantiate_node(node: Any, key: str, **settings: Any) -> Any:
    """Instantiate the node of a key, such as callbacks.best, with further settings; an empty node stays empty."""
    try:
        return instantiate(resolve_node(node, key), **settings, _convert_="all")
    except InstantiationException as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        if isinstance(error.__cause__, ModuleNotFoundError):
            requirement = re.search(r"Requirement '(.+?)'", reason)  # Lightning's message names it.
            package = requirement[1] if requirement else error.__cause__.name or reason
            raise UsageError(f"{key}: needs a package that is not installed: pip install '{package}'") from error
        if isinstance(error.__cause__, UsageError):
            raise error.__cause__ from error
        if key == "model" and error.__cause__:
            reason = describe_error(error.__cause__, find_class(node._target_, key))
        raise UsageError(f"{key}: invalid settings: {reason}") from error


def make_model(cfg: DictConfig) -> Classifier:
    """Return the network. Its optimizer and scheduler are tried once here, and made when training starts.

    A network that is only tested has an empty optimizer in its configuration.
    """
    resolve_node(cfg.get("model"), "model")
    model: Classifier = instantiate_node(cfg.model, "model", **num_classes_argument(cfg))
    model.to(memory_format=torch.channels_last)  # Convolutions take a fifth to a half less time.
    if cfg.get("optimizer") == {}:
        return model
    model.optimizer = instantiate_node(cfg.get("optimizer"), "optimizer", _partial_=True)
    node = OmegaConf.create(resolve_node(cfg.get("scheduler"), "scheduler"))
    mode = follow_metric(node, "scheduler")
    model.scheduler_metric = node.pop("monitor", None)
    model.scheduler = instantiate_node(node, "scheduler", _partial_=True, **mode) or None
    model.label_smoothing = cfg.label_smoothing
    model.views = instantiate_node(cfg.test_augmentation, "test_augmentation") or None
    given = cfg.class_weights
    if OmegaConf.is_list(given) and len(given) != model.num_classes:
        remedy = f"give one for each of the {model.num_classes} classes"
        raise UsageError(f"class_weights={given}: has {len(given)} numbers; {remedy}")
    if cfg.trainer.max_epochs == 0:
        model.scheduler = None  # There are no steps to plan.
    try:
        optimizer, scheduler, _ = model.make_optimizer([nn.Parameter(torch.zeros(1))], steps_per_epoch=100)
        optimizer.step()
        if scheduler is not None:
            scheduler.step(*[0.0] * (model.scheduler_metric is not None))  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UsageError(f"optimizer or scheduler: invalid settings: {error}") from error
    return model


def make_trainable_model(cfg: DictConfig) -> Classifier:
    """Return the network, which must have an optimizer."""
    model = make_model(cfg)
    if model.optimizer is None:
        raise UsageError("optimizer: missing; choose one to train with, such as optimizer=sgd")
    return model


def num_classes_argument(cfg: DictConfig) -> dict[str, int]:
    """Return the network's argument num_classes, which the data decide; nothing for a network without it."""
    classes = len(OmegaConf.select(cfg, "data.source.classes") or DIGITS)
    network = find_class(cfg.model._target_, "model")
    configured = cfg.model.get("num_classes", classes)
    if configured != classes:
        raise UsageError(f"model.num_classes={configured}: the data have {classes} classes; leave it out")
    if "num_classes" in inspect.signature(network).parameters:
        return {"num_classes": classes}
    if classes != 10:
        raise UsageError(
            f"model: {network.__name__} is for ten classes, and the data have {classes}; give its __init__ an argument "
            "num_classes, and pass it to super().__init__"
        )
    return {}


def keep_data_settings(cfg: DictConfig, resumed: DictConfig) -> DictConfig:
    """Return the configuration with the settings that the resumed run recorded when it read its data."""
    kept = copy.deepcopy(cfg)
    for key in READ_FROM_DATA:
        if OmegaConf.select(kept, key, default=MISSING) is None:
            group, _, name = key.rpartition(".")
            recorded = to_plain(OmegaConf.select(resumed, group))  # Interpolations stay escaped.
            OmegaConf.update(kept, key, recorded.get(name))
    return kept


def complete_data(cfg: DictConfig) -> DictConfig:
    """Return the configuration with the settings that are found by reading the data, such as its classes."""
    source: ImageSource = instantiate_node(cfg.data.get("source"), "data.source")
    completed = copy.deepcopy(cfg)
    for name, value in source.read_settings().items():
        OmegaConf.update(completed, f"data.source.{name}", value)
    return completed


def load_trained_model(run: Run) -> Classifier:
    """Return a run's network with the weights that were tested."""
    cfg = run.config
    try:
        validate_parts(cfg)
    except UsageError as error:
        raise UsageError(f"{run.config_path}: {error}") from error
    return make_trained_model(cfg, run.chosen_checkpoint())


def make_trained_model(cfg: DictConfig, checkpoint: Path) -> Classifier:
    """Return a network with the weights of a checkpoint, which must fit it before it takes memory."""
    try:
        # A stranger's configuration may ask for huge layers, which take no memory on this device.
        with torch.device("meta"):
            sketch = instantiate_node(cfg.model, "model", **num_classes_argument(cfg))
    except UsageError:
        if not has_users_class(cfg.model):
            raise
        sketch = make_model(cfg)  # The __init__ of a user's class may compute with its weights.
    weights = load_weights(sketch, checkpoint)
    model = make_model(cfg)
    model.load_state_dict(weights)
    return model


def has_users_class(node: DictConfig) -> bool:
    """Return whether a model's node names a class that is neither the lab's nor torch's."""
    targets = [(key, name) for key, name in walk(to_plain(node), "model") if key.endswith("._target_")]
    classes = [find_class(name, key.removesuffix("._target_")) for key, name in targets]
    return not all(each.__module__.startswith(("mnist_lab.", "torch.")) for each in classes)


def make_data(cfg: DictConfig, model: Classifier) -> MNISTDataModule:
    """Return the data module, with the image size of the network."""
    data: MNISTDataModule = instantiate_node(cfg.get("data"), "data", image_size=model.image_size, seed=cfg.seed)
    data.augmentation = instantiate_node(cfg.get("augmentation"), "augmentation") or None
    data.limit_train_batches = cfg.trainer.get("limit_train_batches")
    return data


def set_up_classes(cfg: DictConfig, model: Classifier, data: MNISTDataModule) -> None:
    """Set what depends on the sizes of the classes: weights in the loss, and whether balanced accuracy is measured."""
    model.class_weights = data.class_weights(cfg.class_weights)
    by_class = data.has_unequal_classes or VAL_BALANCED_ACC in flatten(cfg).values()
    model.val_metrics.by_class = model.test_metrics.by_class = by_class


def check_batch_limits(cfg: DictConfig, data: MNISTDataModule, world_size: int = 1) -> None:
    """Raise UsageError for a fraction of a set's batches that rounds down to 0."""
    for name, count in data.batch_counts(world_size).items():
        limit = cfg.trainer.get(f"limit_{name}_batches")
        if count and limit_batches(count, limit) == 0:
            raise UsageError(
                f"trainer.limit_{name}_batches={limit}: is less than one of the {count} batches; "
                "use a larger share, or 1 for a single batch"
            )


def follow_metric(node: DictConfig, key: str) -> dict[str, str]:
    """Return the setting `mode` of a callback or a scheduler, if it lacks one, as the metric that it monitors needs."""
    mode = direction(str(node.get("monitor")))
    if mode and node.get("mode") is None and "mode" in parameter_types(find_class(node._target_, key)):
        return {"mode": mode}
    return {}


def make_trainer(cfg: DictConfig, *callbacks: pl.Callback) -> pl.Trainer:
    """Return Lightning's Trainer with the configured callbacks and loggers, metrics.csv and safe checkpoints."""
    nodes = enabled_callbacks(cfg)
    # last.ckpt is saved after all others, so that it knows what they have kept of its own epoch.
    names = sorted(nodes, key=lambda name: name in ("last", "checkpoint"))
    keys = {f"callbacks.{name}": nodes[name] for name in names}
    configured = [instantiate_node(node, key, **follow_metric(node, key)) for key, node in keys.items()]
    loggers = [instantiate_node(node, f"logger.{name}") for name, node in cfg.logger.items() if node]
    trainer: pl.Trainer = instantiate_node(
        cfg.trainer,
        "trainer",
        limit_train_batches=None,  # The data module limits steps; Lightning would limit groups of them.
        callbacks=[*configured, *callbacks],
        logger=[MetricsCSV(Path(cfg.folder)), *loggers],
        plugins=[SafeCheckpointIO(), cluster_environment()],
        default_root_dir=cfg.folder,
        enable_progress_bar=False,  # The lab has its own: callbacks.progress and callbacks.summary.
        enable_model_summary=False,
    )
    for problem in world_size_problems(trainer.num_devices, trainer.num_nodes):
        raise UsageError(problem)
    return trainer
