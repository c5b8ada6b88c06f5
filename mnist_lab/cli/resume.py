"""resume=RUN|latest|auto|CHECKPOINT: build the command line that continues a run from its record."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from mnist_lab.config.compose import CommandLine
from mnist_lab.config.overrides import known_overrides, override_key, override_text, quote_path
from mnist_lab.config.trust import reject_config_dir, reject_untrusted
from mnist_lab.errors import UsageError
from mnist_lab.files import is_whole
from mnist_lab.formatting import print_warning
from mnist_lab.runs.run import Run, find_folder
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps.process import SWEEP_PROCESS


def expand_resume(line: CommandLine, *, is_sweep: bool) -> CommandLine:
    """Expand resume=RUN: the run's own overrides, the new ones, then the run's folder and its checkpoint."""
    settings = _by_key(line.overrides)
    wanted = override_text(settings.get("resume", "resume="))
    if wanted in ("", "null"):
        return line
    del settings["resume"]
    if is_sweep:
        raise UsageError(f"resume={wanted}: one run at a time; leave out -m")
    runs_dir = override_text(settings.get("runs_dir", "runs_dir=runs"))
    if wanted == "auto":
        newest = [run for run in Run.below(runs_dir, jobs=False) if not run.info["members"]][-1:]
        if not any(run.checkpoint("last") for run in newest):
            return replace(line, overrides=tuple(settings.values()))
        wanted = str(newest[0].folder)
    run, checkpoint = _find_checkpoint(wanted, runs_dir)
    reject_sweep_job(run, wanted)
    info = run.info
    reject_untrusted(run.record_path, info["overrides"], settings)
    config_dir = line.config_dir or info["config_dir"]
    if config_dir and not line.config_dir:
        reject_config_dir(run.record_path, Path(config_dir))
    config_name = line.config_name if line.config_name != "train" else info["config_name"] or "train"
    recorded = _by_key(known_overrides(info["overrides"], config_dir))
    init_from = settings.get("init_from")
    if init_from not in (None, recorded.get("init_from")):
        raise UsageError(f"{init_from}: a resumed run continues from its own checkpoint; leave out init_from or resume")
    if "data" in recorded and settings.get("data", recorded["data"]) != recorded["data"]:
        raise UsageError(f"{settings['data']}: cannot change on resume (this run uses {recorded['data']})")
    merged = _merge(recorded, settings)
    runs_dir = override_text(merged.get("runs_dir", "runs_dir=."))
    if "runs_dir" not in settings and not run.folder.absolute().is_relative_to(Path(runs_dir).absolute()):
        merged.pop("runs_dir", None)  # The run was moved, or comes from somebody else.
    merged["hydra.run.dir"] = f"hydra.run.dir={quote_path(run.folder)}"
    # This expands to itself, since the processes that Lightning starts for ddp expand it once more.
    return CommandLine((*merged.values(), f"resume={quote_path(checkpoint)}"), config_dir, config_name)


def _by_key(overrides: Iterable[str]) -> dict[str, str]:
    """Return overrides by their keys; the last one of a key counts."""
    return {override_key(override): override for override in overrides}


def _merge(recorded: dict[str, str], settings: dict[str, str]) -> dict[str, str]:
    """Return recorded overrides, changed by new ones, by key; one that the run has added with + stays an addition."""
    merged = dict(recorded)
    for key, override in settings.items():
        is_added = merged.get(key, "").startswith("+")
        if is_added and override.startswith("~"):
            del merged[key]
        else:
            merged[key] = f"+{override}" if is_added and not override.startswith("+") else override
    return merged


def reject_sweep_job(run: Run, wanted: str) -> None:
    """Raise UsageError for a job of a sweep unless its sweep resumes it, since the sweep's results would change."""
    sweep = Sweep(run.folder.absolute().parent)
    if sweep.exists and SWEEP_PROCESS not in os.environ:
        how = f"{sweep.record['command']}; init_from=CHECKPOINT starts a new run from its weights"
        raise UsageError(f"resume={wanted}: a job of the sweep {sweep.folder.name}, which continues with {how}")


def _find_checkpoint(wanted: str, runs_dir: str) -> tuple[Run, Path]:
    """Return the run, and the checkpoint in it, that a value of resume means."""
    if (sweep := Sweep(find_folder(wanted, Path(runs_dir)))).exists:
        raise UsageError(f"resume={wanted}: a sweep, which continues with {sweep.record['command']}")
    try:
        run = Run.find(wanted, runs_dir)
    except UsageError as error:
        raise UsageError(f"resume={error}") from error
    checkpoint = run.weights or run.checkpoint("last")
    restart = f"start it anew: {run.info['command']}"
    if checkpoint is None:
        raise UsageError(f"resume={wanted}: {run.folder} has no checkpoint yet; {restart}")
    if is_whole(checkpoint):
        return run, checkpoint.absolute()
    newest = run.newest_whole_checkpoint()
    if newest is None or run.weights:
        alternative = f"the newest good one is {newest}" if newest else f"the run has no good one; {restart}"
        raise UsageError(f"resume={checkpoint}: corrupt, or not a checkpoint; {alternative}")
    print_warning(f"{checkpoint} is corrupt; training continues from {newest}")
    return run, newest.absolute()
