"""hydra/launcher=ray: jobs as tasks of Ray, of one on this machine or of a cluster's."""

import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError, TaskCancelledError

from mnist_lab.runs.locks import STALE_AFTER
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps.jobs import run_in_own_process
from mnist_lab.sweeps.launchers.launcher import Launcher, Placement, Stage, processors
from mnist_lab.sweeps.launchers.this_machine import ctrl_c_kept_from_children


class RayLauncher(Launcher):
    """Hands all jobs to Ray at once, which begins as many as its processors allow.

    Args:
        ray: `init`, the settings of ray.init, and `remote`, those of ray.remote.
    """

    lock_patience = STALE_AFTER + 20
    record_patience = 15
    poll_seconds = 0.5

    def __init__(self, ray: dict[str, dict[str, Any]]) -> None:
        self.init, self.remote = ray["init"], ray["remote"]
        self.tasks: dict[str, Any] = {}

    @property
    def memory_key(self) -> str | None:  # type: ignore[override]
        return None if self.init.get("address") else "hydra.launcher.ray.init.num_cpus"

    @property
    def at_once(self) -> int:
        return max(1, (self.init.get("num_cpus") or processors()) // self.threads)

    @property
    def threads(self) -> int:
        return max(1, int(self.remote.get("num_cpus") or 1))

    def start(self, sweep: Sweep, ids: Sequence[str], run_here: Callable[[str], None]) -> None:
        connect(self.init)
        with ctrl_c_kept_from_children():
            task = ray.remote(_run).options(**self.remote)
            self.tasks |= {id: task.remote(str(sweep.folder), id) for id in ids}
            self.placements = {**self.placements, **dict.fromkeys(ids, Placement(Stage.PENDING))}

    def poll(self) -> Mapping[str, Placement]:
        if self.tasks:
            done, _ = ray.wait(list(self.tasks.values()), num_returns=len(self.tasks), timeout=0)
            over = [id for id, task in self.tasks.items() if task in done]
            self.placements = {**self.placements, **{id: ended(self.tasks.pop(id)) for id in over}}
        return self.placements

    def cancel(self) -> list[str]:
        for task in self.tasks.values():
            ray.cancel(task)  # for one that runs, as Ctrl-C
        return list(self.tasks)

    def close(self) -> None:
        """Leave Ray to the end of this process, which ends what it has started."""


def ended(task: Any) -> Placement:
    """Return how a task ended."""
    try:
        ray.get(task)
    except TaskCancelledError:
        return Placement(Stage.ENDED, reason="cancelled", cancelled=True)
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        return Placement(Stage.ENDED, reason=f"Ray: {type(error).__name__}")
    return Placement(Stage.ENDED)


def connect(init: Mapping[str, Any]) -> None:
    """Start Ray or join its cluster. Signal handlers stay: by Ray's own, the sweep would not hear of Ctrl-C."""
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of the other tasks, when the sweep ends with one's
    settings = dict(init) | {"address": init.get("address") or "local"}  # without one, Ray joins what it finds
    if settings["address"] != "local":
        settings["object_store_memory"] = None  # Ray refuses it where it does not start the store
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with ctrl_c_kept_from_children():
        if not ray.is_initialized():
            ray.init(**settings)
    if threading.current_thread() is threading.main_thread():
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(folder: str, id: str) -> bool:
    return run_in_own_process(folder, id)
