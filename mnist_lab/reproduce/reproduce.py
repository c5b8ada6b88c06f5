"""Train the tutorials' presets over several seeds, and compare them with the published figures."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
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
from mnist_lab.reproduce.markdown import HEADS, markdown, overview_cells
from mnist_lab.reproduce.summary import finished_runs, has_tutorial, summarise
from mnist_lab.runs.locks import RunInUse, run_lock
from mnist_lab.runs.record import RunState
from mnist_lab.runs.run import REPRODUCTION_RECORD, Run


def reproduce(
    names: Sequence[str],
    seeds: Sequence[int] = range(1, 6),
    *,
    runs_dir: Path = Path("runs/reproduce"),
    out: Path | None = None,
    overrides: Sequence[str] = (),
    config_dir: str | None = None,
) -> None:
    """Train each preset with each seed, in a run folder of its own below runs_dir.

    Finished runs are skipped and interrupted ones resumed. Processes that share runs_dir share the jobs.

    Args:
        names: the presets.
        seeds: the seeds.
        runs_dir: the folder of the run folders.
        out: the folder of the results, which must be writable; None for runs_dir.
        overrides: settings for all runs.
        config_dir: a folder of the user's own configuration.

    Raises:
        UsageError: a preset is unknown, a setting is invalid, or a job's folder has a run of other settings. No job
            was started.
    """
    known = preset_names(config_dir)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"{', '.join(unknown)}: unknown preset; choose from {', '.join(known)}")
    from mnist_lab.config.validate import validate  # imports torch
    from mnist_lab.training.progress import console
    from mnist_lab.training.train import train

    jobs = [(preset, seed, runs_dir / f"{preset}-seed{seed}") for preset in names for seed in seeds]

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
        for _, _, folder in (job for job in jobs if job[0] == preset and has_started(job[2])):
            reject_changed_settings(Run(folder), cfg)
    make_writable(runs_dir, "--runs-dir")
    make_writable(out or runs_dir, "--out")
    record = {"presets": list(names), "seeds": list(seeds), "overrides": list(overrides)}
    write_text(runs_dir / REPRODUCTION_RECORD, json.dumps(record, indent=1) + "\n")
    in_progress: list[str] = []
    for number, (preset, seed, folder) in enumerate(jobs, start=1):
        title = f"{preset}, seed {seed} ({number} of {len(jobs)})"
        try:
            with run_lock(folder):
                if has_started(folder) and Run(folder).info["status"] == RunState.FINISHED:
                    console.print(f"{title}: already finished")
                    continue
                cfg = configured(preset, seed, folder)
                if has_started(folder):
                    cfg.resume = str(Run(folder).newest_whole_checkpoint())
                elif Run(folder).exists:
                    Run(folder).clear()  # it has no valid checkpoint
                console.rule(title)
                train(cfg)
        except RunInUse as error:
            console.print(f"{title}: {error}", soft_wrap=True)
            in_progress.append(folder.name)
    if in_progress:
        console.print(
            f"in progress in another process: {', '.join(in_progress)}; repeat the command when they are done"
        )


def has_started(folder: Path) -> bool:
    """Return whether a job's run is finished or has a valid checkpoint to resume from."""
    run = Run(folder)
    return run.exists and (run.info["status"] == RunState.FINISHED or run.newest_whole_checkpoint() is not None)


def reject_changed_settings(run: Run, cfg: DictConfig) -> None:
    """Raise UsageError if a job's run was started with other settings."""
    for key, (before, now) in format_differences(run.config, cfg).items():
        if key != "seed":
            raise UsageError(f"{run}: was started with {key}={before}, not {now}; use another --runs-dir")


def reject_reserved_settings(overrides: Sequence[str]) -> None:
    """Raise UsageError for a setting that `reproduce` sets itself."""
    for override in overrides:
        if override_key(override).split(".")[0] in REPRODUCTION_KEYS:
            raise UsageError(
                f"{override}: set by reproduce; name presets only, and use --seeds, --runs-dir and --config-dir"
            )


def make_writable(path: Path, key: str) -> None:
    """Create a folder; raise UsageError if it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UsageError(f"{key}={path}: cannot be written ({error.strerror}); choose another") from error


def write_results(runs_dir: Path, out: Path, *, leaderboard: bool = True) -> None:
    """Write the results of the finished runs below runs_dir into out, and print their tables.

    Args:
        runs_dir: the folder of the run folders.
        out: the folder of the results.
        leaderboard: whether to evaluate the runs of presets without a tutorial, which takes a while.
    """
    from mnist_lab.training.progress import console

    found = finished_runs(runs_dir)
    if not found:
        console.print(f"no finished runs below {runs_dir} yet", soft_wrap=True)
        return
    out.mkdir(parents=True, exist_ok=True)
    tutorials = {name: runs for name, runs in found.items() if has_tutorial(name, runs[0].info["config_dir"])}
    others = {name: runs for name, runs in found.items() if name not in tutorials}
    if tutorials:
        _write_tutorials(tutorials, out)
    if others and leaderboard:
        _write_leaderboard(others, out)


def _write_tutorials(found: Mapping[str, list[Run]], out: Path) -> None:
    from mnist_lab.reproduce.plot import plot_reproduction
    from mnist_lab.training.progress import console
    from mnist_lab.viz.save import write_figure

    summary = {name: summarise(name, runs) for name, runs in found.items()}
    for name, row in summary.items():
        write_figure(plot_reproduction(name, row), out / f"{name}.png")
    for file, text in (("results.json", json.dumps(summary, indent=1) + "\n"), ("RESULTS.md", markdown(summary))):
        write_text(out / file, text)
    short = [HEADS.index(head) for head in ("preset", "published %", "here %", "seeds", "verdict")]
    table = Table(*(HEADS[i] for i in short))
    for name, row in summary.items():
        cells = overview_cells(name, row)
        table.add_row(*(cells[i] for i in short))
    console.print(table)
    console.print(f"written: {out / 'RESULTS.md'}, {out / 'results.json'}", soft_wrap=True)


def _write_leaderboard(found: Mapping[str, list[Run]], out: Path) -> None:
    from mnist_lab.reproduce.records import HEADS, PAGE, RECORDS, record_cells, write_records
    from mnist_lab.training.progress import console, working_on

    with working_on("evaluating the runs for the leaderboard"):
        records = write_records(found, out)
    short = [HEADS.index(head) for head in ("rank", "preset", "parameters", "test accuracy, %", "seeds", "ensemble, %")]
    table = Table(*(HEADS[i] for i in short))
    for rank, record in enumerate(records, start=1):
        cells = record_cells(rank, record)
        table.add_row(*(cells[i] for i in short))
    console.print(table)
    console.print(f"written: {out / PAGE}, {out / RECORDS}", soft_wrap=True)
