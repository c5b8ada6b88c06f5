"""Settings of the process that training needs, restored when it ends."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mnist_lab.errors import LabError, is_out_of_memory

# Warnings of Lightning that no user can act on, or that are answered by what we do.
HARMLESS_WARNINGS = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 calls a function that torch 2.15 deprecates
    r"Total length of `list` across ranks is zero",  # no validation set: data.val_size=0 asks for that
    r"It is recommended to use `self.log",  # torchmetrics has summed over the processes before Lightning sees a value
    r"The number of training batches .* is smaller than the logging interval",  # the end of an epoch is always logged
    r"`ModelCheckpoint\(monitor=.*could not find the monitored key",  # in epochs without validation; keys are checked
    r"Checkpoint directory .* exists and is not empty",  # as in every resumed run; others are refused before
    r"The `srun` command is available on your system but is not used",  # one process is the default there, too
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


@contextmanager
def explain_out_of_memory(batch_size: int, eval_batch_size: int) -> Iterator[None]:
    """Turn torch's running out of memory, on a GPU or a CPU, into a LabError that suggests smaller batches."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        remedy = (
            f"try data.batch_size={max(1, batch_size // 2)}, or in validation and test "
            f"data.eval_batch_size={max(1, eval_batch_size // 2)}"
        )
        raise LabError(
            f"data.batch_size={batch_size}: out of memory; {remedy} ({str(error).splitlines()[0]})"
        ) from error
