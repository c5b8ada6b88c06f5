"""The process of a run: settings that are restored afterwards, who starts several, and how the loss of one shows."""

import logging
import os
import re
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mnist_lab.config.distributed import launched_process, rendezvous, world_size_problems
from mnist_lab.errors import LabError, UsageError, is_out_of_memory
from mnist_lab.formatting import format_command

# Warnings of Lightning that no user can act on, or that are answered by what we do.
HARMLESS_WARNINGS = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 calls what torch 2.15 deprecates.
    r"Total length of `list` across ranks is zero",  # data.val_size=0 asks for no validation set.
    r"It is recommended to use `self.log",  # The sums of all processes are added up before.
    r"The number of training batches .* is smaller than the logging interval",  # The end of an epoch is logged anyway.
    r"`ModelCheckpoint\(monitor=.*could not find the monitored key",  # An epoch may have no validation.
    r"Checkpoint directory .* exists and is not empty",  # Every resumed run has one.
    r"Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",  # The user has left one out.
    r"The `srun` command is available on your system but is not used",  # One process is the default there, too.
)
# In the RuntimeErrors of gloo and of NCCL when the other end of a connection is gone: gloo's source files, NCCL's code.
CONNECTION_LOST = re.compile(r"gloo/transport/|ncclRemoteError")


@contextmanager
def torch_settings(threads: int | None) -> Iterator[None]:
    """Set torch's threads, None for as many as before, and restore what Lightning or a callback may have changed.

    These are settings that a process has once: of torch and cuDNN, and environment variables.
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
    """Ignore Lightning's harmless warnings and send its log to the root logger's handlers, inside the block."""
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
    """Turn torch's errors of batches that are too large for the memory, or too small to normalise, into a LabError."""
    try:
        yield
    except (RuntimeError, MemoryError, ValueError) as error:
        if "Expected more than 1 value per channel when training" in str(error):
            reason = "batch normalisation cannot be trained on a step of one image; use two or more"
            raise LabError(f"data.batch_size={batch_size}: {reason}") from error
        if not is_out_of_memory(error):
            raise
        train, evaluation = (f"batch_size={max(1, size // 2)}" for size in (batch_size, eval_batch_size))
        remedy = f"try data.{train}, or in validation and test data.eval_{evaluation}"
        reason = str(error).splitlines()[0]
        raise LabError(f"data.batch_size={batch_size}: out of memory; {remedy} ({reason})") from error


def cluster_environment() -> ClusterEnvironment:
    """Return Lightning's environment for the launcher of this process; without one, Lightning starts the processes.

    It is chosen here because Lightning goes by variables that SLURM also sets where srun was not used.
    """
    launched = launched_process()
    if launched is None:
        return LightningEnvironment()
    if launched.launcher == "torchrun":
        return TorchElasticEnvironment()
    host, port = rendezvous()
    os.environ |= {
        "MASTER_ADDR": host,
        "MASTER_PORT": str(port),
        "SLURM_NTASKS_PER_NODE": str(launched.local_world_size),  # Lightning requires it; srun sets it if asked to
    }
    return SLURMEnvironment(auto_requeue=False)


def check_world_size(trainer: pl.Trainer) -> None:
    """Raise UsageError if a trainer uses another number of processes than were launched."""
    for problem in world_size_problems(trainer.num_devices, trainer.num_nodes):
        raise UsageError(problem)


def is_process_lost(error: BaseException) -> bool:
    """Return whether an error stands for the death of another process of the run.

    A SIGTERM that follows it does too, where it may come from the launcher, which ends the processes that are left.
    """
    if type(error) is SIGTERMException and launched_process() is not None and error.__context__ is not None:
        error = error.__context__
    if isinstance(error, torch.distributed.DistNetworkError):
        return True
    return isinstance(error, RuntimeError) and CONNECTION_LOST.search(str(error)) is not None


def process_name() -> str:
    """Return the place and the machine of this process, for a message."""
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return f"process {rank} of {world_size} on {socket.gethostname()}"


def launch_command(arguments: Sequence[str]) -> str:
    """Return a command of ours as it is started by the launcher of this process."""
    launched, command = launched_process(), format_command([*arguments])
    if launched is None:
        return command
    return f"srun ... {command}" if launched.launcher == "srun" else f"torchrun ... {command.removeprefix('python ')}"
