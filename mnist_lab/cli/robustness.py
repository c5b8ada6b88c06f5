"""`python -m mnist_lab robustness RUN [RUN...]`: measure accuracy on shifted, rotated, noisy ... test images."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mnist_lab.cli.parser import CommandParser, find_named_runs
from mnist_lab.cli.tables import print_rows, print_table
from mnist_lab.config.metric_names import TEST_ACC
from mnist_lab.errors import UsageError
from mnist_lab.formatting import print_lines
from mnist_lab.runs.listing import checkpoint_problem, compare_settings, describe_settings, group_runs, select_runs
from mnist_lab.runs.run import Run
from mnist_lab.viz.save import require_figure_path, write_figure

if TYPE_CHECKING:
    from mnist_lab.evaluation.evaluate import Robustness

NAMES = ("shift", "rotation", "scale", "noise", "blur", "inversion", "occlusion")  # data.corruptions imports torch.


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
    runs = find_named_runs(options, options.runs)
    from mnist_lab.evaluation.evaluate import measure_robustness
    from mnist_lab.training.progress import working_on
    from mnist_lab.training.runtime import quiet_lightning
    from mnist_lab.viz.model import plot_robustness

    measured = {}
    for run in select_runs(runs, checkpoint_problem):
        with quiet_lightning(), working_on(f"{run}: {1 + 5 * len(names)} tests"):
            measured[run] = measure_robustness(run, names)
    groups = {name: [measured[run] for run in own] for name, own in name_groups(list(measured)).items()}
    if options.form:
        print_rows([row for run, own in measured.items() for row in robustness_rows(run, own)], options.form)
    elif len(measured) == 1:
        print_corruptions(next(iter(groups)), next(iter(measured.values())))
    else:
        print_comparison(groups)
    if options.out:
        write_figure(plot_robustness(groups), options.out, f"--out={options.out}")
        print_lines(f"figure: {options.out}", file=sys.stderr if options.form else sys.stdout)


def name_groups(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Group runs that differ in their seed alone, by their model and the settings in which its groups differ."""
    named: dict[str, list[Run]] = {}
    groups = group_runs(runs, compare_settings(runs))
    for model in dict.fromkeys(group[0].info["model"] for group in groups):
        own = [group for group in groups if group[0].info["model"] == model]
        settings = compare_settings([group[0] for group in own])
        settings.pop("seed", None)
        for i, group in enumerate(own):
            described = describe_settings({key: values[i] for key, values in settings.items()})
            named.setdefault(", ".join(filter(None, [str(model), described])), []).extend(group)
    return named


def robustness_rows(run: Run, measured: Robustness) -> list[dict[str, Any]]:
    """Return a row for each accuracy of a run; strength 0 is the test set without corruption."""
    from mnist_lab.data.corruptions import CORRUPTIONS

    info = run.info
    row = {"run": str(run), "model": info["model"], "seed": info["seed"], "corruption": None, "strength": 0}
    rows: list[dict[str, Any]] = [row | {"amount": 0, "unit": None, TEST_ACC: measured.accuracy}]
    for name, accuracies in measured.accuracies.items():
        corruption = CORRUPTIONS[name]
        for strength, (amount, value) in enumerate(zip(corruption.amounts, accuracies, strict=True), start=1):
            corrupted = {"corruption": name, "strength": strength, "amount": amount, "unit": corruption.unit}
            rows.append(row | corrupted | {TEST_ACC: value})
    return rows


def print_corruptions(name: str, measured: Robustness) -> None:
    """Print a line for each corruption, with a column for each strength."""
    from mnist_lab.data.corruptions import CORRUPTIONS

    print_lines(f"{name}: {measured.accuracy:.2%} of {measured.images:,} test images without corruption", "")
    lines = []
    for name, accuracies in measured.accuracies.items():
        amounts = f"{', '.join(f'{amount:g}' for amount in CORRUPTIONS[name].amounts)} {CORRUPTIONS[name].unit}"
        lines.append([name, amounts, *(f"{value:.2%}" for value in (*accuracies, fmean(accuracies)))])
    print_table(["corruption", "strengths 1 to 5", *"12345", "mean"], lines, left=("corruption", "strengths 1 to 5"))


def print_comparison(measured: Mapping[str, Sequence[Robustness]]) -> None:
    """Print a line for each group of runs, the most robust first: means over strengths and runs."""
    lines: list[tuple[Any, ...]] = []
    names = next(iter(measured.values()))[0].accuracies
    for name, each in measured.items():
        means = [fmean(value for one in each for value in one.accuracies[corruption]) for corruption in names]
        lines.append((name, len(each), fmean(one.accuracy for one in each), *means, fmean(means)))
    lines.sort(key=lambda line: -line[-1])
    cells = [[name, str(runs), *(f"{value:.2%}" for value in values)] for name, runs, *values in lines]
    print_table(["network", "runs", "plain", *names, "mean"], cells, left=("network",), cut="network")
