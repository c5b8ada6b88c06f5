"""`python -m mnist_lab ls`: the runs below a folder, a line each, or a line for all seeds of the same settings."""

from __future__ import annotations

# Neither torch nor Lightning is imported here: they take longer to start than a thousand runs to list.
import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mnist_lab.cli.parser import CommandParser
from mnist_lab.cli.tables import print_rows, print_table
from mnist_lab.config.metric_names import TEST_ACC, VAL_ACC
from mnist_lab.errors import UsageError
from mnist_lab.formatting import format_date
from mnist_lab.runs.listing import list_groups, list_runs, row_cell

COLUMNS = ("date", "model", "status", VAL_ACC, TEST_ACC, "time", "tags", "overrides", "run")
DROPPED = ("time", "model", "overrides", VAL_ACC, "date")  # in this order, where a terminal is too narrow
GROUP_COLUMNS = ("date", "model", "n", "seeds", VAL_ACC, TEST_ACC, "time", "overrides")
GROUPS_DROPPED = ("time", "date", "seeds", VAL_ACC, "n")
LEFT = ("date", "model", "status", "seeds", "tags", "note", "overrides", "run")  # columns of words
MAX_NAME = 28  # characters of a folder's name; of a longer one the end is shown


def short_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a short name for each run by which Run.find finds it.

    It is the folder's name, or the end of a long one; where it is ambiguous, the whole path.
    """
    names = [Path(each["run"]).name for each in rows]
    ends = [name if len(name) <= MAX_NAME else name.rsplit("-", 1)[-1] for name in names]
    ambiguous = {end for end, count in Counter(ends).items() if count > 1}
    return [each["run"] if end in ambiguous else end for end, each in zip(ends, rows, strict=True)]


def main(arguments: list[str]) -> None:
    parser = CommandParser("ls", __doc__)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="default: %(default)s")
    parser.add_argument(
        "--sort",
        metavar="COLUMN",
        default="date",
        help=f"one of {', '.join(COLUMNS)}, or another value of a run such as val/loss (default: %(default)s)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="the N latest alone; with --sort, the first N")
    parser.add_argument(
        "--columns", metavar="NAME,...", help="the columns: values of a run such as val/loss, seed, tags, note, run"
    )
    parser.add_where()
    parser.add_group()
    parser.add_forms()
    options = parser.parse_args(arguments)
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit={options.limit}: must be 1 or more")
    rows = (list_groups if options.group else list_runs)(options.runs_dir, options.sort, options.where)
    columns = choose_columns(rows, options)
    if sys.stdout.isatty() and not options.form and not options.group:
        rows = [row | {"run": name} for row, name in zip(rows, short_names(rows), strict=True)]
    if options.limit is not None:
        rows = rows[-options.limit :] if options.sort == "date" else rows[: options.limit]
    if options.form:
        print_rows([{name: row[name] for name in columns} for row in rows] if options.columns else rows, options.form)
    elif not rows:
        of_these = " that --where selects" if options.where else ""
        print(f"no {'finished ' if options.group else ''}run below {options.runs_dir}{of_these}")
    else:
        drop = () if options.columns else GROUPS_DROPPED if options.group else DROPPED
        lines = [
            [format_date(row["date"]) if name == "date" else row_cell(row, name) for name in columns] for row in rows
        ]
        print_table(columns, lines, left=LEFT, cut="overrides", drop=drop)


def choose_columns(rows: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> Sequence[str]:
    """Return the columns to show; that of the tags by default where a run has some.

    Raises:
        UsageError: --columns names one that no run has.
    """
    if not options.columns:
        columns = GROUP_COLUMNS if options.group else COLUMNS
        return columns if any(row.get("tags") for row in rows) else [name for name in columns if name != "tags"]
    chosen: list[str] = options.columns.split(",")
    known = list(dict.fromkeys(name for row in rows for name in row))
    for name in chosen:
        if rows and name not in known:
            raise UsageError(f"--columns={name}: no run has it; choose from {', '.join(known)}")
    return chosen
