"""`python -m mnist_lab ls`: the runs below a folder, a line each."""

from __future__ import annotations

# Neither torch nor Lightning is imported here: they take longer to start than a thousand runs to list.
import contextlib
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from mnist_lab.arguments import Arguments
from mnist_lab.errors import BadInput
from mnist_lab.runs import Run
from mnist_lab.tables import cell, print_for_programs, show

COLUMNS = ("date", "model", "status", "val/acc", "test/acc", "time", "overrides", "run")
LEFT_OUT = ("time", "model", "overrides", "val/acc", "date")  # where a terminal is too narrow, in this order
LONG = 28  # characters of a folder's name above which its end stands for it in a terminal
METRICS = [f"{kind}/{name}" for kind in ("train", "val", "test") for name in ("loss", "acc")]


def row(run: Run, info: Mapping[str, Any]) -> dict[str, Any]:
    """A run's record as one row: its folder, what it was started with, and what it came to.

    Times are in seconds, accuracies from 0 to 1. None stands for what there is not, or not yet, or is not finite.
    """
    names = ("model", "overrides", "status", "error", "seed", "epochs", "parameters", "images_per_second")
    return {
        "run": str(run),
        "date": info.get("started"),
        **{name: info.get(name) for name in names},
        "time": (info.get("seconds") or {}).get("total"),
        "tested_epoch": (info.get("tested") or {}).get("epoch"),  # the metrics are those of its weights
        **dict.fromkeys(METRICS),
        **{name: value for name, value in (info.get("metrics") or {}).items() if math.isfinite(value)},
    }


def listed(runs_dir: Path, sort: str = "date") -> list[dict[str, Any]]:
    """A row for each run below a folder, in the order of their start or sorted by another of their values.

    Accuracies are sorted from the best on, everything else from the smallest on; runs without the value come last.

    Raises:
        BadInput: no such folder, or no run has such a value.
    """
    if not runs_dir.is_dir():
        raise BadInput(f"--runs-dir={runs_dir}: no such folder; name the one that holds the runs")
    rows = [row(run, info) for run, info in Run.records(runs_dir).items()]
    known = list(dict.fromkeys(name for each in rows for name in each))
    if sort == "date" or not rows:
        return rows  # Run.records has sorted them
    if sort not in known:
        raise BadInput(f"--sort={sort}: no run has it; there are {', '.join(known)}")
    having = [each for each in rows if each.get(sort) is not None]
    lacking = [each for each in rows if each.get(sort) is None]
    return sorted(having, key=lambda each: each[sort], reverse=sort.endswith("/acc")) + lacking


def short_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return for each run a short name by which Run.find finds it: its folder's name, or the end of a long one.

    A name that several have is the whole path.
    """
    names = [Path(each["run"]).name for each in rows]
    ends = [name if len(name) <= LONG else name.rsplit("-", 1)[-1] for name in names]
    ambiguous = {end for end, count in Counter(ends).items() if count > 1}
    return [each["run"] if end in ambiguous else end for end, each in zip(ends, rows, strict=True)]


def minute(date: str | None) -> str:
    """A date of run.json in local time, to the minute."""
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(date or "").astimezone().strftime("%Y-%m-%d %H:%M")
    return date or "-"


def main(arguments: list[str]) -> None:
    parser = Arguments("ls", __doc__)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="default: %(default)s")
    parser.add_argument(
        "--sort",
        metavar="COLUMN",
        default="date",
        help=f"one of {', '.join(COLUMNS)}, or another value of a run such as val/loss (default: %(default)s)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="the N latest alone; with --sort, the first N")
    parser.add_forms()
    options = parser.parse_args(arguments)
    if options.limit is not None and options.limit < 1:
        raise BadInput(f"--limit={options.limit}: must be 1 or more")
    rows = listed(options.runs_dir, options.sort)
    short = short_names(rows) if sys.stdout.isatty() else [each["run"] for each in rows]
    if options.limit is not None:
        kept = slice(-options.limit, None) if options.sort == "date" else slice(options.limit)
        rows, short = rows[kept], short[kept]
    if options.form:
        print_for_programs(rows, options.form)
    elif not rows:
        print(f"no run below {options.runs_dir}")
    else:
        lines = [
            [minute(each["date"]), *(cell(name, each.get(name)) for name in COLUMNS[1:-1]), name]
            for each, name in zip(rows, short, strict=True)
        ]
        show(COLUMNS, lines, left=("date", "model", "status", "overrides", "run"), cut="overrides", drop=LEFT_OUT)
