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
    lines: Sequence[Sequence[str]],
    left: Collection[str] = (),
    cut: str = "",
    drop: Sequence[str] = (),
) -> None:
    """Print lines in columns; plainly, since boxes around a thousand lines take longer than all the rest.

    The columns in `left` are of words, the others of numbers, which end at the right. In a terminal that is too narrow,
    column `cut` is shortened, and then those in `drop` are left out, the first one first. Elsewhere nothing is.
    """
    lines = [[*map(printable, line)] for line in (heads, *lines)]
    widths = {head: max(map(len, column)) for head, *column in zip(heads, *lines, strict=True)}
    if sys.stdout.isatty():
        _fit(widths, shutil.get_terminal_size().columns, cut, drop)
    for line in lines:
        cells = []
        for head, text in zip(heads, line, strict=True):
            if head in widths:
                width = widths[head]
                short = text if len(text) <= width else f"{text[: width - 3]}..."
                cells.append(short.ljust(width) if head in left else short.rjust(width))
        print_lines("  ".join(cells).rstrip())


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
