"""hydra/launcher=submitit_local: jobs in processes of this machine, as submitit starts them on a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from submitit import AutoExecutor, Job

from mnist_lab.sweeps.job_call import JobCall
from mnist_lab.sweeps.launchers.launcher import processors
from mnist_lab.sweeps.launchers.on_this_machine import OnThisMachine
from mnist_lab.sweeps.launchers.queued_job import QueuedJob


@dataclass
class SubmittedJob:
    """A job of submitit's on this machine."""

    job: Job[None]

    def ended(self) -> str | None:
        """Return how the job ended; None while its process, or the one it continues in, runs."""
        if not self.job.done():
            return None
        return "" if self.job.state == "FINISHED" else self.job.state

    def kill(self) -> None:
        """End submitit's process of the job, which ends the job's."""
        self.job.cancel()


class SubmititLocalLauncher(OnThisMachine):
    """Starts as many jobs at once as there are processors for.

    Args:
        submitit_folder: for what submitit hands to jobs, and what they print.
        cpus_per_task: processors of a job, and so its threads.
        max_num_timeout: how often a job may be put back into the queue at its time limit.
        parameters: others of submitit.AutoExecutor.
    """

    memory_key = "hydra.launcher.cpus_per_task"

    def __init__(self, submitit_folder: str, cpus_per_task: int, max_num_timeout: int = 3, **parameters: Any) -> None:
        super().__init__()
        self.folder, self.cpus_per_task = submitit_folder, cpus_per_task
        self.max_num_timeout, self.parameters = max_num_timeout, parameters

    @property
    def at_once(self) -> int:
        return max(1, processors() // self.cpus_per_task)

    @property
    def threads(self) -> int:
        return self.cpus_per_task

    def setting_for(self, at_once: int) -> int:
        return -(-processors() // at_once)

    def begin(self, call: JobCall) -> SubmittedJob:
        executor = AutoExecutor(folder=self.folder, cluster="local", local_max_num_timeout=self.max_num_timeout)
        executor.update_parameters(cpus_per_task=self.cpus_per_task, **self.parameters)
        return SubmittedJob(executor.submit(QueuedJob(call, goes_on=lambda: False)))
