"""`archive` and `unarchive`: runs and sweeps as one file, and back."""

from pathlib import Path

from mnist_lab.cli.parser import CommandParser, find_named_folders
from mnist_lab.config.trust import RECORDS
from mnist_lab.errors import UsageError
from mnist_lab.formatting import display_path, format_count, print_lines, print_warning
from mnist_lab.runs import archive as archives
from mnist_lab.runs.run import RECORD


def archive(arguments: list[str]) -> None:
    parser = CommandParser("archive")
    parser.add_runs()
    parser.add_argument("file", metavar="FILE.zip", type=Path, help="the file to write")
    options = parser.parse_runs(arguments)
    if options.file.suffix != ".zip":
        raise UsageError(f"{options.file}: name the file to write last; it ends in .zip")
    roots = [Path(name) for name in options.named]
    folders = [_find_whole(folder, roots) for folder in find_named_folders(options)]
    names, left_out = archives.archive(folders, options.runs_dir, options.file)
    for path in left_out:
        print_warning(f"{path}: left out; it is a link that leads out of the folder, or not a regular file")
    runs, size = sum(Path(name).name == RECORD for name in names), options.file.stat().st_size / 1e6
    counts = f"{format_count(runs, 'run')}, {len(names)} files, {size:.1f} MB"
    print_lines(f"written: {display_path(options.file)} ({counts})")


def _find_whole(folder: Path, roots: list[Path]) -> Path:
    """Return the sweep or reproduction of a run if the user has named it or a folder above it, otherwise the run."""
    above = [path for path in folder.parents if any(path.is_relative_to(root) for root in roots)]
    return next((path for path in reversed(above) if any((path / name).is_file() for name in RECORDS)), folder)


def unarchive(arguments: list[str]) -> None:
    parser = CommandParser("unarchive")
    parser.add_argument("file", metavar="FILE.zip", type=Path, help="a file that `archive` has written")
    parser.add_runs_dir("the folder to unpack it into")
    options = parser.parse_args(arguments)
    for folder in archives.unarchive(options.file, options.runs_dir):
        print_lines(f"unpacked: {display_path(folder)}")
