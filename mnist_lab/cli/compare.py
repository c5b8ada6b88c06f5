"""`python -m mnist_lab compare RUN RUN...`: what differs between runs, and whether two differ on the same images."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_lab.cli.parser import CommandParser, find_named_runs
from mnist_lab.cli.tables import print_rows, print_table
from mnist_lab.config.metric_names import IMAGES_PER_SECOND, METRIC_NAMES
from mnist_lab.errors import LabError, UsageError
from mnist_lab.formatting import print_lines, shorten
from mnist_lab.runs import listing
from mnist_lab.runs.run import Run
from mnist_lab.viz.save import require_figure_path, write_figure

if TYPE_CHECKING:
    from mnist_lab.evaluation.predictions import PairedComparison

DESCRIBED = (
    *("status", "n", "seeds", *METRIC_NAMES, "tested_epoch", "epochs", "time", IMAGES_PER_SECOND, "parameters"),
    *("tags", "note"),
)
MAX_COLUMNS = 6  # More runs or groups are a line each, not a column.
MAX_LABEL = 90  # characters of a legend entry
PAIRED = tuple(f"paired/{name}" for name in ("images", "only_right", "difference", "low", "high", "p"))
SIGNIFICANT = 0.05  # p-value below which one of two runs is called better


def main(arguments: list[str]) -> None:
    parser = CommandParser("compare")
    parser.add_runs()
    parser.add_argument("--out", type=Path, metavar="FILE", help="plot the curves into this file")
    parser.add_group()
    parser.add_forms()
    options = parser.parse_runs(arguments)
    infos = {run: run.info for run in find_named_runs(options, options.runs, at_least=2)}
    runs = listing.select_finished(infos) if options.group else list(infos)
    if not runs:
        raise UsageError(f"--group: none of these {len(infos)} runs has finished")
    differing = listing.compare_settings(runs)
    settings = {run: {key: values[i] for key, values in differing.items()} for i, run in enumerate(runs)}
    groups = listing.group_runs(runs, differing) if options.group else [[run] for run in runs]
    shown = [key for key in differing if not options.group or key != "seed"]
    rows = []
    for group in groups:
        members = {run: infos[run] for run in group}
        row = (
            listing.group_row(members, judge=True) if options.group else listing.run_row(*members.popitem(), judge=True)
        )
        rows.append(row | {key: settings[group[0]][key] for key in shown})
    drawn = options.out is not None and save_curves(groups, settings, options.out)
    if not options.form:
        show_table(rows, shown)
        if any(map(listing.is_unchosen, runs)):
            print_lines("test accuracies of a sweep's jobs are for judging them; choose by validation\n")
    messages = sys.stderr if options.form else sys.stdout
    if [len(group) for group in groups] == [1, 1]:
        from mnist_lab.evaluation.predictions import compare_on_test_set  # torch
        from mnist_lab.training.runtime import quiet_lightning

        columns = [dict.fromkeys(PAIRED), dict.fromkeys(PAIRED)]
        try:
            with quiet_lightning():
                paired = compare_on_test_set(*runs)
        except LabError as error:
            print_lines(f"no paired test: {shorten(str(error), 200)}", file=messages)
        else:
            columns = pair_columns(paired)
            if not options.form:
                print_lines(*describe_pair(paired).split("\n"))
        rows = [row | own for row, own in zip(rows, columns, strict=True)]
    if options.form:
        print_rows(rows, options.form)
    if options.out:
        print_lines(f"curves: {options.out}" if drawn else "no run has a curve yet; nothing is plotted", file=messages)


def save_curves(groups: Sequence[Sequence[Run]], settings: Mapping[Run, dict[str, Any]], path: Path) -> bool:
    """Plot the curves of the runs of each row of the table into a file, and return whether there were any."""
    from mnist_lab.viz.curves import plot_comparison  # numpy and matplotlib: not for --json

    require_figure_path(path)
    labels = {run: legend_label(number, run, settings[run]) for number, group in enumerate(groups, 1) for run in group}
    figure = plot_comparison(list(labels), list(labels.values()))
    if figure is not None:
        write_figure(figure, path, f"--out={path}")
    return figure is not None


def legend_label(number: int, run: Run, settings: Mapping[str, Any]) -> str:
    """Return the legend entry of a run: its number and its values of the differing settings, or its folder."""
    return shorten(f"{number}: {listing.describe_settings(settings) or run.folder.name}", MAX_LABEL)


def show_table(rows: Sequence[dict[str, Any]], settings: Sequence[str]) -> None:
    """Print the numbered run folders, then the differing settings and the metrics."""
    for number, row in enumerate(rows, start=1):
        first, *others = row.get("runs", [row.get("run")])
        print_lines(f"{number}: {first}{f' and {len(others)} more' if others else ''}")
    print_lines("")
    head = "group" if "runs" in rows[0] else "run"
    described = [name for name in DESCRIBED if any(row.get(name) not in (None, []) for row in rows)]
    cells = [[name, *(listing.row_cell(row, name) for row in rows)] for name in (*settings, *described)]
    if len(rows) > MAX_COLUMNS:
        (heads, *lines) = zip([head, *map(str, range(1, len(rows) + 1))], *cells, strict=True)
        print_table(heads, lines)
    else:
        cells.insert(len(settings), [""] * (1 + len(rows)))
        print_table([head, *(str(i + 1) for i in range(len(rows)))], cells, left=(head,))
    print_lines("", *["no setting differs"] * (not settings))


def describe_pair(paired: PairedComparison) -> str:
    """Describe the paired comparison of two runs in three sentences, the last of which names the better run, if any."""
    low, high = (f"{100 * end:+.2f}" for end in paired.interval())
    p = f"p = {paired.p:.3g}" if paired.p >= 0.001 else "p < 0.001"
    better = f"below {SIGNIFICANT}: run {1 if paired.difference < 0 else 2} is better"
    verdict = better if paired.p < SIGNIFICANT else f"not below {SIGNIFICANT}: it may be chance"
    return (
        f"Of {paired.images:,} test images, run 1 alone gets {paired.only_first:,} right, "
        f"run 2 alone {paired.only_second:,}.\n"
        f"Run 2 minus run 1: {100 * paired.difference:+.2f} percentage points, 95 % interval {low} to {high}.\n"
        f"McNemar's exact test: {p}, {verdict}."
    )


def pair_columns(paired: PairedComparison) -> list[dict[str, Any]]:
    """Return the columns that the paired comparison adds to each run's row, from the point of view of that run."""
    return [
        dict(zip(PAIRED, (own.images, own.only_second, own.difference, *own.interval(), own.p), strict=True))
        for own in (paired.swapped, paired)
    ]
