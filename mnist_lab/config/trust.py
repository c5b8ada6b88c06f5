"""Decide what a configuration from elsewhere may import and resolve: docs/explanation/trust.md tells users.

A run folder may come from a stranger. `load_config` alone reads its config.yaml, `import_module` alone imports what
that names, and the functions that begin with `reject_` alone say what of its record `resume` does not take.
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
from mnist_lab.formatting import HIDDEN, shorten

UNREADABLE = (OSError, ValueError, ArithmeticError, TypeError, RecursionError, yaml.YAMLError, OmegaConfBaseException)
RECORDS = ("run.json", "sweep.json", "reproduce.json")  # make a folder that of a run, a sweep or a reproduction
MAX_BYTES, MAX_VALUES, MAX_DEPTH, MAX_TEXT = 1_000_000, 20_000, 50, 50_000  # A larger configuration is refused.
MAX_INTERPOLATIONS, MAX_INTERPOLATION = 20, 1000  # How many are allowed, and how long a value with one may be.
PATHS = ("data.root", "data.source.path")  # Only here is a variable of the environment resolved.
PLAIN_VARIABLES = re.compile(r"([^$]|\$\{oc\.env:\w+(,[^${}]*)?\})*")
REACHES = "fetches, sends or writes elsewhere than in the run folder"
MAX_FOLDERS = 20_000  # A folder with more is not searched for runs, and counts as one that has them.
SAVES = re.compile(r"(callbacks|logger|trainer)(\.(?!.*\.monitor$)|$)")  # a metric's name has a slash
OUTPUT = re.compile(rf"{SAVES.pattern}.*(dir|path|folder|uri|\._args_\.\d+)$")  # where files go; a filename stays in it
SENT = re.compile(r"(callbacks|logger|trainer|data\.source)(\.(?!path$)|$)|data$")  # may write, or become a request
NESTED = re.compile(r"\$\{(?!direction:)[^}]*\$\{")  # would hide which variable is read
SOURCES: dict[str, Any] = {"mirrors": None, "package": None, "folders": []}  # where data come from, by their defaults


def load_config(path: Path) -> DictConfig:
    """Load a run's config.yaml; its interpolations are text, but for variables of the environment in PATHS."""
    try:
        cfg = _load_yaml(path)
        if not isinstance(cfg, DictConfig) or not cfg:
            raise ValueError("it holds no settings")
        _disarm(cfg, to_plain(cfg))
        for setting, value in ADDED_KEYS.items():  # those that are younger than the run
            group, _, name = setting.rpartition(".")
            node = OmegaConf.select(cfg, group) if group else cfg
            if isinstance(node, DictConfig) and name not in node:
                node[name] = value
    except UNREADABLE as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise UsageError(f"{path}: not a run's configuration ({reason[:200]})") from error
    return cfg


def _load_yaml(path: Path, *, composed: bool = True) -> Any:
    """Load a stranger's YAML file; one that was composed has no interpolations but those of oc.env."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ValueError("it is not a file of the run folder")
    with path.open(encoding="utf-8") as file:
        text = file.read(MAX_BYTES + 1)
    _reject_large(text, composed=composed)
    cfg = OmegaConf.load(io.StringIO(text))
    if any(isinstance(value, int) and abs(value) > 10**100 for _, value in walk(to_plain(cfg), "")):
        raise ValueError("it has too large a number")
    return cfg


def _reject_large(text: str, *, composed: bool) -> None:
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
            if (composed and "oc.env" not in value) or len(value) > MAX_INTERPOLATION:  # a run records no others
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
    """Return the folder of a run, or the one that has runs at any depth, in which a place lies; None outside."""
    place, resolved = place.absolute(), place.resolve()
    for folder in dict.fromkeys((place, *place.parents, resolved, *resolved.parents)):
        if any((folder / name).is_file() for name in RECORDS):
            return folder
    entries = {Path.cwd(), *(Path(entry).absolute() for entry in sys.path)}
    top = next((folder for folder in (place, *place.parents) if folder.parent in entries), None)
    if top is None or top.parent.name in ("site-packages", "dist-packages"):
        return None
    found = (number > MAX_FOLDERS or {*RECORDS} & {*files} for number, (_, _, files) in enumerate(os.walk(top)))
    return top if any(found) else None


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
        if NESTED.search(override) or any(reaches_out(key, value, record.parent) for key, value in values):
            raise UsageError(f"{record}: the override {override!r} {REACHES}; if it is yours, give it again")


def reaches_out(key: str, value: Any, folder: Path) -> bool:
    """Return whether a setting says where data come from, what is sent, or a place outside a folder to write to."""
    if set(key.split(".")) & {"mirrors", "package"}:
        return bool(value)
    if not isinstance(value, str):
        return False
    if ".." in Path(value).parts and key not in (*PATHS, "runs_dir", "init_from", "folder"):
        return True
    text = re.sub(r"^\$\{folder\}(?=/|$)", lambda found: str(folder.absolute()), value)
    is_place = text and (OUTPUT.search(key) or (SAVES.match(key) and os.sep in text))
    is_outside = is_place and not Path(text).resolve().is_relative_to(folder.resolve())
    return bool(is_outside or (SENT.match(key) and "${" in text))


def reject_config_dir(record: Path, config_dir: Path) -> None:
    """Raise UsageError for a folder of configurations in a run's record that may be a stranger's, or sets up Hydra."""
    remedy = f"if you trust it, add --config-dir {config_dir}"
    place, here = config_dir.resolve(), Path.cwd().resolve()
    common = Path(os.path.commonpath([place, record.parent.resolve()]))
    if (folder := folder_of_runs(config_dir)) or here.is_relative_to(place) or not here.is_relative_to(common):
        raise UsageError(f"{record}: its config_dir {config_dir} is below {folder or common}, as runs are; {remedy}")
    for path in sorted(path for path in config_dir.rglob("*") if path.suffix == ".yaml" or path.is_symlink()):
        try:
            text = f"{path.relative_to(config_dir)} {to_plain(_load_yaml(path, composed=False))}"
            package = re.search(r"@package.*hydra", path.read_text(encoding="utf-8"))
            if package or NESTED.search(text) or re.search(r"hydra|\.\.", text):
                raise ValueError("it has settings of Hydra, '..', or an interpolation within another")
        except UNREADABLE as error:
            raise UsageError(f"{path}: {shorten(str(error))}; {remedy}") from error
        _hide_variables(text)


def reject_composed(record: Path, cfg: DictConfig, given: Container[str]) -> None:
    """Raise UsageError for a setting composed from a recorded config_dir that reaches out of the run, unless given."""
    ours = [
        (key.removeprefix("experiment."), str(value).replace("${runs_dir}", "runs"))
        for path in conf_dir().glob("*/*.yaml")
        for key, value in walk(to_plain(OmegaConf.load(path)), path.parent.name)
    ]
    folder = record.parent.absolute()
    for name in {*cfg} - {"overrides", "config_dir"}:
        for key, value in walk(to_plain(cfg)[name], str(name)):
            is_given = key in given or key.rpartition(".")[0] in given
            moved = key == "folder" and value != str(folder)
            if (moved or reaches_out(key, value, folder)) and not is_given and (key, value) not in ours:
                raise UsageError(
                    f"{record}: its config_dir sets {key}, which {REACHES}; give it, or --config-dir, again"
                )


def walk(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield a value and all values below it, each with its dotted key."""
    yield key, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, below in items:
        yield from walk(below, f"{key}.{name}")
