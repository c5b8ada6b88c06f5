"""`archive` and `unarchive`: runs as one file, and back."""

from pathlib import Path

from mnist_lab.cli.parser import CommandParser, find_named_runs
from mnist_lab.errors import UsageError
from mnist_lab.formatting import display_path, print_lines
from mnist_lab.runs import archive as archives


def archive(arguments: list[str]) -> None:
    parser = CommandParser("archive")
    parser.add_runs()
    parser.add_argument("file", metavar="FILE.zip", type=Path, help="the file to write")
    options = parser.parse_intermixed_args(arguments)
    if options.file.suffix != ".zip":
        raise UsageError(f"{options.file}: name the file to write last; it ends in .zip")
    runs = find_named_runs(options, options.runs)
    files = archives.archive(runs, options.runs_dir, options.file)
    size = options.file.stat().st_size / 1e6
    described = f"{len(runs)} run{'s' * (len(runs) > 1)}, {files} files, {size:.1f} MB"
    print_lines(f"written: {display_path(options.file)} ({described})")


def unarchive(arguments: list[str]) -> None:
    parser = CommandParser("unarchive")
    parser.add_argument("file", metavar="FILE.zip", type=Path, help="what `archive` has written")
    parser.add_runs_dir("where to unpack it")
    options = parser.parse_args(arguments)
    for run in archives.unarchive(options.file, options.runs_dir):
        print_lines(f"unpacked: {run}")
