"""Split a command line into Hydra's options and overrides."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from mnist_lab.cli.parser import CommandParser
from mnist_lab.config.overrides import compose_with_hydra, dotted_keys, nearest_key
from mnist_lab.errors import UsageError
from mnist_lab.formatting import shorten

OPTIONS = (
    *("--help", "--version", "--check", "--multirun", "--detach", "--cfg", "--info", "--config-dir", "--config-name"),
    "--hydra-help",
)


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into Hydra's options and --check, each with its value, and the overrides.

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
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--detach", action="store_true")
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--package", "-p")
    parser.add_argument("--config-name", "-cn")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("overrides", nargs="*")
    found, unknown = parser.parse_known_intermixed_args(arguments)
    overrides: list[str] = [*found.overrides, *["detach=true"] * found.detach]
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
        if name not in ("overrides", "detach") and value not in (None, False):
            option = "-m" if name == "multirun" else f"--{name.replace('_', '-')}"
            options += [option] if value is True else [option, value]
    return options, overrides
