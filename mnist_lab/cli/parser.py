"""The command line of the commands beside training."""

from __future__ import annotations

import argparse
from typing import NoReturn

from mnist_lab.errors import UsageError
from mnist_lab.runs.run import Run


class CommandParser(argparse.ArgumentParser):
    """What a command takes. What does not fit is told in one line, as everywhere."""

    def __init__(self, command: str, description: str | None, *, add_help: bool = True) -> None:
        super().__init__(prog=f"python -m mnist_lab {command}".strip(), description=description, add_help=add_help)

    def add_run(self) -> None:
        """RUN and --runs-dir, for run_of."""
        self.add_argument("run", metavar="RUN", help="a run folder, the beginning or end of its name, or latest")
        self.add_argument("--runs-dir", default="runs", help="where a name is looked for (default: %(default)s)")

    def add_forms(self) -> None:
        """--json and --csv: the form in which rows are printed for programs; None for people."""
        forms = self.add_mutually_exclusive_group()
        for form in ("json", "csv"):
            words = f"print {form.upper()}, for programs: every value, unrounded; times in seconds"
            forms.add_argument(f"--{form}", dest="form", action="store_const", const=form, help=words)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} ({self.prog} --help tells more)")


def find_run(options: argparse.Namespace) -> Run:
    """The run that a command line names."""
    return Run.find(options.run, options.runs_dir)
