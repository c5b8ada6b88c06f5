"""`rm` and `restore`: move runs and whole sweeps into the trash, and back."""

from pathlib import Path

from mnist_lab.cli.parser import CommandParser, find_named_folders
from mnist_lab.errors import UsageError
from mnist_lab.formatting import display_path, format_command, format_count, format_date, print_lines
from mnist_lab.runs import trash
from mnist_lab.tables import print_table


def rm(arguments: list[str]) -> None:
    parser = CommandParser("rm")
    parser.add_runs()
    parser.add_argument("--force", action="store_true", help="also remove runs in use, and jobs that a sweep needs")
    parser.add_argument("--empty-trash", action="store_true", help="delete everything in the trash for good")
    options = parser.parse_runs(arguments)
    if options.empty_trash:
        if options.runs or options.where is not None:
            raise UsageError("--empty-trash: deletes everything in the trash; name no runs")
        print_lines(f"deleted for good: {format_count(trash.empty_trash(options.runs_dir), 'folder')}")
        return
    for removed in trash.remove(find_named_folders(options), options.runs_dir, force=options.force):
        runs_dir = removed.entry.parents[1]
        option = [] if runs_dir == Path("runs") else ["--runs-dir", str(runs_dir)]
        command = format_command(["restore", removed.folder.name, *option])
        print_lines(f"removed: {display_path(removed.folder)}", f"to restore it: {command}")


def restore(arguments: list[str]) -> None:
    parser = CommandParser("restore")
    parser.add_argument("names", metavar="NAME", nargs="*", help="the path, or part of the name, of a removed folder")
    parser.add_runs_dir()
    options = parser.parse_args(arguments)
    for removed in [trash.find_removed(name, options.runs_dir) for name in options.names]:
        print_lines(f"restored: {display_path(trash.restore(removed))}")
    if options.names:
        return
    removed_folders = trash.list_trash(options.runs_dir)
    lines = [(format_date(removed.date), display_path(removed.folder)) for removed in removed_folders]
    if lines:
        print_table(("removed", "folder"), lines, left=("removed", "folder"))
    else:
        print_lines(f"the trash of {options.runs_dir} is empty; --runs-dir names another folder of runs")
