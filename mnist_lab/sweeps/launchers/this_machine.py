"""hydra/launcher=local and processes: jobs on this machine, in the sweep's own process or in parallel workers."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from itertools import count

from loky import ProcessPoolExecutor
from loky.process_executor import BrokenProcessPool

from mnist_lab.runs.locks import holder_of
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps.jobs import run_in_own_process
from mnist_lab.sweeps.launchers.launcher import LaunchedJob, Launcher, Stage, count_processors
from mnist_lab.sweeps.process import end_with_parent


class LocalLauncher(Launcher):
    """Runs one job in each poll."""

    in_this_process = True
    poll_seconds = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[str, Callable[[str], None]]] = []

    def start(self, sweep: Sweep, ids: Sequence[str], run_here: Callable[[str], None]) -> None:
        self.waiting += [(id, run_here) for id in ids]
        self.jobs |= dict.fromkeys(ids, LaunchedJob(Stage.PENDING))

    def poll(self) -> None:
        if self.waiting:
            id, run = self.waiting.pop(0)
            run(id)
            self.jobs[id] = LaunchedJob(Stage.ENDED)

    def cancel(self) -> list[str]:
        self.waiting.clear()
        return []  # A job in this process has received the signal itself.


class ProcessesLauncher(Launcher):
    """Runs jobs in parallel, each in a worker process, so that a process that dies takes no other job with it.

    Where there are several GPUs, each worker has one.

    Args:
        n_jobs: the number of parallel jobs; -1 for as many as there are processors, -2 for one fewer ...
    """

    poll_seconds = 0.02  # A free worker waits no longer than this for its next job.
    memory_key = "hydra.launcher.n_jobs"

    def __init__(self, n_jobs: int) -> None:
        super().__init__()
        self.n_jobs = n_jobs
        self.waiting: list[str] = []
        self.running: dict[str, tuple[ProcessPoolExecutor, Future[bool]]] = {}
        self.idle: list[ProcessPoolExecutor] = []
        self.numbers: dict[ProcessPoolExecutor, int] = {}  # one for each live worker

    @property
    def parallel_jobs(self) -> int:
        return self.n_jobs if self.n_jobs > 0 else max(1, count_processors() + 1 + self.n_jobs)

    def start(self, sweep: Sweep, ids: Sequence[str], run_here: Callable[[str], None]) -> None:
        self.sweep = sweep
        self.waiting += ids
        self.jobs |= dict.fromkeys(ids, LaunchedJob(Stage.PENDING))

    def poll(self) -> None:
        for id, (worker, future) in list(self.running.items()):
            if future.done():
                del self.running[id]
                self.jobs[id] = LaunchedJob(Stage.ENDED, reason=self._free_worker(worker, future))
        with hide_ctrl_c_from_children():
            while self.waiting and len(self.running) < self.parallel_jobs:
                id = self.waiting[0]
                worker = self.idle.pop() if self.idle else start_worker()
                free = next(number for number in count() if number not in self.numbers.values())
                number = self.numbers.setdefault(worker, free)
                try:
                    future = worker.submit(run_in_own_process, str(self.sweep.folder), id, number)
                except BrokenProcessPool:  # The worker died while it had no job.
                    self._remove(worker)
                    continue
                self.running[self.waiting.pop(0)] = worker, future
                self.jobs[id] = LaunchedJob(Stage.RUNNING)

    def _free_worker(self, worker: ProcessPoolExecutor, future: "Future[bool]") -> str:
        """Keep the worker of an ended job for the next one; if it died, remove it and return how."""
        error = future.exception()
        if isinstance(error, BrokenProcessPool):
            self._remove(worker)
            return type(error).__name__
        self.idle.append(worker)
        if error is not None:
            raise error
        return ""

    def _remove(self, worker: ProcessPoolExecutor) -> None:
        worker.shutdown(kill_workers=True)
        del self.numbers[worker]

    def cancel(self) -> list[str]:
        self.waiting.clear()
        for id in self.running:
            holder = holder_of(self.sweep.job(id).folder)
            with suppress(ProcessLookupError):  # The process may have just ended.
                if holder is not None:
                    os.kill(holder.pid, signal.SIGTERM)
        return list(self.running)

    def close(self) -> None:
        for worker, _ in self.running.values():  # Jobs still run only if the sweep does not wait for them.
            worker.shutdown(kill_workers=True)
        for worker in self.idle:
            worker.shutdown()


def start_worker() -> ProcessPoolExecutor:
    """Return a process that waits for jobs, and ends with this one."""
    return ProcessPoolExecutor(max_workers=1, initializer=end_with_parent, initargs=(os.getpid(),))


@contextmanager
def hide_ctrl_c_from_children() -> Iterator[None]:
    """Block SIGINT and SIGHUP in processes that start during the block, so that they do not end a job unsaved.

    A terminal sends these signals to every process. Children inherit the block of the thread that starts them. The
    signals still reach this process by its other thread, the display's; without one, nothing is blocked.
    """
    if threading.current_thread() is not threading.main_thread() or threading.active_count() == 1:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
