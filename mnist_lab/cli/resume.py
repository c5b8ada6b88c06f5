"""resume=RUN|latest|auto|CHECKPOINT: the command line that continues a run, built from its record."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import yaml

from mnist_lab.cli.hydra_options import split_arguments
from mnist_lab.config.overrides import known_overrides, override_key, override_text, quote_path, quote_resume
from mnist_lab.errors import UsageError
from mnist_lab.files import exists, is_whole
from mnist_lab.formatting import display_path
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps.process import SWEEP_PROCESS


def expand_resume(arguments: list[str]) -> list[str]:
    """Hydra's arguments: options first, the only place where it takes them; then overrides.

    With resume=RUN these are the run's own, then the new ones, its folder and its checkpoint. That is settled before
    Hydra composes, since what is composed follows from it. Done twice, as in the processes that Lightning starts for
    ddp, the result is the same.
    """
    options, overrides = split_arguments(arguments)
    settings = _by_key([quote_resume(override) for override in overrides])
    wanted = override_text(settings.get("resume", "resume="))
    if wanted in ("", "null"):
        return [*options, *overrides]
    del settings["resume"]
    if {"-m", "--multirun"} & set(options):
        raise UsageError(f"resume={wanted}: one run at a time; leave out -m")
    runs_dir = override_text(settings.get("runs_dir", "runs_dir=runs"))
    if wanted == "auto":
        newest = [run for run in Run.below(runs_dir, jobs=False) if not run.info["members"]][-1:]
        if not any(run.checkpoint("last") for run in newest):
            return [*options, *settings.values()]  # nothing to continue: a new run
        wanted = str(newest[0].folder)
    run, checkpoint = _find_checkpoint(wanted, runs_dir)
    reject_sweep_job(run, wanted)
    info = run.info
    reject_hydra_overrides(run)
    config_dir = info["config_dir"]
    if config_dir and "--config-dir" not in options:
        reject_hydra_files(Path(config_dir))
        options += ["--config-dir", config_dir]
    config_dir = options[options.index("--config-dir") + 1] if "--config-dir" in options else None
    merged = _by_key(known_overrides(info["overrides"], config_dir))
    for key, override in settings.items():
        if override.startswith("~") and merged.get(key, "").startswith("+"):
            del merged[key]  # what was added and is now taken out was never there
        else:
            merged[key] = override
    merged["hydra.run.dir"] = f"hydra.run.dir={quote_path(run.folder)}"
    return [*options, *merged.values(), f"resume={quote_path(checkpoint)}"]


def _by_key(overrides: list[str]) -> dict[str, str]:
    """Return overrides by their keys; the last one of a key holds."""
    return {override_key(override): override for override in overrides}


def reject_sweep_job(run: Run, wanted: str) -> None:
    """Raise UsageError for a job of a sweep, unless the sweep itself resumes it: its results would change unseen."""
    sweep = Sweep(run.folder.absolute().parent)
    if sweep.exists and SWEEP_PROCESS not in os.environ:
        checkpoint = run.newest_whole_checkpoint()
        instead = f"; init_from={display_path(checkpoint)} starts a new run from its weights" if checkpoint else ""
        raise UsageError(
            f"resume={wanted}: a job of the sweep {sweep.folder.name}, which continues with "
            f"{sweep.record['command']}{instead}"
        )


def _find_checkpoint(wanted: str, runs_dir: str) -> tuple[Run, Path]:
    """The run, and the checkpoint in it, that a value of resume means."""
    try:
        if wanted != "latest" and ((exists(Path(wanted)) and Path(wanted).is_file()) or wanted.endswith(".ckpt")):
            if not exists(Path(wanted)):
                raise UsageError(f"{wanted}: checkpoint not found")
            run = Run.of_checkpoint(Path(wanted))
            if not is_whole(Path(wanted)):
                raise UsageError(f"{wanted}: corrupt, or not a checkpoint; {_recovery_hint(run)}")
            return run, Path(wanted).absolute()
        run = Run.find(wanted, runs_dir)
    except UsageError as error:
        message = str(error)
        raise UsageError(message if message.startswith("resume=") else f"resume={message}") from error
    last, newest = run.checkpoint("last"), run.newest_whole_checkpoint()
    if last is None:
        raise UsageError(f"resume={wanted}: {run.folder} has no checkpoint yet; start it anew: {run.info['command']}")
    if newest is None:
        raise UsageError(f"resume={wanted}: {last} is corrupt; {_recovery_hint(run)}")
    if newest != last:
        print(f"mnist_lab: warning: {last} is corrupt; going on from {newest}", file=sys.stderr)
    return run, newest.absolute()


def _recovery_hint(run: Run) -> str:
    """What to do about a corrupt checkpoint."""
    newest = run.newest_whole_checkpoint()
    if newest is not None:
        return f"the newest good one is {newest}"
    return f"the run has no good one; start it anew: {run.info['command']}"


def reject_hydra_overrides(run: Run) -> None:
    """Raise UsageError for recorded overrides that would set up Hydra itself, which can run any program.

    No run of ours records one; a run folder may come from a stranger.
    """
    for override in run.info["overrides"]:
        if re.match(r"-|[^=]*\bhydra\b", override):
            raise UsageError(f"{run.record_path}: the override {override!r} is not one of a run; remove it")


def reject_hydra_files(folder: Path) -> None:
    """Raise UsageError for a folder of configurations, named by a run's record, that would set up Hydra itself."""
    for path in sorted(folder.rglob("*.yaml")):
        try:
            text = path.read_text(encoding="utf-8")
            names_hydra = re.search(r"@package.*hydra", text) or "hydra" in str(yaml.safe_load(text))
        except (OSError, ValueError, yaml.YAMLError):
            continue  # Hydra cannot read it either
        if names_hydra:
            raise UsageError(f"{path}: has settings of Hydra; if you trust the folder, add --config-dir {folder}")
