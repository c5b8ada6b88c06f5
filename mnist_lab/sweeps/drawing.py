"""Draw values of swept settings with Optuna's samplers that need no results."""

import warnings
from collections.abc import Callable, Sequence

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler

from mnist_lab.config.overrides import Override
from mnist_lab.errors import UsageError
from mnist_lab.sweeps.optuna_search import distribution, format_sample

SAMPLERS: dict[str, Callable[..., BaseSampler]] = {"random": RandomSampler, "qmc": QMCSampler}


def draw(swept: Sequence[Override], count: int, sampler: str, seed: int) -> list[list[str]]:
    """Return so many lists of overrides, the same ones for the same seed."""
    if not isinstance(count, int) or count < 1:
        raise UsageError(f"hydra.sweeper.n_candidates={count}: must be a whole number from 1 on, or null for a grid")
    if sampler not in SAMPLERS:
        raise UsageError(f"hydra.sweeper.sampler={sampler}: choose from {', '.join(SAMPLERS)}")
    space = {str(override.get_key_element()): distribution(override) for override in swept}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # QMCSampler, before Optuna 5
        study = optuna.create_study(sampler=SAMPLERS[sampler](seed=seed))
        trials = [study.ask(space) for _ in range(count)]
    return [[f"{key}={format_sample(value)}" for key, value in trial.params.items()] for trial in trials]
