"""Jobs in other processes of this machine, as many at once as fit; what these processes are, the launchers say."""

import os
import signal
import threading
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Protocol

from mnist_lab.runs.locks import holder_of
from mnist_lab.sweeps.job_call import HydraSession, JobCall
from mnist_lab.sweeps.launchers.launcher import Launcher, Placement, Stage


class RunningJob(Protocol):
    """A job in another process of this machine."""

    def ended(self) -> str | None:
        """Return how the process ended, empty if well; None while it runs."""

    def kill(self) -> None:
        """End the process at once."""


class OnThisMachine(Launcher):
    """Starts jobs in other processes of this machine, the next one when one has ended."""

    def __init__(self) -> None:
        self.waiting: dict[str, JobCall] = {}
        self.running: dict[str, RunningJob] = {}
        self.stages: dict[str, Placement] = {}

    @abstractmethod
    def begin(self, call: JobCall) -> RunningJob:
        """Start a job now."""

    def start(self, session: HydraSession, calls: Mapping[str, JobCall]) -> None:
        session.save()
        self.sweep = session.sweep
        self.waiting |= calls
        self.stages |= dict.fromkeys(calls, Placement(Stage.PENDING))

    def poll(self) -> Mapping[str, Placement]:
        for id, job in list(self.running.items()):
            reason = job.ended()
            if reason is not None:
                del self.running[id]
                self.stages[id] = Placement(Stage.ENDED, reason=reason)
        with ctrl_c_kept_from_children():
            while self.waiting and len(self.running) < self.at_once:
                id = next(iter(self.waiting))
                self.running[id] = self.begin(self.waiting.pop(id))
                self.stages[id] = Placement(Stage.RUNNING)
        self.placements = dict(self.stages)
        return self.placements

    def cancel(self) -> list[str]:
        self.waiting.clear()
        for id in self.running:
            holder = holder_of(self.sweep.job(id).folder)
            with suppress(ProcessLookupError):  # it has ended
                if holder is not None:
                    os.kill(holder.pid, signal.SIGTERM)
        return list(self.running)

    def close(self) -> None:
        for job in self.running.values():  # of a sweep that does not wait for them
            job.kill()


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
