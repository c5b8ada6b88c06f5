"""`python -m mnist_lab reproduce`: train presets over several seeds, and compare them with the published figures."""

import json
import re
from collections.abc import Sequence
from itertools import dropwhile, takewhile
from pathlib import Path

from omegaconf import DictConfig
from rich.markdown import Markdown

from mnist_lab.config.compose import compose
from mnist_lab.config.keys import REPRODUCTION_KEYS
from mnist_lab.config.overrides import override_key, quote_path
from mnist_lab.config.presets import preset_names
from mnist_lab.config.settings import format_differences
from mnist_lab.errors import UsageError
from mnist_lab.files import write_text
from mnist_lab.runs.locks import RunInUse, run_lock
from mnist_lab.runs.record import RunState
from mnist_lab.runs.run import REPRODUCTION_RECORD, Run


def reproduce(
    names: Sequence[str],
    seeds: Sequence[int],
    *,
    runs_dir: Path,
    out: Path,
    overrides: Sequence[str],
    config_dir: str | None,
) -> None:
    """Train each preset with each seed, in a run folder of its own below runs_dir.

    Finished runs are skipped and interrupted ones resumed. Processes that share runs_dir share the jobs. Raises
    UsageError before any job is started if a preset is unknown, a setting is invalid, a job's folder has a run of
    other settings, or runs_dir or out, the folder of the results, cannot be written.
    """
    known = preset_names(config_dir)
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"{', '.join(unknown)}: unknown preset; choose from {', '.join(known)}")
    from mnist_lab.training.progress import console  # imports torch
    from mnist_lab.training.train import train

    def configured(preset: str, seed: int, folder: Path) -> DictConfig:
        own = (f"experiment={preset}", f"seed={seed}", f"hydra.run.dir={quote_path(folder)}", "callbacks.summary=null")
        return compose(*own, *overrides, config_dir=config_dir)

    folders = {(name, seed): runs_dir / f"{name}-seed{seed}" for name in names for seed in seeds}
    for preset in names:
        found = [Run(folder) for (name, _), folder in folders.items() if name == preset]
        _require_fit(configured(preset, 1, runs_dir / "none"), found)
    for key, folder in (("--runs-dir", runs_dir), ("--out", out)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{key}={folder}: cannot be written ({error.strerror}); choose another") from error
    record = {"presets": list(names), "seeds": list(seeds), "overrides": list(overrides)}
    write_text(runs_dir / REPRODUCTION_RECORD, json.dumps(record, indent=1) + "\n")
    for number, ((preset, seed), folder) in enumerate(folders.items(), start=1):
        title, run = f"{preset}, seed {seed} ({number} of {len(folders)})", Run(folder)
        try:
            with run_lock(folder):
                if _is_finished(run):
                    console.print(f"{title}: already finished")
                    continue
                cfg = configured(preset, seed, folder)
                if checkpoint := run.newest_whole_checkpoint():
                    cfg.resume = str(checkpoint)
                elif run.exists:
                    run.clear()
                console.rule(title)
                train(cfg)
        except RunInUse as error:
            console.print(f"{title}: {error}, and repeat the command", soft_wrap=True)


def _require_fit(cfg: DictConfig, runs: Sequence[Run]) -> None:
    """Raise UsageError if a preset's configuration is not valid, or runs that it would continue have other settings."""
    from mnist_lab.config.validate import validate  # imports torch

    validate(cfg)
    if str(cfg.trainer.get("strategy", "")).startswith("ddp"):
        raise UsageError(
            "trainer=ddp: not supported by reproduce; Lightning would start the whole command in each process"
        )
    for run in runs:
        begun = _is_finished(run) or run.newest_whole_checkpoint()
        for key, (before, now) in format_differences(run.config, cfg).items() if begun else ():
            if key != "seed":
                raise UsageError(f"{run}: was started with {key}={before}, not {now}; use another --runs-dir")


def _is_finished(run: Run) -> bool:
    return run.exists and run.info["status"] == RunState.FINISHED


def parse_seeds(text: str) -> range:
    """Return the seeds that a text names: N for 1 to N, or FIRST-LAST."""
    found = re.fullmatch(r"(?:(\d{1,9})-)?(\d{1,9})", text)
    seeds = range(int(found[1] or 1), int(found[2]) + 1) if found else range(0)
    if not seeds:
        raise UsageError(f"--seeds={text}: must be a number from 1 on, or the first and the last seed, such as 11-20")
    return seeds


def reject_reserved_settings(overrides: Sequence[str]) -> None:
    """Raise UsageError for a setting that `reproduce` sets itself."""
    for override in overrides:
        if override_key(override).split(".")[0] in REPRODUCTION_KEYS:
            raise UsageError(
                f"{override}: set by reproduce; name presets only, and use --seeds, --runs-dir and --config-dir"
            )


def write_results(runs_dir: Path, out: Path, *, leaderboard: bool = True) -> None:
    """Write the results of the finished runs into out, and print their tables; the leaderboard evaluates its runs."""
    from mnist_lab.reproduce import results
    from mnist_lab.training.progress import console, working_on

    found = finished_runs(runs_dir)
    if not found:
        console.print(f"no finished runs below {runs_dir} yet", soft_wrap=True)
        return
    out.mkdir(parents=True, exist_ok=True)
    published = {name: runs for name, runs in found.items() if has_tutorial(name, runs[0].info["config_dir"])}
    others = {name: runs for name, runs in found.items() if name not in published}
    if published:
        console.print(_first_table(results.write_tutorials(published, out)))
        console.print(f"written: {out / results.TUTORIALS}, {out / results.SUMMARY}", soft_wrap=True)
    if others and leaderboard:
        with working_on("evaluating the runs for the leaderboard"):
            page = results.write_leaderboard(others, out)
        console.print(_first_table(page))
        console.print(f"written: {out / results.LEADERBOARD}, {out / results.RECORDS}", soft_wrap=True)


def _first_table(page: str) -> Markdown:
    """Return the first table of a page, for the terminal."""
    rows = dropwhile(lambda line: not line.startswith("|"), page.splitlines())
    return Markdown("\n".join(takewhile(bool, rows)))


def finished_runs(runs_dir: Path) -> dict[str, list[Run]]:
    """Return the finished runs below runs_dir that measured whole sets, by preset, each preset's by seed."""
    found: dict[str, list[Run]] = {}
    for run in filter(_is_finished, map(Run, runs_dir.glob("*-seed*"))):
        name = run.folder.name.rsplit("-seed", 1)[0]
        if name in preset_names(run.info["config_dir"]) and not run.info["partial"]:
            found.setdefault(name, []).append(run)
    return {name: sorted(found[name], key=lambda run: run.info["seed"] or 0) for name in sorted(found)}


def has_tutorial(name: str, config_dir: str | None) -> bool:
    """Return whether a preset is a tutorial's."""
    return compose(f"experiment={name}", config_dir=config_dir).get("tutorial") is not None
