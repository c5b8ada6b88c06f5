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
)
from mnist_lab.config.settings import resolve_settings, to_plain
from mnist_lab.errors import UsageError, not_installed
from mnist_lab.formatting import format_value, shorten

EXTRAS = ("submitit", "ray", "optuna")  # packages of launchers and sweepers, each in the extra of its name
# Settings of Hydra's that would have no effect, since the lab runs its jobs itself, with their defaults.
WITHOUT_EFFECT = {
    "callbacks": ({}, None),
    "job.chdir": (False, None),
    "job.env_set": ({}, None),
    "job.env_copy": ([], None),
    "output_subdir": (".hydra", None),
    "sweep.subdir": ("${hydra.job.num}", None),
}

OmegaConf.register_new_resolver("start_time", start_time, use_cache=True, replace=True)
OmegaConf.register_new_resolver(
    "coalesce", lambda value, otherwise: otherwise if value is None else value, replace=True
)
# ${select:KEY,{KEY:VALUE,...},DEFAULT}: a setting that follows another, or one of Hydra's that is an Enum.
OmegaConf.register_new_resolver(
    "select", lambda key, values, default: values.get(getattr(key, "name", key), default), replace=True
)

OmegaConf.register_new_resolver("direction", lambda metric: direction(str(metric)), replace=True)
OmegaConf.register_new_resolver("processes", local_processes, replace=True)
OmegaConf.register_new_resolver("machines", machines, replace=True)


@dataclass(frozen=True)
class CommandLine:
    """What was typed: plain values, from which any process composes the same configuration."""

    overrides: tuple[str, ...]
    config_dir: str | None = None
    config_name: str = "train"

    @property
    def options(self) -> list[str]:
        """The options that stand before the overrides."""
        return config_options(self.config_dir, self.config_name)


def config_options(config_dir: str | None, config_name: str | None = None) -> list[str]:
    """Return the options --config-dir and --config-name as far as they differ from the defaults."""
    named = ["--config-name", config_name] if config_name not in (None, "train") else []
    return [*(["--config-dir", config_dir] if config_dir else []), *named]


@dataclass(frozen=True)
class HydraSettings:
    """What the lab takes from Hydra's own settings, as plain values."""

    choices: dict[str, str]  # The key is the group.
    sweep_dir: Path
    sweeper: dict[str, Any]  # empty outside a sweep, as is `launcher`
    launcher: dict[str, Any]
    log_name: str
    logging: dict[str, Any] | None  # None unless the command line chooses it
    verbose: bool | str | list[str]


def compose(*overrides: str, config_dir: str | None = None, config_name: str = "train") -> DictConfig:
    """Compose the main job's configuration, with a new run folder.

    Args:
        overrides: in Hydra's grammar, as on the command line.
        config_dir: a folder of your own whose files add choices, as --config-dir does.
        config_name: the primary configuration, which may be a file of that folder, as --config-name.

    Returns:
        The configuration, as `mnist_lab.train` takes it.

    Raises:
        UsageError: an override is not valid.
    """
    return compose_job(CommandLine(overrides, config_dir, config_name))[0]


def compose_job(
    line: CommandLine, *, is_sweep: bool = False, folder: Path | None = None, number: int | None = None
) -> tuple[DictConfig, HydraSettings]:
    """Compose a job, and return its resolved configuration and Hydra's settings.

    Its run folder is the one given, or else what hydra.run.dir says; its number is that in its sweep.
    """
    reject_overrides(line.overrides, is_sweep=is_sweep)
    if "${" in str(Path.cwd()):
        raise UsageError(
            f"{Path.cwd()}: Hydra reads ${{...}} in this folder's name as a setting; rename it, or use another"
        )
    if line.config_dir is not None and not Path(line.config_dir).is_dir():
        raise UsageError(f"--config-dir={line.config_dir}: folder not found")
    with composer(line.config_dir):
        config = compose_with_hydra(line.overrides, line.config_name, is_sweep=is_sweep)
        try:
            return _resolve_job(config, line, is_sweep=is_sweep, folder=folder, number=number)
        except OmegaConfBaseException as error:
            raise explain_composition_error(error, [parse_override(each) for each in line.overrides]) from error


def _resolve_job(
    cfg: DictConfig, line: CommandLine, *, is_sweep: bool, folder: Path | None, number: int | None
) -> tuple[DictConfig, HydraSettings]:
    hydra = cfg.hydra
    with read_write(hydra), open_dict(hydra), open_dict(cfg), reading_from(hydra):
        _reject_settings_without_effect(hydra)
        hydra.mode = "MULTIRUN" if is_sweep else "RUN"
        if number is not None:
            hydra.job.id, hydra.job.num = str(number), number
        # Each is resolved once: the time in their names would be another one the next time.
        hydra.sweep.dir = str(Path(hydra.sweep.dir).absolute()) if is_sweep else ""
        hydra.runtime.output_dir = str((folder or Path(hydra.run.dir)).absolute())
        named = any(re.match(r"hydra[./]job_logging", override_key(override)) for override in line.overrides)
        settings = HydraSettings(
            choices=to_plain(hydra.runtime.choices),
            sweep_dir=Path(hydra.sweep.dir),
            sweeper=_resolved(hydra.sweeper) if is_sweep else {},
            launcher=_resolved(hydra.launcher) if is_sweep else {},
            log_name=hydra.job.name,
            logging=_resolved(hydra.job_logging) if named else None,
            verbose=_resolved(hydra.verbose),
        )
        cfg.config_dir = line.config_dir and str(Path(line.config_dir).absolute())
        cfg.config_name = line.config_name
        cfg.overrides = to_plain(hydra.overrides.task)  # Hydra's own list cannot be written to.
        del cfg["hydra"]
        _drop_settings_of_none(cfg)
        resolve_settings(cfg)
    return cfg, settings


def _resolved(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def reject_overrides(overrides: Sequence[str], *, is_sweep: bool = False) -> None:
    """Raise UsageError for overrides that follow from others, or need a sweep or a package that is not there."""
    for override in overrides:
        key, text = override_key(override), override_text(override)
        if key == "name":
            raise UsageError(f"{shorten(override)}: is derived from model=...; sweep=NAME names a sweep")
        if key in DERIVED_KEYS:
            raise UsageError(f"{shorten(override)}: is derived; set hydra.run.dir to choose the run folder")
        if key in SWEEP_ONLY_KEYS and not is_sweep:
            raise UsageError(f"{shorten(override)}: only valid in a sweep; add -m")
        if key == "sweep" and not (re.fullmatch(r"[\w.,=+-]+", text) and text.strip(".")):
            raise UsageError(f"{shorten(override)}: a sweep's name consists of letters, digits and . , = + - _")
        package = text.partition("_")[0]
        if key in ("hydra/launcher", "hydra/sweeper") and package in EXTRAS and find_spec(package) is None:
            raise not_installed(override, package)


def _reject_settings_without_effect(hydra: DictConfig) -> None:
    plain = to_plain(hydra)
    for key, values in WITHOUT_EFFECT.items():
        group, _, name = key.rpartition(".")
        value = (plain[group] if group else plain)[name]
        if value not in values:
            setting = f"hydra.{key}={shorten(format_value(value))}"
            raise UsageError(f"{setting}: has no effect, since the lab runs the jobs; docs/guides/sweeps.md has a list")


def _drop_settings_of_none(cfg: DictConfig) -> None:
    """Drop a preset's settings of a group for which the command line chooses "none"; validation refuses other ones."""
    named = {override_key(override) for override in cfg.overrides}
    with open_dict(cfg):
        for group in [group for group in OPTIONAL if f"{group}=none" in cfg.overrides]:
            cfg[group] = {key: value for key, value in cfg[group].items() if f"{group}.{key}" in named}


@cache  # Each job of a sweep asks for it.
def model_name(choice: str, target: str) -> str:
    """Return a network's name: that of its file in conf/model, or of its class if that is not the file's."""
    path = conf_dir() / "model" / f"{choice}.yaml"
    if path.is_file() and OmegaConf.select(OmegaConf.load(path), "_target_") != target:
        return target.rpartition(".")[2]
    return choice


OmegaConf.register_new_resolver("model_name", model_name, replace=True)
