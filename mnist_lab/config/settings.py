"""Resolve, flatten and compare configurations."""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from mnist_lab.config import conf_dir
from mnist_lab.config.keys import DATA_ORIGIN, IGNORED_FOR_IDENTITY
from mnist_lab.errors import UsageError
from mnist_lab.formatting import format_value


def to_plain(node: DictConfig | ListConfig) -> Any:
    """Convert a node to plain dicts and lists, with interpolations as text."""
    return OmegaConf.to_container(node, resolve=False)


def original_overrides(cfg: DictConfig) -> list[str]:
    """Return a job's overrides as given, with environment variables unresolved."""
    return list(to_plain(cfg.overrides))


def resolve_settings(cfg: DictConfig) -> None:
    """Resolve interpolations in place, but not those of environment variables: no secret is written to a file."""
    kept = [(node, key, _resolve_within(node, text)) for node, key, text in _environment_nodes(cfg)]
    OmegaConf.resolve(cfg)
    for node, key, text in kept:
        with flag_override(node, "readonly", False):
            node[key] = text


def _resolve_within(node: DictConfig | ListConfig, text: str) -> str:
    """Resolve the interpolations inside one of an environment variable: what they read may be gone later."""
    while found := re.search(r"(?<=.)\$\{(?!oc\.env:|folder\})[^${}]*\}", text):
        value = OmegaConf.create({"value": found[0]}, parent=node).value
        text = text[: found.start()] + str(value) + text[found.end() :]
    return text


def require_environment(cfg: DictConfig) -> None:
    """Raise UsageError if a setting uses an environment variable that is not set."""
    try:
        OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0].partition("resolving interpolation: ")[2] or str(error).splitlines()[0]
        raise UsageError(f"{error.full_key}: {reason.strip(chr(34))}") from error


def _environment_nodes(node: DictConfig | ListConfig) -> Iterator[tuple[Any, Any, str]]:
    """Yield each interpolation to be kept below a node: its container, its key or index there, and its text."""
    plain = to_plain(node)
    if not isinstance(plain, dict | list):
        return
    for key, text in list(plain.items()) if isinstance(plain, dict) else list(enumerate(plain)):
        if OmegaConf.is_interpolation(node, key):
            # An override with the run's folder in it holds for another folder once the run has moved.
            if "oc.env" in text or ("${folder}" in text and isinstance(node, ListConfig)):
                yield node, key, text
        elif OmegaConf.is_config(node[key]):
            yield from _environment_nodes(node[key])


def flatten(node: DictConfig, path: str = "") -> dict[str, Any]:
    """Return a configuration's leaf values by dotted key."""
    found: dict[str, Any] = {}
    for name in map(str, node):
        value = node[name] if not OmegaConf.is_interpolation(node, name) else to_plain(node)[name]
        if isinstance(value, str):  # a loaded run's interpolations are escaped
            value = re.sub(r"(\\*)\1\\\$\{", r"\1${", value)
        key = f"{path}{name}"
        if is_list_of_nodes(value):
            for i, each in enumerate(value):
                found |= flatten(each, f"{key}.{i}.")
        else:
            found |= flatten(value, f"{key}.") if isinstance(value, DictConfig) else {key: value}
    return found


def is_list_of_nodes(value: Any) -> bool:
    """Return whether a value is a list of groups of settings, as the members of an ensemble are."""
    return isinstance(value, ListConfig) and len(value) > 0 and all(isinstance(each, dict) for each in to_plain(value))


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Return a short name for each key: its last part if unique, else the whole key."""
    last = {key: key.rsplit(".", 1)[-1] for key in keys}
    return {key: name if list(last.values()).count(name) == 1 else key for key, name in last.items()}


@cache
def known_names() -> frozenset[str]:
    """Return the names of the settings and groups that a configuration of this version may have at its top."""
    root = OmegaConf.load(conf_dir() / "train.yaml")
    groups = (str(name) for choice in root.defaults if isinstance(choice, DictConfig) for name in choice)
    return frozenset({"tutorial", *map(str, root), *groups})


def identity_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that identify a job, by dotted key: those in which two jobs differ."""
    return {key: value for key, value in settings.items() if not IGNORED_FOR_IDENTITY.match(key)}


def differing_settings(*jobs: DictConfig) -> dict[str, list[Any]]:
    """Return the settings in which jobs differ, with the value of each job; None where it has no such setting."""
    settings = [
        {
            key: value
            for key, value in identity_settings(flatten(job)).items()
            if key.split(".")[0] in known_names() and not DATA_ORIGIN.match(key)
        }
        for job in jobs
    ]
    keys = dict.fromkeys(key for each in settings for key in each)
    values = {key: [each.get(key) for each in settings] for key in keys}
    found = {key: of_each for key, of_each in values.items() if any(value != of_each[0] for value in of_each)}
    if "name" in found:  # which follows from model, the key that a person writes
        found = {"model": found.pop("name")} | found
        found.pop("model._target_", None)
    return found


def format_differences(first: DictConfig, second: DictConfig) -> dict[str, tuple[str, str]]:
    """Return the settings in which two jobs differ, by key, formatted as on the command line."""
    return {
        key: (format_value(one), format_value(other)) for key, (one, other) in differing_settings(first, second).items()
    }
