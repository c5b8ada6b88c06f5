"""Parse and compose overrides with Hydra, and explain errors in one line. No other module splits override strings."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, QuotedString
from hydra.core.override_parser.types import Override as Override
from hydra.core.override_parser.types import OverrideType as OverrideType
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from mnist_lab.config.hydra_aside import add_to_search_path, composer, config_loader, group_options
from mnist_lab.errors import UsageError
from mnist_lab.formatting import shorten

# Terms of other programs and of papers, and the settings that they mean here.
SYNONYMS = {
    "epochs": "trainer.max_epochs",
    "steps": "trainer.max_steps",
    "batch": "data.batch_size",
    "bs": "data.batch_size",
    "learning_rate": "optimizer.lr",
    "wd": "optimizer.weight_decay",
    "net": "model",
    "network": "model",
    "arch": "model",
    "architecture": "model",
    "dataset": "data",
    "data_dir": "data.root",
    "validation_size": "data.val_size",
    "opt": "optimizer",
    "lr_scheduler": "scheduler",
    "transform": "augmentation",
    "device": "trainer.accelerator",
    "gpu": "trainer.accelerator",
    "gpus": "trainer.devices",
    "random_seed": "seed",
    "checkpoint": "resume",
    "ckpt": "resume",
    "preset": "experiment",
    "output_dir": "hydra.run.dir",
}


def compose_with_hydra(overrides: Sequence[str], config_name: str = "train", *, is_sweep: bool = False) -> DictConfig:
    """Compose Hydra's whole configuration within `composer`; of several values of an override, the first counts."""
    parsed = [parse_override(override) for override in overrides]
    for override in parsed:
        if override.key_or_group == "hydra.searchpath" and isinstance(places := override.value(), list):
            for place in places:
                add_to_search_path(str(place))
    for override in parsed:
        _check_choice(override)
        if override.is_sweep_override() and not is_sweep:
            raise UsageError(f"{shorten(override.input_line)}: several values; add -m to run a job for each")
    mode = ["hydra.mode=MULTIRUN"] if is_sweep else []
    try:
        return hydra.compose(config_name, [*map(_first_value, parsed), *mode], return_hydra_config=True)
    except COMPOSITION_ERRORS as error:
        raise explain_composition_error(error, parsed) from error


# RecursionError: brackets a thousand deep. ValueError and TypeError: values where Hydra expects text, files that are
# not UTF-8.
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, YAMLError, RecursionError, ValueError, TypeError, OSError)


def parse_override(override: str) -> Override:
    """Parse an override by Hydra's grammar."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except (HydraException, RecursionError, ValueError, TypeError) as error:
        if "=" not in override and not override.startswith("~"):
            raise UsageError(f"{shorten(override)}: not a setting; write KEY=VALUE") from error
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).strip().split("\n")[0]
        message = (
            f"{shorten(override)}: not valid as KEY=VALUE ({shorten(reason)}); quote a text with special characters"
        )
        raise UsageError(f"{message}: \"KEY='TEXT'\"") from error
    parsed.config_loader = config_loader()  # glob() takes from a group's choices.
    return parsed


@cache
def override_key(override: str) -> str:
    """Return the key that an override sets, adds or removes."""
    parsed = parse_override(override)
    return f"{parsed.key_or_group}@{parsed.package}" if parsed.package else str(parsed.key_or_group)


def override_values(overrides: Iterable[str]) -> dict[str, str]:
    """Return the values of overrides, as they were given, by the keys; the last one of a key holds."""
    return {override_key(override): override.partition("=")[2] for override in overrides}


def override_text(override: str) -> str:
    """Return an override's value as a text, without the quotes that Hydra's grammar may need."""
    value = parse_override(override).value() if "=" in override else ""
    return value if isinstance(value, str) else override.partition("=")[2]


def quote_resume(override: str) -> str:
    """Quote the path of resume=PATH, and leave any other override: folders of a sweep's jobs have = and , in names."""
    key, _, path = override.partition("=")
    is_plain = key == "resume" and path not in ("", "null") and path[0] not in "'\""
    return f"{key}={quote(path)}" if is_plain else override


def without_keys(overrides: Iterable[str], *keys: str) -> list[str]:
    """Return the overrides of other keys than these."""
    return [override for override in overrides if override_key(override) not in keys]


def known_overrides(overrides: Sequence[str], config_dir: str | None = None) -> list[str]:
    """Return the recorded overrides of a run, but for those of settings and groups that this version does not know."""
    with composer(config_dir):
        parsed = [parse_override(override) for override in overrides]
        known = _known_keys([_first_value(override) for override in parsed if _choices(override.key_or_group)])
        return [override.input_line or "" for override in parsed if not _is_unknown(override, parsed, known)]


def _is_unknown(override: Override, overrides: Sequence[Override], known: Sequence[str]) -> bool:
    """Return whether an override is of a setting that does not exist, nor is added by it or another one."""
    key = override.key_or_group.split("[")[0]
    added = tuple(override.key_or_group for override in overrides if override.is_add())
    missing = key not in known and not key.startswith(added or ("\0",)) and not _choices(key)
    return missing and not (override.is_add() or override.is_force_add())


def explain_composition_error(error: Exception, overrides: Sequence[Override] = ()) -> UsageError:
    """Return a one-line error for a configuration that Hydra could not compose."""
    if isinstance(error, MissingMandatoryValue):
        return UsageError(f"{error.full_key}: required; add {error.full_key}=VALUE")
    groups = [_first_value(override) for override in overrides if _choices(override.key_or_group)]
    known = _known_keys(groups) if overrides else []
    for override in overrides:
        key = override.key_or_group.split("[")[0]
        if _is_unknown(override, overrides, known):
            return UsageError(f"{shorten(override.input_line)}: {explain_unknown_setting(key, known)}")
        if override.is_delete() and f"'{key}'" in str(error):  # Hydra finds nothing where null stands
            return UsageError(f"{shorten(override.input_line)}: cannot be removed; set {key}=null")
    if isinstance(error, YAMLError):
        name = getattr(getattr(error, "problem_mark", None), "name", None) or "a file of the configuration"
        return UsageError(f"{name}: not a YAML file ({shorten(str(error))})")
    if isinstance(error, MissingConfigException):
        choices = f"; choose from {', '.join(error.options)}" if error.options else ""
        return UsageError(f"{' '.join(str(error).splitlines()[0].split())}{choices}")
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    reason = "nested too deeply" if isinstance(cause, RecursionError) else str(cause).strip().split("\n")[0]
    mark = "${" if isinstance(cause, InterpolationResolutionError) else ""
    typed = " ".join(line for override in overrides if mark in (line := override.input_line or ""))
    where = getattr(cause, "full_key", None) or shorten(typed)
    return UsageError(f"{where}: {shorten(reason or type(cause).__name__, 300)}".removeprefix(": "))


def explain_unknown_setting(key: str, known: Sequence[str]) -> str:
    """Return a hint for an unknown setting: another choice of its group that has it, or the nearest known setting."""
    group = key.split(".")[0]
    for choice in _choices(group) if "." in key else []:
        if key in _known_keys([f"{group}={choice}"]):
            return f"unknown setting here; {group}={choice} has it"
    near = nearest_key(key, known)
    return f"unknown setting; did you mean {near}?" if near else "unknown setting (--help lists the groups)"


def nearest_key(name: str, known: Sequence[str]) -> str | None:
    """Return the known setting that a misspelt name most likely means, or None."""
    name = name.lower().replace("-", "_")
    last = name.rsplit(".", 1)[-1]
    own = [key for key in known if not key.startswith("hydra")]
    by_last_part: dict[str, str] = {}
    for key in own:
        by_last_part.setdefault(key.rsplit(".", 1)[-1], key)
    if name in known:
        return name
    for part in (name, last):
        if part in by_last_part or part in SYNONYMS:
            return by_last_part.get(part) or SYNONYMS[part]
    near = difflib.get_close_matches(name, known if name.startswith("hydra") else own, n=1, cutoff=0.75)
    if near:
        return near[0]
    near = difflib.get_close_matches(last, [*by_last_part, *SYNONYMS], n=1, cutoff=0.75)
    return by_last_part.get(near[0], SYNONYMS.get(near[0])) if near else None


def dotted_keys(config: DictConfig) -> list[str]:
    """Return the dotted keys of all groups and settings of a configuration."""

    def walk(node: Any, path: str) -> Iterator[str]:
        for name, value in node.items():
            yield f"{path}{name}"
            if isinstance(value, dict):
                yield from walk(value, f"{path}{name}.")

    return list(walk(OmegaConf.to_container(config), ""))


def quote(text: str) -> str:
    """Quote a text as a string in Hydra's grammar."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _known_keys(overrides: Sequence[str]) -> list[str]:
    """Return the dotted keys under these overrides or, if they cannot be composed, under none."""
    try:
        return dotted_keys(hydra.compose("train", list(overrides), return_hydra_config=True))
    except COMPOSITION_ERRORS:
        return dotted_keys(hydra.compose("train", return_hydra_config=True)) if overrides else []


def _choices(group: str) -> list[str]:
    """Return the choices of a group; an empty list if the key is not a group."""
    return [] if "." in group else group_options(group)


def _check_choice(override: Override) -> None:
    """Raise UsageError if an override selects an unknown choice of a group."""
    group = override.key_or_group
    choices = _choices(group)
    if not choices or override.is_delete():
        return
    is_sweep = override.is_discrete_sweep()
    values = list(islice(override.sweep_iterator(), 1000)) if is_sweep else [override.value()]
    for value in chain.from_iterable(value if isinstance(value, list) and value else [value] for value in values):
        name = value.text if isinstance(value, QuotedString) else value
        if name is None and (group == "experiment" or "/" in group):  # whose default is none
            continue
        if isinstance(name, str) and ("${" in name or name in _choices_beside(group, name, choices)):
            continue
        near = difflib.get_close_matches(name, choices, n=1) if isinstance(name, str) else []
        hint = f"; did you mean {near[0]}?" if near else ""
        line = shorten(override.input_line)
        raise UsageError(f"{line}: unknown choice{hint} (choose from {', '.join(choices)})")


def _choices_beside(group: str, name: str, choices: Sequence[str]) -> Sequence[str]:
    """Return the choices in the same subfolder as a name such as `mine/net`, by their full names."""
    folder, slash, _ = name.rpartition("/")
    return [f"{folder}/{choice}" for choice in _choices(f"{group}/{folder}")] if slash else choices


def _first_value(override: Override) -> str:
    """Return an override reduced to the first of its values."""
    line = override.input_line or ""
    if not override.is_sweep_override():
        return line
    key, value = override.get_key_element(), override.value()
    first = value.start if isinstance(value, IntervalSweep) else next(iter(override.sweep_string_iterator()), "null")
    return f"{key}={first}"


def quote_path(path: Path) -> str:
    """Quote the absolute form of a path as a string in Hydra's grammar."""
    return quote(str(path.absolute()))
