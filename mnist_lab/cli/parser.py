"""The command line of the commands beside training."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import NoReturn

from mnist_lab.config.overrides import compose_with_hydra, dotted_keys, nearest_key
from mnist_lab.errors import UsageError
from mnist_lab.formatting import shorten
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


OPTIONS = ("--help", "--version", "--multirun", "--cfg", "--info", "--config-dir", "--config-name", "--hydra-help")


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into Hydra's options, each with its value, and the overrides.

    Raises:
        UsageError: an unknown option, one without its value, or two that exclude each other.
    """
    parser = CommandParser("", None, add_help=False)
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--multirun", "-m", action="store_true")
    kinds.add_argument("--run", "-r", action="store_true")
    kinds.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
    kinds.add_argument("--shell-completion", "-sc", action="store_true")
    infos = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
    kinds.add_argument("--info", "-i", nargs="?", const="all", choices=infos)
    kinds.add_argument("--hydra-help", action="store_true")
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--package", "-p")
    parser.add_argument("--config-name", "-cn")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("overrides", nargs="*")
    found, unknown = parser.parse_known_intermixed_args(arguments)
    overrides: list[str] = found.overrides
    if unknown:
        name, equals, value = unknown[0].lstrip("-").partition("=")
        if not equals:
            value = next((word for word in arguments[arguments.index(unknown[0]) + 1 :] if "=" not in word), "VALUE")
        near = difflib.get_close_matches(unknown[0].partition("=")[0], OPTIONS, n=1, cutoff=0.8)
        if near:
            raise UsageError(f"{shorten(unknown[0])}: unknown option; did you mean {near[0]}?")
        key = nearest_key(name, dotted_keys(compose_with_hydra([])))
        hint = f"did you mean {key}={value}?" if key else "settings are written KEY=VALUE (--help lists them)"
        raise UsageError(f"{shorten(unknown[0])}: unknown option; {hint}")
    if found.resolve and not found.cfg:
        raise UsageError("--resolve: only valid with --cfg")
    options: list[str] = []
    for name, value in vars(found).items():
        if name != "overrides" and value not in (None, False):
            option = "-m" if name == "multirun" else f"--{name.replace('_', '-')}"
            options += [option] if value is True else [option, value]
    return options, overrides
