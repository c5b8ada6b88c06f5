"""hydra/launcher=submitit_slurm: jobs in the queue of a cluster with SLURM, submitted by submitit."""

import os
import re
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any

from submitit import AutoExecutor, Job
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import DelayedSubmission

from mnist_lab.errors import Interrupted, UsageError
from mnist_lab.runs.locks import STALE_AFTER
from mnist_lab.runs.record import Submission
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps.jobs import run_in_own_process
from mnist_lab.sweeps.launchers.launcher import Launcher, Placement, Stage
from mnist_lab.sweeps.launchers.slurm_queue import cancel_pending, is_running, largest_array, look_up

OF_SUBMITIT = ("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node")


class SlurmLauncher(Launcher):
    """Submits jobs as arrays, asks squeue for them, and finds those again that an earlier start has submitted.

    How a job did, its record tells, so that clusters without accounting will do.

    Args:
        submitit_folder: for what submitit hands to jobs, and what they print.
        cpus_per_task: processors of a job, and so its threads.
        array_parallelism: jobs at once.
        max_num_timeout: how often a job may be put back into the queue at its time limit.
        parameters: others of sbatch, by submitit's names.
    """

    outlives = True
    lock_patience = STALE_AFTER + 20
    record_patience = 15
    poll_seconds = 3

    def __init__(
        self, submitit_folder: str, cpus_per_task: int, array_parallelism: int, max_num_timeout: int, **parameters: Any
    ) -> None:
        self.folder, self.cpus_per_task, self.array_parallelism = submitit_folder, cpus_per_task, array_parallelism
        self.max_num_timeout, self.parameters = max_num_timeout, parameters
        self.submitted: dict[str, Submission] = {}

    @property
    def at_once(self) -> int:
        return self.array_parallelism

    @property
    def threads(self) -> int:
        return self.cpus_per_task

    def check(self, jobs: int) -> None:
        if shutil.which("sbatch") is None:
            raise UsageError("hydra/launcher=submitit_slurm: this machine has no sbatch; start it on a login node")

    def start(self, sweep: Sweep, ids: Sequence[str], run_here: Callable[[str], None]) -> None:
        submitted = sweep.record.get("submitted", {})
        self.watch({id: submitted[id] for id in ids if id in submitted})
        found = {id for id, placement in self.poll().items() if placement.stage != Stage.ENDED}
        new = [id for id in ids if id not in found]
        most = largest_array() if new else 1
        for part in (new[first : first + most] for first in range(0, len(new), most)):
            jobs = self.submit(sweep, part)
            submitted |= {
                id: {"number": job.job_id, "log": str(job.paths.stdout)} for id, job in zip(part, jobs, strict=True)
            }
            sweep.keep_submissions(submitted)
            self.watch({id: submitted[id] for id in part})

    def watch(self, submitted: Mapping[str, Submission]) -> None:
        """Have `poll` ask for these jobs."""
        self.submitted |= submitted
        waiting = {id: Placement(Stage.PENDING, f"SLURM {submitted[id]['number']}") for id in submitted}
        self.placements = {**self.placements, **waiting}

    def submit(self, sweep: Sweep, ids: Sequence[str]) -> list[Job[None]]:
        """Submit jobs as one array."""
        executor = AutoExecutor(folder=self.folder, cluster="slurm", slurm_max_num_timeout=self.max_num_timeout)
        of_slurm = {"array_parallelism": self.array_parallelism, "cpus_per_task": self.cpus_per_task} | self.parameters
        executor.update_parameters(
            **{key if key in OF_SUBMITIT else f"slurm_{key}": value for key, value in of_slurm.items()}
        )
        try:
            with redirect_stderr(StringIO()):  # submitit repeats what sbatch says
                return executor.submit_array([QueuedJob(str(sweep.folder), id) for id in ids])
        except (FailedJobError, FailedSubmissionError) as error:
            said = re.findall(r"^sbatch: (?:error|fatal): (.*)", str(error), re.MULTILINE)
            why = said[-1] if said else str(error).splitlines()[0]
            raise UsageError(f"hydra/launcher=submitit_slurm: sbatch refuses the jobs: {why}") from error

    def poll(self) -> Mapping[str, Placement]:
        watched = {id: self.submitted[id] for id in self.submitted if self.placements[id].stage != Stage.ENDED}
        self.placements = {**self.placements, **look_up(watched)}
        return self.placements

    def cancel(self) -> list[str]:
        cancel_pending(self.submitted[id]["number"] for id, job in self.poll().items() if job.stage == Stage.PENDING)
        return []  # what runs goes on to its end

    def close(self) -> None:
        """Leave the jobs to SLURM."""


class QueuedJob:
    """A job of a sweep as submitit calls it.

    submitit puts a job back into the queue on SIGUSR2, the warning before a time limit or a preemption. Here the job
    saves first. SIGTERM, by which SLURM itself announces a preemption, is taken in the same way.
    """

    def __init__(self, folder: str, id: str) -> None:
        self.folder, self.id = folder, id

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
        has_ended = run_in_own_process(self.folder, self.id)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        stopped = Sweep(Path(self.folder)).stop_file.exists()
        if not has_ended and not stopped and (warned or is_running()):
            requeue(signal.SIGUSR2, None)

    def checkpoint(self) -> DelayedSubmission:
        """Return what submitit calls after the job was put back: the same, which continues from its checkpoint."""
        return DelayedSubmission(self)
