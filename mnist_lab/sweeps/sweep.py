"""Run a sweep with the sweeper that hydra/sweeper=... chooses."""

from contextlib import suppress
from pathlib import Path

from hydra.utils import instantiate

from mnist_lab.config.compose import CommandLine
from mnist_lab.config.overrides import quote_paths
from mnist_lab.errors import JobsFailed, UsageError
from mnist_lab.runs.ranking import Results
from mnist_lab.sweeps.plan import Plan


def sweep(*overrides: str, config_dir: str | Path | None = None, config_name: str = "train") -> Results:
    """Train a network for each combination of values, as `python -m mnist_lab -m OVERRIDES` does.

    A sweep whose name (`sweep=NAME`) exists continues: finished jobs are skipped.

    Args:
        overrides: in Hydra's grammar, such as `"optimizer.lr=0.01,0.1"`, `"seed=range(3)"` or `"hydra/sweeper=optuna"`.
        config_dir: a folder of your own whose files add choices to conf/.
        config_name: the primary configuration, which may be a file of that folder, as --config-name.

    Returns:
        The jobs and their ranking; `results.best_job` is the best by validation accuracy, or None if none has
        finished. A failed job is among `results.jobs`, with its error.

    Raises:
        UsageError: an override is not valid, nothing is swept, or another process runs this sweep.
        KeyboardInterrupt: Ctrl-C; the same call continues the sweep.
        Interrupted: SIGTERM; the same.
    """
    typed = tuple(quote_paths(overrides, is_sweep=True))
    plan = Plan.of(CommandLine(typed, None if config_dir is None else str(config_dir), config_name))
    from mnist_lab.training.runtime import guest  # This imports torch.

    with guest(), suppress(JobsFailed):  # The results have the errors.
        run_sweep(plan)
    return Results.of(plan.sweep)


def run_sweep(plan: Plan) -> None:
    """Run the sweep of a plan with the sweeper that it names."""
    choice = plan.hydra.choices["hydra/sweeper"]
    if not str(plan.hydra.sweeper.get("_target_")).startswith(f"{__package__}."):
        raise UsageError(f"hydra/sweeper={choice}: unknown here; choose grid, halving or optuna")
    sweeper = instantiate(plan.hydra.sweeper, _convert_="all")
    sweeper.run(plan)
