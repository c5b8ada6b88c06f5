"""Read and write sweep folders: the planned jobs and their states. Imports neither torch nor Lightning.

runs/sweeps/NAME/
  sweep.json                     the command, the swept keys, the planned jobs
  VALUES-ID/                     a job: a run folder, with job.json beside run.json
  results.csv, results.json      the results of the jobs, updated while they run
  response.png, heat_map.png or coordinates.png   accuracy over the swept settings: one, two, more
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mnist_lab.config.keys import SWEEP_KEYS
from mnist_lab.config.metric_names import VAL_ACC
from mnist_lab.config.overrides import override_key, override_values, without_keys
from mnist_lab.config.settings import short_names
from mnist_lab.errors import UsageError
from mnist_lab.files import exists, make_folder
from mnist_lab.runs.locks import holder_of
from mnist_lab.runs.record import (
    COMPLETE,
    DONE,
    JOB,
    SWEEP,
    JobProcess,
    JobRecord,
    RunRecord,
    RunState,
    Submission,
    SweepRecord,
    SweepSettings,
    read_record,
    write_record,
)
from mnist_lab.runs.run import RESULTS_JSON, SWEEP_RECORD, PathIn, Run, find_folder

# A sweep polls thousands of jobs, most of them done. The stamp of one has the times of its files and its plan.
_done_jobs: dict[Path, tuple[tuple[int, int, tuple[str, ...] | None], Job]] = {}


@dataclass(frozen=True)
class Job:
    """A job of a sweep. Its folder does not exist before its start."""

    overrides: tuple[str, ...]  # They do not have SWEEP_KEYS.
    folder: Path
    state: RunState = RunState.WAITING
    attempts: int = 0  # It counts the starts since the sweep's latest start.
    error: str | None = None  # It says why the job failed or was interrupted.
    process: JobProcess = field(default_factory=JobProcess)

    @property
    def id(self) -> str:
        """The job's id, which follows from its settings: see `sweeps.plan.job_id`."""
        return id_of_folder(self.folder.name)

    @cached_property
    def info(self) -> RunRecord:
        """The entries of the run's record; empty if the record is missing, damaged or incomplete."""
        try:
            info = Run(self.folder).info
        except UsageError:
            return {}
        return {} if info["max_epochs"] is None or info["seed"] is None else info

    @cached_property
    def epochs(self) -> list[dict[str, float]]:
        """The rows of the run's metrics.csv at the ends of epochs."""
        return Run(self.folder).epochs()


@dataclass(frozen=True)
class Sweep:
    """A sweep, known by its folder."""

    folder: Path
    record_path = PathIn(SWEEP_RECORD)
    results_csv = PathIn("results.csv")
    results_json = PathIn(RESULTS_JSON)
    report_path = PathIn("report.html")
    study_path = PathIn("study.journal")  # A search keeps its trials there.
    stop_file = PathIn(".stop")  # While it exists, no further job is started.

    @classmethod
    def open(
        cls,
        folder: Path,
        command: str,
        swept: Sequence[str],
        planned: Mapping[str, Sequence[str]],
        settings: SweepSettings | None = None,
    ) -> Sweep:
        """Create a sweep, or open one to continue it, with the overrides of each planned job by id."""
        sweep = cls(folder)
        given = {override_key(override) for overrides in planned.values() for override in overrides} | set(swept)
        before: SweepRecord = sweep.record if sweep.exists else {"command": "", "start": "", "swept": [], "jobs": {}}
        if not (set(before["swept"]) <= given or set() < set(swept) <= set(before["swept"])):
            raise UsageError(
                f"sweep={folder.name}: is a sweep over {', '.join(before['swept'])}, "
                f"not {', '.join(swept) or 'of one job'}; choose another name"
            )
        record: SweepRecord = {
            "command": command,
            "start": f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}",
            "swept": list(dict.fromkeys([*before["swept"], *swept])),
            "jobs": before["jobs"],
            "submitted": before.get("submitted", {}),
        }
        if settings is not None:
            record["settings"] = settings
        make_folder(folder)
        sweep.stop_file.unlink(missing_ok=True)
        write_record(sweep.record_path, record)
        sweep.plan(planned)
        return sweep

    @classmethod
    def find(cls, name: str, runs_dir: str) -> Sweep:
        """Find a sweep by its folder, by its name below `runs_dir`, or as `latest`: the one that was started last."""
        parent = Path(runs_dir) / "sweeps"
        sweeps = [cls(path.parent) for path in parent.glob(f"*/{SWEEP_RECORD}")]
        if name == "latest":
            if not sweeps:
                raise UsageError(f"latest: no sweep in {parent}; -m starts one, --runs-dir names another folder")
            return max(sweeps, key=lambda sweep: sweep.record_path.stat().st_mtime)
        path = find_folder(name, Path(runs_dir))
        for sweep in map(cls, (path, *path.absolute().parents) if exists(path) else ()):
            if sweep.exists:  # The path may be a job's, or one in a job's folder.
                return sweep
        known = ", ".join(sweep.folder.name for sweep in sweeps[:10]) or "none"
        place = f"a sweep in {parent}, which has {known}"
        raise UsageError(f"{name}: neither a sweep folder (with {SWEEP_RECORD}) nor {place}")

    @property
    def exists(self) -> bool:
        """Whether the folder is a sweep's, even if its record is damaged."""
        return exists(self.record_path)

    @property
    def record(self) -> SweepRecord:
        """The entries of sweep.json."""
        return read_record(self.record_path, SWEEP, "a sweep's record", "remove the folder, or name another sweep")

    @property
    def metric(self) -> str:
        """The metric by which the jobs are ranked; a higher value is better."""
        return self.record.get("settings", {}).get("metric", VAL_ACC)

    def plan(
        self, jobs: Mapping[str, Sequence[str]], prune: Mapping[str, dict[str, Any] | None] = MappingProxyType({})
    ) -> None:
        """Add jobs by their ids: the overrides of each, and the callback that may end it early."""
        record = self.record
        record["jobs"] |= {id: without_keys(overrides, *SWEEP_KEYS) for id, overrides in jobs.items()}
        callbacks = {**record.get("prune", {}), **prune}
        record["prune"] = {id: callback for id, callback in callbacks.items() if callback}
        write_record(self.record_path, record)

    def job_folder(self, record: SweepRecord, id: str) -> Path:
        """Return a job's folder: the one that ends with its id, or else a new one, named by its swept values."""
        for path in self.folder.glob(f"*-{id}"):
            return path
        swept, values = record["swept"], override_values(record["jobs"][id])
        names = short_names([key for key in values if key in swept])
        text = ",".join(f"{short}={values[key]}" for key, short in names.items()) or "job"
        file_name = re.sub(r"[^\w.,=+-]", "_", text)[:150]
        return self.folder / f"{file_name}-{id}"

    def keep_submissions(self, submitted: dict[str, Submission]) -> None:
        """Record the jobs that are in the queue of a cluster."""
        write_record(self.record_path, {**self.record, "submitted": submitted})

    def job(self, id: str) -> Job:
        """Return a job by its id, as it is now."""
        (job,) = self.read_jobs([id])
        return job

    def read_jobs(self, ids: Sequence[str]) -> Iterator[Job]:
        """Yield jobs by their ids, each as it is at that moment; the folder is listed once for all of them."""
        folders = {id_of_folder(path.name): path for path in self.folder.glob("*")} if ids else {}
        for id in ids:
            yield read_job(folders[id]) if id in folders else Job((), self.folder / f"-{id}")

    def jobs(self) -> list[Job]:
        """Return all jobs: the planned ones in order, then others by the names of their folders."""
        planned = {id: tuple(overrides) for id, overrides in self.record["jobs"].items()}
        folders = [path for path in sorted(self.folder.glob("*")) if Run(path).job_path.exists()]
        waiting = {id: Job(overrides, self.folder / f"-{id}") for id, overrides in planned.items()}
        begun = {job.id: job for job in (read_job(path, planned.get(id_of_folder(path.name))) for path in folders)}
        return list((waiting | begun).values())


def id_of_folder(name: str) -> str:
    """Return the id of the job whose folder has this name."""
    return name.rsplit("-", 1)[-1]


def read_job(folder: Path, planned: tuple[str, ...] | None = None) -> Job:
    """Read a job from its folder, with its planned overrides or else the recorded ones; a damaged one is killed."""
    run = Run(folder)
    stamp = (_modified(run.job_path), _modified(run.record_path), planned)
    known_stamp, job = _done_jobs.get(folder.absolute(), (None, None))
    if job and stamp == known_stamp:
        return job
    try:
        record = read_record(run.job_path, JOB, "a job's record", "remove the folder")
    except UsageError:
        return Job(planned or (), folder, RunState.KILLED, error=f"{run.job_path.name} is damaged")
    overrides = tuple(record["overrides"]) if planned is None else planned
    job = Job(overrides, folder, record["state"], record["attempts"], record["error"], record["process"])
    if job.state in COMPLETE and not job.info:
        return replace(job, state=RunState.KILLED, error=f"{run.record_path.name} is damaged")
    if job.state == RunState.RUNNING and not holder_of(folder):
        return replace(job, state=RunState.KILLED)
    if job.state in DONE:
        _done_jobs[folder.absolute()] = stamp, job
    return job


def _modified(path: Path) -> int:
    """Return when a file was modified last, in nanoseconds; 0 if it is missing."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def write_job(job: Job) -> None:
    """Write a job's record into its folder."""
    write_record(Run(job.folder).job_path, {name: getattr(job, name) for name in JobRecord.__annotations__})
