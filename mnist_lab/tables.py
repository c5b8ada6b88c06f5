"""Tables for people, and the same rows as JSON or CSV for programs."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mnist_lab.settings import typed

NARROWEST = 12  # characters that a column which gives way keeps


def show(heads: Sequence[str], lines: Sequence[Sequence[str]], *, left: Collection[str] = (), cut: str = "") -> None:
    """Print lines in columns; plainly, since boxes around a thousand lines take longer than all the rest.

    Args:
        heads: the columns' heads.
        lines: the cells.
        left: heads of the columns of words; the others, of numbers, end at the right.
        cut: head of the column that gives way in a terminal too narrow for the lines. Elsewhere nothing is cut.
    """
    widths = {head: max(map(len, column)) for head, *column in zip(heads, heads, *lines, strict=True)}
    if cut and sys.stdout.isatty():
        too_wide = sum(widths.values()) + 2 * (len(heads) - 1) - shutil.get_terminal_size().columns
        widths[cut] = min(widths[cut], max(widths[cut] - too_wide, NARROWEST))
    for line in (heads, *lines):
        cells = []
        for (head, width), text in zip(widths.items(), line, strict=True):
            short = text if len(text) <= width else f"{text[: width - 3]}..."
            cells.append(short.ljust(width) if head in left else short.rjust(width))
        print("  ".join(cells).rstrip())


def cell(name: str, value: Any) -> str:
    """A value of a run as a person reads it; a dash if there is none."""
    if value is None:
        return "-"
    if name.endswith("/acc"):
        return f"{value:.2%}"
    if name.endswith("/loss"):
        return f"{value:.4f}"
    if name in ("parameters", "images_per_second"):
        return f"{value:,.0f}"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:.1f} s" if name == "time" else typed(value)


def print_for_programs(rows: Sequence[Mapping[str, Any]], form: str) -> None:
    """Print rows as "json", a list of objects, or as "csv", where a list is in JSON and nothing stands for null."""
    if form == "json":
        print(json.dumps(rows, indent=2))
        return
    names = list(dict.fromkeys(name for row in rows for name in row))  # a run may have metrics of its own
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    if rows:
        writer.writeheader()
    for row in rows:
        writer.writerow(
            {name: json.dumps(value) if isinstance(value, list | bool) else value for name, value in row.items()}
        )
