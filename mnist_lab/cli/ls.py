"""`python -m mnist_lab ls`: the runs below a folder, a line each, or a line for all seeds of the same settings."""

# Neither torch nor Lightning is imported here: they take longer to start than a thousand runs to list.
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mnist_lab.cli.parser import CommandParser
from mnist_lab.cli.tables import print_rows, print_table
from mnist_lab.config.metric_names import TEST_ACC, VAL_ACC
from mnist_lab.errors import UsageError
from mnist_lab.formatting import format_date, print_lines
from mnist_lab.runs.listing import group_rows, read_records, row_cell, run_row, sort_rows

COLUMNS = ("date", "model", "status", VAL_ACC, TEST_ACC, "time", "tags", "overrides", "run")
DROPPED = ("time", "model", "overrides", VAL_ACC, "date")  # A narrow terminal lacks these, the first one first.
GROUP_COLUMNS = ("date", "model", "n", "seeds", VAL_ACC, TEST_ACC, "time", "overrides")
GROUPS_DROPPED = ("time", "date", "seeds", VAL_ACC, "n")
LEFT = ("date", "model", "status", "seeds", "tags", "note", "overrides", "run")  # These are columns of words.
MAX_NAME = 28  # characters; of a longer folder's name the end is shown


def main(arguments: list[str]) -> None:
    parser = CommandParser("ls")
    parser.add_runs_dir("the folder of the runs")
    words = f"one of {', '.join(COLUMNS)}, or another value of a run such as val/loss (default: %(default)s)"
    parser.add_argument("--sort", metavar="COLUMN", default="date", help=words)
    parser.add_argument("--limit", type=int, metavar="N", help="the N latest alone; with --sort, the first N")
    words = "the columns: values of a run such as val/loss, seed, tags, note, run"
    parser.add_argument("--columns", metavar="NAME,...", help=words)
    parser.add_where()
    parser.add_group()
    parser.add_forms()
    options = parser.parse_args(arguments)
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit={options.limit}: must be 1 or more")
    records = read_records(options.runs_dir, options.where)
    rows = group_rows(records) if options.group else [run_row(run, info) for run, info in records.items()]
    rows = sort_rows(rows, options.sort)
    columns = options.columns.split(",") if options.columns else GROUP_COLUMNS if options.group else COLUMNS
    known = dict.fromkeys(name for row in rows for name in row)
    for name in columns:
        if options.columns and rows and name not in known:
            raise UsageError(f"--columns={name}: no run has it; choose from {', '.join(known)}")
    if sys.stdout.isatty() and not options.form and not options.group:
        rows = [row | {"run": name} for row, name in zip(rows, short_names(rows), strict=True)]
    if options.limit is not None:
        rows = rows[-options.limit :] if options.sort == "date" else rows[: options.limit]
    if options.form:
        print_rows([{name: row[name] for name in columns} for row in rows] if options.columns else rows, options.form)
    elif not rows:
        of_these = " that --where selects" if options.where else ""
        print_lines(f"no {'finished ' if options.group else ''}run below {options.runs_dir}{of_these}")
    else:
        if not options.columns and not any(row.get("tags") for row in rows):
            columns = [name for name in columns if name != "tags"]
        rows = [row | {"date": format_date(row["date"])} for row in rows]
        drop = () if options.columns else GROUPS_DROPPED if options.group else DROPPED
        print_table(columns, [[row_cell(row, name) for name in columns] for row in rows], LEFT, "overrides", drop)


def short_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a name for each run: its folder's, the end of a long one, or the whole path where that is ambiguous."""
    names = [Path(each["run"]).name for each in rows]
    ends = [name if len(name) <= MAX_NAME else name.rsplit("-", 1)[-1] for name in names]
    counts = Counter(ends)
    return [end if counts[end] == 1 else row["run"] for end, row in zip(ends, rows, strict=True)]
