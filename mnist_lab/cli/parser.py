"""The argument parser of the commands beside `train`, and the runs that their arguments name."""

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
    """An argument parser of a command, which raises UsageError, so that a wrong argument is reported in one line."""

    def __init__(self, command: str, *, add_help: bool = True) -> None:
        program, summary = f"python -m mnist_lab {command}", COMMANDS[command].summary
        super().__init__(prog=program, description=f"{summary[0].upper()}{summary[1:]}.", add_help=add_help)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} ({self.prog} --help tells more)")

    def add_runs(self, others: str = "", others_help: str = "") -> None:
        """Add RUN..., --where and --runs-dir, for `find_named_runs`; or RUN and others, for `select_runs_and_words`."""
        words = "a run folder, part of its name, latest, or a folder of runs such as a sweep's"
        metavar, words = (f"RUN [{others}]", f"{words}; and {others_help}") if others else ("RUN", words)
        self.add_argument("runs", metavar=metavar, nargs="*", help=words)
        self.add_where()
        self.add_runs_dir()

    def parse_runs(self, arguments: list[str]) -> argparse.Namespace:
        """Parse arguments; options.named has the words that name runs: none beside --where, even an empty one."""
        options = self.parse_intermixed_args(arguments)
        options.named = options.runs if options.where is None else []
        return options

    def add_where(self) -> None:
        """Add --where; options.where is a condition that `runs.listing.select_where` takes, or None."""
        words = "only runs for which this holds: a column or a setting beside a value, with and, or, not, such as"
        self.add_argument("--where", metavar="CONDITION", help=f'{words} "{EXAMPLE}"')

    def add_runs_dir(self, words: str = "where a name is looked for") -> None:
        """Add --runs-dir."""
        self.add_argument("--runs-dir", type=Path, default=Path("runs"), help=f"{words} (default: %(default)s)")

    def add_group(self) -> None:
        """Add --group; options.group is "seed" or None."""
        words = "runs that differ in their seed alone as one: mean ± standard deviation of those that have finished"
        self.add_argument("--group", choices=("seed",), help=words)

    def add_forms(self) -> None:
        """Add --json and --csv; options.form is "json", "csv" or None, for people."""
        forms = self.add_mutually_exclusive_group()
        for form in ("json", "csv"):
            words = f"print {form.upper()}, for programs: every value, unrounded; times in seconds"
            forms.add_argument(f"--{form}", dest="form", action="store_const", const=form, help=words)


def find_named_runs(options: argparse.Namespace, names: Sequence[str], *, at_least: int = 1) -> list[Run]:
    """Return the runs with these names, or all below --runs-dir without a name; of them those that fulfil --where."""
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
    """Return the folders that RUN... and --where mean: that of a sweep which is taken whole, and those of runs."""
    from mnist_lab.runs.sweep import Sweep  # This imports Hydra, which other commands do without.

    sweeps = [name for name in options.named if Sweep(Path(name)).exists]
    names = [name for name in options.runs if name not in sweeps]
    runs = find_named_runs(options, names) if names or not sweeps else []
    return list(dict.fromkeys([*map(Path, sweeps), *(run.folder for run in runs)]))


def select_runs_and_words(options: argparse.Namespace) -> tuple[list[Run], list[str]]:
    """Return the runs that RUN or --where means, and the other words."""
    names = options.named[:1]
    return find_named_runs(options, names), options.runs[len(names) :]
