"""Launch the jobs of a sweep and see each to its end, by whichever launcher."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path

from mnist_lab.errors import LabError
from mnist_lab.runs.locks import release_if_held_by
from mnist_lab.runs.ranking import Results, describe_job
from mnist_lab.runs.record import DONE, RunState
from mnist_lab.runs.sweep import Job, write_job
from mnist_lab.sweeps.job_call import HydraSession, JobCall
from mnist_lab.sweeps.launchers.launcher import Launcher, Placement, Stage

STARTS = 2  # of a job whose process dies, before it counts as failed


class Outcome(Enum):
    """What has become of a job that has ended for its launcher."""

    RECORDED = "its own record says how it ended, or the sweep is stopping"
    UNKNOWN = "its record may still come, or another process runs it"
    CANCELLED = "somebody has cancelled it"
    AGAIN = "its process has died, and is started once more"
    DIED = "its process has died again"


class Launch:
    """Jobs that were started together. One whose process dies is started once more, and continues where it saved."""

    def __init__(self, launcher: Launcher, session: HydraSession, jobs: Mapping[str, Sequence[str]]) -> None:
        self.launcher, self.session, self.sweep = launcher, session, session.sweep
        self.calls = {
            id: JobCall(self.sweep.folder, tuple(overrides), number)
            for number, (id, overrides) in enumerate(jobs.items())
        }
        # The processes of jobs that are paused, as their records say until they begin to continue.
        self.paused = {job.id: job.process for job in self.sweep.read_jobs(list(jobs)) if job.state == RunState.PAUSED}
        self.unended = dict.fromkeys(jobs)
        self.starts = Counter(jobs.keys())
        self.ended: dict[str, float] = {}  # when it was noticed that a job has ended, whose record does not tell how
        self.cancelled: list[str] = []  # where the jobs were
        if jobs:
            launcher.start(session, self.calls)

    def wait(self) -> None:
        """Wait until all jobs have ended."""
        while self.unended:
            placements = self.launcher.poll()
            again = []
            ended = [id for id in self.unended if placements[id].stage == Stage.ENDED]
            for id, job in zip(ended, self.sweep.read_jobs(ended), strict=True):
                outcome = self._outcome(id, job, placements[id])
                if outcome == Outcome.AGAIN:
                    again.append(id)
                elif outcome != Outcome.UNKNOWN:
                    del self.unended[id]
                if outcome == Outcome.CANCELLED:
                    self.cancelled.append(str(placements[id]) or " ".join(self.calls[id].overrides))
                elif outcome == Outcome.DIED:
                    self._record_death(id, job, placements[id])
            self._start_again(again)
            if self.unended:
                time.sleep(self.launcher.poll_seconds)
        if self.cancelled:
            raise LabError(f"cancelled: {', '.join(self.cancelled)}; the same command starts what is not finished")

    def _outcome(self, id: str, job: Job, placement: Placement) -> Outcome:
        """Return what has become of a job that has ended for its launcher."""
        has_begun = job.process != self.paused.get(id)
        if (job.state in DONE and has_begun) or self.sweep.stop_file.exists():
            return Outcome.RECORDED
        if placement.cancelled:
            return Outcome.CANCELLED
        if job.state == RunState.INTERRUPTED:
            return Outcome.RECORDED
        if job.state == RunState.RUNNING and not release_if_held_by(placement.machine, job.folder):
            # In another process, or in one that died on another machine, whose lock is trusted for a while.
            return Outcome.UNKNOWN if self.launcher.lock_patience else Outcome.RECORDED
        ended = self.ended.setdefault(id, time.monotonic())
        if not placement.reason and time.monotonic() < ended + self.launcher.record_patience:
            return Outcome.UNKNOWN
        return Outcome.AGAIN if self.starts[id] < STARTS else Outcome.DIED

    def _start_again(self, ids: Sequence[str]) -> None:
        if ids:
            self.starts.update(ids)
            for id in ids:
                self.ended.pop(id, None)
            self.launcher.start(self.session, {id: self.calls[id] for id in ids})

    def _record_death(self, id: str, job: Job, placement: Placement) -> None:
        """Record a job as failed whose process has died."""
        end = ": ".join(filter(None, [str(placement), placement.reason])) or "no reason is known"
        if job.state == RunState.WAITING:
            self.launcher.cancel()
            results = Results.of(self.sweep)
            (planned,) = [planned for planned in results.jobs if planned.id == id]
            told = describe_job(results, planned)
            raise LabError(f"{told}: ended before it began ({end}){explain_log(placement.log)}")
        write_job(replace(job, state=RunState.FAILED, error=f"its process died ({end})"))


def explain_log(log: Path | None) -> str:
    """Return what the log of a job that has not begun tells, to be put behind another sentence."""
    if log is None:
        return ""
    if not log.exists():
        return f"; {log} was not written: choose a runs_dir on a file system that all machines share"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return f"; {log} ends: {next((line.strip() for line in reversed(lines) if line.strip()), 'empty')}"
