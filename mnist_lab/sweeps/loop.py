"""The loop of a sweep: launch jobs, watch them, start those once more whose process died, and end by a signal."""

import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mnist_lab.config.compose import compose_job
from mnist_lab.errors import Interrupted, JobsFailed, LabError, UsageError
from mnist_lab.formatting import format_command, print_lines
from mnist_lab.runs.locks import holder_of, release_if_held_by, run_lock
from mnist_lab.runs.ranking import Results, describe_job
from mnist_lab.runs.record import DONE, STOPPED, RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job, Sweep, write_job
from mnist_lab.sweeps.jobs import run_job
from mnist_lab.sweeps.launchers.launcher import Launcher, Placement, Stage
from mnist_lab.sweeps.plan import Plan, in_folder
from mnist_lab.sweeps.process import import_torch
from mnist_lab.sweeps.progress import Watch, show_results

STARTS = 2  # of a job whose process dies, before it counts as failed
PATIENCE = 60  # seconds for jobs to save after a signal


class Outcome(Enum):
    """What has become of a job that has ended for its launcher."""

    RECORDED = "its own record says how it ended, or the sweep is stopping"
    UNKNOWN = "its record may still come, or another process runs it"
    CANCELLED = "somebody has cancelled it"
    AGAIN = "its process has died, and is started once more"
    DIED = "its process has died again"


@contextmanager
def running(plan: Plan, jobs: Mapping[str, Sequence[str]]) -> Iterator["Loop"]:
    """Open the sweep of a plan with the overrides of its planned jobs by id, and watch it during the block.

    At its end, however it ends, the results are written and shown.
    """
    sweep, launcher, command = plan.sweep, plan.launcher, format_command(plan.arguments())
    with run_lock(sweep.folder):
        new = not sweep.exists
        Sweep.open(sweep.folder, command, plan.swept, jobs, plan.settings())
        try:
            with closing(launcher), forward_signals(sweep, launcher), Watch(sweep, launcher):
                yield Loop(plan)
        except UsageError:
            if new and not Run.below(sweep.folder):  # The launcher has refused the jobs.
                shutil.rmtree(sweep.folder)
            raise
        finally:
            if sweep.exists:
                show_results(Results.of(sweep), command)
        if not plan.cfg.detach and any(job.state in (RunState.FAILED, *STOPPED) for job in sweep.jobs()):
            raise JobsFailed(LabError.exit_status)


class Loop:
    """Runs jobs of a sweep, batch by batch."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.launcher, self.sweep = plan, plan.launcher, plan.sweep

    def run(self, ids: Sequence[str]) -> None:
        """Start jobs and wait until all have ended; with detach=true, only start them.

        A job whose process dies is started once more, and continues where it saved.
        """
        # Records of paused jobs keep their former process until they continue.
        self.paused = {job.id: job.process for job in self.sweep.read_jobs(ids) if job.state == RunState.PAUSED}
        self.starts = Counter(ids)
        self.ended: dict[str, float] = {}  # when a job was seen to have ended without a record of how
        if ids:
            self._start(ids)
        if self.plan.cfg.detach:
            command = format_command(["status", self.sweep.folder.name])
            print_lines(f"{len(ids)} jobs are in the queue; how they stand: {command}")
        else:
            self._wait(dict.fromkeys(ids))

    def _start(self, ids: Sequence[str]) -> None:
        self.launcher.start(self.sweep, ids, lambda id: run_in_this_process(self.plan, id))

    def _wait(self, unended: dict[str, None]) -> None:
        cancelled = []
        while unended:
            placements = self.launcher.poll()
            again = []
            ended = [id for id in unended if placements[id].stage == Stage.ENDED]
            for id, job in zip(ended, self.sweep.read_jobs(ended), strict=True):
                outcome = self._outcome(id, job, placements[id])
                if outcome == Outcome.AGAIN:
                    again.append(id)
                elif outcome != Outcome.UNKNOWN:
                    del unended[id]
                if outcome == Outcome.CANCELLED:
                    cancelled.append(str(placements[id]) or id)
                elif outcome == Outcome.DIED:
                    self._record_death(id, job, placements[id])
            if again:
                self.starts.update(again)
                self.ended = {id: moment for id, moment in self.ended.items() if id not in again}
                self._start(again)
            if unended:
                time.sleep(self.launcher.poll_seconds)
        if cancelled:
            raise LabError(f"cancelled: {', '.join(cancelled)}; the same command starts what is not finished")

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

    def _record_death(self, id: str, job: Job, placement: Placement) -> None:
        """Record a job as failed whose process has died; if it had not begun, the sweep ends."""
        end = ": ".join(filter(None, [str(placement), placement.reason])) or "no reason is known"
        if job.state == RunState.WAITING:
            self.launcher.cancel()
            results = Results.of(self.sweep)
            name = describe_job(results, next(job for job in results.jobs if job.id == id))
            raise LabError(f"{name}: ended before it began ({end}){explain_log(placement.log)}")
        write_job(replace(job, state=RunState.FAILED, error=f"its process died ({end})"))


def run_in_this_process(plan: Plan, id: str) -> None:
    """Run a job in the process of its sweep, with the configuration composed for the plan.

    A job that only an earlier start of the sweep has planned is composed now.
    """
    import_torch()
    record = plan.sweep.record
    folder = plan.sweep.job_folder(record, id)
    if id in plan.composed:
        plain, hydra = plan.composed[id]
        cfg = OmegaConf.create(in_folder(plain, folder))
        hydra = replace(hydra, logging=in_folder(hydra.logging, folder))
    else:
        line = replace(plan.line, overrides=(*record["jobs"][id], *plan.own_overrides))
        cfg, hydra = compose_job(line, is_sweep=True, folder=folder, number=list(record["jobs"]).index(id))
    run_job(plan.sweep, record, id, cfg, hydra)


def explain_log(log: Path | None) -> str:
    """Return what the log of a job that has not begun says, to be put behind another sentence."""
    if log is None:
        return ""
    if not log.exists():
        return f"; {log} was not written: choose a runs_dir on a file system that all machines share"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return f"; {log} ends: {next((line.strip() for line in reversed(lines) if line.strip()), 'empty')}"


@contextmanager
def forward_signals(sweep: Sweep, launcher: Launcher) -> Iterator[None]:
    """Forward Ctrl-C, SIGTERM and SIGHUP to the jobs of a sweep, and wait until they have saved.

    A job in this process handles them itself while it trains. Jobs that outlive this process continue; those that had
    not begun will not, but for a closed terminal. A second signal ends the wait.
    """

    def stop(number: int, frame: Any) -> None:
        if number == signal.SIGHUP:
            signal.signal(number, signal.SIG_IGN)  # The kernel, the shell and tmux may each send one.
        if received or (launcher.outlives and number == signal.SIGHUP):
            raise Interrupted(128 + number)
        received.append(number)
        sweep.stop_file.touch()
        signalled = launcher.cancel()
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and any(holder_of(sweep.job(id).folder) for id in signalled):
            time.sleep(0.1)
        raise Interrupted(128 + number)

    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as it is under nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is stop:
                signal.signal(number, handler or signal.SIG_DFL)
        if received:  # whatever a launcher did with the exception
            raise Interrupted(128 + received[0])
