"""Runs of several processes that torchrun or SLURM's srun started: which of them this is, and when they began."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from mnist_lab.config.overrides import override_values
from mnist_lab.errors import UsageError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def launched_processes() -> int | None:
    """How many processes torchrun started for this run; None if it did not."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else None


def local_processes(accelerator: str) -> int:
    """Return how many processes of a distributed run this machine has: torchrun's, one a GPU, or two on the CPU."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        return int(os.environ["LOCAL_WORLD_SIZE"])
    gpus = 0 if accelerator == "cpu" else import_module("torch").cuda.device_count()  # torch: not for other trainers
    return gpus or 2


def process_problems(cfg: DictConfig) -> Iterator[str]:
    """Settings that do not fit the processes that torchrun has started."""
    started, devices = launched_processes(), cfg.trainer.get("devices")
    if started is not None and isinstance(devices, int) and devices * cfg.trainer.get("num_nodes", 1) != started:
        yield f"trainer.devices={devices}: torchrun started {started} processes; trainer=ddp takes as many as there are"


def start_time(pattern: str) -> str:
    """The time, as strftime writes it, that names a run's folder: the first process's, if torchrun started several."""
    moment = datetime.now() if launched_processes() is None else datetime.fromisoformat(_first_process_start())
    return moment.strftime(pattern)


@cache
def _first_process_start() -> str:
    """Agreed over the store by which torchrun's processes find each other."""
    distributed = import_module("torch.distributed")  # torch: not for --cfg
    store = distributed.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    key = f"mnist_lab began, start {os.environ.get('TORCHELASTIC_RESTART_COUNT')}"
    if rank() == 0:
        store.set(key, datetime.now().isoformat())
    return str(store.get(key).decode())


def share_run_folder(overrides: list[str], *, sweep: bool) -> list[str]:
    """Return the overrides for this process: all of a run's processes share its folder, each with its own log there.

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
        raise UsageError("-m: one run at a time where several processes are started; a sweep starts those of its jobs")
    given = override_values(overrides)
    if by_srun and "hydra.run.dir" not in given:
        raise UsageError("srun: its processes need one folder; add hydra.run.dir=runs/$SLURM_JOB_ID, or resume=RUN")
    log = [f"hydra.job.name=train_ddp_process_{rank()}"] if rank() > 0 and "hydra.job.name" not in given else []
    return [*overrides, *log]


def rank() -> int:
    """Return the number of this process among those that torchrun or srun started; 0 is the one that prints."""
    return int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0)
