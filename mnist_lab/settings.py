"""A configuration as single settings, by their dotted names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig

# Keys in which two configurations of one job may differ: where it lies, what it logs, which machine it asks for.
SAME_JOB = (
    r"(folder|overrides|config_dir|resume|runs_dir|sweep|retries|fail_fast|threads|figures|dashboard|steps_per_execution|tutorial|logger|data\.(root|download)|trainer\.accelerator"
    r"|callbacks\.(summary|progress|step_log|random_state|prune|\w+\.dirpath))(\.|$)"
)


def flat(node: DictConfig, path: str = "") -> dict[str, Any]:
    """A configuration's single values by their dotted names."""
    found: dict[str, Any] = {}
    for name in map(str, node):
        value = node[name]
        found |= flat(value, f"{path}{name}.") if isinstance(value, DictConfig) else {f"{path}{name}": value}
    return found


def typed(value: Any) -> str:
    """A value as it would be typed."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Return a short name for each key: its last part where no other key ends in it, else the whole key."""
    last = {key: key.rsplit(".", 1)[-1] for key in keys}
    return {key: name if list(last.values()).count(name) == 1 else key for key, name in last.items()}


def what_a_job_does(settings: dict[str, Any]) -> dict[str, Any]:
    """Single settings by their dotted names, without those in which two configurations of one job may differ."""
    return {key: value for key, value in settings.items() if not re.match(SAME_JOB, key)}


def differing(*jobs: DictConfig) -> dict[str, list[Any]]:
    """What jobs do differently, by key, with the value of each; None where it has none."""
    settings = [what_a_job_does(flat(job)) for job in jobs]
    values = {key: [each.get(key) for each in settings] for each in settings for key in each}
    return {key: of_each for key, of_each in values.items() if any(value != of_each[0] for value in of_each)}


def differences(first: DictConfig, second: DictConfig) -> dict[str, tuple[str, str]]:
    """What two jobs do differently, by key, as they would be typed."""
    return {key: (typed(one), typed(other)) for key, (one, other) in differing(first, second).items()}
