"""`python -m mnist_lab robustness RUN...`: measure accuracy on shifted, rotated, noisy ... test images."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mnist_lab.cli.parser import CommandParser, describe_runs, find_named_runs
from mnist_lab.config.metric_names import TEST_ACC
from mnist_lab.console import working_on
from mnist_lab.errors import UsageError
from mnist_lab.formatting import format_count, print_lines
from mnist_lab.runs.listing import checkpoint_problem, compare_settings, describe_settings, group_runs, select_runs
from mnist_lab.runs.run import Run
from mnist_lab.sweeps.process import import_torch
from mnist_lab.tables import print_compared, print_rows, print_table
from mnist_lab.viz.save import require_figure_path, write_figure

if TYPE_CHECKING:
    from mnist_lab.evaluation.evaluate import Robustness

# The names in data.corruptions, which imports torch.
NAMES = ("shift", "rotation", "scale", "noise", "blur", "inversion", "occlusion")


def main(arguments: list[str]) -> None:
    parser = CommandParser("robustness")
    parser.add_runs()
    parser.add_argument("--only", metavar="NAME,...", default=",".join(NAMES), help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--out", type=Path, metavar="FILE", help="plot the accuracies to this file")
    parser.add_forms()
    options = parser.parse_runs(arguments)
    names = list(dict.fromkeys(options.only.split(",")))
    for name in names:
        if name not in NAMES:
            raise UsageError(f"--only={name}: unknown corruption; choose from {', '.join(NAMES)}")
    if options.out:
        require_figure_path(options.out)
    results = measure_runs(find_named_runs(options, options.runs), names)
    groups = {name: [results[run] for run in runs] for name, runs in name_groups(list(results)).items()}
    if options.form:
        print_rows([row for run, result in results.items() for row in robustness_rows(run, result)], options.form)
    elif len(results) == 1:
        print_corruptions(next(iter(groups)), next(iter(results.values())))
    else:
        print_comparison(groups)
    if options.out:
        from mnist_lab.viz.model import plot_robustness

        write_figure(plot_robustness(groups), options.out, f"--out={options.out}")
        print_lines(f"figure: {options.out}", file=sys.stderr if options.form else sys.stdout)


def measure_runs(runs: Sequence[Run], names: Sequence[str]) -> dict[Run, Robustness]:
    """Measure the robustness of runs against corruptions; runs without a checkpoint are left out with a warning."""
    import_torch(f"testing {describe_runs(runs)} on {format_count(len(names), 'corruption')}")
    from mnist_lab.evaluation.evaluate import measure_robustness
    from mnist_lab.training.runtime import quiet_lightning

    results = {}
    for run in select_runs(runs, checkpoint_problem):
        with quiet_lightning(), working_on(f"{run}: {1 + 5 * len(names)} tests"):
            results[run] = measure_robustness(run, names)
    return results


def name_groups(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Group runs that differ only in their seed, and name each group by its model and what differs within the model."""
    named: dict[str, list[Run]] = {}
    groups = group_runs(runs, compare_settings(runs))
    for model in dict.fromkeys(group[0].info["model"] for group in groups):
        same_model = [group for group in groups if group[0].info["model"] == model]
        settings = compare_settings([group[0] for group in same_model])
        settings.pop("seed", None)
        for i, group in enumerate(same_model):
            description = describe_settings({key: values[i] for key, values in settings.items()})
            named.setdefault(", ".join(filter(None, [str(model), description])), []).extend(group)
    return named


def robustness_rows(run: Run, result: Robustness) -> list[dict[str, Any]]:
    """Return a row for each accuracy of a run; strength 0 is the test set without corruption."""
    from mnist_lab.data.corruptions import CORRUPTIONS

    info = run.info
    row = {"run": str(run), "model": info["model"], "seed": info["seed"], "corruption": None, "strength": 0}
    rows: list[dict[str, Any]] = [row | {"amount": 0, "unit": None, TEST_ACC: result.accuracy}]
    for name, accuracies in result.accuracies.items():
        corruption = CORRUPTIONS[name]
        for strength, (amount, accuracy) in enumerate(zip(corruption.amounts, accuracies, strict=True), start=1):
            columns = {"corruption": name, "strength": strength, "amount": amount, "unit": corruption.unit}
            rows.append(row | columns | {TEST_ACC: accuracy})
    return rows


def print_corruptions(network: str, result: Robustness) -> None:
    """Print a line for each corruption, with a column for each strength."""
    from mnist_lab.data.corruptions import CORRUPTIONS

    print_lines(f"{network}: {result.accuracy:.2%} of {result.images:,} test images without corruption", "")
    lines = []
    for name, accuracies in result.accuracies.items():
        lowest, *_, highest = CORRUPTIONS[name].amounts
        amounts = f"{lowest:g}–{highest:g} {CORRUPTIONS[name].unit}"
        lines.append([name, amounts, *(f"{accuracy:.2%}" for accuracy in (*accuracies, fmean(accuracies)))])
    print_table(["corruption", "strengths 1 to 5", *"12345", "mean"], lines, left=("corruption", "strengths 1 to 5"))


def print_comparison(groups: Mapping[str, Sequence[Robustness]]) -> None:
    """Print a column for each group of runs, the most robust first: means over strengths and runs."""
    lines: list[tuple[Any, ...]] = []
    corruptions = next(iter(groups.values()))[0].accuracies
    for network, results in groups.items():
        means = [fmean(accuracy for result in results for accuracy in result.accuracies[name]) for name in corruptions]
        lines.append((network, len(results), fmean(result.accuracy for result in results), *means, fmean(means)))
    lines.sort(key=lambda line: -line[-1])
    cells = [[network, str(runs), *(f"{accuracy:.2%}" for accuracy in values)] for network, runs, *values in lines]
    print_compared(["network", "runs", "plain", *corruptions, "mean"], cells)
