"""Tables for people, and the same rows as JSON or CSV for programs."""

import csv
import io
import json
import math
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from os.path import commonprefix
from typing import Any

from mnist_lab.formatting import csv_value, print_lines, printable, shorten

MIN_WIDTH = 12  # characters that a shortened column keeps


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[str] = (), **fit: Any) -> None:
    """Print a table; see `table_lines`."""
    print_lines(*table_lines(heads, rows, left, **fit))


def print_compared(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table with a column for each row, divided into several tables if a terminal has no room for all."""
    room = terminal_width() - max(map(len, heads))
    while rows:
        needs = accumulate(min(2 + max(map(len, row)), room / 2) for row in rows)  # Two are always beside each other.
        count = max(1, sum(need <= room for need in needs))
        table = [row for row in zip(heads, *rows[:count], strict=True) if {*row[1:]} != {"-"}]
        print_table(table[0], table[1:], left=heads[:1])
        rows = rows[count:]


def terminal_width() -> float:
    """Return the columns of the terminal that shows standard output; there is no limit elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else math.inf


def table_lines(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: Collection[str] = (),
    *,
    cut: str = "",
    drop: Sequence[str] = (),
    wrap: bool = False,
) -> list[str]:
    """Return the lines of a table: its heads and its rows in columns.

    The columns in `left` are of words, the others of numbers, which end at the right. In a terminal that is too narrow,
    column `cut` loses the middle of its texts, or with `wrap`, as the last, continues on further lines. The columns in
    `drop` are left out, the first one first, and if that is not enough, the widest lose their middle.
    """
    rows = [[*map(printable, row)] for row in (heads, *rows)]
    widths = {head: max(map(len, column)) for head, *column in zip(heads, *rows, strict=True)}
    _fit(widths, terminal_width(), cut, drop)
    columns = [_shorten_apart(column, widths.get(head, 0)) for head, *column in zip(heads, *rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for head, text, shorts in zip(heads, row, columns, strict=True):
            if head in widths:
                cells.append((str.ljust if head in left else str.rjust)(shorts[text], widths[head]))
        rest: list[str] = []
        if wrap:
            cells[-1], *rest = textwrap.wrap(row[-1], widths[cut]) or [""]
        lines.append("  ".join(cells).rstrip())
        lines += [" " * (len(lines[-1]) - len(cells[-1])) + part for part in rest]
    return lines


def _without_middle(text: str, most: int) -> str:
    """Shorten a text to its beginning and its end, since paths and settings often differ at the end."""
    return text if len(text) <= most else f"{text[: (most - 3) // 2]}...{text[len(text) - (most - 2) // 2 :]}"


def _shorten_apart(texts: Sequence[str], most: int) -> dict[str, str]:
    """Shorten the texts of a column; of texts that would then be equal, keep the part that differs."""
    shorts = {text: _without_middle(text, most) for text in texts}
    for short in [short for short, count in Counter(shorts.values()).items() if count > 1]:
        group = [text for text in shorts if shorts[text] == short]
        start = max(0, len(commonprefix(group)) - most // 4)  # noqa: RUF071  # These are no paths.
        shorts |= {text: shorten(f"...{text[start:]}", most) for text in group}
    return shorts


def _fit(widths: dict[str, int], columns: float, cut: str, drop: Sequence[str]) -> None:
    """Shorten or take out columns until all together, two spaces apart, fit into a terminal."""

    def excess() -> float:
        return sum(widths.values()) + 2 * (len(widths) - 1) - columns

    least = min(widths.get(cut, 0), MIN_WIDTH)
    for head in drop:
        if excess() > widths.get(cut, 0) - least:
            widths.pop(head, None)
    if cut in widths and excess() > 0:
        widths[cut] = max(widths[cut] - int(excess()), least)
    while excess() > 0 and max(widths.values()) > MIN_WIDTH // 2:
        widths[max(widths, key=widths.__getitem__)] -= 1


def print_rows(rows: Sequence[Mapping[str, Any]], form: str) -> None:
    """Print rows as "json", a list of objects, or as "csv"."""
    if form == "json":
        print_lines(*json.dumps(rows, indent=2).replace("\x7f", "\\u007f").split("\n"))
    else:
        print_lines(*csv_text(rows).split("\n")[:-1])


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV, where a list is in JSON and nothing stands for null."""
    names = dict.fromkeys(name for row in rows for name in row)  # A run may have metrics of its own.
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    if rows:
        writer.writerow(map(csv_value, names))
    for row in rows:
        values = [row.get(name, "") for name in names]
        writer.writerow(json.dumps(value) if isinstance(value, list | bool) else csv_value(value) for value in values)
    return file.getvalue()
