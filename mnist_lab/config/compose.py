"""Compose a configuration with Hydra, once, and resolve it: what is validated and trained is what was composed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from mnist_lab.config import conf_dir
from mnist_lab.config.distributed import local_processes, machines, start_time
from mnist_lab.config.hydra_aside import composer, reading_from
from mnist_lab.config.keys import DERIVED_KEYS, OPTIONAL, SWEEP_ONLY_KEYS
from mnist_lab.config.metric_names import direction
from mnist_lab.config.overrides import (
    compose_with_hydra,
    explain_composition_error,
    override_key,
    override_text,
    parse_override,
    quote_paths,
)
from mnist_lab.config.settings import resolve_settings, to_plain
from mnist_lab.errors import UsageError, not_installed
from mnist_lab.formatting import shorten

EXTRAS = ("submitit", "ray", "optuna")  # Launchers and sweepers need these packages, each in the extra of its name.
# Hydra's settings without an effect, since the lab runs the jobs itself.
WITHOUT_EFFECT = re.compile(
    r"hydra([./](callbacks|job_logging)|\.(verbose|searchpath|output_subdir|sweep\.subdir|job\.(chdir|env_set|env_copy)))"
)


@dataclass(frozen=True)
class CommandLine:
    """A command line as plain values, from which any process composes the same configuration."""

    overrides: tuple[str, ...]
    config_dir: str | None = None
    config_name: str = "train"


def config_options(config_dir: str | None, config_name: str | None = None) -> list[str]:
    """Return the options --config-dir and --config-name, without those that have their default."""
    options = ["--config-dir", config_dir] if config_dir else []
    return options + (["--config-name", config_name] if config_name not in (None, "train") else [])


@dataclass(frozen=True)
class HydraSettings:
    """The values that the lab takes from Hydra's own settings, as plain values."""

    choices: dict[str, str]  # The keys are the groups.
    sweep_dir: Path
    sweeper: dict[str, Any]  # Outside a sweep, sweeper and launcher are empty.
    launcher: dict[str, Any]


def compose(*overrides: str, config_dir: str | None = None, config_name: str = "train") -> DictConfig:
    """Compose the main job's configuration, with a new run folder.

    Args:
        overrides: in Hydra's grammar, as on the command line; paths are taken as they are typed.
        config_dir: a folder of your own whose files add choices, as --config-dir does.
        config_name: the primary configuration, which may be a file of that folder, as --config-name.

    Returns:
        The configuration, as `mnist_lab.train` takes it.

    Raises:
        UsageError: an override is not valid.
    """
    return compose_job(CommandLine(tuple(quote_paths(overrides)), config_dir, config_name))[0]


def compose_job(
    line: CommandLine, *, is_sweep: bool = False, folder: Path | None = None, number: int | None = None
) -> tuple[DictConfig, HydraSettings]:
    """Compose a job, in a folder or else in hydra.run.dir, and return its configuration and Hydra's settings."""
    reject_overrides(line.overrides, is_sweep=is_sweep)
    if line.config_dir is not None and not Path(line.config_dir).is_dir():
        raise UsageError(f"--config-dir={line.config_dir}: folder not found")
    with composer(line.config_dir):
        config = compose_with_hydra(line.overrides, line.config_name, is_argument, is_sweep=is_sweep)
        try:
            return _resolve_job(config, line, is_sweep=is_sweep, folder=folder, number=number)
        except OmegaConfBaseException as error:
            raise explain_composition_error(error, [parse_override(each) for each in line.overrides]) from error


def is_argument(target: str, key: str) -> bool:
    """Return whether a class, by its dotted name, has the argument that a key ends with."""
    from mnist_lab.config.targets import find_class  # These import torch, which few command lines need.
    from mnist_lab.config.validate import parameter_types

    group, _, name = key.rpartition(".")
    try:
        return name in parameter_types(find_class(target, group))
    except UsageError:
        return False


def _resolve_job(
    cfg: DictConfig, line: CommandLine, *, is_sweep: bool, folder: Path | None, number: int | None
) -> tuple[DictConfig, HydraSettings]:
    hydra = cfg.hydra
    with read_write(hydra), open_dict(hydra), open_dict(cfg), reading_from(hydra):
        hydra.mode = "MULTIRUN" if is_sweep else "RUN"
        if number is not None:
            hydra.job.id, hydra.job.num = str(number), number
        # Both are resolved once: resolved again, they could have a later time in their names.
        hydra.sweep.dir = str(Path(hydra.sweep.dir).absolute()) if is_sweep else ""
        hydra.runtime.output_dir = str((folder or Path(hydra.run.dir)).absolute())
        sweeper: Any = OmegaConf.to_container(hydra.sweeper, resolve=True) if is_sweep else {}
        launcher: Any = OmegaConf.to_container(hydra.launcher, resolve=True) if is_sweep else {}
        choices = to_plain(hydra.runtime.choices)
        settings = HydraSettings(choices, Path(hydra.sweep.dir), sweeper, launcher)
        cfg.config_dir = line.config_dir and str(Path(line.config_dir).absolute())
        cfg.config_name = line.config_name
        cfg.overrides = to_plain(hydra.overrides.task)  # Hydra's own list cannot be written to.
        for group in ("hydra/launcher", "hydra/sweeper"):
            package = str(settings.choices[group]).partition("_")[0]
            if package in EXTRAS and find_spec(package) is None:
                raise not_installed(f"{group}={settings.choices[group]}", package)
        del cfg["hydra"]
        _drop_settings_of_none(cfg)
        resolve_settings(cfg)
    return cfg, settings


def reject_overrides(overrides: Sequence[str], *, is_sweep: bool = False) -> None:
    """Raise UsageError for an override that is derived from others, or needs a sweep or a package that is missing."""
    for override in overrides:
        key, text = override_key(override), override_text(override)
        if WITHOUT_EFFECT.match(key):
            reason = "has no effect, since the lab runs the jobs; docs/guides/sweeps.md has a list"
            raise UsageError(f"{shorten(override)}: {reason}")
        if key in DERIVED_KEYS:
            raise UsageError(f"{shorten(override)}: is derived; set model, sweep or hydra.run.dir instead")
        if key in SWEEP_ONLY_KEYS and not is_sweep:
            raise UsageError(f"{shorten(override)}: only valid in a sweep; add -m")
        if key == "sweep" and not (re.fullmatch(r"[\w.,=+-]+", text) and text.strip(".")):
            raise UsageError(f"{shorten(override)}: a sweep's name consists of letters, digits and . , = + - _")


def _drop_settings_of_none(cfg: DictConfig) -> None:
    """Drop what a preset sets in a group for which the command line chooses "none"; validation refuses what is left."""
    typed = {override_key(override) for override in cfg.overrides}
    for group in OPTIONAL:
        if f"{group}=none" in cfg.overrides:
            cfg[group] = {name: value for name, value in cfg[group].items() if f"{group}.{name}" in typed}


@cache  # Each job of a sweep needs it.
def model_name(choice: str, target: str) -> str:
    """Return a network's name: its file's in conf/model, or its class's where the file has another class."""
    path = conf_dir() / "model" / f"{choice}.yaml"
    if path.is_file() and OmegaConf.select(OmegaConf.load(path), "_target_") != target:
        return target.rpartition(".")[2]
    return choice


OmegaConf.register_new_resolver("start_time", start_time, use_cache=True, replace=True)
OmegaConf.register_new_resolver("coalesce", lambda value, default: default if value is None else value, replace=True)
# ${select:KEY,{KEY:VALUE,...},DEFAULT}; the key may be an Enum of Hydra's.
OmegaConf.register_new_resolver(
    "select", lambda key, values, default: values.get(getattr(key, "name", key), default), replace=True
)
OmegaConf.register_new_resolver("direction", lambda metric: direction(str(metric)), replace=True)
OmegaConf.register_new_resolver("processes", local_processes, replace=True)
OmegaConf.register_new_resolver("machines", machines, replace=True)
OmegaConf.register_new_resolver("model_name", model_name, replace=True)
