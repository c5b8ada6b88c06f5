"""Where Hydra looks for sweepers. It imports this whenever it starts, and so the work is elsewhere."""

from __future__ import annotations

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
