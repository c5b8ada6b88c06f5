"""Decide what a configuration from elsewhere may import and resolve; docs/explanation/trust.md has the promises.

A run folder may come from a stranger. Only `load_config` reads its config.yaml, only `import_outside_runs` imports the
modules that it names, and only the functions `reject_...` decide what `resume` refuses to take from its record.
"""

import importlib.util
import io
import os
import re
import sys
from collections.abc import Container, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_lab.config import conf_dir
from mnist_lab.config.keys import ADDED_KEYS
from mnist_lab.config.settings import to_plain, walk
from mnist_lab.errors import UsageError
from mnist_lab.formatting import HIDDEN

UNREADABLE = (OSError, ValueError, ArithmeticError, TypeError, RecursionError, yaml.YAMLError, OmegaConfBaseException)
RECORDS = ("run.json", "sweep.json", "reproduce.json")  # They mark the folders of runs, sweeps and reproductions.
# A larger configuration is refused, and so is one with a longer value.
MAX_CHARACTERS, MAX_VALUES, MAX_DEPTH, MAX_LENGTH = 1_000_000, 20_000, 50, 50_000
MAX_INTERPOLATIONS, MAX_INTERPOLATION_LENGTH = 20, 1000
MAX_FOLDERS = 20_000  # A folder with more is not searched for runs, and counts as one that has them.
PATHS = ("data.root", "data.source.path")  # Variables of the environment are resolved only in these.
PLAIN_VARIABLES = re.compile(r"([^$]|\$\{oc\.env:\w+(,[^${}]*)?\})*")
NESTED_INTERPOLATION = re.compile(r"\$\{[^}]*\$\{")  # The inner one hides which variable is read.
# The values of these keys may become the path of a file. The metric that a callback monitors has a slash, and is none.
MAY_SAVE = re.compile(r"(callbacks|logger|trainer)(\.(?!.*\.monitor$)|$)")
IS_OUTPUT = re.compile(rf"{MAY_SAVE.pattern}.*(dir|path|folder|uri|\._args_\.\d+)$")
# The values of these keys may be written to a file or become part of a request.
MAY_LEAK = re.compile(r"(callbacks|logger|trainer|data\.source)(\.(?!path$)|$)|data$")
ORIGIN: dict[str, Any] = {"mirrors": None, "package": None, "folders": []}  # No data are fetched with these defaults.


def load_config(path: Path) -> DictConfig:
    """Load a run's config.yaml; its interpolations become text, except variables of the environment in PATHS."""
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise ValueError("it is not a file of the run folder")
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS + 1)
        _reject_large(text)
        cfg = OmegaConf.load(io.StringIO(text))
        if not isinstance(cfg, DictConfig) or not cfg:
            raise ValueError("it holds no settings")
        plain = to_plain(cfg)
        if any(isinstance(value, int) and abs(value) > 10**100 for _, value in walk(plain, "")):
            raise ValueError("it has too large a number")
        _disarm(cfg, plain)
        for key, value in ADDED_KEYS.items():
            group, _, name = key.rpartition(".")
            node = OmegaConf.select(cfg, group) if group else cfg
            if isinstance(node, DictConfig) and name not in node and value is not None:  # Without a key, it is null.
                node[name] = value
    except UNREADABLE as error:
        raise UsageError(f"{path}: not a run's configuration ({' '.join(str(error).split())[:200]})") from error
    return cfg


def _reject_large(text: str) -> None:
    """Raise ValueError for YAML that takes long to load, or that would grow when it is resolved."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"it has more than {MAX_CHARACTERS:,} characters")
    depth = interpolations = 0
    for number, event in enumerate(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it has an alias, *{event.anchor}")
        depth += isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent)
        depth -= isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        # A run records ${folder} in its overrides, and no other interpolation but those of oc.env.
        value = event.value.replace("${folder}", "") if isinstance(event, yaml.ScalarEvent) else ""
        if "${" in value:
            interpolations += 1
            if "oc.env" not in value or len(value) > MAX_INTERPOLATION_LENGTH:
                raise ValueError(f"{value[:60]!r} is an interpolation; write the value")
        if number > MAX_VALUES or len(value) > MAX_LENGTH or interpolations > MAX_INTERPOLATIONS:
            raise ValueError("it has more, or longer, values than a run's")


def _disarm(node: Any, plain: Any, path: str = "") -> None:
    """Turn a loaded configuration's interpolations into text, but for PATHS, and say anew where data are."""
    for name, value in list(plain.items()) if isinstance(plain, dict) else list(enumerate(plain)):
        if isinstance(plain, dict) and not isinstance(name, str):
            raise ValueError(f"the key {name} is not text")
        key = f"{path}{name}"
        if key == "data.root" and value is not None:
            node["download"] = False  # Nothing is downloaded into a folder that the run names.
        if path.startswith("data.") and name in ORIGIN and (name != "folders" or "sha256" in plain):
            node[name] = _known_origins().get(str(plain.get("name")), ORIGIN)[name]
        elif isinstance(value, dict | list):
            _disarm(node[name], value, f"{key}.")
        elif isinstance(value, str) and "${" in value and not (key in PATHS and _is_path_or_unset(value)):
            node[name] = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)


def _is_path_or_unset(text: str) -> bool:
    """Return whether a text with variables is a path that exists, or a variable is unset, which an error will say."""
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
    """Never show the values of the variables that a text names."""
    for name in re.findall(r"oc\.env\W*(\w+)", text):
        if len(value := os.environ.get(name, "")) > 3:
            HIDDEN[value] = f"${{oc.env:{name}}}"


@cache  # The files do not change while the program runs.
def _known_origins() -> dict[str, dict[str, Any]]:
    """Return where this version fetches the data sets of conf/ from, by their names."""
    nodes = (to_plain(OmegaConf.load(path)).get("source", {}) for path in (conf_dir() / "data").glob("*.yaml"))
    return {node["name"]: ORIGIN | node for node in nodes if node.get("name")}


def import_outside_runs(name: str) -> ModuleType:
    """Import a module that a configuration names, unless its file is among runs: it is found before it is executed."""
    if name not in sys.modules:
        if name.partition(".")[0] in sys.stdlib_module_names or name.endswith(".__main__"):
            raise ImportError("it has no class that a configuration may use")
        spec = importlib.util.find_spec(name)
        for file in [spec.origin, *(spec.submodule_search_locations or [])] if spec else []:
            if file is not None and (folder := _find_folder_of_runs(Path(file))):
                where = "has" if folder == Path(file) else f"is in {folder}, which has"
                raise ImportError(f"{file} {where} runs in it; keep your own modules elsewhere")
    return importlib.import_module(name)


def _find_folder_of_runs(path: Path) -> Path | None:
    """Return the folder, a path or one above it, that is a run's or has runs at any depth; None if there is none."""
    path, resolved = path.absolute(), path.resolve()
    for folder in dict.fromkeys((path, *path.parents, resolved, *resolved.parents)):
        if any((folder / name).is_file() for name in RECORDS):
            return folder
    entries = {Path.cwd(), *(Path(entry).absolute() for entry in sys.path)}
    top = next((folder for folder in (path, *path.parents) if folder.parent in entries), None)
    if top is None or top.parent.name in ("site-packages", "dist-packages"):
        return None
    for number, (_, _, files) in enumerate(os.walk(top)):
        if number > MAX_FOLDERS or not {*RECORDS}.isdisjoint(files):
            return top
    return None


def reject_untrusted(record: Path, overrides: Sequence[str], typed: Container[str]) -> None:
    """Raise UsageError for a recorded override that acts outside the run folder, unless typed again."""
    from mnist_lab.config.overrides import override_key, parse_override  # This imports Hydra.

    for override in overrides:
        if re.match(r"-|[^=]*\bhydra\b", override):  # Hydra's settings can run any program.
            raise UsageError(f"{record}: the override {override!r} is not one of a run; remove it")
        _hide_variables(override)
    kept = [override for override in overrides if override_key(override) not in typed]
    if sum(override.count("${") for override in kept) > MAX_INTERPOLATIONS:
        raise UsageError(f"{record}: its overrides have more than {MAX_INTERPOLATIONS} interpolations")
    for override in kept:
        parsed = parse_override(override)
        values = walk(parsed.value(), parsed.key_or_group)
        if NESTED_INTERPOLATION.search(override) or any(_acts_outside(*each, record.parent) for each in values):
            reason = "fetches, sends or writes outside the run folder"
            raise UsageError(f"{record}: the override {override!r} {reason}; if it is yours, give it again")


def _acts_outside(key: str, value: Any, folder: Path) -> bool:
    """Return whether a setting may fetch, send, or write to a path outside a folder."""
    if not {"mirrors", "package"}.isdisjoint(key.split(".")):
        return bool(value)
    if not isinstance(value, str):
        return False
    if ".." in Path(value).parts and key not in (*PATHS, "runs_dir", "init_from", "distillation.run"):
        return True
    text = re.sub(r"^\$\{folder\}(?=/|$)", lambda _: str(folder.absolute()), value)
    is_written_to = text and (IS_OUTPUT.search(key) or (MAY_SAVE.match(key) and os.sep in text))
    if is_written_to and not Path(text).resolve().is_relative_to(folder.resolve()):
        return True
    return bool(MAY_LEAK.match(key)) and "${" in text


def reject_config_dir(record: Path, config_dir: Path) -> None:
    """Raise UsageError for a recorded folder of configurations that may be a stranger's."""
    resolved, here = config_dir.resolve(), Path.cwd().resolve()
    common = Path(os.path.commonpath([resolved, record.parent.resolve()]))
    folder = _find_folder_of_runs(config_dir)
    is_others = resolved.exists() and resolved.stat().st_uid != os.getuid()
    if folder or is_others or here.is_relative_to(resolved) or not here.is_relative_to(common):
        place = "belongs to another user" if is_others else f"is below {folder or common}, as runs are"
        remedy = f"if you trust it, add --config-dir {config_dir}"
        raise UsageError(f"{record}: its config_dir {config_dir} {place}; {remedy}")
