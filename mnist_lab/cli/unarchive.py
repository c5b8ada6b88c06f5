"""`python -m mnist_lab unarchive FILE.zip`: verify an archive of runs, and unpack it into the folder of the runs."""

from __future__ import annotations

from pathlib import Path

from mnist_lab.cli.parser import CommandParser
from mnist_lab.runs.archive import unarchive


def main(arguments: list[str]) -> None:
    parser = CommandParser("unarchive", __doc__)
    parser.add_argument("file", metavar="FILE.zip", type=Path, help="what `archive` has written")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="where to unpack it (%(default)s)")
    options = parser.parse_args(arguments)
    for run in unarchive(options.file, options.runs_dir):
        print(f"unpacked: {run}")
