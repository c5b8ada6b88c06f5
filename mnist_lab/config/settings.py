"""Load, resolve, flatten and compare configurations."""

import io
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from mnist_lab.config import conf_dir
from mnist_lab.config.keys import ADDED_KEYS, IGNORED_FOR_IDENTITY
from mnist_lab.errors import UsageError
from mnist_lab.formatting import format_value

MAX_DEPTH = 50  # of nested brackets in a run's configuration


def to_plain(node: DictConfig | ListConfig) -> Any:
    """Convert a node to plain dicts and lists, with interpolations as text."""
    return OmegaConf.to_container(node, resolve=False)


def original_overrides(cfg: DictConfig) -> list[str]:
    """Return a job's overrides as given, with environment variables unresolved."""
    return list(to_plain(cfg.overrides))


def resolve_settings(cfg: DictConfig, *, with_environment: bool = True) -> None:
    """Resolve interpolations in place, but not those of environment variables: no secret is written to a file."""
    kept = list(_environment_nodes(cfg))

    def put_back(value: Callable[[str], Any]) -> None:
        for node, key, text in kept:
            with flag_override(node, "readonly", False):
                node[key] = value(text)

    if not with_environment:
        put_back(lambda text: None)
    OmegaConf.resolve(cfg)
    put_back(str)


def require_environment(cfg: DictConfig) -> None:
    """Raise UsageError if a setting uses an environment variable that is not set."""
    try:
        OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0].partition("resolving interpolation: ")[2] or str(error).splitlines()[0]
        raise UsageError(f"{error.full_key}: {reason.strip(chr(34))}") from error


def load_config(path: Path) -> DictConfig:
    """Load a run's config.yaml."""
    try:
        text = path.read_text(encoding="utf-8")
        _reject_yaml_bombs(text)
        cfg = OmegaConf.load(io.StringIO(text))
        if not isinstance(cfg, DictConfig) or not cfg:
            raise ValueError("it holds no settings")
        _reject_non_string_keys(to_plain(cfg))
        resolve_settings(cfg, with_environment=False)
        _add_keys(cfg)
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise UsageError(f"{path}: not a run's configuration ({reason[:200]})") from error
    return cfg


def _add_keys(cfg: DictConfig) -> None:
    """Add the settings that are younger than the run."""
    for key, value in ADDED_KEYS.items():
        group, _, name = key.rpartition(".")
        node = OmegaConf.select(cfg, group) if group else cfg
        if isinstance(node, DictConfig) and name not in node:
            node[name] = value


def _reject_yaml_bombs(text: str) -> None:
    """Raise ValueError for small YAML that takes long to load: nested aliases, deeply nested brackets."""
    depth = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it has an alias, *{event.anchor}")
        depth += isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent)
        depth -= isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")


def _reject_non_string_keys(plain: Any) -> None:
    """Raise ValueError for a key that is not a string."""
    for key, value in plain.items() if isinstance(plain, dict) else enumerate(plain):
        if isinstance(plain, dict) and not isinstance(key, str):
            raise ValueError(f"the key {key} is not text")
        if isinstance(value, dict | list):
            _reject_non_string_keys(value)


def _environment_nodes(node: DictConfig | ListConfig) -> Iterator[tuple[Any, Any, str]]:
    """Yield each interpolation to be kept below a node: its container, its key or index there, and its text."""
    plain = to_plain(node)
    if not isinstance(plain, dict | list):
        return
    for key, text in list(plain.items()) if isinstance(plain, dict) else list(enumerate(plain)):
        if OmegaConf.is_interpolation(node, key):
            # An override with the run's folder in it holds for another folder once the run has moved.
            if "oc.env:" in text or ("${folder}" in text and isinstance(node, ListConfig)):
                yield node, key, text
        elif OmegaConf.is_config(node[key]):
            yield from _environment_nodes(node[key])


def flatten(node: DictConfig, path: str = "") -> dict[str, Any]:
    """Return a configuration's leaf values by dotted key."""
    found: dict[str, Any] = {}
    for name in map(str, node):
        value = to_plain(node)[name] if OmegaConf.is_interpolation(node, name) else node[name]
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
        {key: value for key, value in identity_settings(flatten(job)).items() if key.split(".")[0] in known_names()}
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
