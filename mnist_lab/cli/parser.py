"""The argument parser of the commands, and the runs that their arguments name."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mnist_lab.cli.commands import COMMANDS
from mnist_lab.errors import UsageError
from mnist_lab.runs.listing import find_runs, read_records, select_where
from mnist_lab.runs.query import EXAMPLE
from mnist_lab.runs.run import Run


class CommandParser(argparse.ArgumentParser):
    """An argument parser of a command, which raises UsageError, so that an invalid argument is reported in one line."""

    def __init__(self, command: str, *, add_help: bool = True) -> None:
        program, summary = f"python -m mnist_lab {command}", COMMANDS[command].summary
        super().__init__(prog=program, description=f"{summary[0].upper()}{summary[1:]}.", add_help=add_help)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")

    def add_runs(self, others: str = "", others_help: str = "") -> None:
        """Add RUN..., --where and --runs-dir, for `find_named_runs`; or RUN and others, for `select_runs_and_words`."""
        metavar, runs_help = "RUN", "a run folder, part of its name, latest, or a folder of runs such as a sweep's"
        if others:
            metavar, runs_help = f"RUN [{others}]", f"{runs_help}; and {others_help}"
        self.add_argument("runs", metavar=metavar, nargs="*", help=runs_help)
        self.add_where()
        self.add_runs_dir()

    def parse_runs(self, arguments: list[str]) -> argparse.Namespace:
        """Parse arguments; options.named has the words that name runs: none if --where is given, even an empty one."""
        options = self.parse_intermixed_args(arguments)
        options.named = options.runs if options.where is None else []
        return options

    def add_where(self) -> None:
        """Add --where; options.where is a condition that `runs.listing.select_where` takes, or None."""
        where_help = "only runs that fulfil this: columns or settings compared with values, and, or, not, such as"
        self.add_argument("--where", metavar="CONDITION", help=f'{where_help} "{EXAMPLE}"')

    def add_runs_dir(self, purpose: str = "the folder to look for names in") -> None:
        """Add --runs-dir."""
        self.add_argument("--runs-dir", type=Path, default=Path("runs"), help=f"{purpose} (default: %(default)s)")

    def add_group(self) -> None:
        """Add --group; options.group is "seed" or None."""
        group_help = "treat finished runs that differ only in their seed as one: mean ± standard deviation"
        self.add_argument("--group", choices=("seed",), help=group_help)

    def add_forms(self) -> None:
        """Add --json and --csv; options.form is "json", "csv", or None for a table."""
        forms = self.add_mutually_exclusive_group()
        for form in ("json", "csv"):
            form_help = f"print {form.upper()}, for programs: every value, unrounded; times in seconds"
            forms.add_argument(f"--{form}", dest="form", action="store_const", const=form, help=form_help)


def find_named_runs(options: argparse.Namespace, names: Sequence[str], *, at_least: int = 1) -> list[Run]:
    """Return the runs with these names that fulfil --where; with --where and no name, all such runs in --runs-dir."""
    if options.where is None:
        if not names:
            raise UsageError("name a run, or give --where")
        return find_runs(names, options.runs_dir, at_least=at_least)
    named = {run: run.info for run in find_runs(names, options.runs_dir)} if names else None
    runs = list(select_where(named or read_records(options.runs_dir), options.where))
    if len(runs) < at_least:
        needed = f"; {at_least} are needed" if runs else ""
        raise UsageError(f"--where={options.where!r}: holds for {len(runs) or 'no'} run{needed}")
    return runs


def find_named_folders(options: argparse.Namespace) -> list[Path]:
    """Return the folders of the sweeps and runs that RUN... and --where mean."""
    from mnist_lab.runs.sweep import Sweep  # It imports Hydra, which other commands do not need.

    sweeps = [name for name in options.named if Sweep(Path(name)).exists]
    names = [name for name in options.runs if name not in sweeps]
    runs = find_named_runs(options, names) if names or not sweeps else []
    return list(dict.fromkeys([*map(Path, sweeps), *(run.folder for run in runs)]))


def select_runs_and_words(options: argparse.Namespace) -> tuple[list[Run], list[str]]:
    """Return the runs that RUN or --where means, and the further words."""
    names = options.named[:1]
    return find_named_runs(options, names), options.runs[len(names) :]
