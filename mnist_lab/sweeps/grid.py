"""A sweep from its command line to its table: jobs planned, launched, and launched again when their worker died."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mnist_lab.config.keys import SWEEP_KEYS
from mnist_lab.config.overrides import explain_composition_error, override_key, parse_override, without_keys
from mnist_lab.config.settings import to_plain
from mnist_lab.errors import JobsFailed, LabError, UsageError
from mnist_lab.formatting import format_command
from mnist_lab.runs.locks import run_lock
from mnist_lab.runs.ranking import Results
from mnist_lab.runs.state import STOPPED, RunState
from mnist_lab.runs.sweep import Job, Sweep, write_job
from mnist_lab.sweeps.identity import job_id
from mnist_lab.sweeps.launchers import (
    end_workers_with_this_process,
    launch_jobs,
    launcher_name,
    parallel_jobs,
    refuse_more_than_memory,
)
from mnist_lab.sweeps.progress import Watch, show_results
from mnist_lab.sweeps.signals import forward_signals
from mnist_lab.sweeps.through_hydra import carry_through_hydra


def sweep_grid(sweeper: Any, arguments: list[str]) -> list[Any]:
    """Every combination of the swept values: the work of hydra/sweeper=grid."""
    with carry_through_hydra():
        return _sweep_grid(sweeper, arguments)


def _sweep_grid(sweeper: Any, arguments: list[str]) -> list[Any]:
    parser = OverridesParser.create(config_loader=sweeper.hydra_context.config_loader)
    overrides = parser.parse_overrides(with_params(sweeper, arguments))
    swept = [override_key(override.input_line) for override in overrides if override.is_sweep_override()]
    reject_swept_key(swept)
    jobs = combinations(overrides)
    if not jobs or not without_keys(arguments, *SWEEP_KEYS):
        raise UsageError("-m: there is nothing to sweep; give a setting several values, such as optimizer.lr=0.01,0.1")
    refuse_more_than_memory(sweeper.config.hydra.launcher, len(jobs))
    with run_sweep(sweeper, swept, {compose_job_id(sweeper, overrides): overrides for overrides in jobs}) as sweep:
        launch(sweeper, sweep, {job.id: job.overrides for job in sweep.jobs() if job.state != RunState.FINISHED})
    return []


def with_params(sweeper: Any, arguments: Sequence[str]) -> list[str]:
    """Return the arguments and the sweeper's own params, these where no argument sets the key."""
    own = [f"{key}={value}" for key, value in sweeper.params.items()]
    return [*arguments, *without_keys(own, *map(override_key, arguments))]


def combinations(overrides: Sequence[Override]) -> list[list[str]]:
    """Return the overrides of each job: every combination of the swept values, the last key's values fastest.

    Raises:
        UsageError: a value is an interval, which only a search can draw from.
    """
    values: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if override.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        elif override.is_sweep_override():
            raise UsageError(f"{override.input_line}: drawn from by a search alone; add hydra/sweeper=optuna")
        else:
            values[key] = [f"{key}={override.get_value_element_as_str()}"]
    return [list(job) for job in itertools.product(*values.values())]


def compose_job_id(sweeper: Any, overrides: Sequence[str]) -> str:
    """The id of a job.

    Raises:
        UsageError: Hydra cannot compose the job's configuration.
    """
    try:
        config = sweeper.hydra_context.config_loader.load_sweep_config(sweeper.config, list(overrides))
        HydraConfig.instance().set_config(config)
        return job_id(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain_composition_error(error, [parse_override(override) for override in overrides]) from error
    finally:
        HydraConfig.instance().set_config(sweeper.config)


def reject_swept_key(keys: Sequence[str]) -> None:
    """Raise UsageError for a key that says how the sweep itself is run."""
    for key in keys:
        if key in SWEEP_KEYS:
            raise UsageError(f"{key}: applies to the whole sweep and cannot be swept")


@contextmanager
def run_sweep(sweeper: Any, swept: Sequence[str], jobs: Mapping[str, Sequence[str]]) -> Iterator[Sweep]:
    """The sweep, watched while the with-block launches its jobs; then its results are written and shown.

    Raises:
        RunInUse: another process is running it.
        UsageError: it belongs to other parameters.
        Interrupted: Ctrl-C or SIGTERM.
    """
    config = sweeper.config
    folder = Path(config.hydra.sweep.dir).absolute()
    command = format_command(sweep_arguments(config))
    with run_lock(folder):
        sweep = Sweep.open(folder, command, swept, jobs)
        try:
            with forward_signals(sweep), Watch(sweep, parallel_jobs(config.hydra.launcher)):
                yield sweep
        finally:
            show_results(Results.of(sweep), command)
        if any(job.state == RunState.FAILED for job in sweep.jobs()):
            raise JobsFailed(LabError.exit_status)


def launch(sweeper: Any, sweep: Sweep, jobs: Mapping[str, Sequence[str]], *, alone: bool = False) -> None:
    """Launch jobs. One whose process dies is failed, and the others run.

    A worker process of joblib's takes the others with it when it dies. The jobs that they were at, or the first where
    they were at none yet, are tried again one by one.

    Args:
        sweeper: Hydra's.
        sweep: the sweep.
        jobs: the overrides of each job by its id.
        alone: whether this is one job, tried again by itself.

    Raises:
        LabError: a process died before its job began, tried again by itself.
    """
    if not jobs:
        return
    launcher, own = sweeper.config.hydra.launcher, own_settings(sweeper.config)
    given = [[*overrides, *own] for overrides in jobs.values()]
    if launcher_name(launcher) == "JoblibLauncher":
        end_workers_with_this_process(sweeper.launcher)
    starts_all_it_is_given = launcher_name(launcher) == "LocalLauncher"
    at_once = parallel_jobs(launcher) if starts_all_it_is_given else len(given)
    try:
        returned = []
        for first in range(0, len(given), at_once):
            returned += launch_jobs(sweeper.launcher, given[first : first + at_once], first)
        if not sweep.stop_file.exists():
            record_deaths(sweep, dict(zip(jobs, returned, strict=True)))
    except BrokenExecutor as error:
        now = after_the_workers(sweep, jobs)
        killed = [id for id in jobs if now[id].state in STOPPED]
        waiting = [id for id in jobs if now[id].state == RunState.WAITING]
        if alone and killed:
            write_job(
                replace(now[killed[0]], state=RunState.FAILED, error=f"its process died ({type(error).__name__})")
            )
            return
        if alone and waiting:
            raise LabError(f"{' '.join(now[waiting[0]].overrides)}: its process died before it began") from error
        again = killed or waiting[:1]
        for id in again:
            launch(sweeper, sweep, {id: jobs[id]}, alone=True)
        launch(sweeper, sweep, {id: jobs[id] for id in waiting if id not in again})


def after_the_workers(sweep: Sweep, ids: Collection[str]) -> dict[str, Job]:
    """Return how the jobs stand, by id, once joblib has killed the workers that are left; it does so in a thread."""
    until = time.monotonic() + 10
    while True:
        now = {job.id: job for job in sweep.jobs()}
        if time.monotonic() > until or all(now[id].state != RunState.RUNNING for id in ids):
            return now
        time.sleep(0.05)


def record_deaths(sweep: Sweep, outcomes: Mapping[str, Any]) -> None:
    """Record the jobs whose outcome is an exception, the death of their process, as failed.

    Raises:
        LabError: a process died before it came to its job.
    """
    now = {job.id: job for job in sweep.jobs()}
    for id, outcome in outcomes.items():
        if isinstance(outcome, Exception) and now[id].state in STOPPED:
            why = now[id].error or type(outcome).__name__
            write_job(replace(now[id], state=RunState.FAILED, error=f"its process died ({why})"))
    for id, outcome in outcomes.items():
        if isinstance(outcome, Exception) and now[id].state == RunState.WAITING:
            why = (str(outcome).strip() or type(outcome).__name__).splitlines()[-1]
            raise LabError(f"{' '.join(now[id].overrides)}: its process exited without a result: {why}")


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
    named = any(override_key(override) == "sweep" for override in overrides)
    return [*options, *own, *overrides, *([] if named else [f"sweep={Path(hydra.sweep.dir).name}"])]
