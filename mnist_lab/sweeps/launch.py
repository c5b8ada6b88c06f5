"""A sweep from its command line to its table: jobs planned, launched, and launched again when their worker died."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from mnist_lab.arguments import command_line
from mnist_lab.errors import BadInput, JobsFailed, LabError, told_in_one_line
from mnist_lab.overrides import explain, parse
from mnist_lab.sweeps.identity import job_id
from mnist_lab.sweeps.launchers import all_waited_for, kind, parallel_jobs, refuse_more_than_memory
from mnist_lab.sweeps.results import Results
from mnist_lab.sweeps.stop import told_to_stop
from mnist_lab.sweeps.sweep import OWN, STOPPED, Sweep, key_of, write_job
from mnist_lab.sweeps.watch import Watch, conclude


def sweep_grid(sweeper: BasicSweeper, arguments: list[str]) -> list[Any]:
    """Every combination of the swept values: the work of hydra/sweeper=grid."""
    with told_in_one_line():
        return _sweep_grid(sweeper, arguments)


def _sweep_grid(sweeper: BasicSweeper, arguments: list[str]) -> list[Any]:
    assert sweeper.hydra_context is not None and sweeper.config is not None
    parser = OverridesParser.create(config_loader=sweeper.hydra_context.config_loader)
    overrides = parser.parse_overrides([*sweeper._parse_config(), *arguments])
    swept = [override.get_key_element() for override in overrides if override.is_sweep_override()]
    refuse_to_sweep([key_of(key) for key in swept])
    (jobs,) = sweeper.split_arguments(overrides, None)
    if not jobs or not any(key_of(argument) not in OWN for argument in arguments):
        raise BadInput("-m: there is nothing to sweep; give a setting several values, such as optimizer.lr=0.01,0.1")
    refuse_more_than_memory(sweeper.config.hydra.launcher, len(jobs))
    with running(sweeper, swept, {id_of(sweeper, overrides): overrides for overrides in jobs}) as sweep:
        launch(sweeper, sweep, {job.id: job.overrides for job in sweep.jobs() if job.state != "finished"})
    return []


def id_of(sweeper: BasicSweeper, overrides: Sequence[str]) -> str:
    """The id of a job.

    Raises:
        BadInput: Hydra cannot compose the job's configuration.
    """
    assert sweeper.hydra_context is not None
    assert sweeper.config is not None
    try:
        config = sweeper.hydra_context.config_loader.load_sweep_config(sweeper.config, list(overrides))
        HydraConfig.instance().set_config(config)
        return job_id(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, [parse(override) for override in overrides]) from error
    finally:
        HydraConfig.instance().set_config(sweeper.config)


def refuse_to_sweep(keys: Sequence[str]) -> None:
    """Raise BadInput for a key that says how the sweep itself is run."""
    for key in keys:
        if key in OWN:
            raise BadInput(f"{key}: of the whole sweep, and so one value")


@contextmanager
def running(sweeper: Any, swept: Sequence[str], jobs: Mapping[str, Sequence[str]]) -> Iterator[Sweep]:
    """The sweep, watched while the with-block launches its jobs; then its results are written and shown.

    Raises:
        BadInput: it belongs to other parameters.
        Interrupted: Ctrl-C or SIGTERM.
    """
    config = sweeper.config
    folder = Path(config.hydra.sweep.dir).absolute()
    named = [] if any(key_of(argument) == "sweep" for argument in sys.argv) else [f"sweep={folder.name}"]
    command = command_line([*sys.argv[1:], *named])
    sweep = Sweep.open(folder, command, swept, jobs)
    try:
        with told_to_stop(sweep), Watch(sweep, parallel_jobs(config.hydra.launcher)):
            yield sweep
    finally:
        conclude(Results.of(sweep), command)
    if any(job.state == "failed" for job in sweep.jobs()):
        raise JobsFailed(LabError.exit_status)


def launch(sweeper: Any, sweep: Sweep, jobs: Mapping[str, Sequence[str]]) -> list[Any]:
    """Launch jobs. One whose process dies is failed, and the others run.

    A worker process of joblib's takes others with it when it dies: those they were at are tried one by one.

    Returns what Hydra's launcher does, where no worker died.
    """
    if not jobs:
        return []
    launcher, given = sweeper.config.hydra.launcher, [[*overrides, *own_settings()] for overrides in jobs.values()]
    at_once = parallel_jobs(launcher) if kind(launcher) == "LocalLauncher" else len(given)  # it starts all it is given
    try:
        returned = []
        with all_waited_for(launcher):
            for first in range(0, len(given), at_once):
                returned += sweeper.launcher.launch(given[first : first + at_once], initial_job_idx=first)
        if not sweep.stop_file.exists():
            record_deaths(sweep, dict(zip(jobs, returned, strict=True)))
        return returned
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:
        now = {job.id: job for job in sweep.jobs()}
        killed = [id for id in jobs if now[id].state in STOPPED]
        if not killed:
            raise
        if len(jobs) == 1:
            write_job(replace(now[killed[0]], state="failed", error=f"its process died ({type(error).__name__})"))
            return []
        for id in killed:
            launch(sweeper, sweep, {id: jobs[id]})
        return launch(sweeper, sweep, {id: jobs[id] for id in jobs if now[id].state == "waiting"})


def record_deaths(sweep: Sweep, outcomes: Mapping[str, Any]) -> None:
    """Record the jobs whose outcome is an exception, the death of their process, as failed.

    Raises:
        LabError: a process died before it came to its job.
    """
    now = {job.id: job for job in sweep.jobs()}
    for id, outcome in outcomes.items():
        if isinstance(outcome, Exception) and now[id].state in STOPPED:
            why = now[id].error or type(outcome).__name__
            write_job(replace(now[id], state="failed", error=f"its process died ({why})"))
    for id, outcome in outcomes.items():
        if isinstance(outcome, Exception) and now[id].state == "waiting":
            why = (str(outcome).strip() or type(outcome).__name__).splitlines()[-1]
            raise LabError(f"{' '.join(now[id].overrides)}: its process came to nothing: {why}")


def own_settings() -> list[str]:
    """The command line's settings of the sweep itself, which jobs need and sweep.json leaves out."""
    return [argument for argument in sys.argv[1:] if "=" in argument and key_of(argument) in OWN]
