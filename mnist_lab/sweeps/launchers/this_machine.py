"""hydra/launcher=local and processes: jobs on this machine, in the sweep's own process or side by side in others."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress

from loky import ProcessPoolExecutor
from loky.process_executor import BrokenProcessPool

from mnist_lab.runs.locks import holder_of
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps.jobs import run_in_own_process
from mnist_lab.sweeps.launchers.launcher import Launcher, Placement, Stage, processors
from mnist_lab.sweeps.process import end_with_parent


class LocalLauncher(Launcher):
    """Runs one job whenever it is polled."""

    in_this_process = True
    poll_seconds = 0.0

    def __init__(self) -> None:
        self.waiting: list[tuple[str, Callable[[str], None]]] = []
        self.stages: dict[str, Placement] = {}

    @property
    def at_once(self) -> int:
        return 1

    def start(self, sweep: Sweep, ids: Sequence[str], run_here: Callable[[str], None]) -> None:
        self.waiting += [(id, run_here) for id in ids]
        self.stages |= dict.fromkeys(ids, Placement(Stage.PENDING))

    def poll(self) -> dict[str, Placement]:
        if self.waiting:
            id, run = self.waiting.pop(0)
            run(id)
            self.stages[id] = Placement(Stage.ENDED)
        return self.stages

    def cancel(self) -> list[str]:
        self.waiting.clear()
        return []  # A job in this process has received the signal itself.

    def close(self) -> None:
        """Nothing was started."""


class ProcessesLauncher(Launcher):
    """Keeps a worker process for each of the jobs at once. One that dies takes no other with it.

    Args:
        n_jobs: jobs at once; -1 for as many as there are processors, -2 for one fewer ...
    """

    poll_seconds = 0.02  # A free worker waits so long for its next job, at most.
    memory_key = "hydra.launcher.n_jobs"

    def __init__(self, n_jobs: int) -> None:
        self.n_jobs = n_jobs
        self.waiting: list[str] = []
        self.running: dict[str, tuple[ProcessPoolExecutor, Future[bool]]] = {}
        self.idle: list[ProcessPoolExecutor] = []
        self.stages: dict[str, Placement] = {}

    @property
    def at_once(self) -> int:
        return self.n_jobs if self.n_jobs > 0 else max(1, processors() + 1 + self.n_jobs)

    def start(self, sweep: Sweep, ids: Sequence[str], run_here: Callable[[str], None]) -> None:
        self.sweep = sweep
        self.waiting += ids
        self.stages |= dict.fromkeys(ids, Placement(Stage.PENDING))

    def poll(self) -> Mapping[str, Placement]:
        for id, (worker, future) in list(self.running.items()):
            if future.done():
                del self.running[id]
                self.stages[id] = Placement(Stage.ENDED, reason=self._ended(worker, future))
        with ctrl_c_kept_from_children():
            while self.waiting and len(self.running) < self.at_once:
                id = self.waiting.pop(0)
                worker = self.idle.pop() if self.idle else new_worker()
                self.running[id] = worker, worker.submit(run_in_own_process, str(self.sweep.folder), id)
                self.stages[id] = Placement(Stage.RUNNING)
        self.placements = dict(self.stages)
        return self.placements

    def _ended(self, worker: ProcessPoolExecutor, future: "Future[bool]") -> str:
        """Return how a job's process died, empty if it lives: then it is free for the next job."""
        error = future.exception()
        if isinstance(error, BrokenProcessPool):
            worker.shutdown(kill_workers=True)
            return type(error).__name__
        self.idle.append(worker)
        if error is not None:
            raise error
        return ""

    def cancel(self) -> list[str]:
        self.waiting.clear()
        for id in self.running:
            holder = holder_of(self.sweep.job(id).folder)
            with suppress(ProcessLookupError):  # it has ended
                if holder is not None:
                    os.kill(holder.pid, signal.SIGTERM)
        return list(self.running)

    def close(self) -> None:
        for worker, _ in self.running.values():  # of a sweep that does not wait for them
            worker.shutdown(kill_workers=True)
        for worker in self.idle:
            worker.shutdown()


def new_worker() -> ProcessPoolExecutor:
    """Return a process that waits for jobs, and ends with this one."""
    return ProcessPoolExecutor(max_workers=1, initializer=end_with_parent, initargs=(os.getpid(),))


@contextmanager
def ctrl_c_kept_from_children() -> Iterator[None]:
    """Block SIGINT and SIGHUP, which a terminal sends to every process: they would end a job before it has saved.

    Processes that this thread starts inherit the block. Python itself handles the signals by the sweep's other thread.
    """
    watched = threading.current_thread() is threading.main_thread() and threading.active_count() > 1
    if not watched:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
