"""Processes of a distributed run in Lightning: who starts them, how many there are, and what to do when one dies."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence

import lightning.pytorch as pl
import torch.distributed
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mnist_lab.config.distributed import launched_process, rendezvous, world_size_problems
from mnist_lab.errors import UsageError
from mnist_lab.formatting import format_command

# In the RuntimeErrors of gloo and of NCCL when the other end of a connection is gone: gloo's source files, NCCL's code.
CONNECTION_LOST = re.compile(r"gloo/transport/|ncclRemoteError")


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
        return _is_connection_lost(error.__context__)
    return _is_connection_lost(error)


def _is_connection_lost(error: BaseException) -> bool:
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
