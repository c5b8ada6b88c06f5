"""`python -m mnist_lab test RUN...`: the weights of runs on the test set again, from their folders alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mnist_lab.cli.parser import CommandParser, find_named_runs
from mnist_lab.config.metric_names import TEST_ACC, TEST_LOSS
from mnist_lab.runs.run import Run


def main(arguments: list[str]) -> None:
    parser = CommandParser("test")
    parser.add_selection("KEY=VALUE ...", "changes to its configuration")
    options = parser.parse_intermixed_args(arguments)
    first = [] if options.where else options.words[:1]  # a run, maybe a sweep's job, which has = in its name
    overrides = [word for word in options.words[len(first) :] if "=" in word and not Path(word).exists()]
    for run in find_named_runs(options, [word for word in options.words if word not in overrides]):
        test_run(run, overrides)


def test_run(run: Run, overrides: Sequence[str]) -> None:
    """Test a run, and print its metrics and whether they are those that it recorded."""
    from mnist_lab.evaluation.evaluate import evaluate
    from mnist_lab.training.progress import console, results_table

    tested = evaluate(run, overrides)
    info, checkpoint = run.info, run.chosen_checkpoint().stem
    recorded = info["tested"]
    chosen = f"epoch {recorded['epoch']} ({checkpoint})" if recorded else f"{checkpoint}.ckpt"
    console.print(results_table(f"{info['model'] or 'network'}, weights of {chosen}", tested))
    console.print(
        f"{_format_exactly(tested)} ({_compare_with_record(tested, info['metrics'])})\nrun folder: {run}",
        soft_wrap=True,
    )


def _format_exactly(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {metrics[name]!r}" for name in (TEST_LOSS, TEST_ACC))


def _compare_with_record(tested: Mapping[str, float], recorded: Mapping[str, float]) -> str:
    if TEST_ACC not in recorded:
        return "the run recorded no test metrics"
    same = all(tested[name] == recorded[name] for name in (TEST_LOSS, TEST_ACC))
    return "as the run recorded" if same else f"the run recorded {_format_exactly(recorded)}"
