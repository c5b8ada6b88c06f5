"""`python -m mnist_lab ls`: list runs, or all seeds of the same settings together, quickly, without torch."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mnist_lab.cli.parser import CommandParser, find_named_records
from mnist_lab.config.metric_names import TEST_ACC, VAL_ACC
from mnist_lab.config.settings import flatten
from mnist_lab.errors import UsageError
from mnist_lab.formatting import format_date, print_lines
from mnist_lab.runs.listing import group_rows, row_cell, run_row, sort_rows
from mnist_lab.tables import print_rows, print_table

COLUMNS = ("date", "model", "status", VAL_ACC, TEST_ACC, "time", "tags", "overrides", "run")
DROPPED = ("time", "model", "overrides", VAL_ACC, "date")  # A narrow terminal drops these columns, in this order.
GROUP_COLUMNS = ("date", "model", "n", "seeds", VAL_ACC, TEST_ACC, "time", "overrides")
GROUPS_DROPPED = ("time", "date", "seeds", VAL_ACC, "n")
LEFT = ("date", "model", "status", "seeds", "tags", "note", "overrides", "run")  # Columns of words are left-aligned.
MAX_NAME = 28  # A terminal shows only the end of a folder's name with more characters.


def main(arguments: list[str]) -> None:
    parser = CommandParser("ls")
    parser.add_runs()
    sort_help = f"one of {', '.join(COLUMNS)}, or another value of a run such as val/loss (default: %(default)s)"
    parser.add_argument("--sort", metavar="COLUMN", default="date", help=sort_help)
    parser.add_argument("--limit", type=int, metavar="N", help="list only the N latest runs; with --sort, the first N")
    parser.add_argument("--columns", metavar="NAME,...", help="values of a run such as val/loss, seed, tags, note, run")
    parser.add_group()
    parser.add_forms()
    options = parser.parse_runs(arguments)
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit={options.limit}: must be 1 or more")
    records = find_named_records(options, options.runs)
    rows = group_rows(records) if options.group else [run_row(run, info) for run, info in records.items()]
    chosen = options.columns.split(",") if options.columns else []
    known = dict.fromkeys(name for row in rows for name in row)
    if not options.group and not known.keys() >= {*chosen}:
        rows = [flatten(run.config) | row for run, row in zip(records, rows, strict=True)]
    rows = sort_rows(rows, options.sort)
    for name in chosen:
        if rows and not any(name in row for row in rows):
            raise UsageError(f"--columns={name}: no run has it; choose from {', '.join(known)}")
    if sys.stdout.isatty() and not options.form and not options.group:
        rows = [row | {"run": name} for row, name in zip(rows, short_names(rows), strict=True)]
        common = set.intersection(*(set(row["overrides"]) for row in rows)) if len(rows) > 1 else set()
        rows = [row | {"overrides": [each for each in row["overrides"] if each not in common]} for row in rows]
    if options.limit is not None:
        rows = rows[-options.limit :] if options.sort == "date" else rows[: options.limit]
    if options.form:
        print_rows([{name: row.get(name) for name in chosen} for row in rows] if chosen else rows, options.form)
    elif not rows:
        condition = " that --where selects" if options.where else ""
        print_lines(f"no {'finished ' if options.group else ''}run below {options.runs_dir}{condition}")
    elif chosen:
        print_runs(rows, chosen)
    elif options.group:
        print_runs(rows, GROUP_COLUMNS, GROUPS_DROPPED)
    else:
        has_tags = any(row["tags"] for row in rows)
        print_runs(rows, [name for name in COLUMNS if name != "tags" or has_tags], DROPPED)


def print_runs(rows: Sequence[dict[str, Any]], columns: Sequence[str], drop: Sequence[str] = ()) -> None:
    """Print a table of runs or groups; a narrow terminal drops columns in the order of `drop`."""
    rows = [row | {"date": format_date(row["date"])} for row in rows]
    print_table(columns, [[row_cell(row, name) for name in columns] for row in rows], LEFT, cut="overrides", drop=drop)


def short_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a name for each run: that of its folder or the end of it, or the whole path if this is ambiguous."""
    names = [Path(row["run"]).name for row in rows]
    ends = [name if len(name) <= MAX_NAME else name.rsplit("-", 1)[-1] for name in names]
    counts = Counter(ends)
    return [end if counts[end] == 1 else row["run"] for end, row in zip(ends, rows, strict=True)]
