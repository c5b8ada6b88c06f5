"""Find the processes that torchrun or srun launched for a run, and let them share a start time and a run folder."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import import_module
from typing import Any, Literal

from mnist_lab.errors import LabError, UsageError

# The store of srun's tasks has one of these ports. Ray's workers have lower ones, and Linux gives clients higher ones.
PORTS = range(20000, 30000)


@dataclass(frozen=True)
class LaunchedProcess:
    """This process as one of those that torchrun or srun launched for a run, by the terms of torchrun."""

    launcher: Literal["torchrun", "srun"]
    rank: int
    world_size: int
    local_world_size: int
    machines: int


def launched_process() -> LaunchedProcess | None:
    """Return this process as its launcher started it; None if alone, as are a batch script and a job of submitit."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return LaunchedProcess(
            launcher="torchrun",
            rank=_number("RANK", 0),
            world_size=_number("WORLD_SIZE", 1),
            local_world_size=_number("LOCAL_WORLD_SIZE", 1),
            machines=_number("GROUP_WORLD_SIZE", 1),
        )
    if "SLURM_STEP_ID" in os.environ and _number("SLURM_STEP_NUM_TASKS", 1) > 1:
        return LaunchedProcess(
            launcher="srun",
            rank=_number("SLURM_PROCID", 0),
            world_size=_number("SLURM_STEP_NUM_TASKS", 1),
            local_world_size=tasks_per_node(os.environ["SLURM_STEP_TASKS_PER_NODE"])[_number("SLURM_NODEID", 0)],
            machines=_number("SLURM_STEP_NUM_NODES", 1),
        )
    return None


def _number(variable: str, default: int) -> int:
    return int(os.environ.get(variable) or default)


def tasks_per_node(text: str) -> list[int]:
    """Return the number of tasks on each node from SLURM's short form: "2(x3),1" means [2, 2, 2, 1]."""
    counts = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(tasks) for tasks, nodes in counts for _ in range(int(nodes or 1))]


def local_processes(accelerator: str) -> int:
    """Return the number of a distributed run's processes on this machine: those launched, one per GPU, or two."""
    launched = launched_process()
    if launched is not None:
        return launched.local_world_size
    if accelerator == "cpu":
        return 2
    return import_module("torch").cuda.device_count() or 2  # Only trainer=ddp needs torch to compose.


def machines() -> int:
    """Return the number of machines that the processes of this run were launched on."""
    launched = launched_process()
    return 1 if launched is None else launched.machines


def world_size_problems(devices: int, num_nodes: int) -> Iterator[str]:
    """Yield a problem if the devices and machines of a run need another number of processes than were launched."""
    launched = launched_process()
    if launched is None or devices * num_nodes == launched.world_size:
        return
    processes = f"{launched.launcher} launched {launched.world_size} processes"
    if launched.local_world_size * launched.machines == launched.world_size:
        yield f"trainer.devices={devices}: {processes}; trainer=ddp takes as many as there are"
    else:
        yield f"{processes} on {launched.machines} machines; each machine needs the same number"


def start_time(pattern: str) -> str:
    """Format the start time for a run folder's name by strftime's pattern; launched processes share that of rank 0."""
    moment = datetime.now() if launched_process() is None else datetime.fromisoformat(_first_process_start())
    return moment.strftime(pattern)


@cache  # The processes exchange it once.
def _first_process_start() -> str:
    """Return the start time of rank 0, which the processes share through the store."""
    store = _store()
    key = f"mnist_lab began, start {os.environ.get('TORCHELASTIC_RESTART_COUNT')}"
    if rank() == 0:
        store.set(key, datetime.now().isoformat())
    return str(store.get(key).decode())


@cache  # The process group uses the same store later (multi_tenant), so it must stay open.
def _store() -> Any:
    """Connect to the store of the launched processes: torchrun's own, or with srun the one that rank 0 serves."""
    distributed = import_module("torch.distributed")  # A run started alone composes without torch.
    host, port = rendezvous()
    launched = launched_process()
    serves = launched is not None and launched.launcher == "srun" and launched.rank == 0
    try:
        return distributed.TCPStore(host, port, is_master=serves, wait_for_workers=False, multi_tenant=True)
    except distributed.DistNetworkError as error:
        problem = f"in use on {host}; set MASTER_PORT to a free port" if serves else f"no answer from {host}"
        raise LabError(f"MASTER_PORT={port}: {problem}") from error


def rendezvous() -> tuple[str, int]:
    """Return the host and the port where launched processes meet: torchrun sets both, and srun's step implies them."""
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if not host:
        slurm = import_module("lightning.fabric.plugins.environments").SLURMEnvironment
        host = str(slurm.resolve_root_node_address(os.environ["SLURM_STEP_NODELIST"]))
    number = 101 * _number("SLURM_JOB_ID", 0) + _number("SLURM_STEP_ID", 0)
    return host, int(port or PORTS[number % len(PORTS)])


def share_run_folder(*, sweep: bool) -> None:
    """Exchange the start time among the launched processes of a run, so that they share its folder."""
    if launched_process() is None:
        return
    if sweep:
        raise UsageError("-m: not supported where several processes are started; a sweep starts those of its jobs")
    _first_process_start()  # Raised while Hydra composes, its error would look like one of the configuration.


def rank() -> int:
    """Return the rank of this process among those launched for its run; rank 0 prints."""
    return _number("RANK", _number("SLURM_PROCID", 0))


def log_name() -> str:
    """Return the name of this process's log in the run folder that it shares with the others."""
    number = rank() or _number("LOCAL_RANK", 0)  # Lightning sets only the second for the processes that it starts.
    return f"train_ddp_process_{number}" if number else "train"
