"""`python -m mnist_lab [train] OPTIONS OVERRIDES`: one run, or a sweep (-m)."""

import difflib
import logging
import os
import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from mnist_lab.cli.check import check
from mnist_lab.cli.parser import CommandParser
from mnist_lab.cli.resume import expand_resume
from mnist_lab.config.distributed import share_run_folder
from mnist_lab.config.overrides import compose_with_hydra, dotted_keys, nearest_key
from mnist_lab.errors import DISK_FULL, UsageError
from mnist_lab.formatting import shorten
from mnist_lab.streams import outlive_reader
from mnist_lab.sweeps.hydra_app import check_overrides, prefer_own_choices, run_application
from mnist_lab.sweeps.process import SWEEP_PROCESS, end_with_parent, own_process

OPTIONS = (
    *("--help", "--version", "--check", "--multirun", "--detach", "--cfg", "--info", "--config-dir", "--config-name"),
    "--hydra-help",
)


def main(arguments: Sequence[str]) -> None:
    silence_disk_errors_in_threads()
    outlive_reader()
    own_process()
    if SWEEP_PROCESS in os.environ and "LOCAL_RANK" not in os.environ:  # the first process of a sweep's job
        end_with_parent(int(os.environ[SWEEP_PROCESS]))
    prefer_own_choices()
    options, overrides = expand_resume(*split_arguments(arguments))
    multirun = bool({"-m", "hydra.mode=MULTIRUN"} & {*options, *overrides})
    overrides = share_run_folder(overrides, sweep=multirun)
    if not {"--shell-completion", "--hydra-help"} & set(options):
        values = dict(pairwise(options))
        check_overrides(
            overrides,
            config_dir=values.get("--config-dir"),
            config_name=values.get("--config-name", "train"),
            multirun=multirun,
        )
    if "--check" in options:
        check(options, overrides, multirun=multirun)
    else:
        run_application([*options, *overrides])


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into Hydra's options and --check, each with its value, and the overrides.

    Raises:
        UsageError: an unknown option, one without its value, or two that exclude each other.
    """
    parser = CommandParser("train", add_help=False)
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--multirun", "-m", action="store_true")
    kinds.add_argument("--run", "-r", action="store_true")
    kinds.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
    kinds.add_argument("--shell-completion", "-sc", action="store_true")
    infos = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
    kinds.add_argument("--info", "-i", nargs="?", const="all", choices=infos)
    kinds.add_argument("--hydra-help", action="store_true")
    for name in ("--check", "--detach", "--resolve"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--package", "-p")
    parser.add_argument("--config-name", "-cn")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("overrides", nargs="*")
    found, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        raise unknown_option(unknown[0], arguments)
    if found.resolve and not found.cfg:
        raise UsageError("--resolve: only valid with --cfg")
    values = vars(found)
    overrides = [*values.pop("overrides"), *["detach=true"] * values.pop("detach")]
    options: list[str] = []
    for name, value in values.items():
        option = "-m" if name == "multirun" else f"--{name.replace('_', '-')}"
        if value not in (None, False):
            options += [option] if value is True else [option, value]
    return options, overrides


def unknown_option(option: str, arguments: Sequence[str]) -> UsageError:
    """Return the error of an option that is none, with the option or the setting that was meant."""
    name, equals, value = option.lstrip("-").partition("=")
    if not equals:
        value = next((word for word in arguments[arguments.index(option) + 1 :] if "=" not in word), "VALUE")
    near = difflib.get_close_matches(option.partition("=")[0], OPTIONS, n=1, cutoff=0.8)
    if near:
        hint = f"did you mean {near[0]}?"
    else:
        key = nearest_key(name, dotted_keys(compose_with_hydra([])))
        hint = f"did you mean {key}={value}?" if key else "settings are written KEY=VALUE (--help lists them)"
    return UsageError(f"{shorten(option)}: unknown option; {hint}")


def silence_disk_errors_in_threads() -> None:
    """Leave a full disk and a removed run folder to the main thread, which meets them too.

    The log and TensorBoard's thread would show a traceback of their own.
    """
    logging.raiseExceptions = False

    def hook(caught: threading.ExceptHookArgs) -> None:
        error = caught.exc_value
        if isinstance(error, FileNotFoundError) and error.filename:
            is_met_by_main_thread = not Path(os.fsdecode(error.filename)).parent.exists()
        else:
            is_met_by_main_thread = isinstance(error, OSError) and error.errno in DISK_FULL
        if not is_met_by_main_thread:
            threading.__excepthook__(caught)

    threading.excepthook = hook
