"""Find run folders, and read and write their files. Imports neither torch nor Lightning."""

from __future__ import annotations

import contextlib
import csv
import difflib
import errno
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from typing_extensions import Unpack

from mnist_lab.config.metric_names import TRAIN_LOSS, VAL_ACC, in_words
from mnist_lab.config.settings import to_plain
from mnist_lab.config.trust import RECORDS, load_config
from mnist_lab.errors import UsageError
from mnist_lab.files import PARTIAL, atomic_write, exists, is_whole, read_text
from mnist_lab.formatting import display_path, print_warning, shorten
from mnist_lab.runs.locks import HOLDER, LOCK, holder_of, not_writable
from mnist_lab.runs.record import RUN, RunRecord, RunState, read_record, record_source, write_record

RECORD, SWEEP_RECORD, REPRODUCTION_RECORD = RECORDS
RESULTS_JSON = "results.json"  # A sweep has it.
CHECKPOINTS, FIGURES, EXPORTS, WANDB = "checkpoints", "figures", "exports", "wandb"
TRASH = ".trash"  # The folder of the runs has removed runs in it.
MAX_ROWS = 1_000_000  # A stranger's metrics.csv may be longer.


class PathIn:
    """An attribute: the path of a file or folder with a fixed name in the object's folder."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, owner: Any, kind: type | None = None) -> Path:
        return Path(owner.folder, self.name)


@dataclass(frozen=True)
class Run:
    """A run, known by its folder; the attributes below are paths in it.

    Attributes:
        folder: the run folder.
        weights: the checkpoint to use in the place of the chosen one, or None.
    """

    folder: Path
    weights: Path | None = None
    record_path = PathIn(RECORD)  # A folder without it is not a run's.
    config_path = PathIn("config.yaml")
    metrics_path = PathIn("metrics.csv")
    log_path = PathIn("train.log")
    source_path = PathIn("source.patch")  # It has the uncommitted changes of the code.
    report_path = PathIn("report.html")
    data_page_path = PathIn("data.html")
    annotations_path = PathIn("annotations.json")  # It has tags and a note.
    job_path = PathIn("job.json")  # Only a job of a sweep has it.
    pruned_path = PathIn("pruned")  # A search that stops a job early writes the number of its epochs there.
    checkpoints_folder = PathIn(CHECKPOINTS)
    figures_folder = PathIn(FIGURES)
    exports_folder = PathIn(EXPORTS)
    wandb_folder = PathIn(WANDB)  # logger=wandb keeps offline runs there.
    projector_folder = PathIn("projector")
    projector_config_path = PathIn("projector_config.pbtxt")  # TensorBoard finds the projector by this file.

    @classmethod
    def create(cls, folder: Path, info: RunRecord, config: DictConfig) -> Run:
        """Create a run in a folder that this process has locked: write config.yaml, source.patch and run.json."""
        run = cls(folder)
        if run.record_path.exists():
            raise UsageError(f"hydra.run.dir={folder}: contains a run already; resume={folder} continues it")
        try:
            run.save_config(config)
            info = {**info, "git": record_source(run.source_path)}
            write_record(run.record_path, info)  # It is written last: it makes the folder a run's.
        except OSError as error:
            raise not_writable(folder, error) from error
        return run

    @classmethod
    def find(cls, name: str | os.PathLike[str], runs_dir: str | os.PathLike[str] = "runs") -> Run:
        """Find a run by its name.

        Args:
            name: the path of a run folder, or of a checkpoint in one, whose weights are then used; or the unique
                beginning or end of a run below runs_dir; `latest` is the last run below runs_dir that neither a sweep
                nor reproduce has started.
            runs_dir: the folder of the runs.

        Raises:
            UsageError: no run has the name, or several have.
        """
        if name == "latest":
            if runs := cls.below(runs_dir, jobs=False):
                return runs[-1]
            where = Path(runs_dir).absolute()
            raise UsageError(f"latest: no run below {where}; a job of a sweep or of reproduce is named by its folder")
        path = Path(name)
        if path.suffix == ".ckpt":
            return cls._of_checkpoint(path)
        run = cls(path) if exists(path) else cls._find_named(os.fspath(name), Path(runs_dir))
        if not run.exists:
            raise UsageError(f"{run.folder}: not a run folder (it has no {RECORD}); `ls FOLDER` lists those below one")
        return run

    @classmethod
    def _find_named(cls, name: str, runs_dir: Path) -> Run:
        """Find the only run whose folder's name, or path below runs_dir, begins or ends with a text."""
        paths = {folder: folder.relative_to(runs_dir).as_posix() for folder in _run_folders(runs_dir)}
        matches = [folder for folder in paths if folder.name == name] or [
            folder
            for folder, path in paths.items()
            if folder.name.startswith(name) or path.startswith(name) or path.endswith(name)
        ]
        if not matches:
            near = difflib.get_close_matches(name, ["latest", *paths.values(), *(path.name for path in paths)], n=1)
            hint = f", nor the beginning or end of a run's name below {runs_dir}"
            hint = f"; did you mean {near[0]}?" if near else hint
            raise UsageError(f"{shorten(name, 200)}: run folder not found{hint}")
        if len(matches) > 1:
            some = sorted(paths[folder] for folder in matches)[:5] + ["..."] * (len(matches) > 5)
            problem = f"{len(matches)} runs match; give more of the name"
            raise UsageError(f"{shorten(name, 200)}: {problem}: {', '.join(some)}")
        return cls(matches[0])

    @classmethod
    def _of_checkpoint(cls, path: Path) -> Run:
        """Return the run that has a checkpoint in its checkpoints/, with its weights."""
        run = cls(path.absolute().parent.parent, path)
        if not exists(path):
            raise UsageError(f"{path}: checkpoint not found")
        if path.absolute().parent != run.checkpoints_folder or not run.exists:
            raise UsageError(f"{path}: not in a run folder; init_from={path} starts a new run from its weights")
        return run

    @classmethod
    def below(cls, folder: str | os.PathLike[str], *, jobs: bool = True) -> list[Run]:
        """Return the runs below a folder with a readable record, by start; with `jobs`, also those of sweeps."""
        return [run for run, info in cls.records(folder, jobs=jobs).items() if info["status"] != RunState.DAMAGED]

    @classmethod
    def records(cls, folder: str | os.PathLike[str], *, jobs: bool = True) -> dict[Run, RunRecord]:
        """Return runs with their records, as `below` does, but damaged ones too, with a warning, before the others."""
        records: dict[Run, RunRecord] = {}
        for run in map(cls, _run_folders(folder, jobs=jobs)):
            try:
                records[run] = run.info
            except UsageError as error:
                print_warning(str(error))
                records[run] = {"status": RunState.DAMAGED, "error": str(error)}
        return dict(sorted(records.items(), key=lambda record: start_timestamp(record[1])))

    def __str__(self) -> str:
        return display_path(self.folder)

    @property
    def exists(self) -> bool:
        """Whether the folder is a run's."""
        return exists(self.record_path) and self.record_path.is_file()

    @property
    def info(self) -> RunRecord:
        """The entries of run.json, with the status KILLED if it says RUNNING but no process works on the run."""
        info = self._read_record()
        is_killed = info["status"] == RunState.RUNNING and not holder_of(self.folder)
        return info | {"status": RunState.KILLED} if is_killed else info

    def _read_record(self) -> RunRecord:
        return read_record(self.record_path, RUN, "a run's record", "move the folder away")

    def update(self, **changes: Unpack[RunRecord]) -> None:
        """Change entries of run.json."""
        write_record(self.record_path, {**self._read_record(), **changes})

    @property
    def config(self) -> DictConfig:
        """The configuration that the run was started with, with the folder's current path."""
        config = load_config(self.config_path)
        config.folder = str(self.folder)
        return config

    def save_config(self, config: DictConfig) -> None:
        """Write config.yaml."""
        with atomic_write(self.config_path) as partial:
            OmegaConf.save(config, partial)

    @cached_property
    def tutorial(self) -> dict[str, Any]:
        """The source and the published results of the preset's tutorial; empty without a preset."""
        node = self.config.get("tutorial")
        tutorial: dict[str, Any] = to_plain(node) if isinstance(node, DictConfig) else {}
        published = tutorial.get("published")
        if published is not None:  # In a stranger's run, it may have any type.
            curves = published.items() if isinstance(published, dict) else ()
            tutorial["published"] = {
                metric: values
                for metric, values in curves
                if isinstance(values, list) and all(isinstance(value, int | float | None) for value in values)
            }
        return tutorial

    @property
    def tested_epoch(self) -> int | None:
        """The number of epochs after which the tested weights were saved; None before the test."""
        tested = self.info["tested"]
        return tested["epoch"] if tested else None

    @property
    def event_paths(self) -> list[Path]:
        """TensorBoard's event files."""
        return sorted(self.folder.glob("events.out.tfevents.*"))

    def clear(self) -> None:
        """Remove the files of an earlier start, except the lock, the open log and job.json."""
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path not in (self.log_path, self.job_path) and path.name not in (LOCK, HOLDER):
                path.unlink()

    def remove_partial_files(self) -> None:
        """Remove the temporary files of a killed process of this run; this process must have the lock."""
        for folder in (self.folder, self.checkpoints_folder, self.figures_folder, self.projector_folder):
            for path in folder.glob(f".*{PARTIAL}"):
                path.unlink(missing_ok=True)

    def checkpoint_path(self, name: str) -> Path:
        """Return the path of the checkpoint with a name, best or last; the file may be missing."""
        return self.checkpoints_folder / f"{name}.ckpt"

    def epoch_checkpoint_path(self, epochs: int) -> Path:
        """Return the path of the checkpoint that is kept after so many epochs; the file may be missing."""
        return self.checkpoint_path(f"epoch-{epochs}")

    def epoch_checkpoints(self) -> dict[int, Path]:
        """Return the kept checkpoints by their numbers of epochs."""
        paths = {path.stem.removeprefix("epoch-"): path for path in self.checkpoints_folder.glob("epoch-*.ckpt")}
        return dict(sorted((int(epochs), path) for epochs, path in paths.items() if epochs.isdecimal()))

    def checkpoint(self, name: str) -> Path | None:
        """Return the path of the checkpoint with a name, or None if the file is missing."""
        path = self.checkpoint_path(name)
        return path if path.is_file() else None

    def newest_whole_checkpoint(self) -> Path | None:
        """Return the last checkpoint, or the best if the last is corrupt; None if neither is intact."""
        paths = map(self.checkpoint, ("last", "best"))
        return next((path for path in paths if path and is_whole(path)), None)

    def chosen_checkpoint(self) -> Path:
        """Return the checkpoint to test and export: the one that the user named, else the best, else the last."""
        chosen = self.weights or self.checkpoint("best") or self.checkpoint("last")
        if chosen is None:
            raise UsageError(f"{self.folder}: has no checkpoint (status: {self.info['status']})")
        return chosen

    def chosen_by(self) -> str:
        """Describe how the chosen checkpoint was chosen."""
        monitor = str(OmegaConf.select(self.config, "callbacks.best.monitor") or VAL_ACC)
        return f"best by {in_words(monitor)}" if self.checkpoint("best") else "the last"

    def checkpoints(self) -> dict[str, str | None]:
        """Return the paths of the best and the last checkpoint, relative to the folder; None for a missing one."""
        paths = {name: self.checkpoint(name) for name in ("best", "last")}
        return {name: path.relative_to(self.folder).as_posix() if path else None for name, path in paths.items()}

    def metrics(self) -> list[dict[str, float]]:
        """Read metrics.csv: a row for each logged step; damaged rows are left out."""
        try:
            status = self.metrics_path.stat()
            return _read_metrics(self.metrics_path.absolute(), (status.st_size, status.st_mtime_ns))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UsageError(f"{self.metrics_path}: cannot be read ({error.strerror})") from error

    def epochs(self) -> list[dict[str, float]]:
        """Return the rows of metrics.csv at the ends of epochs, in order."""
        return [row for row in self.metrics() if {TRAIN_LOSS, "epoch"} <= set(row)]

    def curve(self, name: str, across: Literal["epochs", "examples_seen"] = "epochs") -> dict[float, float]:
        """Return a metric by completed epochs or by training examples seen, where 0 is before training.

        If a metric of the test set was measured only once, after training, the curve is a single point.

        Args:
            name: the metric, from METRIC_NAMES.
            across: what the keys count.
        """
        rows = [row for row in self.metrics() if "epoch" in row]
        ends = {int(row["epoch"]) + 1: row for row in rows if TRAIN_LOSS in row or row["step"] == -1}
        values: dict[float, float] = {epoch: row[name] for epoch, row in ends.items() if name in row}
        if not values:
            info = self.info
            if info["tested"] and name in info["metrics"]:
                values = {info["tested"]["epoch"]: info["metrics"][name]}
        if across == "epochs":
            return values
        return {ends.get(int(epoch), {}).get(across, 0): value for epoch, value in values.items()}


@lru_cache(maxsize=1)  # A report reads the same file for each of its curves.
def _read_metrics(path: Path, version: tuple[int, int]) -> list[dict[str, float]]:
    # A line without a newline was cut off, perhaps within a number.
    lines = [line for line in read_text(path, errors="replace").splitlines(keepends=True) if line.endswith("\n")]
    if len(lines) > MAX_ROWS:
        raise OSError(errno.EFBIG, f"more than {MAX_ROWS:,} rows")
    heads: list[str] = []
    rows: list[dict[str, float]] = []
    for line in lines:
        with contextlib.suppress(ValueError, csv.Error):  # The line is damaged.
            cells = next(csv.reader([line]))
            row = {name: float(value) for name, value in zip(heads, cells, strict=False) if name and value}
            heads = heads or cells
            places = [row[name] for name in ("step", "epoch") if name in row]
            rows += [row] * ("step" in row and all(map(math.isfinite, places)))
    return rows


def find_folder(name: str, runs_dir: Path) -> Path:
    """Return the folder of the sweep with a name below a folder of runs, unless the name is a path; else the path."""
    path, sweep = Path(name), runs_dir / "sweeps" / name
    return sweep if not exists(path) and exists(sweep / SWEEP_RECORD) else path


def _run_folders(folder: str | os.PathLike[str], *, jobs: bool = True) -> Iterator[Path]:
    """Yield the folders of all runs below a folder; with `jobs`, also of those in sweeps and reproductions."""
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]  # The trash is hidden.
        if not jobs and path != os.fspath(folder) and {SWEEP_RECORD, REPRODUCTION_RECORD} & set(files):
            folders.clear()
        if RECORD in files:
            # A thousand runs have thousands of these, without runs in them.
            folders[:] = set(folders) - {CHECKPOINTS, FIGURES, EXPORTS, WANDB}
            yield Path(path)


def start_timestamp(info: RunRecord) -> float:
    """Return the start of a run in seconds since 1970; 0 if the record has no valid one."""
    try:
        return datetime.fromisoformat(info.get("started") or "").timestamp()
    except (ValueError, OverflowError):
        return 0.0
