"""`python -m mnist_lab reproduce [PRESET ...]`: the tutorials' presets over several seeds, and a table of them."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig
from rich.table import Table

from mnist_lab import figures
from mnist_lab.arguments import Arguments
from mnist_lab.check import differences
from mnist_lab.config import compose, presets
from mnist_lab.errors import BadInput
from mnist_lab.files import replacing
from mnist_lab.results import summarise
from mnist_lab.results_page import HEADS, cells_of, markdown
from mnist_lab.runs import Run
from mnist_lab.terminal import console
from mnist_lab.train import train


def reproduce(
    names: Sequence[str],
    seeds: int,
    *,
    runs_dir: Path = Path("runs/reproduce"),
    overrides: Sequence[str] = (),
    config_dir: str | None = None,
) -> None:
    """Train each preset with the seeds 1, 2, ..., each in a run folder of its own below runs_dir.

    What is finished there is not run again, and what was interrupted goes on. Processes that share runs_dir share the
    jobs.

    Raises:
        BadInput: an unknown preset, or a finished run of other settings is in a job's place.
    """
    known = presets(config_dir)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BadInput(f"{', '.join(unknown)}: no such preset; there are {', '.join(known)}")
    if seeds < 1:
        raise BadInput(f"--seeds={seeds}: must be 1 or more")
    jobs = [(preset, seed) for preset in names for seed in range(1, seeds + 1)]
    for number, (preset, seed) in enumerate(jobs, start=1):
        folder = runs_dir / f"{preset}-seed{seed}"
        runs_dir.mkdir(parents=True, exist_ok=True)
        title = f"{preset}, seed {seed} ({number} of {len(jobs)})"
        try:
            with FileLock(runs_dir / f".{folder.name}.lock", blocking=False):
                settings = (f"experiment={preset}", f"seed={seed}", "callbacks.summary=null", *overrides)
                cfg = compose(*settings, f"hydra.run.dir={folder}", config_dir=config_dir)
                if is_done(cfg):
                    console.print(f"{title}: done already")
                else:
                    console.rule(title)
                    train(cfg)
        except Timeout:
            console.print(f"{title}: another process is at it")


def is_done(cfg: DictConfig) -> bool:
    """Whether a job's run is finished. If it was begun, cfg.resume is set so that it goes on."""
    folder = Path(cfg.folder)
    if not (folder / "run.json").exists():
        return False
    run = Run(folder)
    if run.info["status"] == "finished":
        for key, (before, now) in differences(run.config, cfg).items():
            raise BadInput(f"{run}: finished with {key}={before}, not {now}; another --runs-dir keeps the two apart")
        return True
    last = run.checkpoint("last")
    if last is None:
        shutil.rmtree(folder)  # it came to nothing yet
    else:
        cfg.resume = str(last)
    return False


def write(runs_dir: Path, out: Path) -> None:
    """Compare the finished runs below runs_dir with the published figures, into out, and print the table."""
    summary = summarise(runs_dir)
    if not summary:
        console.print(f"no finished run below {runs_dir} yet: no table", soft_wrap=True)
        return
    out.mkdir(parents=True, exist_ok=True)
    for name, row in summary.items():
        figures.against_published(name, row).savefig(out / f"{name}.png", dpi=120)
    for file, text in (("results.json", json.dumps(summary, indent=1) + "\n"), ("RESULTS.md", markdown(summary))):
        with replacing(out / file) as partial:
            partial.write_text(text)
    short = [HEADS.index(head) for head in ("preset", "published %", "here %", "seeds", "verdict")]
    table = Table(*(HEADS[i] for i in short))
    for name, row in summary.items():
        cells = cells_of(name, row)
        table.add_row(*(cells[i] for i in short))
    console.print(table)
    console.print(f"written: {out / 'RESULTS.md'}, {out / 'results.json'}", soft_wrap=True)


def main(arguments: list[str]) -> None:
    parser = Arguments("reproduce", __doc__)
    parser.add_argument("words", metavar="PRESET|KEY=VALUE", nargs="*", help="which presets (all), and other settings")
    parser.add_argument("--seeds", type=int, default=5, help="the seeds 1 to this (default: %(default)s)")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/reproduce"), help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("results"), help="for RESULTS.md, results.json and figures")
    parser.add_argument("--config-dir", help="a folder of your own beside conf/")
    options = parser.parse_intermixed_args(arguments)
    overrides = [word for word in options.words if "=" in word]
    names = [word for word in options.words if "=" not in word] or presets(options.config_dir)
    try:
        reproduce(names, options.seeds, runs_dir=options.runs_dir, overrides=overrides, config_dir=options.config_dir)
    except (SystemExit, KeyboardInterrupt):  # Ctrl-C or SIGTERM: what is done is shown all the same
        console.print(
            f"or, for all: {shlex.join(['python', '-m', 'mnist_lab', 'reproduce', *arguments])}", soft_wrap=True
        )
        write(options.runs_dir, options.out)
        raise
    write(options.runs_dir, options.out)
