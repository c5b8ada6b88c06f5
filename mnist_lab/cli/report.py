"""`python -m mnist_lab report RUN|SWEEP`: one HTML page of a run or a sweep."""

from __future__ import annotations

from pathlib import Path

from mnist_lab.cli.parser import CommandParser
from mnist_lab.formatting import display_path
from mnist_lab.report.render import report


def main(arguments: list[str]) -> None:
    parser = CommandParser("report", __doc__)
    parser.add_argument("run", metavar="RUN|SWEEP", help="a run's or a sweep's folder, or latest")
    parser.add_argument("--runs-dir", default="runs", help="where a name is looked for (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: report.html in that folder")
    options = parser.parse_args(arguments)
    print(f"written: {display_path(report(options.run, options.out, options.runs_dir))}")
