"""The interface of launchers: check, start, poll, cancel, close.

A launcher reports that a job's process has died; sweeps/loop.py decides what follows.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

from hydra.utils import instantiate

from mnist_lab.errors import UsageError
from mnist_lab.runs.sweep import Sweep

GIGABYTES = 1.3  # the most memory that a job takes: docs/results/benchmarks.md


class Stage(Enum):
    """How far a launcher has come with a job."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True)
class LaunchedJob:
    """A job as its launcher sees it; the job's own record says what it has achieved."""

    stage: Stage
    place: str = ""  # the engine's name for the job, such as "SLURM 12_3"; empty on this machine
    machine: str = ""
    reason: str = ""  # why the job is pending, or how it ended, in the engine's words
    cancelled: bool = False  # whether somebody has cancelled it in the engine
    log: Path | None = None  # the file of the job's output

    def __str__(self) -> str:
        """Return the place and the machine."""
        return ", ".join(filter(None, [self.place, self.machine]))


class Launcher(ABC):
    """Runs the jobs of a sweep. The settings in conf/hydra/launcher are the arguments."""

    in_this_process: ClassVar[bool] = False  # whether jobs run in the sweep's own process
    outlives_sweep: ClassVar[bool] = False  # whether jobs continue when the sweep's process has ended
    # Seconds that a job waits for the lock of its run folder, which a lost machine may seem to hold for a while.
    lock_patience: ClassVar[float] = 0
    record_patience: ClassVar[float] = 0  # seconds until a record written on another machine is visible here
    poll_seconds: ClassVar[float] = 0.1
    memory_key: str | None = None  # the setting that limits the number of parallel jobs on this machine

    def __init__(self) -> None:
        self.jobs: dict[str, LaunchedJob] = {}  # As of the last poll, by id. Another thread reads it.

    @property
    def parallel_jobs(self) -> int:
        """The number of jobs that run at once."""
        return 1

    @property
    def threads(self) -> int | None:
        """The threads of a job without threads=N; None for all."""
        return max(1, count_processors() // self.parallel_jobs) if self.parallel_jobs > 1 else None

    def check(self, jobs: int) -> None:
        """Raise UsageError if this number of jobs cannot run with these settings on this machine."""
        parallel, free = min(self.parallel_jobs, jobs), read_free_gigabytes()
        if self.memory_key is None or free is None or parallel == 1 or parallel * GIGABYTES <= free:
            return
        raise UsageError(
            f"{self.memory_key}: {parallel} jobs at once need {parallel * GIGABYTES:.0f} GB, "
            f"{free:.0f} GB are free; {self.memory_key}={max(1, int(free / GIGABYTES))} would do"
        )

    @abstractmethod
    def start(self, sweep: Sweep, ids: Sequence[str], run_here: Callable[[str], None]) -> None:
        """Start or queue jobs; jobs that an earlier start of the sweep has left in the engine are tracked instead.

        `run_here` runs a job in this process. In other processes, `run_in_own_process` does.
        """

    @abstractmethod
    def poll(self) -> None:
        """Update `jobs`."""

    @abstractmethod
    def cancel(self) -> list[str]:
        """Cancel pending jobs, signal the running ones that end with this process, and return the ids of these."""

    def close(self) -> None:  # noqa: B027  # Not every launcher has started something.
        """End what was started for the jobs."""


def make_launcher(choice: str, settings: dict[str, Any]) -> Launcher:
    """Return the launcher that hydra/launcher=... has chosen."""
    if not str(settings.get("_target_")).startswith(f"{__package__}."):
        raise UsageError(f"hydra/launcher={choice}: unknown here; choose local, processes, submitit_slurm or ray")
    launcher: Launcher = instantiate(settings, _convert_="all")
    return launcher


def count_processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_free_gigabytes() -> float | None:
    """Return the free memory of this machine; None if it is unknown, as elsewhere than on Linux."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        (free,) = [int(line.split()[1]) / 1e6 for line in lines if line.startswith("MemAvailable")]
    except (OSError, ValueError):
        return None
    return free
