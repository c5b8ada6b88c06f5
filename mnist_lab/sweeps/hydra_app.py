"""Hydra's application: one job, or a sweep of one for each combination of values, started from arguments."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from mnist_lab.config import conf_dir
from mnist_lab.config.compose import job_config, resolve_job
from mnist_lab.config.keys import DERIVED_KEYS, SWEEP_ONLY_KEYS
from mnist_lab.config.overrides import (
    compose_with_hydra,
    override_key,
    override_text,
    parse_override,
)
from mnist_lab.errors import JobsFailed, UsageError, not_installed
from mnist_lab.files import make_folder
from mnist_lab.formatting import shorten
from mnist_lab.runs.ranking import Results
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps.identity import register_job_folder
from mnist_lab.sweeps.job import run_job
from mnist_lab.sweeps.process import import_torch
from mnist_lab.sweeps.through_hydra import ErrorThroughHydra, carry_through_hydra

register_job_folder()
EXTRAS = ("submitit", "ray", "optuna")  # packages of launchers and sweepers, each in the extra of its name
started_jobs: list[DictConfig] = []  # in this process, by the last run_application()
started_sweeps: list[Path] = []  # the folders


def sweep(*overrides: str, config_dir: str | Path | None = None) -> Results:
    """Train a network for each combination of values, as `python -m mnist_lab -m OVERRIDES` does.

    A sweep with a name (`sweep=NAME`) that exists continues: finished jobs are skipped.

    Args:
        overrides: in Hydra's grammar, such as `"optimizer.lr=0.01,0.1"`, `"seed=range(3)"` or `"hydra/sweeper=optuna"`.
        config_dir: a folder of your own whose files add choices to conf/.

    Returns:
        The jobs and how they rank; `results.best_job` is the best by validation accuracy, None if none finished. A job
        that failed is among `results.jobs`, with its error.

    Raises:
        UsageError: an override is not valid, nothing is swept, or another process runs this sweep.
        Interrupted: Ctrl-C or SIGTERM; the same call continues the sweep.
    """
    prefer_own_choices()
    options = [] if config_dir is None else ["--config-dir", str(config_dir)]
    check_overrides(overrides, config_dir=None if config_dir is None else str(config_dir), multirun=True)
    with contextlib.suppress(JobsFailed):  # each tells its error in the results
        run_application(["-m", *options, *overrides])
    return Results.of(Sweep(started_sweeps[-1]))


def check_overrides(
    overrides: Sequence[str], *, config_dir: str | None = None, config_name: str = "train", multirun: bool = False
) -> None:
    """Raise UsageError for overrides that Hydra or a sweep would refuse, in one line where Hydra's own have many."""
    reject_derived_settings(overrides)
    for override in overrides:
        key, text = override_key(override), override_text(override)
        if key in SWEEP_ONLY_KEYS and not multirun:
            raise UsageError(f"{shorten(override)}: only valid in a sweep; add -m")
        if key == "sweep" and not (re.fullmatch(r"[\w.,=+-]+", text) and text.strip(".")):
            raise UsageError(f"{shorten(override)}: a sweep's name consists of letters, digits and . , = + - _")
        if (key, text) == ("hydra/sweeper", "basic"):
            raise UsageError(f"{override}: writes no table; choose grid, which runs the same jobs, or optuna")
        package = text.partition("_")[0]
        if key in ("hydra/launcher", "hydra/sweeper") and package in EXTRAS and find_spec(package) is None:
            raise not_installed(override, package)
    compose_with_hydra(overrides, config_dir, config_name, sweep=multirun)
    if not multirun:
        return
    try:  # Hydra composes a sweep without its swept choices first
        fixed = [override for override in overrides if not parse_override(override).is_sweep_override()]
        compose_with_hydra(fixed, config_dir, config_name)
    except UsageError as error:
        setting = str(error).partition(": ")[0]
        raise UsageError(f"{setting}: only a choice that is swept has this setting; write ++{setting}") from error


def reject_derived_settings(overrides: Sequence[str]) -> None:
    """Raise UsageError for a setting that follows from the others."""
    for override in overrides:
        if override_key(override) == "name":
            raise UsageError(f"{shorten(override)}: is derived from model=...; sweep=NAME names a sweep")
        if override_key(override) in DERIVED_KEYS:
            raise UsageError(f"{shorten(override)}: is derived; set hydra.run.dir to choose the run folder")


def prefer_own_choices() -> None:
    """Forget the settings that plugins of Hydra have stored under names of ours; Hydra would merge the two."""
    Plugins.instance()  # imports all plugins, which store their settings
    stored = ConfigStore.instance().repo.get("hydra", {})
    for path in (conf_dir() / "hydra").glob("*/*.yaml"):
        stored.get(path.parent.name, {}).pop(path.name, None)


def run_application(arguments: Sequence[str]) -> None:
    """Run what Hydra's options and overrides say."""
    started_jobs.clear()
    started_sweeps.clear()
    try:
        with _process_of_hydra(arguments):
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(task)()
    except ErrorThroughHydra as carried:
        raise carried.error from carried.error.__cause__
    except SystemExit as stop:
        if stop.code == 1 and not started_jobs and not isinstance(stop, JobsFailed):  # Hydra's own, about the arguments
            raise SystemExit(UsageError.exit_status) from None
        raise
    finally:
        CheckBeforeRun.take_back()


@contextlib.contextmanager
def _process_of_hydra(arguments: Sequence[str]) -> Iterator[None]:
    """Have Hydra, and Lightning's further processes for ddp, read these arguments: both know sys.argv alone.

    What Hydra changes in the process, its logging among it, is set back at the end.
    """
    argv, config = sys.argv, HydraConfig.instance().cfg
    handlers, level = list(logging.root.handlers), logging.root.level
    sys.argv = [argv[0] if argv else "mnist_lab", *arguments]
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        sys.argv, HydraConfig.instance().cfg = argv, config
        for handler in set(logging.root.handlers) - set(handlers):
            handler.close()
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)


def task(cfg: DictConfig) -> float | None:
    """One job, alone or of a sweep; returns what a sweeper goes by."""
    started_jobs.append(cfg)
    cfg = resolve_job(cfg, HydraConfig.get())
    # A sweep's job may be in a process with a command line of its own.
    sources = HydraConfig.get().runtime.config_sources
    own = (str(Path(source.path).absolute()) for source in sources if source.provider == "command-line")
    cfg.config_dir = next(own, None)
    with carry_through_hydra():
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return run_job(cfg)
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
                if not Run(folder).exists:
                    Run(folder).log_path.unlink(missing_ok=True)
                folder.rmdir()

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        import_torch()  # not for --cfg
        from mnist_lab.config.validate import validate

        with carry_through_hydra():
            cfg = job_config(config)
            validate(cfg, Run(Path(cfg.folder)).config if cfg.resume else None)
            self._make(config.hydra.run.dir, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with carry_through_hydra():
            self._make(config.hydra.sweep.dir, "hydra.sweep.dir")
        started_sweeps.append(Path(config.hydra.sweep.dir).absolute())

    def _make(self, name: str, key: str) -> None:
        folder = Path(name).absolute()
        self.made.extend(path for path in (folder, *folder.parents) if not path.exists())
        try:
            make_folder(folder)
        except OSError as error:
            raise UsageError(f"{key}={name}: cannot be made ({error.strerror}); choose another runs_dir") from error
        if not os.access(folder, os.W_OK):
            raise UsageError(f"{key}={name}: cannot be written; choose another")
