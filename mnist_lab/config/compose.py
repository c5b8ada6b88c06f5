"""Compose the main job's configuration with Hydra, and resolve it."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from mnist_lab.config import conf_dir
from mnist_lab.config.distributed import local_processes, machines, start_time
from mnist_lab.config.keys import OPTIONAL
from mnist_lab.config.metric_names import direction
from mnist_lab.config.overrides import compose_with_hydra, explain_composition_error, override_key
from mnist_lab.config.settings import resolve_settings, to_plain

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


def compose(*overrides: str, config_dir: str | None = None) -> DictConfig:
    """Compose the main job's configuration, with a new run folder.

    Args:
        overrides: in Hydra's grammar, as on the command line.
        config_dir: a folder of your own whose files add choices, as --config-dir does.

    Returns:
        The configuration, as `mnist_lab.train` takes it.

    Raises:
        UsageError: an override is not valid.
    """
    config = compose_with_hydra(overrides, config_dir)
    cfg = job_config(config)
    cfg.config_dir = config_dir and str(Path(config_dir).absolute())
    return cfg


def job_config(config: DictConfig) -> DictConfig:
    """Return the job's part of Hydra's whole configuration, resolved, with the run folder that Hydra would use."""
    config = copy.deepcopy(config)
    instance = HydraConfig.instance()
    before = instance.cfg
    try:
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.runtime.output_dir = str(Path(config.hydra.run.dir).absolute())
        instance.set_config(config)
        with open_dict(config):
            hydra_config = config.pop("hydra")
        return resolve_job(config, hydra_config)
    except OmegaConfBaseException as error:
        raise explain_composition_error(error) from error
    finally:
        instance.cfg = before


def resolve_job(cfg: DictConfig, hydra_config: Any) -> DictConfig:
    """Resolve the interpolations of a job's configuration, except those of environment variables."""
    cfg.overrides = to_plain(hydra_config.overrides.task)  # Hydra's own list cannot be written to
    _drop_settings_of_none(cfg)
    resolve_settings(cfg)
    return cfg


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
