"""hydra/launcher=submitit_slurm: jobs in the queue of a cluster with SLURM, submitted by submitit."""

import os
import re
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any

from submitit import AutoExecutor, Job
from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError
from submitit.helpers import DelayedSubmission

from mnist_lab.errors import Interrupted, UsageError
from mnist_lab.formatting import format_count, format_value
from mnist_lab.runs.locks import STALE_AFTER
from mnist_lab.runs.record import RunState, Submission
from mnist_lab.runs.sweep import Sweep, write_job
from mnist_lab.sweeps.jobs import run_in_own_process
from mnist_lab.sweeps.launchers.launcher import LaunchedJob, Launcher, Stage
from mnist_lab.sweeps.launchers.slurm_queue import is_running, query_jobs, read_max_array_size, run_slurm

SUBMITIT_PARAMETERS = ("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node")
# The settings by the words of sbatch's messages about them: "account/partition" is about the account.
REFUSED_SETTINGS = {"account": "account", "partition": "partition", "qos": "qos", "feature": "constraint"}
REFUSED_SETTINGS |= {"time limit": "timeout_min", "memory": "mem_gb", "cpu count": "cpus_per_task"}


class SlurmLauncher(Launcher):
    """Submits jobs as arrays, and asks squeue for them and for those that an earlier start has submitted.

    The job's own record says how it ended, so that the cluster needs no accounting.

    Args:
        submitit_folder: the folder for submitit's pickled jobs and for the output of jobs.
        cpus_per_task: the number of processors, and so of threads, of a job.
        array_parallelism: the number of parallel jobs.
        max_num_timeout: how often a job may return to the queue at its time limit.
        parameters: further parameters of sbatch, by submitit's names.
    """

    outlives_sweep = True
    lock_patience = STALE_AFTER + 20
    record_patience = 15
    poll_seconds = 3

    def __init__(
        self, submitit_folder: str, cpus_per_task: int, array_parallelism: int, max_num_timeout: int, **parameters: Any
    ) -> None:
        super().__init__()
        self.folder, self.cpus_per_task, self.array_parallelism = submitit_folder, cpus_per_task, array_parallelism
        self.max_num_timeout, self.parameters = max_num_timeout, parameters
        self.submitted: dict[str, Submission] = {}

    @property
    def parallel_jobs(self) -> int:
        return self.array_parallelism

    @property
    def threads(self) -> int:
        return self.cpus_per_task

    def check(self, jobs: int) -> None:
        if shutil.which("sbatch") is None:
            raise UsageError("hydra/launcher=submitit_slurm: this machine has no sbatch; start it on a login node")

    def start(self, sweep: Sweep, ids: Sequence[str], run_here: Callable[[str], None]) -> None:
        submitted = sweep.record.get("submitted", {})
        self.track({id: submitted[id] for id in ids if id in submitted})
        self.poll()
        new = [id for id in ids if id not in self.jobs or self.jobs[id].stage == Stage.ENDED]
        size = read_max_array_size() if new else 1
        for first in range(0, len(new), size):
            array = new[first : first + size]
            for id, job in zip(array, self.submit(sweep, array), strict=True):
                submitted[id] = {"number": job.job_id, "log": str(job.paths.stdout)}
            sweep.keep_submissions(submitted)
            self.track({id: submitted[id] for id in array})

    def track(self, submitted: Mapping[str, Submission]) -> None:
        """Have `poll` ask for these jobs."""
        self.submitted |= submitted
        for id, submission in submitted.items():
            self.jobs[id] = LaunchedJob(Stage.PENDING, f"SLURM {submission['number']}")

    def submit(self, sweep: Sweep, ids: Sequence[str]) -> list[Job[None]]:
        """Submit jobs as one array."""
        executor = AutoExecutor(folder=self.folder, cluster="slurm", slurm_max_num_timeout=self.max_num_timeout)
        given = {"array_parallelism": self.array_parallelism, "cpus_per_task": self.cpus_per_task} | self.parameters
        executor.update_parameters(
            **{key if key in SUBMITIT_PARAMETERS else f"slurm_{key}": value for key, value in given.items()}
        )
        restarts = format_count(self.max_num_timeout, "restart")
        remedy = "raise hydra.launcher.timeout_min or hydra.launcher.max_num_timeout"
        limit = f"time limit of {given['timeout_min']} min, after {restarts}; {remedy}"
        try:
            with redirect_stderr(StringIO()):  # submitit repeats the messages of sbatch.
                return executor.submit_array([QueuedJob(str(sweep.folder), id, limit) for id in ids])
        except (FailedJobError, FailedSubmissionError) as error:
            messages = re.findall(r"^sbatch: (?:error|fatal): (.*)", str(error), re.MULTILINE)
            reason = messages[-1] if messages else str(error).splitlines()[0]
            key = next((key for words, key in REFUSED_SETTINGS.items() if words in reason.lower()), None)
            setting = f"hydra.launcher.{key}={format_value(given[key])}" if key else "hydra/launcher=submitit_slurm"
            raise UsageError(f"{setting}: sbatch refuses the jobs: {reason}") from error

    def poll(self) -> None:
        self.jobs |= query_jobs({id: self.submitted[id] for id, job in self.jobs.items() if job.stage != Stage.ENDED})

    def cancel(self) -> list[str]:
        self.poll()
        pending = [self.submitted[id]["number"] for id, job in self.jobs.items() if job.stage == Stage.PENDING]
        if pending:
            run_slurm("scancel", "--state=PENDING", *pending)
        return []  # Running jobs continue to their end.


class QueuedJob:
    """A job as submitit calls it; it saves before submitit returns it to the queue, on SIGUSR2 or SIGTERM."""

    def __init__(self, folder: str, id: str, limit: str) -> None:
        self.folder, self.id = folder, id
        self.limit = limit  # It describes the time limit, for a job that has no restart left.

    def __call__(self) -> None:
        """Run the job; if it was interrupted, but not by its sweep, have submitit return it to the queue."""
        requeue: Any = signal.getsignal(signal.SIGUSR2)
        warnings = []

        def warn(number: int, frame: FrameType | None) -> None:
            warnings.append(number)
            os.kill(os.getpid(), signal.SIGTERM)  # The handler of training saves.

        def stop_before_training(number: int, frame: FrameType | None) -> None:
            raise Interrupted(128 + number)

        # SIGUSR2 warns of a time limit or a preemption; SLURM itself announces a preemption with SIGTERM.
        signal.signal(signal.SIGUSR2, warn)
        signal.signal(signal.SIGTERM, stop_before_training)
        has_ended = run_in_own_process(self.folder, self.id)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        sweep_is_stopping = Sweep(Path(self.folder)).stop_file.exists()
        if has_ended or sweep_is_stopping or not (warnings or is_running()):
            return
        try:
            requeue(signal.SIGUSR2, None)
        except UncompletedJobError:
            job = Sweep(Path(self.folder)).job(self.id)
            if job.state == RunState.INTERRUPTED:
                write_job(replace(job, error=self.limit))
            raise

    def checkpoint(self) -> DelayedSubmission:
        """Return the job that submitit runs from the queue: this one, which continues from its checkpoint."""
        return DelayedSubmission(self)
