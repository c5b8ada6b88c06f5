"""hydra/sweeper=grid: every combination of the swept values is a job."""

from dataclasses import dataclass

from mnist_lab.config.keys import SWEEP_KEYS
from mnist_lab.config.overrides import without_keys
from mnist_lab.errors import UsageError
from mnist_lab.runs.record import COMPLETE
from mnist_lab.sweeps.loop import open_sweep
from mnist_lab.sweeps.plan import Plan, combine_overrides
from mnist_lab.sweeps.process import import_torch


@dataclass
class Grid:
    """A sweep over every combination of values.

    Args:
        params: the swept values by key, in Hydra's grammar; an override on the command line replaces those of its key.
    """

    params: dict[str, str] | None = None

    def run(self, plan: Plan) -> None:
        swept, jobs = plan.swept, combine_overrides(plan.overrides)
        if not jobs or not without_keys((str(override.input_line) for override in plan.overrides), *SWEEP_KEYS):
            raise UsageError("-m: there is nothing to sweep; give a setting several values, such as seed=0,1")
        composed = plan.compose_jobs(jobs)
        if len(composed) < len(jobs):
            raise UsageError(f"{', '.join(swept)}: {len(jobs)} jobs of which {len(composed)} differ; take out values")
        done = {job.id for job in plan.sweep.jobs() if job.state in COMPLETE} if plan.sweep.exists else set()
        if plan.launcher.in_this_process and composed.keys() - done:  # Other launchers need no torch here.
            import_torch()
            from mnist_lab.config.validate import validate

            for id, (_, cfg) in composed.items():
                if id not in done:
                    validate(cfg)
        with open_sweep(plan, {id: job for id, (job, _) in composed.items()}) as loop:
            loop.run([job.id for job in loop.sweep.jobs() if job.state not in COMPLETE])
