"""A grid: every combination of the swept values is a job."""

import itertools
from collections.abc import Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mnist_lab.config.keys import IGNORED_FOR_IDENTITY, SWEEP_KEYS
from mnist_lab.config.overrides import explain_composition_error, override_key, parse_override, without_keys
from mnist_lab.errors import UsageError
from mnist_lab.runs.record import RunState
from mnist_lab.sweeps.identity import job_id
from mnist_lab.sweeps.running import plan_launcher, run_sweep
from mnist_lab.sweeps.through_hydra import carry_through_hydra


def sweep_grid(sweeper: Any, arguments: list[str]) -> list[Any]:
    """Every combination of the swept values: the work of hydra/sweeper=grid."""
    with carry_through_hydra():
        overrides, swept = parse_sweep(sweeper, arguments)
        jobs = combinations(overrides)
        if not jobs or not without_keys(arguments, *SWEEP_KEYS):
            raise UsageError(
                "-m: there is nothing to sweep; give a setting several values, such as optimizer.lr=0.01,0.1"
            )
        launcher = plan_launcher(sweeper.config, len(jobs))
        ids = {compose_job_id(sweeper, overrides): overrides for overrides in jobs}
        if len(ids) < len(jobs):
            raise UsageError(f"{', '.join(swept)}: {len(jobs)} jobs of which {len(ids)} differ; take out values")
        with run_sweep(sweeper, swept, ids, launcher) as running:
            todo = (job for job in running.sweep.jobs() if job.state != RunState.FINISHED)
            running.launch({job.id: job.overrides for job in todo})
    return []


def parse_sweep(sweeper: Any, arguments: Sequence[str]) -> tuple[list[Override], list[str]]:
    """Return a sweep's overrides, with the sweeper's params for keys that no argument sets, and the swept keys."""
    params = without_keys((f"{key}={value}" for key, value in sweeper.params.items()), *map(override_key, arguments))
    parser = OverridesParser.create(config_loader=sweeper.hydra_context.config_loader)
    overrides = parser.parse_overrides([*arguments, *params])
    swept = [override_key(str(override.input_line)) for override in overrides if override.is_sweep_override()]
    for key in filter(SWEEP_KEYS.__contains__, swept):
        raise UsageError(f"{key}: applies to the whole sweep and cannot be swept")
    for key in filter(IGNORED_FOR_IDENTITY.match, swept):
        raise UsageError(f"{key}: jobs do not differ by it, as their results do not; give it one value")
    return overrides, swept


def combinations(overrides: Sequence[Override]) -> list[list[str]]:
    """Return the overrides of each job: every combination of the swept values, the last key's values fastest."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if override.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        elif override.is_sweep_override():
            raise UsageError(
                f"{override.input_line}: drawn from by a search alone; add hydra/sweeper=optuna, "
                "or hydra/sweeper=halving and hydra.sweeper.n_candidates"
            )
        else:
            values[key] = [f"{key}={override.get_value_element_as_str()}"]
    return [list(job) for job in itertools.product(*values.values())]


def compose_job_id(sweeper: Any, overrides: Sequence[str]) -> str:
    """Return the id of a job, as `compose_job` does."""
    return compose_job(sweeper, overrides)[0]


def compose_job(sweeper: Any, overrides: Sequence[str]) -> tuple[str, DictConfig]:
    """Return the id of a job and its configuration, with Hydra's own settings."""
    instance = HydraConfig.instance()
    before = instance.cfg
    try:
        config = sweeper.hydra_context.config_loader.load_sweep_config(sweeper.config, list(overrides))
        instance.set_config(config)
        return job_id(config), config
    except (HydraException, OmegaConfBaseException) as error:
        raise explain_composition_error(error, [parse_override(override) for override in overrides]) from error
    finally:
        instance.cfg = before
