"""Tables for people, and the same rows as JSON or CSV for programs."""

import csv
import io
import json
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mnist_lab.formatting import csv_value, print_lines, printable

MIN_WIDTH = 12  # characters that a shortened column keeps


def print_table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: Collection[str] = (),
    cut: str = "",
    drop: Sequence[str] = (),
) -> None:
    """Print a table; see `table_lines`."""
    print_lines(*table_lines(heads, rows, left, cut, drop))


def table_lines(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: Collection[str] = (),
    cut: str = "",
    drop: Sequence[str] = (),
) -> list[str]:
    """Return the lines of a table: its heads and its rows in columns.

    The columns in `left` are of words, the others of numbers, which end at the right. In a terminal that is too narrow,
    column `cut` is shortened, and then those in `drop` are left out, the first one first. Elsewhere nothing is.
    """
    rows = [[*map(printable, row)] for row in (heads, *rows)]
    widths = {head: max(map(len, column)) for head, *column in zip(heads, *rows, strict=True)}
    if sys.stdout.isatty():
        _fit(widths, shutil.get_terminal_size().columns, cut, drop)
    lines = []
    for row in rows:
        cells = []
        for head, text in zip(heads, row, strict=True):
            if head in widths:
                width = widths[head]
                short = text if len(text) <= width else f"{text[: width - 3]}..."
                cells.append(short.ljust(width) if head in left else short.rjust(width))
        lines.append("  ".join(cells).rstrip())
    return lines


def _fit(widths: dict[str, int], columns: int, cut: str, drop: Sequence[str]) -> None:
    """Shorten or take out columns until all together, two spaces apart, fit into a terminal."""

    def excess() -> int:
        return sum(widths.values()) + 2 * (len(widths) - 1) - columns

    least = min(widths.get(cut, 0), MIN_WIDTH)
    for head in drop:
        if excess() > widths.get(cut, 0) - least:
            widths.pop(head, None)
    if cut in widths:
        widths[cut] = min(widths[cut], max(widths[cut] - excess(), least))


def print_rows(rows: Sequence[Mapping[str, Any]], form: str) -> None:
    """Print rows as "json", a list of objects, or as "csv", where a list is in JSON and nothing stands for null."""
    if form == "json":
        print_lines(*json.dumps(rows, indent=2).replace("\x7f", "\\u007f").split("\n"))
        return
    names = dict.fromkeys(name for row in rows for name in row)  # A run may have metrics of its own.
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    if rows:
        writer.writerow(map(csv_value, names))
    for row in rows:
        values = [row.get(name, "") for name in names]
        writer.writerow(json.dumps(value) if isinstance(value, list | bool) else csv_value(value) for value in values)
    print_lines(*file.getvalue().split("\n")[:-1])
