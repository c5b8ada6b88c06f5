"""`python -m mnist_lab test RUN...`: test the weights of runs again, from their folders alone."""

from collections.abc import Mapping
from pathlib import Path

from mnist_lab.cli.parser import CommandParser, describe_runs, find_named_runs
from mnist_lab.config.metric_names import TEST_ACC, TEST_LOSS
from mnist_lab.console import working_on
from mnist_lab.sweeps.process import import_torch


def main(arguments: list[str]) -> None:
    parser = CommandParser("test")
    parser.add_runs("KEY=VALUE ...", "changes to the run's configuration", checkpoints=True)
    options = parser.parse_runs(arguments)
    overrides = [word for word in options.runs if "=" in word and not Path(word).exists()]
    runs = find_named_runs(options, [word for word in options.runs if word not in overrides])
    import_torch(f"testing {describe_runs(runs)}")
    from mnist_lab.evaluation.evaluate import evaluate
    from mnist_lab.training.progress import print_status, results_table

    for run in runs:
        with working_on(f"testing {run}"):
            metrics = evaluate(run, overrides)
        info, weights = run.info, run.chosen_checkpoint().name
        if run.tested_epoch is not None and run.weights is None:
            weights = f"epoch {run.tested_epoch} ({run.chosen_by()})"
        print_status(f"{info['model'] or 'network'}, weights of {weights}", *results_table(metrics))
        comparison = "as the run recorded"
        if TEST_ACC not in info["metrics"]:
            comparison = "the run recorded no test metrics"
        elif format_exactly(metrics) != format_exactly(info["metrics"]):
            comparison = f"the run recorded {format_exactly(info['metrics'])}"
        print_status(f"{format_exactly(metrics)} ({comparison})", f"run folder: {run}")


def format_exactly(metrics: Mapping[str, float]) -> str:
    """Format test metrics with all their digits."""
    return ", ".join(f"{name} {metrics[name]!r}" for name in (TEST_LOSS, TEST_ACC))
