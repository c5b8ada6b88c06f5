"""The process of a run, and the others of the same run: settings, launchers, and the death of a process."""

import logging
import os
import random
import re
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig

from mnist_lab.config.distributed import launched_process, rendezvous
from mnist_lab.errors import Interrupted, LabError, is_out_of_memory
from mnist_lab.formatting import format_command

# Warnings of Lightning that no user can act on, or whose cause is intended.
HARMLESS_WARNINGS = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 calls what torch 2.15 deprecates.
    r"Total length of `list` across ranks is zero",  # data.val_size=0 asks for no validation set.
    r"It is recommended to use `self.log",  # Classifier adds up the sums of all processes itself.
    r"The number of training batches .* is smaller than the logging interval",  # The end of an epoch is logged anyway.
    r"`ModelCheckpoint\(monitor=.*could not find the monitored key",  # An epoch may have no validation.
    r"Checkpoint directory .* exists and is not empty",  # Every resumed run has one.
    r"Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",  # The user has left one out.
    r"The `srun` command is available on your system but is not used",  # A run has one process by default.
)
# A RuntimeError of gloo names its source file, one of NCCL its code, when the other end of a connection is gone.
CONNECTION_LOST = re.compile(r"gloo/transport/|ncclRemoteError")


def is_first_process() -> bool:
    """Return whether this process is the only one of its run, or the one that writes and prints."""
    return bool(rank_zero_only.rank == 0)  # type: ignore[attr-defined]


@contextmanager
def guest() -> Iterator[None]:
    """Leave the process as it was before the block; Lightning is quiet within it.

    That is random generators, threads, settings of torch and cuDNN, environment variables and the handler of Ctrl-C.
    Ctrl-C ends the block in KeyboardInterrupt: a notebook would take SystemExit for the end of its program.
    """
    was_used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    gpus = range(torch.cuda.device_count()) if was_used else ()
    python, numpy, handler = random.getstate(), np.random.get_state(), signal.getsignal(signal.SIGINT)
    threads, deterministic = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    precision, environment = torch.get_float32_matmul_precision(), dict(os.environ)
    cudnn = (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)
    try:
        with torch.random.fork_rng(gpus), quiet_lightning():
            yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt) or (isinstance(stop, Interrupted) and stop.code == 130):
            raise KeyboardInterrupt from stop
        raise
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if not gpus:  # torch seeds those of GPUs like the CPU's, unless they were used before.
            torch.cuda.manual_seed_all(torch.initial_seed())
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)  # After one Ctrl-C, Lightning ignores all others.
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = cudnn
        torch.set_deterministic_debug_mode(deterministic)
        torch.set_float32_matmul_precision(precision)
        os.environ.clear()
        os.environ.update(environment)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Ignore Lightning's harmless warnings and send its log to the root logger's handlers, within the block."""
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
def explain_batch_size_errors(data: DictConfig) -> Iterator[None]:
    """Turn an error of torch that a batch is too large for the memory, or too small to normalise, into a LabError."""
    try:
        yield
    except (RuntimeError, MemoryError, ValueError) as error:
        setting = f"data.batch_size={data.batch_size}"
        if "Expected more than 1 value per channel when training" in str(error):
            reason = "batch normalisation cannot be trained on a step of one image; use two or more"
            raise LabError(f"{setting}: {reason}") from error
        if not is_out_of_memory(error):
            raise
        smaller, eval_smaller = (max(1, size // 2) for size in (data.batch_size, data.eval_batch_size))
        remedy = f"try data.batch_size={smaller}, or in validation and test data.eval_batch_size={eval_smaller}"
        raise LabError(f"{setting}: out of memory; {remedy} ({str(error).splitlines()[0]})") from error


def cluster_environment() -> ClusterEnvironment:
    """Return Lightning's environment for the launcher of this process; without one, Lightning starts the processes."""
    launched = launched_process()  # Lightning itself would go by variables that SLURM sets even if srun is not used.
    if launched is None:
        return LightningEnvironment()
    if launched.launcher == "torchrun":
        return TorchElasticEnvironment()
    host, port = rendezvous()
    os.environ |= {
        "MASTER_ADDR": host,
        "MASTER_PORT": str(port),
        "SLURM_NTASKS_PER_NODE": str(launched.local_world_size),  # Lightning requires it, but srun may not set it.
    }
    return SLURMEnvironment(auto_requeue=False)


def is_process_lost(error: BaseException) -> bool:
    """Return whether an error shows that another process of the run has died."""
    # After such an error, a launcher sends SIGTERM to the processes that are left.
    if type(error) is SIGTERMException and launched_process() is not None and error.__context__ is not None:
        error = error.__context__
    if isinstance(error, torch.distributed.DistNetworkError):
        return True
    return isinstance(error, RuntimeError) and CONNECTION_LOST.search(str(error)) is not None


def launch_command(arguments: Sequence[str]) -> str:
    """Return a command of the lab with the launcher of this process in front."""
    launched, command = launched_process(), format_command([*arguments])
    if launched is None:
        return command
    if launched.launcher == "srun":
        return f"srun ... {command}"
    return f"torchrun ... {command.removeprefix('python ')}"
