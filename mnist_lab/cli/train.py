"""`python -m mnist_lab [train] OPTIONS OVERRIDES`: train a network, run a sweep (-m), or describe either (--check)."""

import argparse
import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from mnist_lab.cli.parser import CommandParser
from mnist_lab.cli.resume import expand_resume
from mnist_lab.config.compose import CommandLine, compose, compose_job, config_options
from mnist_lab.config.distributed import log_name, rank, share_run_folder
from mnist_lab.config.hydra_aside import show
from mnist_lab.config.overrides import dotted_keys, nearest_key, quote_path, quote_paths, without_keys
from mnist_lab.errors import DISK_FULL, UsageError
from mnist_lab.formatting import display_path, format_count, format_duration, print_lines, shorten
from mnist_lab.runs.listing import seconds_an_epoch
from mnist_lab.runs.record import COMPLETE
from mnist_lab.runs.run import Run
from mnist_lab.runs.run_log import run_log
from mnist_lab.streams import StandardStream
from mnist_lab.sweeps.plan import Plan, combine_overrides
from mnist_lab.sweeps.process import SWEEP_PROCESS, end_with_parent, import_torch
from mnist_lab.sweeps.sweep import run_sweep

SHOWN = ("cfg", "info", "hydra_help", "shell_completion")  # Hydra's own application answers these options.


def main(arguments: list[str]) -> None:
    leave_disk_errors_to_main_thread()
    StandardStream.outlives_reader = True
    if SWEEP_PROCESS in os.environ and "LOCAL_RANK" not in os.environ:  # This is the first process of a sweep's job.
        end_with_parent(int(os.environ[SWEEP_PROCESS]))
    options = split_arguments(arguments)
    is_sweep = options.multirun or "hydra.mode=MULTIRUN" in options.overrides
    typed = quote_paths([*options.overrides, *["detach=true"] * options.detach], is_sweep=is_sweep)
    line = expand_resume(CommandLine(tuple(typed), options.config_dir, options.config_name), is_sweep=is_sweep)
    share_run_folder(sweep=is_sweep)
    if shown := next((name for name in SHOWN if getattr(options, name)), None):
        if shown in ("cfg", "info"):
            compose_job(line, is_sweep=is_sweep)  # It reports errors in one line, Hydra in many.
        value = getattr(options, shown)
        words = [f"--{shown.replace('_', '-')}", *([] if value is True else [value]), *["--resolve"] * options.resolve]
        show([*words, *config_options(line.config_dir, line.config_name), *line.overrides])
    elif options.check:
        check(line, is_sweep=is_sweep)
    elif is_sweep:
        run_sweep(Plan.of(line))
    else:
        run(line)


def run(line: CommandLine) -> None:
    """Train one network."""
    cfg, _ = compose_job(line)
    folder = Path(cfg.folder)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        raise UsageError(f"hydra.run.dir={folder}: {existing} is not a writable folder; choose another runs_dir")
    task = f"{'resuming' if cfg.resume else 'training'} {cfg.get('name')} in {display_path(folder)}"
    import_torch(task if rank() == 0 else None)
    from mnist_lab.training.train import train

    with run_log(folder, log_name()), set_arguments(line, cfg.folder):
        train(cfg)


@contextmanager
def set_arguments(line: CommandLine, folder: str) -> Iterator[None]:
    """Set sys.argv for the processes that Lightning starts for ddp, so that they compose the same run in its folder."""
    before = sys.argv
    overrides = [*without_keys(line.overrides, "hydra.run.dir"), f"hydra.run.dir={quote_path(Path(folder))}"]
    sys.argv = [*before[:1], *config_options(line.config_dir, line.config_name), *overrides]
    try:
        yield
    finally:
        sys.argv = before


def split_arguments(arguments: list[str]) -> argparse.Namespace:
    """Split a command line into Hydra's options, --check and --detach, and the overrides."""
    parser = CommandParser("train", add_help=False)
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--multirun", "-m", action="store_true")
    kinds.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
    kinds.add_argument("--shell-completion", "-sc", action="store_true")
    infos = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
    kinds.add_argument("--info", "-i", nargs="?", const="all", choices=infos)
    kinds.add_argument("--hydra-help", action="store_true")
    for name in ("--check", "--detach", "--resolve"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--config-name", "-cn", default="train")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("overrides", nargs="*")
    options, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        near = nearest_key(unknown[0].strip("-").partition("=")[0], dotted_keys(compose()))
        hint = f"did you mean {near}=VALUE?" if near else "settings are written KEY=VALUE (--help lists them)"
        raise UsageError(f"{shorten(unknown[0])}: unknown option; {hint}")
    if options.resolve and not options.cfg:
        raise UsageError("--resolve: only valid with --cfg")
    return options


def check(line: CommandLine, *, is_sweep: bool) -> None:
    """Validate a command line, and describe what it would run, where and for how long."""
    plan = Plan.of(line) if is_sweep else None
    if plan and all(override.is_discrete_sweep() for override in plan.overrides if override.is_sweep_override()):
        composed = [plan.compose_job(job, number)[1] for number, job in enumerate(combine_overrides(plan.overrides))]
    else:
        composed = [plan.cfg if plan else compose_job(line)[0]]
    import_torch(f"checking {composed[0].name}, {format_count(len(composed), 'job')}")
    from mnist_lab.config.validate import validate
    from mnist_lab.data.summary import print_summary
    from mnist_lab.training.build import complete_data, keep_data_settings, make_data, make_model
    from mnist_lab.training.distillation import set_up_teacher

    configs: list[DictConfig] = []
    for cfg in composed:
        resumed = Run(Path(cfg.folder)).config if cfg.resume else None
        validate(cfg, resumed)
        configs.append(keep_data_settings(cfg, resumed) if resumed else cfg)
    first = complete_data(configs[0])
    model = make_model(first)
    set_up_teacher(first, model)
    if not (data := make_data(first, model)).download:
        data.prepare_data()  # It says which files are missing.
    parameters = sum(parameter.numel() for parameter in model.parameters())
    epochs = format_count(first.trainer.max_epochs, "epoch")
    print_lines(f"valid: {first.name}, {parameters:,} parameters, {epochs}, seed {first.seed}")
    print_summary(data)
    if plan:
        done = sum(job.state in COMPLETE for job in plan.sweep.jobs()) if plan.sweep.exists else 0
        over = f" over {', '.join(plan.swept)}" if plan.swept else ""
        print_lines(f"{format_count(len(configs), 'job')}{over}; {done} finished")
        print_lines(f"sweep folder: {display_path(plan.sweep.folder)}")
    elif first.resume:
        print_lines(f"continues: {Run(Path(first.folder))}, from {display_path(Path(first.resume))}")
    else:
        print_lines(f"run folder: {display_path(Path(first.folder).absolute())}")
    print_lines(describe_time(configs))


def describe_time(configs: Sequence[DictConfig]) -> str:
    """Estimate how long the jobs take one after the other, from earlier runs."""
    seconds = 0.0
    for cfg in configs:
        epoch_seconds = seconds_an_epoch(cfg, Path(cfg.runs_dir))
        if epoch_seconds is None:
            return f"time: unknown, without an earlier run of {cfg.name} like this one below {cfg.runs_dir}"
        seconds += epoch_seconds * cfg.trainer.max_epochs
    scope = " for all jobs, one after the other" if len(configs) > 1 else ""
    return f"time: about {format_duration(seconds)}{scope}, by earlier runs"


def leave_disk_errors_to_main_thread() -> None:
    """Hide a full disk or a removed folder in the log and in other threads, since the main thread reports it."""
    logging.raiseExceptions = False

    def hook(caught: threading.ExceptHookArgs) -> None:
        error = caught.exc_value
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return
        if isinstance(error, FileNotFoundError) and not Path(os.fsdecode(error.filename or "")).parent.exists():
            return
        threading.__excepthook__(caught)

    threading.excepthook = hook
