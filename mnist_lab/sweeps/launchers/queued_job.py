"""What submitit runs in a process of a cluster's job: a sweep's job that goes back into the queue when it must stop."""

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from submitit.helpers import DelayedSubmission

from mnist_lab.errors import Interrupted
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps.job_call import JobCall


class QueuedJob:
    """A job of a sweep as submitit calls it.

    submitit puts a job back into the queue on SIGUSR2, the warning before a time limit or a preemption. Here the job
    saves first. SIGTERM, by which SLURM itself announces a preemption, is taken in the same way.
    """

    def __init__(self, call: JobCall, goes_on: Callable[[], bool]) -> None:
        self.call, self.goes_on = call, goes_on

    def __call__(self) -> None:
        """Run the job; when it was interrupted, but not by its sweep, have submitit put it back into the queue."""
        requeue: Any = signal.getsignal(signal.SIGUSR2)
        warned = []

        def warn(number: int, frame: FrameType | None) -> None:
            warned.append(number)
            os.kill(os.getpid(), signal.SIGTERM)  # training saves by its own handler

        def stop(number: int, frame: FrameType | None) -> None:  # before training has begun
            raise Interrupted(128 + number)

        signal.signal(signal.SIGUSR2, warn)
        signal.signal(signal.SIGTERM, stop)
        came_to_its_end = self.call()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        stopped = Sweep(self.call.folder).stop_file.exists()
        if not came_to_its_end and not stopped and (warned or self.goes_on()):
            requeue(signal.SIGUSR2, None)

    def checkpoint(self) -> DelayedSubmission:
        """Return what submitit calls after the job was put back: the same, which continues from its checkpoint."""
        return DelayedSubmission(self)
