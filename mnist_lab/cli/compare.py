"""`python -m mnist_lab compare RUN RUN...`: what differs between runs, and whether two differ by more than chance."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from mnist_lab.cli.parser import CommandParser, find_named_runs
from mnist_lab.config.metric_names import IMAGES_PER_SECOND, METRIC_NAMES
from mnist_lab.config.settings import short_names
from mnist_lab.console import working_on
from mnist_lab.errors import LabError, UsageError
from mnist_lab.formatting import print_lines, shorten
from mnist_lab.runs import listing
from mnist_lab.runs.run import Run
from mnist_lab.sweeps.process import import_torch
from mnist_lab.tables import print_compared, print_rows
from mnist_lab.viz.save import require_figure_path, write_figure

if TYPE_CHECKING:
    from mnist_lab.evaluation.predictions import PairedComparison

DESCRIBED = (
    *("status", "n", "seeds", *METRIC_NAMES, "tested_epoch", "epochs", "time", IMAGES_PER_SECOND, "parameters"),
    *("tags", "note"),
)
PAIRED = tuple(f"paired/{name}" for name in ("images", "only_right", "difference", "low", "high", "p"))
SIGNIFICANT = 0.05  # Below this p-value, one of two runs is called better.


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
    keys = [key for key in differing if key != "seed" or not options.group]
    settings = {run: {key: differing[key][i] for key in keys} for i, run in enumerate(runs)}
    groups = listing.group_runs(runs, differing) if options.group else [[run] for run in runs]
    if options.group:
        rows = [listing.group_row({run: infos[run] for run in group}, judge=True) for group in groups]
    else:
        rows = [listing.run_row(run, infos[run], judge=True) for run in runs]
    rows = [row | settings[group[0]] for row, group in zip(rows, groups, strict=True)]
    has_curves = options.out is not None and save_curves(groups, settings, options.out)
    messages = sys.stderr if options.form else sys.stdout
    if not options.form:
        print_comparison(rows, keys)
        if any(map(listing.is_unchosen, runs)):
            print_lines("test accuracies of a sweep's jobs are for judging them; choose by validation", "")
    if [len(group) for group in groups] == [1, 1]:
        paired = compare_pair(runs, messages)
        rows = [row | columns for row, columns in zip(rows, pair_columns(paired), strict=True)]
        if paired and not options.form:
            print_lines(*describe_pair(paired).split("\n"))
    if options.form:
        print_rows(rows, options.form)
    if options.out:
        message = f"curves: {options.out}" if has_curves else "no run has a curve yet; nothing is plotted"
        print_lines(message, file=messages)


def compare_pair(runs: Sequence[Run], messages: TextIO) -> PairedComparison | None:
    """Compare two runs on the test set; if that is not possible, print the reason and return None."""
    import_torch(task := "testing both networks on the same images")
    from mnist_lab.evaluation.predictions import compare_on_test_set
    from mnist_lab.training.runtime import quiet_lightning

    try:
        with quiet_lightning(), working_on(task):
            return compare_on_test_set(*runs)
    except LabError as error:
        print_lines(f"no paired test: {shorten(str(error), 200)}", file=messages)
        return None


def save_curves(groups: Sequence[Sequence[Run]], settings: Mapping[Run, dict[str, Any]], path: Path) -> bool:
    """Plot the curves of groups, numbered by their rows in the table, into a file; return whether there are any."""
    from mnist_lab.viz.curves import plot_comparison  # It imports matplotlib.

    require_figure_path(path)
    labels = line_labels([group[0] for group in groups], settings)
    of_runs = [label for label, group in zip(labels, groups, strict=True) for _ in group]
    figure = plot_comparison([run for group in groups for run in group], of_runs)
    if figure is not None:
        write_figure(figure, path, f"--out={path}")
    return figure is not None


def line_labels(runs: Sequence[Run], settings: Mapping[Run, Mapping[str, Any]]) -> list[str]:
    """Return the labels of runs' lines: their numbers and values of the differing settings, or their folders.

    Runs that differ only in their seeds have the same label, and so are one line.
    """
    words = []
    for run in runs:
        names = short_names(settings[run])
        shown = {names[key]: value for key, value in settings[run].items() if key != "seed"}
        words.append(listing.describe_settings(shown) or ("seeds" if settings[run] else run.folder.name))
    numbers = {word: [str(i) for i, each in enumerate(words, 1) if each == word] for word in words}
    return [shorten(f"{', '.join(numbers[word])}: {word}") for word in words]


def print_comparison(rows: Sequence[dict[str, Any]], settings: Sequence[str]) -> None:
    """Print the numbered run folders, then the differing settings and the metrics."""
    for number, row in enumerate(rows, start=1):
        first, *others = row.get("runs", [row.get("run")])
        print_lines(f"{number}: {first}{f' and {len(others)} more' if others else ''}")
    print_lines("")
    head = "group" if "runs" in rows[0] else "run"
    names = [*settings, "", *(name for name in DESCRIBED if any(row.get(name) not in (None, []) for row in rows))]
    lines = [[listing.row_cell(row, name) if name else "" for name in names] for row in rows]
    print_compared([head, *names], [[str(number), *line] for number, line in enumerate(lines, 1)])
    print_lines("")
    if not settings:
        print_lines("no setting differs")


def describe_pair(paired: PairedComparison) -> str:
    """Describe the paired comparison of two runs in three lines; the last one names the better run, if any."""
    low, high = (f"{100 * end:+.2f}" for end in paired.interval())
    p = f"p = {paired.p:.3g}" if paired.p >= 0.001 else "p < 0.001"
    verdict = f"not below {SIGNIFICANT}: it may be chance"
    if paired.p < SIGNIFICANT:
        verdict = f"below {SIGNIFICANT}: run {1 if paired.difference < 0 else 2} is better"
    return (
        f"Of {paired.images:,} test images, run 1 alone gets {paired.only_first:,} right, "
        f"run 2 alone {paired.only_second:,}.\n"
        f"Run 2 minus run 1: {100 * paired.difference:+.2f} percentage points, 95 % interval {low} to {high}.\n"
        f"McNemar's exact test: {p}, {verdict}."
    )


def pair_columns(paired: PairedComparison | None) -> list[dict[str, Any]]:
    """Return the columns that a paired comparison adds to each run's row, as seen from that run; None if it failed."""
    if paired is None:
        return [dict.fromkeys(PAIRED)] * 2
    return [
        dict(zip(PAIRED, (view.images, view.only_second, view.difference, *view.interval(), view.p), strict=True))
        for view in (paired.swapped, paired)
    ]
