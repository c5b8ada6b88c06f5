"""Train presets over several seeds, and compare them with the published figures."""

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import dropwhile, takewhile
from pathlib import Path

from omegaconf import DictConfig
from rich.markdown import Markdown

from mnist_lab.config.compose import compose
from mnist_lab.config.keys import REPRODUCTION_KEYS
from mnist_lab.config.overrides import override_key, quote_path
from mnist_lab.config.presets import preset_names
from mnist_lab.config.settings import format_differences
from mnist_lab.console import console, working_on
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

    Finished runs are skipped and interrupted ones resumed. Processes that share runs_dir share the runs. Raises
    UsageError before any training if a preset is unknown, a setting is invalid, a run's folder has other settings, or
    runs_dir or out, the folder of the results, cannot be written.
    """
    known = preset_names(config_dir)
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"{', '.join(unknown)}: unknown preset; choose from {', '.join(known)}")

    def compose_run(preset: str, seed: int, folder: Path) -> DictConfig:
        fixed = [f"experiment={preset}", f"seed={seed}", f"hydra.run.dir={quote_path(folder)}"]
        return compose(*fixed, "callbacks.summary=null", *overrides, config_dir=config_dir)

    folders = {(preset, seed): runs_dir / f"{preset}-seed{seed}" for preset in names for seed in seeds}
    with working_on(f"reproducing {', '.join(names)}: checking the settings"):
        for preset in names:
            runs = [Run(folders[preset, seed]) for seed in seeds]
            _require_fit(compose_run(preset, 1, runs_dir / "none"), runs)
    for key, folder in (("--runs-dir", runs_dir), ("--out", out)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{key}={folder}: cannot be written ({error.strerror}); choose another") from error
    record = {"presets": list(names), "seeds": list(seeds), "overrides": list(overrides)}
    write_text(runs_dir / REPRODUCTION_RECORD, json.dumps(record, indent=1) + "\n")
    for number, ((preset, seed), folder) in enumerate(folders.items(), start=1):
        title = f"{preset}, seed {seed} ({number} of {len(folders)})"
        _train_unless_finished(Run(folder), title, partial(compose_run, preset, seed, folder))


def _train_unless_finished(run: Run, title: str, compose_run: Callable[[], DictConfig]) -> None:
    """Train, or resume, a run that is neither finished nor in use by another process."""
    from mnist_lab.training.train import train

    try:
        with run_lock(run.folder):
            if _is_finished(run):
                console.print(f"{title}: already finished")
                return
            cfg = compose_run()
            if checkpoint := run.newest_whole_checkpoint():
                cfg.resume = str(checkpoint)
            elif run.exists:
                run.clear()
            console.rule(title)
            train(cfg)
    except RunInUse as error:
        console.print(f"{title}: {error}, and repeat the command", soft_wrap=True)


def _require_fit(cfg: DictConfig, runs: Sequence[Run]) -> None:
    """Raise UsageError if a configuration is not valid, or if runs to continue have other settings than it."""
    from mnist_lab.config.validate import validate  # This imports torch, which unknown presets do not need.

    validate(cfg)
    if str(cfg.trainer.get("strategy", "")).startswith("ddp"):
        raise UsageError(
            "trainer=ddp: not supported by reproduce; Lightning would start the whole command in each process"
        )
    for run in runs:
        if _is_finished(run) or run.newest_whole_checkpoint():
            for key, (before, now) in format_differences(run.config, cfg).items():
                if key != "seed":
                    raise UsageError(f"{run}: was started with {key}={before}, not {now}; use another --runs-dir")


def _is_finished(run: Run) -> bool:
    return run.exists and run.info["status"] == RunState.FINISHED


def parse_seeds(text: str) -> range:
    """Return the seeds that a text names: N for 1 to N, or FIRST-LAST."""
    match = re.fullmatch(r"(?:(\d{1,9})-)?(\d{1,9})", text)
    seeds = range(int(match[1] or 1), int(match[2]) + 1) if match else range(0)
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

    presets = finished_runs(runs_dir)
    if not presets:
        console.print(f"no finished runs below {runs_dir} yet", soft_wrap=True)
        return
    out.mkdir(parents=True, exist_ok=True)
    tutorials = {name: runs for name, runs in presets.items() if has_tutorial(name, runs[0].info["config_dir"])}
    others = {name: runs for name, runs in presets.items() if name not in tutorials}
    if tutorials:
        console.print(_first_table(results.write_tutorials(tutorials, out)))
        console.print(f"written: {out / results.TUTORIALS}, {out / results.SUMMARY}", soft_wrap=True)
    if others and leaderboard:
        with working_on("evaluating the runs for the leaderboard"):
            page = results.write_leaderboard(others, out)
        console.print(_first_table(page))
        console.print(f"written: {out / results.LEADERBOARD}, {out / results.RECORDS}", soft_wrap=True)


def _first_table(page: str) -> Markdown:
    """Return the first table of a page, for the terminal."""
    lines = dropwhile(lambda line: not line.startswith("|"), page.splitlines())
    return Markdown("\n".join(takewhile(bool, lines)))


def finished_runs(runs_dir: Path) -> dict[str, list[Run]]:
    """Return the finished runs below runs_dir that measured whole sets, by preset and in the order of their seeds."""
    presets: dict[str, list[Run]] = {}
    for run in filter(_is_finished, map(Run, runs_dir.glob("*-seed*"))):
        name = run.folder.name.rsplit("-seed", 1)[0]
        if name in preset_names(run.info["config_dir"]) and not run.info["partial"]:
            presets.setdefault(name, []).append(run)
    return {name: sorted(presets[name], key=lambda run: run.info["seed"] or 0) for name in sorted(presets)}


def has_tutorial(name: str, config_dir: str | None) -> bool:
    """Return whether a preset is a tutorial's."""
    return compose(f"experiment={name}", config_dir=config_dir).get("tutorial") is not None
