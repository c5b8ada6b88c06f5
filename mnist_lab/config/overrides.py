"""Parse and compose overrides with Hydra, and explain errors in one line. Only this module splits override strings."""

import difflib
import glob
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Quote, QuotedString
from hydra.core.override_parser.types import Override as Override
from hydra.core.override_parser.types import OverrideType as OverrideType
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from mnist_lab.config.hydra_aside import composer, config_loader
from mnist_lab.config.keys import INTERNAL_CHOICES, PATH_KEYS
from mnist_lab.config.settings import to_plain, walk
from mnist_lab.errors import UsageError
from mnist_lab.formatting import shorten

# Other programs and papers use these terms for the settings.
SYNONYMS = {
    "batch": "data.batch_size",
    "learning_rate": "optimizer.lr",
    "network": "model",
    "dataset": "data",
    "data_dir": "data.root",
    "device": "trainer.accelerator",
    "gpu": "trainer.accelerator",
    "gpus": "trainer.devices",
    "ckpt_path": "resume",
    "output_dir": "hydra.run.dir",
    "gradient_clip_val": "trainer.gradient_clip_val",
    "n_trials": "hydra.sweeper.n_trials",
}
# So are these for the choices of groups.
CHOICE_SYNONYMS = {"resnet": "residual_cnn", "cnn": "simple_cnn", "linear": "mlp", "fashion": "fashion_mnist"}
# Brackets a thousand deep raise RecursionError. A file that is not UTF-8 raises ValueError. A value where Hydra needs a
# text raises ValueError or TypeError.
PARSE_ERRORS = (HydraException, RecursionError, ValueError, TypeError)
COMPOSITION_ERRORS = (*PARSE_ERRORS, OmegaConfBaseException, YAMLError, OSError)
# Paths between commas, each of which may be quoted.
PATHS = re.compile(r"""(?:^|(?<=,))\s*('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|(?:\$\{[^}]*\}|[^,])*)(?=,|$)""")


def compose_with_hydra(
    overrides: Sequence[str], config_name: str, is_argument: Callable[[str, str], bool], *, is_sweep: bool
) -> DictConfig:
    """Compose Hydra's whole configuration within `composer`, with the first of the values that a sweep gives a key."""
    parsed = [parse_override(override) for override in overrides]
    for override in parsed:
        _reject_unknown_choice(override)
        if override.is_sweep_override() and not is_sweep:
            raise UsageError(f"{shorten(override.input_line)}: several values; add -m to run a job for each")
    try:
        try:
            return hydra.compose(config_name, [*map(_first_value, parsed)], return_hydra_config=True)
        except ConfigCompositionException:
            parsed = _correct_plus(parsed, is_argument)
            return hydra.compose(config_name, [*map(_first_value, parsed)], return_hydra_config=True)
    except COMPOSITION_ERRORS as error:
        raise explain_composition_error(error, parsed) from error


def _correct_plus(overrides: Sequence[Override], is_argument: Callable[[str, str], bool]) -> list[Override]:
    """Put a + before overrides of arguments that the configuration does not have yet, and take it from the others."""
    known = _known_keys(overrides)
    typed = {each.key_or_group: each.value() for each in overrides if each.key_or_group.endswith("._target_")}

    def is_addable(key: str) -> bool:
        group, _, name = key.rpartition(".")
        if name == "_target_":
            return is_addable(group) or re.fullmatch(r"(callbacks|logger)\.\w+", group) is not None
        target = (known | typed).get(f"{group}._target_")
        return isinstance(target, str) and is_argument(target, key)

    corrected = []
    for override in overrides:
        key, line = override.key_or_group, str(override.input_line)
        if override.is_add() and key in known:
            line = line[1:]
        elif override.type is OverrideType.CHANGE and key not in known and is_addable(key):
            line = f"+{line}"
        corrected.append(parse_override(line))
    return corrected


def parse_override(override: str) -> Override:
    """Parse an override by Hydra's grammar."""
    if override.startswith("="):
        raise UsageError(f"{shorten(override)}: has no key; write KEY=VALUE, with no space around the =")
    try:
        parsed = OverridesParser.create().parse_override(override)
    except PARSE_ERRORS as error:
        if "=" not in override and not override.startswith("~"):
            raise UsageError(
                f"{shorten(override)}: not a setting; write KEY=VALUE, after a command if there is one"
            ) from error
        remedy = "quote a text with special characters: \"KEY='TEXT'\""
        raise UsageError(f"{shorten(override)}: not valid as KEY=VALUE ({_first_line(error)}); {remedy}") from error
    parsed.config_loader = config_loader()  # glob() chooses among the choices of a group.
    return parsed


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message, shortened."""
    return shorten(str(error).strip().split("\n")[0], 300)


@cache  # Each key is needed many times, and Hydra's parser is slow.
def override_key(override: str) -> str:
    """Return the key that an override sets, adds or removes."""
    parsed = parse_override(override)
    return f"{parsed.key_or_group}@{parsed.package}" if parsed.package else str(parsed.key_or_group)


def override_values(overrides: Iterable[str]) -> dict[str, str]:
    """Return the values of overrides by their keys, as they were typed; of several for a key, the last."""
    return {override_key(override): override.partition("=")[2] for override in overrides}


def override_text(override: str) -> str:
    """Return the value of an override as a text, without the quotes that Hydra's grammar may need."""
    value = parse_override(override).value() if "=" in override else ""
    return value if isinstance(value, str) else override.partition("=")[2]


def quote_paths(overrides: Iterable[str], *, is_sweep: bool = False) -> list[str]:
    """Return typed overrides in Hydra's grammar: ~ is expanded, and paths, between commas in a sweep, are quoted."""
    quoted = []
    for override in overrides:
        key, _, text = override.partition("=")
        is_function = is_sweep and re.fullmatch(r"\w+\(.*\)", text)  # Hydra has choice() and others.
        if text and not is_function and PATH_KEYS.fullmatch(key.lstrip("+")):
            paths = PATHS.findall(text) if is_sweep else [text]
            quoted.append(f"{key}={','.join(map(_quote_path, paths))}")
        else:
            quoted.append(override)
    return quoted


def _quote_path(text: str) -> str:
    path = f"{Path.home()}{text[1:]}" if re.match("~(/|$)", text) else text
    try:
        value = OverridesParser.create().parse_override(f"key={path}").value()
    except PARSE_ERRORS:
        return quote(path)
    if value is None:  # Hydra reads null, and a missing value, as None.
        return path
    is_quoted = "\\" in path or path[0] in "'\""
    return path if isinstance(value, str) and (value == path or is_quoted) else quote(path)


def without_keys(overrides: Iterable[str], *keys: str) -> list[str]:
    """Return the overrides of all other keys."""
    return [override for override in overrides if override_key(override) not in keys]


def known_overrides(overrides: Sequence[str], config_dir: str | None = None) -> list[str]:
    """Return the recorded overrides of a run without those of settings and groups that this version does not know."""
    with composer(config_dir):
        parsed = [parse_override(override) for override in overrides]
        known = _known_keys(parsed)
        return [override.input_line or "" for override in parsed if not _is_unknown(override, parsed, known)]


def _is_unknown(override: Override, overrides: Sequence[Override], known: Collection[str]) -> bool:
    """Return whether an override changes a setting that neither exists nor is added by an override."""
    key = override.key_or_group.split("[")[0]
    added = tuple(each.key_or_group for each in overrides if each.is_add())
    exists = key in known or key.startswith(added) or _choices(key)
    return not exists and not override.is_add() and not override.is_force_add()


def explain_composition_error(error: Exception, overrides: Sequence[Override]) -> UsageError:
    """Return a one-line error for a configuration that Hydra could not compose."""
    if isinstance(error, MissingMandatoryValue):
        return UsageError(f"{error.full_key}: required; add {error.full_key}=VALUE")
    known = _known_keys(overrides)
    for override in overrides:
        key = override.key_or_group.split("[")[0]
        if _is_unknown(override, overrides, known):
            return UsageError(f"{shorten(override.input_line)}: {explain_unknown_setting(key, known)}")
        if override.is_delete() and f"'{key}'" in str(error):  # Hydra does not find a setting that is null.
            return UsageError(f"{shorten(override.input_line)}: cannot be removed; set {key}=null")
    if isinstance(error, YAMLError):
        name = getattr(getattr(error, "problem_mark", None), "name", None) or "a file of the configuration"
        return UsageError(f"{name}: not a YAML file ({shorten(str(error))})")
    if isinstance(error, MissingConfigException):
        choices = f"; choose from {', '.join(error.options)}" if error.options else ""
        return UsageError(f"{' '.join(str(error).splitlines()[0].split())}{choices}")
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    typed = [str(override.input_line) for override in overrides]
    if isinstance(cause, InterpolationResolutionError):
        typed = [line for line in typed if "${" in line]
    where = getattr(cause, "full_key", None) or shorten(" ".join(typed))
    return UsageError(f"{where}: {_first_line(cause) or type(cause).__name__}".removeprefix(": "))


def explain_unknown_setting(key: str, known: Collection[str]) -> str:
    """Return the problem of an unknown setting, with the choice of its group that has it, or the nearest setting."""
    group = key.split(".")[0]
    for choice in _choices(group) if "." in key else []:
        if key in _known_keys([parse_override(f"{group}={choice}")]):
            return f"unknown setting here; {group}={choice} has it"
    near = nearest_key(key, known)
    return f"unknown setting; did you mean {near}?" if near else "unknown setting (--help lists the groups)"


def nearest_key(name: str, known: Collection[str]) -> str | None:
    """Return the known setting that a misspelt name most likely means, or None."""
    name = name.lower().replace("-", "_")
    keys = [key for key in known if name.startswith("hydra") or not key.startswith("hydra")]
    # Of equal last parts, the first one counts.
    terms = SYNONYMS | {key.rsplit(".", 1)[-1]: key for key in reversed(keys)} | {key: key for key in keys}
    words = (name, name.rsplit(".", 1)[-1])
    near = [word for word in words if word in terms]
    near += [match for word in words for match in difflib.get_close_matches(word, terms, n=1, cutoff=0.75)]
    return terms[near[0]] if near else None


def dotted_keys(config: DictConfig) -> dict[str, Any]:
    """Return all groups and settings of a configuration by their dotted keys."""
    return {key.removeprefix("."): value for key, value in walk(to_plain(config), "") if key}


def quote(text: str) -> str:
    """Quote a text as a string in Hydra's grammar."""
    return QuotedString(text, Quote.double).with_quotes()


def quote_path(path: Path) -> str:
    """Quote the absolute form of a path as a string in Hydra's grammar."""
    return quote(str(path.absolute()))


def _known_keys(overrides: Sequence[Override]) -> dict[str, Any]:
    """Return the settings under the chosen groups or, if they cannot be composed, under none, by dotted keys."""
    choices = [_first_value(override) for override in overrides if _choices(override.key_or_group)]
    try:
        return dotted_keys(hydra.compose("train", choices, return_hydra_config=True))
    except COMPOSITION_ERRORS:
        return dotted_keys(hydra.compose("train", return_hydra_config=True)) if choices else {}


def _choices(group: str) -> list[str]:
    """Return the choices of a group within `composer`; an empty list if the key is not a group."""
    return list(config_loader().get_group_options(group)) if "." not in group else []


def _reject_unknown_choice(override: Override) -> None:
    """Raise UsageError if an override selects an unknown choice of a group."""
    group = override.key_or_group
    choices = _choices(group)
    if not choices or override.is_delete():
        return
    is_sweep = override.is_discrete_sweep()
    values = list(islice(override.sweep_iterator(), 1000)) if is_sweep else [override.value()]
    # A group may have a list of choices.
    for value in chain.from_iterable(value if isinstance(value, list) and value else [value] for value in values):
        name = value.text if isinstance(value, QuotedString) else value
        if name is None and (group == "experiment" or "/" in group):  # The default of these groups is none.
            continue
        folder, slash, _ = str(name).rpartition("/")
        known = [f"{folder}/{choice}" for choice in _choices(f"{group}/{folder}")] if slash else choices
        if isinstance(name, str) and (name in known or "${" in name):
            continue
        listed = [choice for choice in choices if f"{group}={choice}" not in INTERNAL_CHOICES]
        raise UsageError(
            f"{shorten(override.input_line)}: unknown choice{_hint_at_choice(group, str(name), [*known, *listed])} "
            f"(choose from {', '.join(listed)})"
        )


def _hint_at_choice(group: str, name: str, choices: Sequence[str]) -> str:
    """Return a hint at the choice that a name means: one in a folder that --config-dir would add, or the nearest."""
    for path in Path().glob(f"*/{group}/{glob.escape(name)}.yaml"):
        return f"; {path} has it: add --config-dir {path.parts[0]}"
    terms = {choice.lower(): choice for choice in choices}
    terms |= {term: choice for term, choice in CHOICE_SYNONYMS.items() if choice in choices}
    near = difflib.get_close_matches(name.lower(), terms, n=1)
    return f"; did you mean {terms[near[0]]}?" if near else ""


def _first_value(override: Override) -> str:
    """Return an override reduced to the first of its values."""
    line = override.input_line or ""
    if not override.is_sweep_override():
        return line
    key, value = override.get_key_element(), override.value()
    first = value.start if isinstance(value, IntervalSweep) else next(iter(override.sweep_string_iterator()), "null")
    return f"{key}={first}"
