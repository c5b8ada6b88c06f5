"""Where Hydra looks for sweepers. It imports this whenever it starts, and so the work is elsewhere."""

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class LabSweeper(Sweeper):
    """What both sweepers have: Hydra's context, the sweep's configuration and what a job is.

    Args:
        params: the swept values by key, in Hydra's grammar; an override of the command line replaces its key's.
    """

    def __init__(self, params: dict[str, str] | None = None) -> None:
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what a sweep needs; mnist_lab.sweeps.running makes its launcher."""
        self.hydra_context, self.config, self.task = hydra_context, config, task_function


class GridSweeper(LabSweeper):
    """Every combination of the values separated by commas."""

    def sweep(self, arguments: list[str]) -> Any:
        from mnist_lab.sweeps.grid import sweep_grid

        return sweep_grid(self, arguments)


class OptunaSweeper(LabSweeper):
    """Optuna's choice of values, one batch of jobs after the other.

    Args:
        n_trials: jobs in all.
        seed: of the sampler.
        prune_after: epochs that every job may do before a bad one is stopped; None for all.
        params: what is searched, by key, in Hydra's grammar, where the command line does not say.
    """

    def __init__(
        self, n_trials: int, seed: int, prune_after: int | None = None, params: dict[str, str] | None = None
    ) -> None:
        super().__init__(params)
        self.n_trials, self.seed, self.prune_after = n_trials, seed, prune_after

    def sweep(self, arguments: list[str]) -> Any:
        from mnist_lab.sweeps.optuna_search import sweep_optuna

        return sweep_optuna(self, arguments)


class HalvingSweeper(LabSweeper):
    """Successive halving: many candidates for few epochs, the best of them for more.

    Args:
        min_epochs: of the first rung.
        eta: each rung has eta times the epochs of the one before, and the best 1/eta of its candidates.
        brackets: how many times candidates start together, each time fewer and with more epochs.
        n_candidates: how many are drawn; None for every combination of the values.
        sampler: that draws them, random or qmc.
        seed: of the sampler and of the brackets.
        params: what is swept, by key, in Hydra's grammar, where the command line does not say.
    """

    def __init__(
        self,
        min_epochs: int,
        eta: int,
        brackets: int,
        n_candidates: int | None,
        sampler: str,
        seed: int,
        params: dict[str, str] | None = None,
    ) -> None:
        super().__init__(params)
        self.min_epochs, self.eta, self.brackets = min_epochs, eta, brackets
        self.n_candidates, self.sampler, self.seed = n_candidates, sampler, seed

    def sweep(self, arguments: list[str]) -> Any:
        from mnist_lab.sweeps.halving import sweep_halving

        return sweep_halving(self, arguments)
