"""A sweep while it runs: its lock, its launcher, its table, and the results at its end."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mnist_lab.config.keys import SWEEP_KEYS
from mnist_lab.config.overrides import override_key, without_keys
from mnist_lab.config.settings import to_plain
from mnist_lab.errors import JobsFailed, LabError, UsageError
from mnist_lab.formatting import format_command, print_lines
from mnist_lab.runs.locks import run_lock
from mnist_lab.runs.ranking import Results
from mnist_lab.runs.record import STOPPED, RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps.job_call import HydraSession
from mnist_lab.sweeps.launch import Launch
from mnist_lab.sweeps.launchers.launcher import Launcher, make_launcher
from mnist_lab.sweeps.progress import Watch, show_results
from mnist_lab.sweeps.signals import forward_signals


@dataclass(frozen=True)
class RunningSweep:
    """A sweep that this process runs."""

    sweep: Sweep
    launcher: Launcher
    session: HydraSession

    def launch(self, jobs: Mapping[str, Sequence[str]]) -> None:
        """Launch jobs, given by the overrides of each by its id, and wait for them; with detach=true, only launch."""
        own = own_settings(self.session.config)
        launched = Launch(self.launcher, self.session, {id: [*given, *own] for id, given in jobs.items()})
        if self.session.config.detach:
            command = format_command(["status", self.sweep.folder.name])
            print_lines(f"{len(jobs)} jobs are in the queue; how they stand: {command}")
        else:
            launched.wait()


def plan_launcher(config: DictConfig, jobs: int) -> Launcher:
    """Return the launcher of a sweep, having checked that it can run its jobs."""
    launcher = make_launcher(config.hydra)
    launcher.plan(jobs)
    if config.detach and not launcher.outlives:
        choice = config.hydra.runtime.choices["hydra/launcher"]
        raise UsageError(f"--detach: jobs of hydra/launcher={choice} end with this command; run it in tmux or by nohup")
    return launcher


@contextmanager
def run_sweep(
    sweeper: Any, swept: Sequence[str], jobs: Mapping[str, Sequence[str]], launcher: Launcher
) -> Iterator[RunningSweep]:
    """The sweep, watched while the with-block launches its jobs; then its results are written and shown."""
    config = sweeper.config
    folder = Path(config.hydra.sweep.dir).absolute()
    command = format_command(sweep_arguments(config))
    with run_lock(folder):
        new = not Sweep(folder).exists
        sweep = Sweep.open(folder, command, swept, jobs)
        session = HydraSession(sweeper.hydra_context, config, sweeper.task)
        try:
            with closing(launcher), forward_signals(sweep, launcher), Watch(sweep, launcher):
                yield RunningSweep(sweep, launcher, session)
        except UsageError:
            if new and not Run.below(folder):  # the launcher has refused the jobs
                shutil.rmtree(folder)
            raise
        finally:
            if sweep.exists:
                show_results(Results.of(sweep), command)
        if not config.detach and any(job.state in (RunState.FAILED, *STOPPED) for job in sweep.jobs()):
            raise JobsFailed(LabError.exit_status)


def own_settings(config: DictConfig) -> list[str]:
    """The overrides of the sweep itself, which jobs need and sweep.json leaves out."""
    return [override for override in to_plain(config.hydra.overrides.task) if override_key(override) in SWEEP_KEYS]


def sweep_arguments(config: DictConfig) -> list[str]:
    """Return the arguments that start, or continue, the sweep of this configuration."""
    hydra = config.hydra
    hydra_overrides, overrides = to_plain(hydra.overrides.hydra), to_plain(hydra.overrides.task)
    sources = (source.path for source in hydra.runtime.config_sources if source.provider == "command-line")
    options = ["-m", *(part for path in sources for part in ("--config-dir", path))]
    if hydra.job.config_name != "train":
        options += ["--config-name", hydra.job.config_name]
    own = [override for override in hydra_overrides if override != "hydra.mode=MULTIRUN"]
    overrides = without_keys(overrides, "detach")  # to continue a sweep is to wait for it
    named = any(override_key(override) == "sweep" for override in overrides)
    return [*options, *own, *overrides, *([] if named else [f"sweep={Path(hydra.sweep.dir).name}"])]
