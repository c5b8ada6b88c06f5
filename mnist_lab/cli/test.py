"""`python -m mnist_lab test RUN`: a run's weights on the test set again, from its folder alone."""

from __future__ import annotations

from collections.abc import Mapping

from mnist_lab.cli.parser import CommandParser, find_run
from mnist_lab.config.metric_names import TEST_ACC, TEST_LOSS


def main(arguments: list[str]) -> None:
    parser = CommandParser("test", __doc__)
    parser.add_run()
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", default=[], help="changes to its configuration")
    options = parser.parse_args(arguments)
    run = find_run(options)
    from mnist_lab.evaluation.evaluate import evaluate
    from mnist_lab.training.progress import console, results_table

    tested = evaluate(run, options.overrides)
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
