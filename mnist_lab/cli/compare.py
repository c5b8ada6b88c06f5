"""`python -m mnist_lab compare RUN RUN...`: the settings in which runs differ, their metrics, and their curves."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mnist_lab.cli.parser import CommandParser
from mnist_lab.cli.tables import print_rows, print_table
from mnist_lab.config.metric_names import IMAGES_PER_SECOND, METRIC_NAMES
from mnist_lab.formatting import printable
from mnist_lab.runs.listing import differing_settings_of_runs, find_runs, format_cell, run_row
from mnist_lab.runs.run import Run
from mnist_lab.viz.save import require_figure_path, save_figure

MEASURED = (*METRIC_NAMES, "tested_epoch", "epochs", "time", IMAGES_PER_SECOND, "parameters")
MAX_COLUMNS = 6  # runs up to which each is a column; more are a line each
MAX_LABEL = 90  # characters of a legend entry


def save_curves(runs: Sequence[Run], settings: dict[str, list[Any]], path: Path) -> bool:
    """Plot the runs' curves into a file, and return whether there were any.

    Raises:
        UsageError: the file's name does not end in a format of FORMATS, or it cannot be written.
    """
    from mnist_lab.viz.comparison import plot_comparison  # numpy and matplotlib: not for --json

    require_figure_path(path)
    figure = plot_comparison(runs, [legend_label(i, run, settings) for i, run in enumerate(runs)])
    if figure is None:
        return False
    save_figure(figure, path)
    return True


def legend_label(i: int, run: Run, settings: dict[str, list[Any]]) -> str:
    """Return the legend entry of a run: its number and its values of the differing settings, or its folder."""
    own = [f"{key}={format_cell(key, values[i])}" for key, values in settings.items() if values[i] is not None]
    words = f"{i + 1}: {', '.join(own) or run.folder.name}"
    return words if len(words) <= MAX_LABEL else f"{words[: MAX_LABEL - 3]}..."


def show_table(rows: Sequence[dict[str, Any]], settings: dict[str, list[Any]]) -> None:
    """Print the numbered run folders, then the differing settings and the metrics."""
    for number, each in enumerate(rows, start=1):
        print(f"{number}: {printable(each['run'])}")
    print()
    measured = ["status", *(name for name in MEASURED if any(each[name] is not None for each in rows))]
    if len(rows) > MAX_COLUMNS:
        names = [*settings, *measured]
        lines = [[str(i), *(format_cell(name, each[name]) for name in names)] for i, each in enumerate(rows, start=1)]
        print_table(["run", *names], lines)
    else:
        cells = [[name, *(format_cell(name, each[name]) for each in rows)] for name in (*settings, *measured)]
        cells.insert(len(settings), [""] * (1 + len(rows)))
        print_table(["run", *(str(i + 1) for i in range(len(rows)))], cells, left=("run",))
    print("" if settings else "\nno setting differs")


def main(arguments: list[str]) -> None:
    parser = CommandParser("compare", __doc__)
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="a run folder, part of its name, latest, or a folder of runs",
    )
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="where a name is looked for (%(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="plot the curves into this file")
    parser.add_forms()
    options = parser.parse_args(arguments)
    runs = find_runs(options.runs, options.runs_dir)
    settings = differing_settings_of_runs(runs)
    rows = [run_row(run, run.info) | {key: values[i] for key, values in settings.items()} for i, run in enumerate(runs)]
    drawn = options.out is not None and save_curves(runs, settings, options.out)
    if options.form:
        print_rows(rows, options.form)
    else:
        show_table(rows, settings)
    if options.out:
        words = f"curves: {options.out}" if drawn else "no run has a curve yet; nothing is plotted"
        print(words, file=sys.stderr if options.form else sys.stdout)
