"""Identify jobs: an id computed from the settings of a job, and the name of its folder."""

import hashlib
import json
import re
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mnist_lab.config.keys import ADDED_KEYS
from mnist_lab.config.overrides import override_values
from mnist_lab.config.settings import flatten, identity_settings, short_names, to_plain
from mnist_lab.runs.sweep import Sweep


def job_id(config: DictConfig) -> str:
    """Return the id of a job, 12 hexadecimal digits: a hash of the settings that identify it.

    It follows from Hydra's whole configuration. An added key with its default does not change it.
    """
    cfg = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    cfg.folder = ""
    OmegaConf.resolve(cfg)
    settings = identity_settings(flatten(cfg))
    settings = {key: value for key, value in settings.items() if ADDED_KEYS.get(key, ...) != value}
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:12]


def job_folder(config: DictConfig) -> str:
    """Return the name of a job's folder: its values of the swept keys, and its id, by which it is found again."""
    folder, name = Path(config.hydra.sweep.dir), job_id(config)
    for path in folder.glob(f"*-{name}"):
        return path.name
    swept = Sweep(folder).record["swept"] if Sweep(folder).exists else []
    given = override_values(to_plain(config.hydra.overrides.task))
    names = short_names([key for key in given if not swept or key in swept])
    return file_name(",".join(f"{short}={given[key]}" for key, short in names.items())) + f"-{name}"


def file_name(text: str) -> str:
    """Return a text as a file name: other characters than letters, digits and .,=+- as underscores, shortened."""
    return re.sub(r"[^\w.,=+-]", "_", text)[:150]


def register_job_folder() -> None:
    """Register the resolver ${job_folder:}, with which conf/train.yaml names the folder of a sweep's job."""
    OmegaConf.register_new_resolver("job_folder", lambda *, _root_: job_folder(_root_), replace=True)
