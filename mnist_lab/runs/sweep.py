"""The sweep folder: what was asked for, and how each job stands. Imports neither torch nor Lightning.

runs/sweeps/NAME/
  sweep.json                     the command, the keys that are swept, the jobs that were planned
  VALUES-ID/                     a job: a run folder, with job.json beside run.json
  results.csv, results.json      what the jobs came to, renewed while they run
  heat_map.png or response.png   accuracy over the one or two settings that are swept
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from mnist_lab.config.keys import SWEEP_KEYS, override_key
from mnist_lab.errors import UsageError
from mnist_lab.files import make_folder, write_text
from mnist_lab.runs.locks import holder_of
from mnist_lab.runs.paths import PathIn
from mnist_lab.runs.run import SWEEP_RECORD, Run
from mnist_lab.runs.state import DONE, RunState

_done_jobs: dict[Path, tuple[tuple[int, ...], Job]] = {}  # the jobs that are over, with the times of their files


@dataclass(frozen=True)
class Job:
    """A job of a sweep and how it stands.

    Attributes:
        overrides: what it was given, but for the keys in SWEEP_KEYS.
        state: its state.
        folder: its run folder, which is not there before it is begun.
        attempts: how often it was started in the sweep's latest start.
        error: why it failed or was interrupted.
    """

    overrides: tuple[str, ...]
    folder: Path
    state: RunState = RunState.WAITING
    attempts: int = 0
    error: str | None = None
    process: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """What tells it from others that do something else: job_id."""
        return self.folder.name.rsplit("-", 1)[-1]

    @cached_property
    def info(self) -> dict[str, Any]:
        """What the run's run.json says; nothing where there is none, or a damaged one."""
        try:
            info = Run(self.folder).info if Run(self.folder).exists else {}
            numbers = [*info["metrics"].values(), *info["seconds"].values(), info["epochs"], info["max_epochs"]]
        except (UsageError, KeyError, AttributeError):
            return {}
        return info if all(isinstance(number, int | float) for number in numbers) and "config_dir" in info else {}

    @cached_property
    def epochs(self) -> list[dict[str, float]]:
        """The run's rows of metrics.csv that end an epoch."""
        return Run(self.folder).epochs()


@dataclass(frozen=True)
class Sweep:
    """A sweep by its folder."""

    folder: Path
    record_path = PathIn(SWEEP_RECORD)
    results_csv = PathIn("results.csv")
    results_json = PathIn("results.json")
    report_path = PathIn("report.html")
    study_path = PathIn("study.journal")  # of a search
    stop_file = PathIn(".stop")  # while it is there, no further job is started

    @classmethod
    def open(cls, folder: Path, command: str, swept: Sequence[str], planned: Mapping[str, Sequence[str]]) -> Sweep:
        """A new sweep, or one to go on with.

        Args:
            folder: where it lies.
            command: what goes on with it.
            swept: the keys that have several values.
            planned: the overrides of each job by its id.

        Raises:
            UsageError: the folder holds a sweep of other parameters.
        """
        sweep = cls(folder)
        given = {override_key(override) for overrides in planned.values() for override in overrides} | set(swept)
        earlier = sweep.record if sweep.exists else {"swept": [], "jobs": {}}
        if not (set(earlier["swept"]) <= given or set() < set(swept) <= set(earlier["swept"])):
            raise UsageError(
                f"sweep={folder.name}: is a sweep over {', '.join(earlier['swept'])}, "
                f"not {', '.join(swept) or 'of one job'}; choose another name"
            )
        record = {
            "command": command,
            "start": f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}",
            "swept": list(dict.fromkeys([*earlier["swept"], *swept])),
            "jobs": earlier["jobs"],
        }
        make_folder(folder)
        sweep.stop_file.unlink(missing_ok=True)
        sweep._write(record)
        sweep.plan(planned)
        return sweep

    def plan(self, jobs: Mapping[str, Sequence[str]]) -> None:
        """Add jobs to do, the overrides of each by its id."""
        record = self.record
        for id, overrides in jobs.items():
            record["jobs"][id] = [override for override in overrides if override_key(override) not in SWEEP_KEYS]
        self._write(record)

    def _write(self, record: Mapping[str, Any]) -> None:
        _write_record(self.record_path, record)

    @property
    def record(self) -> dict[str, Any]:
        """What sweep.json says."""
        try:
            record = json.loads((self.record_path).read_text(encoding="utf-8"))
            record = {name: record[name] for name in ("command", "start", "swept", "jobs")}
            texts = [record["command"], record["start"], *record["swept"], *chain(*record["jobs"].values())]
            int(record["start"].rsplit("-", 2)[1])
            if not all(isinstance(text, str) for text in texts):
                raise ValueError("a value is not a text")
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            remedy = "remove the folder, or name another sweep"
            raise UsageError(f"{self.record_path}: corrupt, or not a sweep's record; {remedy}") from error
        return record

    @property
    def exists(self) -> bool:
        """Whether the folder is a sweep's."""
        return (self.record_path).is_file()

    @property
    def process(self) -> int:
        """The number of the process that runs the sweep, or did last."""
        return int(self.record["start"].rsplit("-", 2)[1])

    def jobs(self) -> list[Job]:
        """All jobs, in the order in which they were planned; then those that were not, by their folders' names."""
        planned: dict[str, list[str]] = self.record["jobs"]
        found = [read_job(path) for path in sorted(self.folder.glob("*")) if Run(path).job_path.exists()]
        begun = {job.id: job for job in found}
        jobs = []
        for id, overrides in planned.items():
            job = begun.pop(id, Job((), self.folder / f"-{id}"))
            jobs.append(job if job.overrides == tuple(overrides) else replace(job, overrides=tuple(overrides)))
        return jobs + list(begun.values())


def read_job(folder: Path) -> Job:
    """Return the job in a folder.

    One whose record, or the run's, is damaged counts as killed: the next start of the sweep runs it again. A job that
    is over is read from its files when they change, for a sweep that runs looks at all its jobs every second.
    """
    run = Run(folder)
    stamp = (_modified(run.job_path), _modified(run.record_path))
    known, job = _done_jobs.get(folder.absolute(), (None, None))
    if job and stamp == known:
        return job
    try:
        record = json.loads(run.job_path.read_text(encoding="utf-8"))
        own = {"overrides": tuple(map(str, record["overrides"])), "state": RunState(record["state"])}
        job = Job(folder=folder, **record | own)
        if not isinstance(job.process, dict):
            raise ValueError(job)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Job((), folder, RunState.KILLED, error=f"{run.job_path.name} is damaged")
    if job.state == RunState.FINISHED and not job.info:
        return replace(job, state=RunState.KILLED, error=f"{run.record_path.name} is damaged")
    if job.state == RunState.RUNNING and not holder_of(folder):
        return replace(job, state=RunState.KILLED)
    if job.state in DONE:
        _done_jobs[folder.absolute()] = stamp, job
    return job


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def write_job(job: Job) -> None:
    """Write how a job stands into its folder."""
    record = {name: getattr(job, name) for name in ("overrides", "state", "attempts", "error", "process")}
    _write_record(Run(job.folder).job_path, record)


def _write_record(path: Path, record: Mapping[str, Any]) -> None:
    try:
        write_text(path, json.dumps(record, indent=1) + "\n")
    except IsADirectoryError as error:
        raise UsageError(f"{path}: is a folder, where a record is to be written; remove it") from error
