"""The argument parser of the commands, and the runs that their arguments name."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mnist_lab.cli.commands import COMMANDS
from mnist_lab.errors import UsageError
from mnist_lab.runs.listing import find_records, read_records, select_where
from mnist_lab.runs.query import EXAMPLE
from mnist_lab.runs.record import RunRecord, RunState
from mnist_lab.runs.run import Run, find_folder


class CommandParser(argparse.ArgumentParser):
    """An argument parser of a command, which raises UsageError, so that an invalid argument is reported in one line."""

    def __init__(self, command: str, *, add_help: bool = True) -> None:
        program, summary = f"python -m mnist_lab {command}", COMMANDS[command].summary
        super().__init__(prog=program, description=f"{summary[0].upper()}{summary[1:]}.", add_help=add_help)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")

    def add_runs(self, others: str = "", others_help: str = "", *, checkpoints: bool = False) -> None:
        """Add RUN..., --where and --runs-dir, for `find_named_runs`; or RUN and others, for `select_runs_and_words`."""
        metavar, runs_help = "RUN", "a run folder, part of its name, latest, a sweep, or a folder of runs"
        if checkpoints:
            runs_help += ", or a checkpoint, whose weights are used"
        self.set_defaults(checkpoints=checkpoints)
        if others:
            metavar, runs_help = f"RUN [{others}]", f"{runs_help}; and {others_help}"
        self.add_argument("runs", metavar=metavar, nargs="*", help=runs_help)
        where_help = "only runs that fulfil this: columns or settings compared with values, and, or, not, such as"
        self.add_argument("--where", metavar="CONDITION", help=f'{where_help} "{EXAMPLE}"')
        self.add_runs_dir()

    def parse_runs(self, arguments: list[str]) -> argparse.Namespace:
        """Parse arguments; options.named has the words that name runs: none if --where is given, even an empty one."""
        options = self.parse_intermixed_args(arguments)
        options.named = options.runs if options.where is None else []
        return options

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


def find_named_records(options: argparse.Namespace, names: Sequence[str]) -> dict[Run, RunRecord]:
    """Return the runs with these names, or all in --runs-dir, that fulfil --where, with their records."""
    records = find_records(names, options.runs_dir) if names else read_records(options.runs_dir)
    return records if options.where is None else select_where(records, options.where)


def find_named_runs(options: argparse.Namespace, names: Sequence[str], *, at_least: int = 1) -> list[Run]:
    """Return the runs with these names that fulfil --where; with --where and no name, all such runs in --runs-dir."""
    if options.where is None and not names:
        raise UsageError("name a run, or give --where")
    runs = [run for run, info in find_named_records(options, names).items() if info["status"] != RunState.DAMAGED]
    if len(runs) < at_least:
        what = " ".join(names) if options.where is None else f"--where={options.where!r}"
        raise UsageError(f"{what}: finds {len(runs) or 'no'} run; {at_least} or more are needed")
    for run in runs:
        if run.weights and not options.checkpoints:
            raise UsageError(f"{run.weights}: a checkpoint, which only test and predict take; name its run, {run}")
    return runs


def describe_runs(runs: Sequence[Run]) -> str:
    """Describe the runs of a command in a few words."""
    return str(runs[0]) if len(runs) == 1 else f"{len(runs)} runs"


def find_named_folders(options: argparse.Namespace) -> list[Path]:
    """Return the folders of the sweeps and runs that RUN... and --where mean."""
    from mnist_lab.runs.sweep import Sweep  # It imports Hydra, which other commands do not need.

    folders = {name: find_folder(name, options.runs_dir) for name in options.named}
    sweeps = {name: folder for name, folder in folders.items() if Sweep(folder).exists}
    names = [name for name in options.runs if name not in sweeps]
    runs = find_named_runs(options, names) if names or not sweeps else []
    return list(dict.fromkeys([*sweeps.values(), *(run.folder for run in runs)]))


def select_runs_and_words(options: argparse.Namespace) -> tuple[list[Run], list[str]]:
    """Return the runs that RUN or --where means, and the further words."""
    names = options.named[:1]
    return find_named_runs(options, names), options.runs[len(names) :]
