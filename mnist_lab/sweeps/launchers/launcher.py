"""The interface of launchers: check, start, poll, cancel."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from mnist_lab.errors import UsageError, not_installed
from mnist_lab.runs.sweep import Sweep

GIGABYTES = 1.3  # that a job takes at most: docs/results/benchmarks.md


class Stage(Enum):
    """How far a launcher has come with a job."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True)
class Placement:
    """A job as its launcher sees it; how well the job did, its own record tells."""

    stage: Stage
    place: str = ""  # for its engine, such as "SLURM 12_3"; empty on this machine
    machine: str = ""
    reason: str = ""  # why it is pending, or how it ended, in the engine's words
    cancelled: bool = False  # somebody has cancelled it there
    log: Path | None = None  # the file of what it prints

    def __str__(self) -> str:
        """The place and the machine."""
        return ", ".join(filter(None, [self.place, self.machine]))


class Launcher(ABC):
    """Runs the jobs of a sweep. The settings in conf/hydra/launcher are the arguments."""

    in_this_process: ClassVar[bool] = False  # Jobs run in the sweep's own process.
    outlives: ClassVar[bool] = False  # Jobs continue when the sweep's process has ended.
    # Seconds that a job waits for the lock of its run folder, which a lost machine may seem to hold for a while.
    lock_patience: ClassVar[float] = 0
    record_patience: ClassVar[float] = 0  # seconds until a record written on another machine is seen here
    poll_seconds: ClassVar[float] = 0.1
    memory_key: str | None = None  # the setting that limits the jobs at once on this machine
    placements: Mapping[str, Placement] = MappingProxyType({})  # as the last poll found the jobs

    @property
    @abstractmethod
    def at_once(self) -> int:
        """How many jobs run at once, as far as the settings tell."""

    @property
    def threads(self) -> int | None:
        """The threads of a job without threads=N; None for all."""
        return max(1, processors() // self.at_once) if self.at_once > 1 else None

    def check(self, jobs: int) -> None:
        """Raise UsageError if this number of jobs cannot run with these settings on this machine."""
        parallel, free = min(self.at_once, jobs), free_gigabytes()
        if self.memory_key is None or free is None or parallel == 1 or parallel * GIGABYTES <= free:
            return
        raise UsageError(
            f"{self.memory_key}: {parallel} jobs at once need {parallel * GIGABYTES:.0f} GB, "
            f"{free:.0f} GB are free; {self.memory_key}={max(1, int(free / GIGABYTES))} would do"
        )

    @abstractmethod
    def start(self, sweep: Sweep, ids: Sequence[str], run_here: Callable[[str], None]) -> None:
        """Start jobs, or queue them; those that an earlier start has left with the engine are found again instead.

        `run_here` runs a job in this process; elsewhere `run_in_own_process` does.
        """

    @abstractmethod
    def poll(self) -> Mapping[str, Placement]:
        """Return how the jobs that were started stand, by their ids."""

    @abstractmethod
    def cancel(self) -> list[str]:
        """Cancel pending jobs, and tell running ones that end with this process to save."""

    @abstractmethod
    def close(self) -> None:
        """End what was started for the jobs."""


def make_launcher(choice: str, settings: dict[str, Any]) -> Launcher:
    """Return the launcher that hydra/launcher=... has chosen."""
    if not str(settings.get("_target_")).startswith(f"{__package__}."):
        raise UsageError(f"hydra/launcher={choice}: unknown here; choose local, processes, submitit_slurm or ray")
    try:
        launcher: Launcher = instantiate(settings, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            raise not_installed(f"hydra/launcher={choice}", choice.partition("_")[0]) from error
        raise
    return launcher


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_gigabytes() -> float | None:
    """Return the memory that is free on this machine; None where it is unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        (free,) = [int(line.split()[1]) / 1e6 for line in lines if line.startswith("MemAvailable")]
    except (OSError, ValueError):  # no Linux
        return None
    return free
