"""Keys with a special role: which identify a job, can change on resume, belong to the sweep, or are derived."""

import re
from typing import Any

# Keys in which configurations of the same job may differ: its folder, its logs, its machine.
IGNORED_FOR_IDENTITY = re.compile(
    r"(folder|overrides|config_dir|resume|runs_dir|sweep|retries|fail_fast|detach|threads|figures|dashboard"
    r"|steps_per_execution|tutorial|logger|data\.(root|download|source\.(folders|validation|classes|background))|trainer\.accelerator"
    r"|callbacks\.(summary|progress|step_log|random_state|prune|\w+\.dirpath))(\.|$)"
)
# Keys that cannot change on resume: the weights depend on them, or the checkpoint restores them.
FIXED_ON_RESUME = re.compile(
    r"(model|data(?!\.(root|download|source\.(path|folders|mirrors|package))$)|augmentation|test_augmentation|label_smoothing|optimizer"
    r"|scheduler|seed|callbacks\.ema)(\.|$)"
)
# Keys that were added since version 0.2.0, with the value that does what runs without them did. A run that lacks one
# has this value, and a job of a sweep with this value has the id that it had before the key was added.
ADDED_KEYS: dict[str, Any] = {}
# Keys that may be null until the data are read; a run records their values, and keeps them on resume.
READ_FROM_DATA = tuple(f"data.source.{name}" for name in ("name", "validation", "classes", "background", "sha256"))
# Keys that say where the data are fetched from, which a loaded run does not say.
DATA_ORIGIN = re.compile(r"data\.source\.(mirrors|package)(\.|$)")
# Keys that say which images and classes the data are, and not where they come from.
DATA_CONTENT = re.compile(r"data\.source\.(?!(path|folders|mirrors|package)(\.|$))")
OPTIONAL = ("scheduler", "augmentation", "test_augmentation")  # groups of which an empty one stands for none
SWEEP_ONLY_KEYS = ("sweep", "retries", "fail_fast", "detach", "callbacks.prune")  # invalid outside a sweep
PASSED_TO_JOBS = ("threads", "figures")  # that apply to a sweep and to its jobs
SWEEP_KEYS = (*SWEEP_ONLY_KEYS, "runs_dir", *PASSED_TO_JOBS)  # that control a sweep, and do not identify its jobs
DERIVED_KEYS = ("folder", "overrides", "config_dir", "name")  # that follow from others and cannot be set
# Keys that reproduce sets.
REPRODUCTION_KEYS = (*DERIVED_KEYS, "experiment", "seed", "resume", "runs_dir", "tutorial", "hydra")
