"""`python -m mnist_lab archive RUN... FILE.zip`: runs as one file, which `unarchive` verifies and unpacks."""

from __future__ import annotations

from pathlib import Path

from mnist_lab.cli.parser import CommandParser, find_named_runs
from mnist_lab.errors import UsageError
from mnist_lab.formatting import display_path
from mnist_lab.runs.archive import archive


def main(arguments: list[str]) -> None:
    parser = CommandParser("archive", __doc__)
    parser.add_argument("words", metavar="RUN ... FILE.zip", nargs="+", help="runs or folders of runs, and the file")
    parser.add_where()
    parser.add_runs_dir()
    options = parser.parse_args(arguments)
    *names, file = options.words
    if not file.endswith(".zip"):
        raise UsageError(f"{file}: name the file to write last; it ends in .zip")
    runs = find_named_runs(options, names)
    files = archive(runs, options.runs_dir, Path(file))
    size = Path(file).stat().st_size / 1e6
    runs_text = f"{len(runs)} run{'s' * (len(runs) > 1)}"
    print(f"written: {display_path(Path(file))} ({runs_text}, {files} files, {size:.1f} MB)")
