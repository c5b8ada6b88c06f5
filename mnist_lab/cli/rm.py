"""`python -m mnist_lab rm RUN...`: move runs or whole sweeps into the trash, from which `restore` takes them back."""

from __future__ import annotations

from pathlib import Path

from mnist_lab.cli.parser import CommandParser
from mnist_lab.errors import UsageError
from mnist_lab.formatting import display_path, format_command
from mnist_lab.runs.listing import find_runs, read_records
from mnist_lab.runs.sweep import Sweep
from mnist_lab.runs.trash import empty_trash, remove


def main(arguments: list[str]) -> None:
    parser = CommandParser("rm", __doc__)
    parser.add_argument("runs", metavar="RUN|SWEEP", nargs="*", help="a run, a sweep, or a folder of runs")
    parser.add_where()
    parser.add_runs_dir()
    parser.add_argument("--force", action="store_true", help="also what is in use, or a job that its sweep needs")
    parser.add_argument("--empty-trash", action="store_true", help="delete for good what is in the trash")
    options = parser.parse_args(arguments)
    if sum([bool(options.runs), options.where is not None, options.empty_trash]) != 1:
        raise UsageError("rm: name runs, or give --where, or --empty-trash")
    if options.empty_trash:
        print(f"{empty_trash(options.runs_dir)} runs and sweeps deleted for good")
        return
    folders = [run.folder for run in read_records(options.runs_dir, options.where)] if options.where else []
    for name in options.runs:
        is_sweep = Sweep(Path(name)).exists
        folders += [Path(name)] if is_sweep else [run.folder for run in find_runs([name], options.runs_dir, at_least=1)]
    if not folders:
        raise UsageError(f"--where={options.where!r}: holds for no run below {options.runs_dir}")
    for removed in remove(list(dict.fromkeys(folders)), options.runs_dir, force=options.force):
        command = format_command(["restore", removed.folder.name])
        print(f"removed: {display_path(removed.folder)}; to have it back: {command}")
