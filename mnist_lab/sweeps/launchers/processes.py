"""hydra/launcher=processes: jobs side by side on this machine, in processes that stay for the next job."""

import os
from concurrent.futures import Future
from dataclasses import dataclass

from loky import ProcessPoolExecutor
from loky.process_executor import BrokenProcessPool

from mnist_lab.sweeps.job_call import JobCall
from mnist_lab.sweeps.launchers.launcher import processors
from mnist_lab.sweeps.launchers.on_this_machine import OnThisMachine
from mnist_lab.sweeps.process import end_with_parent


@dataclass
class WorkerJob:
    """A job in a worker process."""

    worker: ProcessPoolExecutor
    future: Future[bool]
    idle: list[ProcessPoolExecutor]

    def ended(self) -> str | None:
        """Return how the job's process ended; a worker that lives is free for the next job."""
        if not self.future.done():
            return None
        error = self.future.exception()
        if isinstance(error, BrokenProcessPool):
            self.kill()
            return type(error).__name__
        self.idle.append(self.worker)
        if error is not None:
            raise error
        return ""

    def kill(self) -> None:
        """End the worker, with its job."""
        self.worker.shutdown(kill_workers=True)


class ProcessesLauncher(OnThisMachine):
    """Keeps a worker process for each of the jobs at once. One that dies takes no other with it.

    Args:
        n_jobs: jobs at once; -1 for as many as there are processors, -2 for one fewer ...
    """

    poll_seconds = 0.02  # that a free worker waits for its next job, at most
    memory_key = "hydra.launcher.n_jobs"

    def __init__(self, n_jobs: int) -> None:
        super().__init__()
        self.n_jobs = n_jobs
        self.idle: list[ProcessPoolExecutor] = []

    @property
    def at_once(self) -> int:
        return self.n_jobs if self.n_jobs > 0 else max(1, processors() + 1 + self.n_jobs)

    def begin(self, call: JobCall) -> WorkerJob:
        worker = self.idle.pop() if self.idle else new_worker()
        return WorkerJob(worker, worker.submit(call), self.idle)

    def close(self) -> None:
        super().close()
        for worker in self.idle:
            worker.shutdown()


def new_worker() -> ProcessPoolExecutor:
    """Return a process that waits for jobs, and ends with this one."""
    return ProcessPoolExecutor(max_workers=1, initializer=end_with_parent, initargs=(os.getpid(),))
