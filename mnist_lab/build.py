"""What a configuration describes, made: network, data module, Trainer. What does not fit is told in one line."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from mnist_lab.check import callbacks_of, check_parts
from mnist_lab.checkpoints import SafeCheckpointIO, weights_for
from mnist_lab.data.batches import limited
from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.errors import BadInput
from mnist_lab.metrics_csv import MetricsCSV
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.output import describe
from mnist_lab.runs import Run
from mnist_lab.targets import checked, find_class


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


@contextmanager
def torch_settings(threads: int | None) -> Iterator[None]:
    """Let torch use so many threads in the with-block, None for as many as before, and restore its settings after it.

    These are the settings that a process has once, and that Lightning or a callback may change: threads, deterministic
    algorithms, the precision of matrix products, cuDNN's choices, and environment variables.
    """
    count, deterministic = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    precision, environment = torch.get_float32_matmul_precision(), dict(os.environ)
    cudnn = (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)
    torch.set_num_threads(threads or count)
    try:
        yield
    finally:
        torch.set_num_threads(count)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = cudnn
        torch.set_deterministic_debug_mode(deterministic)
        torch.set_float32_matmul_precision(precision)
        os.environ.clear()
        os.environ.update(environment)


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


def keep_freed_memory() -> None:
    """Let this process keep what it frees, up to 1 GB, for its next use: on Linux, with glibc; nothing elsewhere.

    By default large blocks go back to the kernel in every step, which clears them page by page to give them out again
    in the next one: up to half of a convolutional network's step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        m_trim_threshold, m_mmap_threshold = -1, -3
        mallopt(m_mmap_threshold, 32 * 2**20)  # the most that glibc takes
        mallopt(m_trim_threshold, 2**30)


# Warnings of Lightning that no user can act on, or that are answered by what we do.
HARMLESS_WARNINGS = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 calls a function that torch 2.15 deprecates
    r"Total length of `list` across ranks is zero",  # no validation set: data.val_size=0 asks for that
    r"It is recommended to use `self.log",  # torchmetrics has summed over the processes before Lightning sees a value
    r"The number of training batches .* is smaller than the logging interval",  # the end of an epoch is always logged
    r"Checkpoint directory .* exists and is not empty",  # as in every resumed run; others are refused before
    r"The `srun` command is available on your system but is not used",  # one process is the default there, too
)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Ignore Lightning's harmless warnings and send its log to the root logger's handlers, inside the block.

    Afterwards the warning filters and the loggers are as they were: a caller from Python keeps its own.
    """
    loggers = [logging.getLogger(name) for name in ("lightning", "lightning.pytorch", "lightning.fabric")]
    before = [(logger.handlers[:], logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers.clear()
        logger.propagate = True
    try:
        with warnings.catch_warnings():
            for message in HARMLESS_WARNINGS:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers[:] = handlers
            logger.propagate = propagate
