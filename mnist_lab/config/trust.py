"""Decide what a configuration from elsewhere may import and resolve: docs/explanation/trust.md tells users.

A run folder may come from a stranger. `load_config` alone reads its config.yaml, `import_module` alone imports what
that names, and `reject_untrusted` alone says which of its recorded overrides `resume` does not take.
"""

import importlib.util
import io
import os
import re
import sys
from collections.abc import Container, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_lab.config import conf_dir
from mnist_lab.config.keys import ADDED_KEYS
from mnist_lab.config.settings import to_plain
from mnist_lab.errors import UsageError
from mnist_lab.formatting import HIDDEN

UNREADABLE = (OSError, ValueError, ArithmeticError, TypeError, RecursionError, yaml.YAMLError, OmegaConfBaseException)
RECORDS = ("run.json", "sweep.json", "reproduce.json")  # make a folder that of a run, a sweep or a reproduction
MAX_BYTES, MAX_VALUES, MAX_DEPTH, MAX_TEXT = 1_000_000, 20_000, 50, 50_000  # A larger configuration is refused.
MAX_INTERPOLATIONS, MAX_INTERPOLATION = 20, 1000  # How many are allowed, and how long a value with one may be.
PATHS = ("data.root", "data.source.path")  # Only here is a variable of the environment resolved.
PLAIN_VARIABLES = re.compile(r"([^$]|\$\{oc\.env:\w+(,[^${}]*)?\})*")
SAVES = re.compile(r"(callbacks|logger|trainer)\.(?!.*\.monitor$)")  # a metric's name has a slash
OUTPUT = re.compile(rf"{SAVES.pattern}.*(dir|path|folder|\._args_\.\d+)$")  # where files go; a filename stays in it
SENT = re.compile(r"(logger|data\.source)\.(?!path$)")  # settings that may become part of a request
SOURCES: dict[str, Any] = {"mirrors": None, "package": None, "folders": []}  # where data come from, by their defaults


def load_config(path: Path) -> DictConfig:
    """Load a run's config.yaml; its interpolations are text, but for variables of the environment in PATHS."""
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise ValueError("it is not a file of the run folder")
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_BYTES + 1)
        _reject_large(text)
        cfg = OmegaConf.load(io.StringIO(text))
        if not isinstance(cfg, DictConfig) or not cfg:
            raise ValueError("it holds no settings")
        _disarm(cfg, to_plain(cfg))
        _add_keys(cfg)
    except UNREADABLE as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise UsageError(f"{path}: not a run's configuration ({reason[:200]})") from error
    return cfg


def _reject_large(text: str) -> None:
    """Raise ValueError for YAML that takes long to load, or that would grow when it is resolved."""
    if len(text) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} characters")
    depth = interpolations = 0
    for number, event in enumerate(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it has an alias, *{event.anchor}")
        depth += isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent)
        depth -= isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        value = event.value.replace("${folder}", "") if isinstance(event, yaml.ScalarEvent) else ""  # of an override
        if "${" in value:
            interpolations += 1
            if "oc.env" not in value or len(value) > MAX_INTERPOLATION:  # a run records no others
                raise ValueError(f"{value[:60]!r} is an interpolation; write the value")
        if number > MAX_VALUES or len(value) > MAX_TEXT or interpolations > MAX_INTERPOLATIONS:
            raise ValueError("it has more, or longer, values than a run's")


def _disarm(node: Any, plain: Any, path: str = "") -> None:
    """Turn each interpolation below a node into text, but for PATHS, and take the places of the data from this version.

    Nothing is downloaded into a folder that the run names.
    """
    for key, value in list(plain.items()) if isinstance(plain, dict) else list(enumerate(plain)):
        if isinstance(plain, dict) and not isinstance(key, str):
            raise ValueError(f"the key {key} is not text")
        place = f"{path}{key}"
        if place == "data.root" and value is not None:
            node["download"] = False
        if path.startswith("data.") and key in SOURCES and (key != "folders" or "sha256" in plain):
            node[key] = _known_sources().get(str(plain.get("name")), SOURCES)[key]
        elif isinstance(value, dict | list):
            _disarm(node[key], value, f"{place}.")
        elif isinstance(value, str) and "${" in value and not (place in PATHS and _is_place_or_unset(value)):
            node[key] = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)


def _is_place_or_unset(text: str) -> bool:
    """Return whether a text is a path that exists, or uses a variable that is not set, as an error will say."""
    if not PLAIN_VARIABLES.fullmatch(text):
        return False
    _hide_variables(text)
    try:
        return Path(OmegaConf.create({"path": text}).path or "").expanduser().exists()
    except OmegaConfBaseException:
        return True
    except (OSError, ValueError, RuntimeError):
        return False


def _hide_variables(text: str) -> None:
    """Have the values of the variables that a text names never shown."""
    for name in re.findall(r"oc\.env\W*(\w+)", text):
        if len(value := os.environ.get(name, "")) > 3:
            HIDDEN[value] = f"${{oc.env:{name}}}"


def _add_keys(cfg: DictConfig) -> None:
    """Add the settings that are younger than the run."""
    for key, value in ADDED_KEYS.items():
        group, _, name = key.rpartition(".")
        node = OmegaConf.select(cfg, group) if group else cfg
        if isinstance(node, DictConfig) and name not in node:
            node[name] = value


@cache
def _known_sources() -> dict[str, dict[str, Any]]:
    """Return the sources of data of conf/, by their names."""
    nodes = (to_plain(OmegaConf.load(path)).get("source", {}) for path in (conf_dir() / "data").glob("*.yaml"))
    return {node["name"]: SOURCES | node for node in nodes if node.get("name")}


def import_module(name: str) -> ModuleType:
    """Import a module that a configuration names; one that lies among runs is found, but not run."""
    if name not in sys.modules:
        if name.partition(".")[0] in sys.stdlib_module_names or name.endswith(".__main__"):
            raise ImportError("it has no class that a configuration may use")
        spec = importlib.util.find_spec(name)
        for place in [spec.origin, *(spec.submodule_search_locations or [])] if spec else []:
            if place is not None and (folder := folder_of_runs(Path(place))):
                where = "has" if folder == Path(place) else f"lies in {folder}, which has"
                raise ImportError(f"{place} {where} runs in it; keep your own modules elsewhere")
    return importlib.import_module(name)


def folder_of_runs(place: Path) -> Path | None:
    """Return the folder of a run, or the one that has runs in it, that a file or folder lies in; None outside."""
    place, resolved = place.absolute(), place.resolve()
    for folder in dict.fromkeys((place, *place.parents, resolved, *resolved.parents)):
        if any((folder / name).is_file() for name in RECORDS):
            return folder
    entries = {Path(entry).absolute() for entry in sys.path}
    root = next((folder for folder in place.parents if folder in entries), None)
    if root is None or root.name in ("site-packages", "dist-packages"):
        return None
    below = [folder for folder in (place, *place.parents) if root in folder.parents]
    patterns = [f"{depth}/{name}" for depth in ("*", "*/*", "*/*/*") for name in RECORDS]
    return next((folder for folder in below if any(any(folder.glob(pattern)) for pattern in patterns)), None)


def reject_untrusted(record: Path, overrides: Sequence[str], given: Container[str]) -> None:
    """Raise UsageError for an override in the record of a run to resume that reaches out of it, unless given again."""
    from mnist_lab.config.overrides import override_key, parse_override  # imports Hydra

    for override in overrides:
        if re.match(r"-|[^=]*\bhydra\b", override):  # it could run any program
            raise UsageError(f"{record}: the override {override!r} is not one of a run; remove it")
        _hide_variables(override)
    kept = [override for override in overrides if override_key(override) not in given]
    if sum(override.count("${") for override in kept) > MAX_INTERPOLATIONS:
        raise UsageError(f"{record}: its overrides have more than {MAX_INTERPOLATIONS} interpolations")
    for override in kept:
        parsed = parse_override(override)
        values = walk(parsed.value(), parsed.key_or_group)
        is_nested = re.search(r"\$\{[^}]*\$\{", override)
        if is_nested or any(_reaches_out(key, value, record.parent) for key, value in values):
            reason = "fetches, sends or writes elsewhere than in the run folder"
            raise UsageError(f"{record}: the override {override!r} {reason}; if it is yours, give it again")


def _reaches_out(key: str, value: Any, folder: Path) -> bool:
    """Return whether a setting says where data come from, what is sent, or a place outside a folder to write to."""
    text = value if isinstance(value, str) else ""
    if set(key.split(".")) & {"mirrors", "package"} or (SENT.match(key) and "${" in text):
        return True
    if not text or not (OUTPUT.search(key) or (SAVES.match(key) and os.sep in text)):
        return False
    inside = text.startswith("${folder}") or Path(text).absolute().is_relative_to(folder.absolute())
    return not inside or text.count("${") > 1 or ".." in Path(text).parts


def walk(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield a value and all values below it, each with its dotted key."""
    yield key, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, below in items:
        yield from walk(below, f"{key}.{name}")
