"""Keys with a special role: which identify a job, can change on resume, belong to the sweep, or are derived."""

import re
from typing import Any

# Keys in which configurations of the same job may differ: its folder, its logs, its machine.
IGNORED_FOR_IDENTITY = re.compile(
    r"(folder|overrides|config_dir|config_name|resume|runs_dir|sweep|retries|fail_fast|detach|threads|figures|dashboard"
    r"|steps_per_execution|tutorial|logger|data\.(root|download|source\.(folders|validation|classes|background))|trainer\.accelerator"
    r"|callbacks\.(summary|progress|step_log|random_state|prune|\w+\.dirpath|(best|last)\.(?!monitor|mode)\w+))(\.|$)"
)
# Keys that cannot change on resume: the weights depend on them, or the checkpoint restores them.
FIXED_ON_RESUME = re.compile(
    r"(model|data(?!\.(root|download|source\.(path|folders|mirrors|package))$)|augmentation|test_augmentation|label_smoothing|optimizer"
    r"|scheduler|seed|callbacks\.(ema|best\.(monitor|mode)))(\.|$)"
)
# Keys that were added since version 0.2.0, with the value that does what runs without them did. A run that lacks one
# has this value, and a job of a sweep with this value has the id that it had before the key was added.
ADDED_KEYS: dict[str, Any] = {}
# Arguments that the lab sets itself, or that would have no effect, with the reason.
OWN_ARGUMENTS = {
    "trainer.callbacks": "the group callbacks has them: +callbacks.NAME._target_=CLASS",
    "trainer.logger": "the group logger has them: +logger.NAME._target_=CLASS",
    "trainer.plugins": "the lab's own save checkpoints and find processes; use trainer.precision, +trainer.strategy",
    "trainer.default_root_dir": "it is the run folder, which hydra.run.dir sets",
    "trainer.enable_progress_bar": "callbacks.progress shows it; callbacks.progress=null does not",
    "trainer.enable_model_summary": "callbacks.summary shows it; callbacks.summary=null does not",
    "trainer.enable_checkpointing": "callbacks.best, last and checkpoint save them; each can be null",
    "trainer.barebones": "a run keeps curves and checkpoints; logger=none and callbacks.progress=null do less",
    "trainer.fast_dev_run": "it would replace loggers and checkpoints; use trainer.max_steps=1, or --check",
    "trainer.overfit_batches": "it would also validate on training images; use trainer.limit_train_batches",
    "data.seed": "it is the run's: seed=N",
    "data.image_size": "it is the network's own",
    "scheduler.steps_per_epoch": "it follows from the data",
    "trainer.use_distributed_sampler": "each process always gets its share of the images",
    "trainer.reload_dataloaders_every_n_epochs": "the images stay in memory",
    "trainer.limit_predict_batches": "nothing is predicted",
    "trainer.enable_autolog_hparams": "config.yaml has the settings",
    "trainer.model_registry": "checkpoints are in the run folder",
}
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
DERIVED_KEYS = ("folder", "overrides", "config_dir", "config_name", "name")  # These follow from others.
# Keys that reproduce sets.
REPRODUCTION_KEYS = (*DERIVED_KEYS, "experiment", "seed", "resume", "runs_dir", "tutorial", "hydra")
