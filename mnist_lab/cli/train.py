"""`python -m mnist_lab [train] OPTIONS OVERRIDES`: one run, or a sweep (-m)."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from mnist_lab.cli.check import check
from mnist_lab.cli.hydra_options import split_arguments
from mnist_lab.cli.resume import expand_resume
from mnist_lab.config.distributed import share_run_folder
from mnist_lab.errors import DISK_FULL
from mnist_lab.streams import exit_on_user_error, outlive_reader
from mnist_lab.sweeps.hydra_app import check_overrides, prefer_own_choices, run_application
from mnist_lab.sweeps.process import SWEEP_PROCESS, end_with_parent, own_process


def main(arguments: Sequence[str]) -> None:
    """Run what these arguments say: Hydra's options and overrides, or resume=RUN."""
    with exit_on_user_error():
        silence_disk_errors_in_threads()
        outlive_reader()
        own_process()
        if SWEEP_PROCESS in os.environ and "LOCAL_RANK" not in os.environ:  # the first process of a sweep's job
            end_with_parent(int(os.environ[SWEEP_PROCESS]))
        prefer_own_choices()
        options, overrides = split_arguments(expand_resume(list(arguments)))
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


def silence_disk_errors_in_threads() -> None:
    """Leave a full disk and a removed run folder to the main thread, which meets them too.

    The log and TensorBoard's thread would show a traceback of their own.
    """
    logging.raiseExceptions = False

    def hook(caught: threading.ExceptHookArgs) -> None:
        if not _is_met_by_main_thread(caught.exc_value):
            threading.__excepthook__(caught)

    threading.excepthook = hook


def _is_met_by_main_thread(error: BaseException | None) -> bool:
    if isinstance(error, FileNotFoundError) and error.filename:
        return not Path(os.fsdecode(error.filename)).parent.exists()
    return isinstance(error, OSError) and error.errno in DISK_FULL
