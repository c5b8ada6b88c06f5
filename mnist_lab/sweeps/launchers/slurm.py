"""hydra/launcher=submitit_slurm: jobs in the queue of a cluster with SLURM, submitted by submitit."""

import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from typing import Any

from submitit import AutoExecutor, Job
from submitit.core.utils import FailedJobError, FailedSubmissionError

from mnist_lab.errors import UsageError
from mnist_lab.runs.locks import STALE_AFTER
from mnist_lab.runs.record import Submission
from mnist_lab.sweeps.job_call import HydraSession, JobCall
from mnist_lab.sweeps.launchers.launcher import Launcher, Placement, Stage
from mnist_lab.sweeps.launchers.queued_job import QueuedJob
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

    def plan(self, jobs: int) -> None:
        if shutil.which("sbatch") is None:
            raise UsageError("hydra/launcher=submitit_slurm: this machine has no sbatch; start it on a login node")

    def start(self, session: HydraSession, calls: Mapping[str, JobCall]) -> None:
        session.save()
        submitted = session.sweep.record.get("submitted", {})
        self.watch({id: submitted[id] for id in calls if id in submitted})
        found = {id for id, placement in self.poll().items() if placement.stage != Stage.ENDED}
        new = [id for id in calls if id not in found]
        most = largest_array() if new else 1
        for ids in (new[first : first + most] for first in range(0, len(new), most)):
            jobs = self.submit([calls[id] for id in ids])
            submitted |= {
                id: {"number": job.job_id, "log": str(job.paths.stdout)} for id, job in zip(ids, jobs, strict=True)
            }
            session.sweep.keep_submissions(submitted)
            self.watch({id: submitted[id] for id in ids})

    def watch(self, submitted: Mapping[str, Submission]) -> None:
        """Have `poll` ask for these jobs."""
        self.submitted |= submitted
        waiting = {id: Placement(Stage.PENDING, f"SLURM {submitted[id]['number']}") for id in submitted}
        self.placements = {**self.placements, **waiting}

    def submit(self, calls: Sequence[JobCall]) -> list[Job[None]]:
        """Submit jobs as one array."""
        executor = AutoExecutor(folder=self.folder, cluster="slurm", slurm_max_num_timeout=self.max_num_timeout)
        of_slurm = {"array_parallelism": self.array_parallelism, "cpus_per_task": self.cpus_per_task} | self.parameters
        executor.update_parameters(
            **{key if key in OF_SUBMITIT else f"slurm_{key}": value for key, value in of_slurm.items()}
        )
        try:
            with redirect_stderr(StringIO()):  # submitit repeats what sbatch says
                return executor.submit_array([QueuedJob(call, goes_on=is_running) for call in calls])
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
