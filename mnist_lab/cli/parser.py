"""The argument parser of the commands beside `train`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mnist_lab.errors import UsageError
from mnist_lab.runs.listing import find_runs, read_records, select_where
from mnist_lab.runs.query import EXAMPLE
from mnist_lab.runs.run import Run


class CommandParser(argparse.ArgumentParser):
    """An argument parser that raises UsageError, so that a wrong argument is reported in one line."""

    def __init__(self, command: str, description: str | None, *, add_help: bool = True) -> None:
        super().__init__(prog=f"python -m mnist_lab {command}".strip(), description=description, add_help=add_help)

    def add_runs(self) -> None:
        """Add RUN..., --where and --runs-dir, which `find_named_runs` reads."""
        words = "a run folder, part of its name, latest, or a folder of runs such as a sweep's"
        self.add_argument("runs", metavar="RUN", nargs="*", help=words)
        self.add_where()
        self.add_runs_dir()

    def add_runs_dir(self) -> None:
        """Add --runs-dir."""
        self.add_argument(
            "--runs-dir", type=Path, default=Path("runs"), help="where a name is looked for (%(default)s)"
        )

    def add_selection(self, metavar: str, words: str) -> None:
        """Add RUN and words of a person's behind it, --where in the place of RUN, and --runs-dir."""
        self.add_argument(
            "words", metavar=f"RUN [{metavar}]", nargs="*", help=f"a run, or a folder of runs; and {words}"
        )
        self.add_where()
        self.add_runs_dir()

    def add_where(self) -> None:
        """Add --where; options.where is a condition that `runs.listing.select_where` takes, or None."""
        words = "only runs for which this holds: a column or a setting beside a value, with and, or, not, such as"
        self.add_argument("--where", metavar="CONDITION", help=f'{words} "{EXAMPLE}"')

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

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} ({self.prog} --help tells more)")


def select_runs_and_words(options: argparse.Namespace) -> tuple[list[Run], list[str]]:
    """Return the runs that the arguments of `add_selection` mean, and the words behind RUN; with --where, all words.

    Raises:
        UsageError: there is no such run.
    """
    names = [] if options.where else options.words[:1]
    return find_named_runs(options, names), options.words[len(names) :]


def find_named_runs(options: argparse.Namespace, names: Sequence[str], *, at_least: int = 1) -> list[Run]:
    """Return the runs with these names, or all below --runs-dir if there are none; of them those that fulfil --where.

    Raises:
        UsageError: a run is not found, there is neither a name nor --where, or the runs are fewer than at_least.
    """
    if options.where is None:
        if not names:
            raise UsageError("name a run, or give --where")
        return find_runs(names, options.runs_dir, at_least=at_least)
    named = {run: run.info for run in find_runs(names, options.runs_dir, at_least=1)} if names else None
    runs = list(select_where(named or read_records(options.runs_dir), options.where))
    if len(runs) < at_least:
        needed = f"; {at_least} are needed" if runs else ""
        raise UsageError(f"--where={options.where!r}: holds for {len(runs) or 'no'} run{needed}")
    return runs
