"""Resolve, flatten and compare configurations."""

import re
from collections import Counter
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
    """Return the overrides of a job as they were typed, with variables of the environment unresolved."""
    return list(to_plain(cfg.overrides))


def resolve_settings(cfg: DictConfig) -> None:
    """Resolve interpolations in place, except variables of the environment: no file may have the value of a secret."""
    kept = [(node, key, _resolve_within(node, text)) for node, key, text in _kept_interpolations(cfg)]
    OmegaConf.resolve(cfg)
    for node, key, text in kept:
        with flag_override(node, "readonly", False):
            node[key] = text


def _resolve_within(node: DictConfig | ListConfig, text: str) -> str:
    """Resolve the interpolations inside one of a variable: the settings that they read may be gone later."""
    while match := re.search(r"(?<=.)\$\{(?!oc\.env:|folder\})[^${}]*\}", text):
        value = OmegaConf.create({"value": match[0]}, parent=node).value
        text = text[: match.start()] + str(value) + text[match.end() :]
    return text


def require_environment(cfg: DictConfig) -> None:
    """Raise UsageError if a setting uses a variable of the environment that is not set."""
    try:
        OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0].split("resolving interpolation: ")[-1]
        raise UsageError(f"{error.full_key}: {reason.strip(chr(34))}") from error


def _kept_interpolations(node: DictConfig | ListConfig) -> Iterator[tuple[Any, Any, str]]:
    """Yield each interpolation below a node that stays one: its container, its key or index there, and its text."""
    plain = to_plain(node)
    if not isinstance(plain, dict | list):
        return
    for key, text in list(plain.items()) if isinstance(plain, dict) else list(enumerate(plain)):
        if OmegaConf.is_interpolation(node, key):
            # In a list of overrides, ${folder} has to mean another folder once the run has moved.
            if "oc.env" in text or ("${folder}" in text and isinstance(node, ListConfig)):
                yield node, key, text
        elif OmegaConf.is_config(node[key]):
            yield from _kept_interpolations(node[key])


def flatten(node: DictConfig, path: str = "") -> dict[str, Any]:
    """Return a configuration's leaf values by dotted key."""
    leaves: dict[str, Any] = {}
    for name, plain in to_plain(node).items():
        value = plain if OmegaConf.is_interpolation(node, name) else node[name]
        key = f"{path}{name}"
        if isinstance(value, DictConfig):
            leaves |= flatten(value, f"{key}.")
        elif is_list_of_nodes(value):
            for i, each in enumerate(value):
                leaves |= flatten(each, f"{key}.{i}.")
        elif isinstance(value, str):
            leaves[key] = re.sub(r"(\\*)\1\\\$\{", r"\1${", value)  # Interpolations of a loaded run are escaped.
        else:
            leaves[key] = value
    return leaves


def walk(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield a plain value and all values below it, each with its dotted key."""
    yield key, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, below in items:
        yield from walk(below, f"{key}.{name}")


def is_list_of_nodes(value: Any) -> bool:
    """Return whether a value is a list of groups of settings, such as the members of an ensemble."""
    return isinstance(value, ListConfig) and len(value) > 0 and all(isinstance(each, dict) for each in to_plain(value))


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Return a short name for each key: its last part if unique, else the whole key."""
    last_parts = {key: key.rsplit(".", 1)[-1] for key in keys}
    counts = Counter(last_parts.values())
    return {key: part if counts[part] == 1 else key for key, part in last_parts.items()}


@cache  # The file does not change while the program runs.
def known_names() -> frozenset[str]:
    """Return the names of the settings and groups that a configuration of this version may have at its top."""
    root = OmegaConf.load(conf_dir() / "train.yaml")
    groups = (str(name) for choice in root.defaults if isinstance(choice, DictConfig) for name in choice)
    return frozenset({"tutorial", *map(str, root), *groups})


def identity_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return those of some settings that identify a job, by dotted key."""
    return {key: value for key, value in settings.items() if not IGNORED_FOR_IDENTITY.match(key)}


def differing_settings(*jobs: DictConfig) -> dict[str, list[Any]]:
    """Return the settings in which jobs differ, with the value of each job; None where it has no such setting."""
    settings = [identity_settings(flatten(job)) for job in jobs]
    differing: dict[str, list[Any]] = {}
    for key in dict.fromkeys(key for each in settings for key in each):
        values = [each.get(key) for each in settings]
        values = [to_plain(value) if isinstance(value, ListConfig) else value for value in values]
        is_compared = key.split(".")[0] in known_names() and not DATA_ORIGIN.match(key)
        if is_compared and any(value != values[0] for value in values):
            differing[key] = values
    if "name" in differing:  # The user chooses the name by the key model.
        differing = {"model": differing.pop("name")} | differing
        differing.pop("model._target_", None)
    return differing


def format_differences(first: DictConfig, second: DictConfig) -> dict[str, tuple[str, str]]:
    """Return the settings in which two jobs differ, by key, formatted as on the command line."""
    differing = differing_settings(first, second)
    return {key: (format_value(one), format_value(other)) for key, (one, other) in differing.items()}
