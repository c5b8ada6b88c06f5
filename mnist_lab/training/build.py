"""What a configuration describes, made: network, data module, Trainer. What does not fit is told in one line."""

from __future__ import annotations

import re
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from mnist_lab.config.targets import checked, find_class
from mnist_lab.config.validate import callbacks_of, check_parts
from mnist_lab.data.batches import limited
from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.errors import BadInput
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.output import describe
from mnist_lab.runs.checkpoints import SafeCheckpointIO, weights_for
from mnist_lab.runs.run import Run
from mnist_lab.training.loggers import MetricsCSV


def make(node: Any, key: str, **settings: Any) -> Any:
    """Return what a node of the configuration describes.

    Args:
        node: the node; empty for nothing.
        key: its place in the configuration, such as callbacks.best.
        settings: arguments beside those of the node.

    Raises:
        BadInput: a class does not belong there, or cannot be made of its settings.
    """
    try:
        return instantiate(checked(node, key), **settings, _convert_="all")
    except InstantiationException as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        if isinstance(error.__cause__, ModuleNotFoundError):
            package = re.search(r"Requirement '(.+?)'", reason)  # Lightning's words
            needed = package[1] if package else error.__cause__.name or reason
            raise BadInput(f"{key}: needs a package that is not installed: pip install '{needed}'") from error
        if key == "model" and error.__cause__:
            reason = describe(error.__cause__, find_class(node._target_, key))
        raise BadInput(f"{key}: cannot be made of its settings: {reason}") from error


def make_model(cfg: DictConfig) -> Classifier:
    """The network, with an optimizer and a scheduler that are made, and were tried once, when training starts."""
    model: Classifier = make(cfg.get("model"), "model")
    model.to(memory_format=torch.channels_last)  # convolutions: a fifth to a half faster
    model.optimizer = make(cfg.get("optimizer"), "optimizer", _partial_=True)
    model.scheduler = make(cfg.get("scheduler"), "scheduler", _partial_=True) or None
    if cfg.trainer.max_epochs == 0:
        model.scheduler = None  # there are no steps to plan
    try:
        optimizer, scheduler, _ = model.make_optimizer([nn.Parameter(torch.zeros(1))], steps_per_epoch=100)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise BadInput(f"optimizer or scheduler: cannot be made of its settings: {error}") from error
    return model


def trained_model(run: Run) -> Classifier:
    """Return a run's network with the weights that were tested.

    Raises:
        BadInput: the run has no checkpoint, or its configuration or checkpoint is damaged.
    """
    cfg = run.config
    try:
        check_parts(cfg)
    except BadInput as error:
        raise BadInput(f"{run.folder / 'config.yaml'}: {error}") from error
    model = make_model(cfg)
    model.load_state_dict(weights_for(model, run.chosen_checkpoint()))
    return model


def make_data(cfg: DictConfig, model: Classifier) -> MNISTDataModule:
    """The data module, at the image size that the network takes."""
    data: MNISTDataModule = make(cfg.get("data"), "data", image_size=model.image_size, seed=cfg.seed)
    data.augmentation = make(cfg.get("augmentation"), "augmentation") or None
    data.limit_train_batches = cfg.trainer.get("limit_train_batches")
    return data


def check_batch_limits(cfg: DictConfig, data: MNISTDataModule, world_size: int = 1) -> None:
    """Raise BadInput for a share of a set's batches that rounds down to none."""
    for name, count in data.batch_counts(world_size).items():
        limit = cfg.trainer.get(f"limit_{name}_batches")
        if count and limited(count, limit) == 0:
            raise BadInput(
                f"trainer.limit_{name}_batches={limit}: is less than one of the {count} batches; "
                "use a larger share, or 1 for a single batch"
            )


def make_trainer(cfg: DictConfig, metrics_csv: MetricsCSV, **settings: Any) -> pl.Trainer:
    """Lightning's Trainer with the configured callbacks and loggers, metrics.csv and safe checkpoints.

    settings are given in place of the configured ones.
    """
    trainer: pl.Trainer = make(
        cfg.trainer,
        "trainer",
        **{"limit_train_batches": None} | settings,  # it is of steps, and so the data module's
        callbacks=[make(callback, f"callbacks.{name}") for name, callback in callbacks_of(cfg).items()],
        logger=[metrics_csv, *(make(logger, f"logger.{name}") for name, logger in cfg.logger.items() if logger)],
        plugins=[SafeCheckpointIO()],
        default_root_dir=cfg.folder,
        enable_progress_bar=False,  # callbacks.progress and callbacks.summary take their place
        enable_model_summary=False,
    )
    return trainer
