"""Hydra's part: one job, or a sweep of one for each combination of the swept values."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mnist_lab.cli.hydra_options import split_arguments
from mnist_lab.cli.resume import expand_resume
from mnist_lab.config import conf_dir
from mnist_lab.config.compose import job_config, resolve_job
from mnist_lab.config.distributed import share_run_folder
from mnist_lab.config.keys import DERIVED_KEYS, override_key
from mnist_lab.config.overrides import compose_with_hydra, explain_composition_error
from mnist_lab.errors import DISK_FULL, JobsFailed, LabError, UsageError, not_installed
from mnist_lab.files import make_folder
from mnist_lab.formatting import shorten
from mnist_lab.runs.run import Run
from mnist_lab.streams import exit_on_user_error, outlive_reader
from mnist_lab.sweeps.identity import register_job_folder
from mnist_lab.sweeps.job import run_job
from mnist_lab.sweeps.signals import SWEEP_PROCESS, end_with_parent

EXTRAS = ("joblib", "submitit", "ray", "optuna")  # launchers and sweepers that come with an extra of this name
register_job_folder()
started_jobs: list[DictConfig] = []  # that Hydra came to


def main() -> None:
    """Run what sys.argv says."""
    with exit_on_user_error():
        silence_disk_errors_in_threads()
        outlive_reader()
        if SWEEP_PROCESS in os.environ and "LOCAL_RANK" not in os.environ:  # the first process of a sweep's job
            end_with_parent(int(os.environ[SWEEP_PROCESS]))
        prefer_own_sweepers()
        sys.argv[1:] = share_run_folder(expand_resume(sys.argv[1:]))
        options, overrides = split_arguments(sys.argv[1:])
        reject_derived_settings(overrides)
        reject_sweep_settings(sys.argv[1:])
        if not {"--shell-completion", "--hydra-help"} & set(options):
            values = dict(pairwise(options))
            config = values.get("--config-dir"), values.get("--config-name", "train")
            compose_with_hydra(overrides, *config, sweep=is_sweep(sys.argv[1:]))  # Hydra's own refusals have many lines
    run()


def prefer_own_sweepers() -> None:
    """Forget the settings that hydra-optuna-sweeper has stored under the name of ours; Hydra would merge the two."""
    Plugins.instance()  # imports all plugins, which store their settings
    ConfigStore.instance().repo.get("hydra", {}).get("sweeper", {}).pop("optuna.yaml", None)


def reject_derived_settings(overrides: list[str]) -> None:
    """Raise UsageError for a setting that follows from the others."""
    for override in overrides:
        if override_key(override) == "name":
            raise UsageError(f"{shorten(override)}: is derived from model=...; sweep=NAME names a sweep")
        if override_key(override) in DERIVED_KEYS:
            raise UsageError(f"{shorten(override)}: is derived; set hydra.run.dir to choose the run folder")


def is_sweep(arguments: list[str]) -> bool:
    """Return whether these arguments start a sweep."""
    return bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments))


def reject_sweep_settings(arguments: list[str]) -> None:
    """Raise UsageError for what a sweep cannot be run with."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in ("sweep", "retries", "fail_fast") and not is_sweep(arguments):
            raise UsageError(f"{shorten(argument)}: only valid in a sweep; add -m")
        name = value.strip("'\"")
        if key == "sweep" and not (re.fullmatch(r"[\w.,=+-]+", name) and name.strip(".")):
            raise UsageError(f"{shorten(argument)}: a sweep's name consists of letters, digits and . , = + - _")
        if argument == "hydra/sweeper=basic":
            raise UsageError(f"{argument}: writes no table; choose grid, which runs the same jobs, or optuna")
        extra = value.split("_")[0]
        package = {"hydra/launcher": f"hydra_plugins.hydra_{extra}_launcher", "hydra/sweeper": "optuna"}.get(key)
        if package and extra in EXTRAS and find_spec(package) is None:
            raise not_installed(argument, extra)


def run() -> None:
    """Hydra's run or sweep: one job, or one for each combination of the swept values."""
    started_jobs.clear()
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(task)()
    except SystemExit as stop:
        ours = isinstance(stop, JobsFailed) or isinstance(stop.__context__, LabError)
        hydra_refused = stop.code == 1 and not started_jobs and not ours
        if hydra_refused:  # and has said what is wrong with the command line
            raise SystemExit(UsageError.exit_status) from None
        raise
    finally:
        CheckBeforeRun.take_back()


def task(cfg: DictConfig) -> float | None:
    """One job, alone or of a sweep; returns what a sweeper goes by."""
    started_jobs.append(cfg)
    cfg = resolve_job(cfg, HydraConfig.get())
    sources = (
        HydraConfig.get().runtime.config_sources
    )  # a sweep's job may be in a process with a command line of its own
    own = (str(Path(source.path).absolute()) for source in sources if source.provider == "command-line")
    cfg.config_dir = next(own, None)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return run_job(cfg)
    with exit_on_user_error():
        from mnist_lab.training.train import train  # torch and Lightning: not for --cfg

        train(cfg)
    return None


class CheckBeforeRun(Callback):
    """Refuses a bad configuration or output folder before Hydra makes anything."""

    made: ClassVar[list[Path]] = []

    @classmethod
    def take_back(cls) -> None:
        """Remove the folders made for a run that was refused after all, as far as nothing but its log is in them."""
        for folder in cls.made:
            with contextlib.suppress(OSError):
                if not (folder / "run.json").exists():
                    (folder / "train.log").unlink(missing_ok=True)
                folder.rmdir()

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        from mnist_lab.config.validate import validate  # torch: not for --cfg

        with exit_on_user_error():
            try:
                cfg = job_config(config)
            except OmegaConfBaseException as error:
                raise explain_composition_error(error) from error
            validate(cfg, Run(Path(cfg.folder)).config if cfg.resume else None)
            self._make(config.hydra.run.dir, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with exit_on_user_error():
            self._make(config.hydra.sweep.dir, "hydra.sweep.dir")

    def _make(self, name: str, key: str) -> None:
        folder = Path(name).absolute()
        self.made.extend(path for path in (folder, *folder.parents) if not path.exists())
        try:
            make_folder(folder)
        except OSError as error:
            raise UsageError(f"{key}={name}: cannot be made ({error.strerror}); choose another runs_dir") from error
        if not os.access(folder, os.W_OK):
            raise UsageError(f"{key}={name}: cannot be written; choose another")


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
