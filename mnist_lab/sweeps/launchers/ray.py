"""hydra/launcher=ray: jobs as tasks of Ray, on this machine or on a cluster."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError, TaskCancelledError

from mnist_lab.errors import handle_signals
from mnist_lab.runs.locks import STALE_AFTER
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps.jobs import run_in_own_process
from mnist_lab.sweeps.launchers.launcher import LaunchedJob, Launcher, Stage, count_processors
from mnist_lab.sweeps.launchers.this_machine import hide_ctrl_c_from_children


class RayLauncher(Launcher):
    """Submits all jobs to Ray at once; Ray starts as many as its processors allow.

    Args:
        ray: `init`, the settings of ray.init, and `remote`, those of ray.remote.
    """

    lock_patience = STALE_AFTER + 20
    record_patience = 15
    poll_seconds = 0.5

    def __init__(self, ray: dict[str, dict[str, Any]]) -> None:
        super().__init__()
        self.init, self.remote = ray["init"], ray["remote"]
        self.tasks: dict[str, Any] = {}

    @property
    def memory_key(self) -> str | None:  # type: ignore[override]
        return None if self.init.get("address") else "hydra.launcher.ray.init.num_cpus"

    @property
    def parallel_jobs(self) -> int:
        return max(1, (self.init.get("num_cpus") or count_processors()) // self.threads)

    @property
    def threads(self) -> int:
        return max(1, int(self.remote.get("num_cpus") or 1))

    def start(self, sweep: Sweep, ids: Sequence[str], run_here: Callable[[str], None]) -> None:
        connect(self.init)
        with hide_ctrl_c_from_children():
            task = ray.remote(run_in_own_process).options(**self.remote)
            self.tasks |= {id: task.remote(str(sweep.folder), id) for id in ids}
            self.jobs |= dict.fromkeys(ids, LaunchedJob(Stage.PENDING))

    def poll(self) -> None:
        if self.tasks:
            ended, _ = ray.wait(list(self.tasks.values()), num_returns=len(self.tasks), timeout=0)
            for id in [id for id, task in self.tasks.items() if task in ended]:
                self.jobs[id] = read_end(self.tasks.pop(id))

    def cancel(self) -> list[str]:
        for task in self.tasks.values():
            ray.cancel(task)  # A running task receives this as Ctrl-C.
        return list(self.tasks)

    # Ray ends what it has started when this process ends, so `close` has nothing to do.


def read_end(task: Any) -> LaunchedJob:
    """Return how a task has ended."""
    try:
        ray.get(task)
    except TaskCancelledError:
        return LaunchedJob(Stage.ENDED, reason="cancelled", cancelled=True)
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        return LaunchedJob(Stage.ENDED, reason=f"Ray: {type(error).__name__}")
    return LaunchedJob(Stage.ENDED)


def connect(init: Mapping[str, Any]) -> None:
    """Start Ray or join its cluster. Signal handlers stay: with Ray's own, the sweep would not receive Ctrl-C."""
    # When one task's error ends the sweep, Ray would print those of the others.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    settings = dict(init) | {"address": init.get("address") or "local"}  # Without an address, Ray joins any cluster.
    if settings["address"] != "local":
        settings["object_store_memory"] = None  # Ray refuses this setting where it does not start the store.
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with handle_signals(before), hide_ctrl_c_from_children():
        if not ray.is_initialized():
            ray.init(**settings)
