"""`python -m mnist_lab rm RUN...`: move runs or whole sweeps into the trash, from which `restore` takes them back."""

from __future__ import annotations

from mnist_lab.cli.folders import find_named_folders
from mnist_lab.cli.parser import CommandParser
from mnist_lab.errors import UsageError
from mnist_lab.formatting import display_path, format_command
from mnist_lab.runs.trash import empty_trash, remove


def main(arguments: list[str]) -> None:
    parser = CommandParser("rm", __doc__)
    parser.add_runs()
    parser.add_argument("--force", action="store_true", help="also what is in use, or a job that its sweep needs")
    parser.add_argument("--empty-trash", action="store_true", help="delete for good what is in the trash")
    options = parser.parse_args(arguments)
    if options.empty_trash:
        if options.runs or options.where:
            raise UsageError("--empty-trash: deletes all that is in the trash; name no runs")
        print(f"{empty_trash(options.runs_dir)} runs and sweeps deleted for good")
        return
    for removed in remove(find_named_folders(options), options.runs_dir, force=options.force):
        command = format_command(["restore", removed.folder.name])
        print(f"removed: {display_path(removed.folder)}; to have it back: {command}")
