"""The settings with a role of their own: which identify a job, may change on resume, or belong to the sweep."""

from __future__ import annotations

import re

# Settings in which two configurations of one job may differ: where it lies, what it logs, which machine it asks for.
IGNORED_FOR_IDENTITY = re.compile(
    r"(folder|overrides|config_dir|resume|runs_dir|sweep|retries|fail_fast|threads|figures|dashboard"
    r"|steps_per_execution|tutorial|logger|data\.(root|download)|trainer\.accelerator"
    r"|callbacks\.(summary|progress|step_log|random_state|prune|\w+\.dirpath))(\.|$)"
)
# Settings that a resumed run keeps: they made its weights, or its checkpoint restores them.
FIXED_ON_RESUME = re.compile(r"(model|data(?!\.(root|download)$)|augmentation|optimizer|scheduler|seed)(\.|$)")
SWEEP_ONLY_KEYS = ("sweep", "retries", "fail_fast", "callbacks.prune")  # that a run outside a sweep cannot have
PASSED_TO_JOBS = ("threads", "figures")  # that a sweep's job needs, though they change nothing in what it does
SWEEP_KEYS = (*SWEEP_ONLY_KEYS, "runs_dir", *PASSED_TO_JOBS)  # that say how a sweep is run, not what its jobs do
DERIVED_KEYS = ("folder", "overrides", "config_dir", "name")  # that follow from the others and cannot be set
REPRODUCTION_KEYS = (*DERIVED_KEYS, "experiment", "seed", "resume", "runs_dir", "tutorial", "hydra")  # reproduce's own
