"""Processes of a distributed run that torchrun or SLURM's srun started: rank, number, common start time and folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from mnist_lab.errors import UsageError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def launched_processes() -> int | None:
    """Return the number of processes that torchrun started for this run; None without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else None


def local_processes(accelerator: str) -> int:
    """Return the number of a distributed run's processes on this machine: torchrun's, one per GPU, or two on a CPU."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        return int(os.environ["LOCAL_WORLD_SIZE"])
    gpus = 0 if accelerator == "cpu" else import_module("torch").cuda.device_count()  # torch: not for other trainers
    return gpus or 2


def process_problems(cfg: DictConfig) -> Iterator[str]:
    """Yield problems of settings that do not fit the processes that torchrun has started."""
    started, devices = launched_processes(), cfg.trainer.get("devices")
    if started is not None and isinstance(devices, int) and devices * cfg.trainer.get("num_nodes", 1) != started:
        yield f"trainer.devices={devices}: torchrun started {started} processes; trainer=ddp takes as many as there are"


def start_time(pattern: str) -> str:
    """Return the start time for a run folder's name, by strftime's pattern; torchrun's processes share rank 0's."""
    moment = datetime.now() if launched_processes() is None else datetime.fromisoformat(_first_process_start())
    return moment.strftime(pattern)


@cache
def _first_process_start() -> str:
    """Return the start time of rank 0, shared through torchrun's store."""
    distributed = import_module("torch.distributed")  # torch: not for --cfg
    store = distributed.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    key = f"mnist_lab began, start {os.environ.get('TORCHELASTIC_RESTART_COUNT')}"
    if rank() == 0:
        store.set(key, datetime.now().isoformat())
    return str(store.get(key).decode())


def share_run_folder(overrides: list[str], *, sweep: bool) -> list[str]:
    """Return this process's overrides: a run's processes share its folder, each with a log of its own there.

    Args:
        overrides: the command line's.
        sweep: whether the command line starts a sweep.

    Raises:
        UsageError: the run is a sweep, or srun started it and nothing says which folder that is.
    """
    by_srun = "SLURM_STEP_ID" in os.environ and int(os.environ.get("SLURM_NTASKS") or 1) > 1
    if not by_srun and launched_processes() is None:
        return overrides
    if sweep:
        raise UsageError("-m: not supported where several processes are started; a sweep starts those of its jobs")
    from mnist_lab.config.overrides import override_values  # imports Hydra

    given = override_values(overrides)
    if by_srun and "hydra.run.dir" not in given:
        raise UsageError("srun: its processes need one folder; add hydra.run.dir=runs/$SLURM_JOB_ID, or resume=RUN")
    log = [f"hydra.job.name=train_ddp_process_{rank()}"] if rank() > 0 and "hydra.job.name" not in given else []
    return [*overrides, *log]


def rank() -> int:
    """Return the rank of this process among those that torchrun or srun started; rank 0 prints."""
    return int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0)
