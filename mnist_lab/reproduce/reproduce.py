"""`python -m mnist_lab reproduce`: train presets over several seeds, and compare them with the published figures."""

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.table import Table

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
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"{', '.join(unknown)}: unknown preset; choose from {', '.join(known)}")
    from mnist_lab.config.validate import validate  # imports torch
    from mnist_lab.training.progress import console
    from mnist_lab.training.train import train

    jobs = [(preset, seed, Run(runs_dir / f"{preset}-seed{seed}")) for preset in names for seed in seeds]

    def configured(preset: str, seed: int, folder: Path) -> DictConfig:
        own = (f"experiment={preset}", f"seed={seed}", f"hydra.run.dir={quote_path(folder)}", "callbacks.summary=null")
        return compose(*own, *overrides, config_dir=config_dir)

    for preset in names:
        cfg = configured(preset, 1, runs_dir / "none")
        validate(cfg)
        if str(cfg.trainer.get("strategy", "")).startswith("ddp"):
            raise UsageError(
                "trainer=ddp: not supported by reproduce; Lightning would start the whole command in each process"
            )
        for run in (
            run for own, _, run in jobs if own == preset and (_is_finished(run) or run.newest_whole_checkpoint())
        ):
            for key, (before, now) in format_differences(run.config, cfg).items():
                if key != "seed":
                    raise UsageError(f"{run}: was started with {key}={before}, not {now}; use another --runs-dir")
    _make_writable(runs_dir, "--runs-dir")
    _make_writable(out, "--out")
    record = {"presets": list(names), "seeds": list(seeds), "overrides": list(overrides)}
    write_text(runs_dir / REPRODUCTION_RECORD, json.dumps(record, indent=1) + "\n")
    in_progress: list[str] = []
    for number, (preset, seed, run) in enumerate(jobs, start=1):
        title = f"{preset}, seed {seed} ({number} of {len(jobs)})"
        try:
            with run_lock(run.folder):
                if _is_finished(run):
                    console.print(f"{title}: already finished")
                    continue
                cfg = configured(preset, seed, run.folder)
                if checkpoint := run.newest_whole_checkpoint():
                    cfg.resume = str(checkpoint)
                elif run.exists:
                    run.clear()
                console.rule(title)
                train(cfg)
        except RunInUse as error:
            console.print(f"{title}: {error}", soft_wrap=True)
            in_progress.append(run.folder.name)
    if in_progress:
        console.print(
            f"in progress in another process: {', '.join(in_progress)}; repeat the command when they are done"
        )


def _is_finished(run: Run) -> bool:
    return run.exists and run.info["status"] == RunState.FINISHED


def _make_writable(path: Path, key: str) -> None:
    """Create a folder; raise UsageError if it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UsageError(f"{key}={path}: cannot be written ({error.strerror}); choose another") from error


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
    from mnist_lab.reproduce import tutorials
    from mnist_lab.training.progress import console, working_on

    found = finished_runs(runs_dir)
    if not found:
        console.print(f"no finished runs below {runs_dir} yet", soft_wrap=True)
        return
    out.mkdir(parents=True, exist_ok=True)
    published = {name: runs for name, runs in found.items() if has_tutorial(name, runs[0].info["config_dir"])}
    others = {name: runs for name, runs in found.items() if name not in published}
    if published:
        rows = tutorials.write_tutorials(published, out)
        _print_table(tutorials.HEADS, rows, "preset", "published %", "here %", "seeds", "verdict")
        console.print(f"written: {out / tutorials.PAGE}, {out / tutorials.SUMMARY}", soft_wrap=True)
    if others and leaderboard:
        from mnist_lab.reproduce import leaderboard as board

        with working_on("evaluating the runs for the leaderboard"):
            rows = board.write_leaderboard(others, out)
        _print_table(board.HEADS, rows, "rank", "preset", "parameters", "test accuracy, %", "seeds", "ensemble, %")
        console.print(f"written: {out / board.PAGE}, {out / board.RECORDS}", soft_wrap=True)


def _print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *shown: str) -> None:
    """Print the columns with some of the heads."""
    from mnist_lab.training.progress import console

    table = Table(*shown)
    for cells in rows:
        table.add_row(*(cells[heads.index(head)] for head in shown))
    console.print(table)


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
