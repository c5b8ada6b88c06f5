"""`python -m mnist_lab restore NAME...`: take removed runs and sweeps out of the trash; without a name, list it."""

from __future__ import annotations

from mnist_lab.cli.parser import CommandParser
from mnist_lab.cli.tables import print_table
from mnist_lab.formatting import display_path, format_date
from mnist_lab.runs.trash import find_removed, list_trash, restore


def main(arguments: list[str]) -> None:
    parser = CommandParser("restore", __doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help="of a removed folder: its path, or part of its name")
    parser.add_runs_dir()
    options = parser.parse_args(arguments)
    for removed in [find_removed(name, options.runs_dir) for name in options.names]:
        print(f"restored: {display_path(restore(removed))}")
    if not options.names:
        entries = [
            (format_date(each.place["removed"]), display_path(each.folder)) for each in list_trash(options.runs_dir)
        ]
        print_table(("removed", "folder"), entries, left=("removed", "folder")) if entries else print(
            "the trash is empty"
        )
