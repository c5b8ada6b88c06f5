"""The states of a run, and of a job of a sweep."""

from __future__ import annotations

from enum import Enum


class RunState(str, Enum):
    """The state of a run or of a job; its text is the one in run.json and job.json.

    WAITING, KILLED and DAMAGED are not recorded by a run itself.
    """

    WAITING = "waiting"  # a planned job that was not started yet
    RUNNING = "running"
    FINISHED = "finished"
    PAUSED = "paused"  # it has trained as many epochs as its sweep asked for so far
    FAILED = "failed"  # it raised an error
    INTERRUPTED = "interrupted"  # a signal or the death of another of its processes ended it; it can continue
    KILLED = "killed"  # its process is gone without having recorded an end
    DAMAGED = "damaged"  # its record cannot be read

    def __str__(self) -> str:  # as enum.StrEnum, which Python 3.10 lacks
        return str(self.value)


WELL_ENDED = (RunState.FINISHED, RunState.PAUSED)
DONE = (*WELL_ENDED, RunState.FAILED)
STOPPED = (RunState.INTERRUPTED, RunState.KILLED)
