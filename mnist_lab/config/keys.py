"""Name the keys with a special role: those that identify a job, change on resume, belong to a sweep, or are derived."""

import re
from typing import Any

# The same job may have other values of these keys: they say where it is, what it logs and what it runs on.
IGNORED_FOR_IDENTITY = re.compile(
    r"(folder|overrides|config_dir|config_name|resume|runs_dir|sweep|retries|fail_fast|detach|threads|figures|dashboard"
    r"|steps_per_execution|tutorial|logger|data\.(root|download|source\.(folders|validation|classes|background))|trainer\.accelerator"
    r"|callbacks\.(summary|progress|step_log|random_state|prune|checkpoint\.keep_small|\w+\.dirpath|(best|last)\.(?!monitor|mode)\w+))(\.|$)"
)
# Keys that cannot change on resume: the weights depend on them, or the checkpoint restores them.
FIXED_ON_RESUME = re.compile(
    r"(model|data(?!\.(root|download|source\.(path|folders|mirrors|package))$)|augmentation|test_augmentation|label_smoothing|optimizer"
    r"|distillation(?!\.run$)"
    r"|scheduler|class_weights|seed|callbacks\.(ema|best\.(monitor|mode)))(\.|$)"
)
# The keys added since version 0.2.0, with the value that stands for how runs without them behaved. A run that lacks a
# key has this value, and a job of a sweep with this value keeps the id that it had before the key was added.
ADDED_KEYS: dict[str, Any] = dict.fromkeys(
    ("class_weights", "data.source.images", "data.source.labels", "data.source.axes")
)
# Arguments that a user cannot set, with the reason: the lab sets them, or they would have no effect.
OWN_ARGUMENTS = {
    "trainer.callbacks": "the group callbacks has them: +callbacks.NAME._target_=CLASS",
    "trainer.logger": "the group logger has them: +logger.NAME._target_=CLASS",
    "trainer.plugins": "the lab's own save checkpoints and find processes; use trainer.precision, trainer.strategy",
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
# The values of these keys are paths and names, which are taken as they are typed.
PATH_KEYS = re.compile(
    r"resume|init_from|runs_dir|sweep|data\.root|data\.source\.path|distillation\.run|hydra\.(run|sweep)\.dir"
    r"|hydra\.launcher\.submitit_folder|(callbacks|logger|trainer)\..*(dir|path|folder)"
)
# These keys may be null until the data, or the teacher, are read. A run records their values, and keeps them on resume.
READ_FROM_DATA = tuple(f"data.source.{name}" for name in ("name", "validation", "classes", "background", "sha256"))
READ_FROM_DATA += ("distillation.sha256",)
# Where the data are fetched from. A loaded run cannot choose that.
DATA_ORIGIN = re.compile(r"data\.source\.(mirrors|package)(\.|$)")
# Which images and classes the data have, not where they come from.
DATA_CONTENT = re.compile(r"data\.source\.(?!(path|folders|mirrors|package)(\.|$))")
# Other data begin with the first, which has no images itself. The lab cannot use these parts of Hydra.
INTERNAL_CHOICES = ("data=default", "hydra/sweeper=basic", "hydra/launcher=basic")
OPTIONAL = ("scheduler", "augmentation", "test_augmentation", "distillation")  # An empty group stands for none.
SWEEP_ONLY_KEYS = ("sweep", "retries", "fail_fast", "detach", "callbacks.prune")  # These are invalid outside a sweep.
PASSED_TO_JOBS = ("threads", "figures")  # A sweep and each of its jobs use these.
SWEEP_KEYS = (*SWEEP_ONLY_KEYS, "runs_dir", *PASSED_TO_JOBS)  # These control a sweep, and do not identify its jobs.
DERIVED_KEYS = ("folder", "overrides", "config_dir", "config_name", "name")  # These follow from others.
# The command reproduce sets these.
REPRODUCTION_KEYS = (*DERIVED_KEYS, "experiment", "seed", "resume", "runs_dir", "tutorial", "hydra")
