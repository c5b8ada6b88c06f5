"""The run folder: what a run leaves behind, and the one way to read it. Imports neither torch nor Lightning."""

from __future__ import annotations

import contextlib
import csv
import math
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from typing_extensions import Unpack

from mnist_lab.config.settings import load_config
from mnist_lab.errors import UsageError
from mnist_lab.files import atomic_write, exists, is_whole, remove_partial_files
from mnist_lab.formatting import display_path, printable
from mnist_lab.metric_names import TRAIN_LOSS
from mnist_lab.runs.locks import HOLDER, LOCK, holder_of
from mnist_lab.runs.paths import PathIn
from mnist_lab.runs.record import RUN, RunRecord, read_record, write_record
from mnist_lab.runs.state import RunState

RECORD, SWEEP_RECORD, REPRODUCTION_RECORD = "run.json", "sweep.json", "reproduce.json"  # say what a folder is
CHECKPOINTS, FIGURES, EXPORTS = "checkpoints", "figures", "exports"


@dataclass(frozen=True)
class Run:
    """A run by its folder, whose paths are the attributes below.

    Attributes:
        folder: the run folder.
    """

    folder: Path
    record_path = PathIn(RECORD)  # what a folder must have to be a run's
    config_path = PathIn("config.yaml")
    metrics_path = PathIn("metrics.csv")
    log_path = PathIn("train.log")
    report_path = PathIn("report.html")
    job_path = PathIn("job.json")  # of a sweep's job
    pruned_path = PathIn("pruned")  # of a job that a search stopped early: after how many epochs
    checkpoints_folder = PathIn(CHECKPOINTS)
    figures_folder = PathIn(FIGURES)
    exports_folder = PathIn(EXPORTS)
    projector_folder = PathIn("projector")  # beside the event files; TensorBoard finds it by projector_config.pbtxt
    projector_config_path = PathIn("projector_config.pbtxt")

    @property
    def exists(self) -> bool:
        """Whether the folder is a run's."""
        return exists(self.record_path) and self.record_path.is_file()

    @property
    def event_paths(self) -> list[Path]:
        """TensorBoard's event files."""
        return sorted(self.folder.glob("events.out.tfevents.*"))

    @classmethod
    def create(cls, folder: Path, info: RunRecord, config: DictConfig) -> Run:
        """Make a folder that this process has locked a run's, by writing its config.yaml and its run.json.

        Raises:
            UsageError: it holds a run already, or cannot be written.
        """
        run = cls(folder)
        if run.record_path.exists():
            raise UsageError(f"hydra.run.dir={folder}: holds a run already; resume={folder} continues it")
        try:
            run.save_config(config)
            write_record(run.record_path, info)  # last: a folder with one is a run
        except OSError as error:
            raise UsageError(f"hydra.run.dir={folder}: cannot be written ({error.strerror}); choose another") from error
        return run

    @classmethod
    def find(cls, name: str | os.PathLike[str], runs_dir: str | os.PathLike[str] = "runs") -> Run:
        """Return the run that a name means.

        Args:
            name: a run folder's path, or its beginning or end below runs_dir if no other run's is the same; or
                `latest` for the last run below runs_dir that a person started.
            runs_dir: the folder of the runs.

        Raises:
            UsageError: there is none, or there are several.
        """
        if name == "latest":
            runs = cls.below(runs_dir, jobs=False)
            if not runs:
                where = Path(runs_dir).absolute()
                raise UsageError(
                    f"latest: no run below {where}; a job of a sweep or of reproduce is named by its folder"
                )
            return runs[-1]
        run = cls(Path(name))
        if not exists(run.folder):
            run = cls._named(os.fspath(name), Path(runs_dir))
        if not run.exists:
            raise UsageError(f"{run.folder}: not a run folder (it has no {RECORD})")
        return run

    @classmethod
    def _named(cls, name: str, runs_dir: Path) -> Run:
        """Return the one run whose folder's name, or path below runs_dir, begins or ends with these characters."""
        paths = {folder: folder.relative_to(runs_dir).as_posix() for folder in _run_folders(runs_dir)}
        found = [folder for folder in paths if folder.name == name] or [
            folder
            for folder, path in paths.items()
            if folder.name.startswith(name) or path.startswith(name) or path.endswith(name)
        ]
        shortened = name if len(name) < 200 else f"{name[:197]}..."
        if len(found) > 1:
            some = ", ".join([*sorted(paths[folder] for folder in found)[:5], *["..."] * (len(found) > 5)])
            raise UsageError(f"{shortened}: {len(found)} runs match; give more of the name: {some}")
        if not found:
            raise UsageError(
                f"{shortened}: no such run folder, nor the beginning or end of one's name below {runs_dir}"
            )
        return cls(found[0])

    @classmethod
    def of_checkpoint(cls, path: Path) -> Run:
        """The run in whose folder checkpoints/ a checkpoint lies."""
        run = cls(path.absolute().parent.parent)
        if path.absolute().parent != run.checkpoints_folder or not run.exists:
            raise UsageError(f"resume={path}: not in a run folder; init_from={path} starts a new run from its weights")
        return run

    @classmethod
    def below(cls, folder: str | os.PathLike[str], *, jobs: bool = True) -> list[Run]:
        """All runs below a folder, such as a sweep's, in the order in which they were started; none that is damaged.

        Args:
            folder: the folder.
            jobs: whether those of sweeps and reproductions below it are among them.
        """
        return [run for run, info in cls.records(folder, jobs=jobs).items() if info["status"] != RunState.DAMAGED]

    @classmethod
    def records(cls, folder: str | os.PathLike[str], *, jobs: bool = True) -> dict[Run, RunRecord]:
        """All runs below a folder with what run.json says of each, in the order in which they were started.

        One whose run.json cannot be read comes first, with the status "damaged" and a warning.
        """
        records: dict[Run, RunRecord] = {}
        for run in map(cls, _run_folders(folder, jobs=jobs)):
            try:
                records[run] = run.info
            except UsageError as error:
                print(f"mnist_lab: warning: {printable(str(error))}", file=sys.stderr)
                records[run] = {"status": RunState.DAMAGED, "error": str(error)}
        return dict(sorted(records.items(), key=lambda record: start_timestamp(record[1])))

    def __str__(self) -> str:
        return display_path(self.folder)

    @property
    def info(self) -> RunRecord:
        """The entries of run.json; a run is killed where it is running by them and no process works on it."""
        info = self._record()
        return (
            info | {"status": RunState.KILLED}
            if info["status"] == RunState.RUNNING and not holder_of(self.folder)
            else info
        )

    def _record(self) -> RunRecord:
        return read_record(self.record_path, RUN, "a run's record", "move the folder away")

    @property
    def config(self) -> DictConfig:
        """The configuration that the run was started with; its folder is where the run lies now."""
        config = load_config(self.config_path)
        config.folder = str(self.folder)
        return config

    @property
    def tutorial(self) -> dict[str, Any]:
        """Source and published figures of the tutorial whose preset the run was started with; empty without one."""
        node = self.config.get("tutorial")
        return dict(OmegaConf.to_container(node)) if node else {}  # type: ignore[arg-type]

    @property
    def tested_epoch(self) -> int | None:
        """The epochs after which the tested weights were saved; None before the test."""
        tested = self.info["tested"]
        return tested["epoch"] if tested else None

    def clear(self) -> None:
        """Remove what an earlier start left, but for the lock that this process holds, the open log and job.json."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path not in (self.log_path, self.job_path) and path.name not in (LOCK, HOLDER):
                path.unlink()

    def remove_partial_files(self) -> None:
        """Remove the temporary files that a killed process of this run left; its lock is held by this one."""
        for folder in (self.folder, self.checkpoints_folder, self.figures_folder, self.projector_folder):
            remove_partial_files(folder)

    def save_config(self, config: DictConfig) -> None:
        """Write config.yaml."""
        with atomic_write(self.config_path) as partial:
            OmegaConf.save(config, partial)

    def update(self, **changes: Unpack[RunRecord]) -> None:
        """Change entries of run.json."""
        write_record(self.record_path, {**self._record(), **changes})

    def checkpoint_path(self, name: str) -> Path:
        """Return the path of the checkpoint of a name, best or last, whether or not there is one."""
        return self.checkpoints_folder / f"{name}.ckpt"

    def checkpoint(self, name: str) -> Path | None:
        """Return the path of the checkpoint of a name, if there is one."""
        path = self.checkpoint_path(name)
        return path if path.is_file() else None

    def newest_whole_checkpoint(self) -> Path | None:
        """The last checkpoint, or the best if the sums of the last are wrong; None if neither is whole."""
        found = (self.checkpoint(name) for name in ("last", "best"))
        return next((path for path in found if path and is_whole(path)), None)

    def chosen_checkpoint(self) -> Path:
        """The checkpoint that is tested and handed on: the best by validation accuracy, else the last.

        Raises:
            UsageError: the run has none.
        """
        chosen = self.checkpoint("best") or self.checkpoint("last")
        if chosen is None:
            raise UsageError(f"{self.folder}: has no checkpoint (its status: {self.info['status']})")
        return chosen

    def seconds_with(self, **seconds: float) -> dict[str, float]:
        """Seconds of this start, added to those of the earlier ones that run.json has."""
        earlier = self.info["seconds"]
        return {name: earlier.get(name, 0.0) + value for name, value in seconds.items()}

    def checkpoints(self) -> dict[str, str | None]:
        """Where the best and the last checkpoint are, from the folder; None where there is none."""
        found = {name: self.checkpoint(name) for name in ("best", "last")}
        return {name: path.relative_to(self.folder).as_posix() if path else None for name, path in found.items()}

    def metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.csv, each with what was logged at its step; a damaged one is left out."""
        try:
            text = self.metrics_path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UsageError(f"{self.metrics_path}: cannot be read ({error.strerror})") from error
        # A line without an end was cut, maybe within a number.
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        rows, heads = [], _cells(lines[0]) if lines else []
        for cells in map(_cells, lines[1:]):
            with contextlib.suppress(ValueError):
                row = {name: float(value) for name, value in zip(heads, cells, strict=False) if name and value}
                places = [row[name] for name in ("step", "epoch") if name in row]
                rows += [row] * ("step" in row and all(map(math.isfinite, places)))
        return rows

    def curve(self, name: str, across: Literal["epochs", "examples_seen"] = "epochs") -> dict[float, float]:
        """A metric by epochs done or by training examples seen, 0 being before training.

        Where the test set was looked at once, after training, its curve is that point.
        """
        rows = [row for row in self.metrics() if "epoch" in row]
        ends = {int(row["epoch"]) + 1: row for row in rows if TRAIN_LOSS in row or row["step"] == -1}
        values = {epoch: row[name] for epoch, row in ends.items() if name in row}
        if not values and name in (info := self.info)["metrics"] and info["tested"]:
            values = {info["tested"]["epoch"]: info["metrics"][name]}
        places = {epoch: epoch if across == "epochs" else ends.get(epoch, {}).get(across, 0) for epoch in values}
        return {places[epoch]: value for epoch, value in values.items()}

    def epochs(self) -> list[dict[str, float]]:
        """The rows of metrics.csv that end an epoch, in order."""
        return [row for row in self.metrics() if {TRAIN_LOSS, "epoch"} <= set(row)]


def _cells(line: str) -> list[str]:
    """Return the cells of a line of a CSV; none of one that is damaged."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def _run_folders(folder: str | os.PathLike[str], *, jobs: bool = True) -> Iterator[Path]:
    """Yield the folders of all runs below a folder; jobs: those of sweeps and reproductions too."""
    for place, folders, files in os.walk(folder):
        if not jobs and place != os.fspath(folder) and {SWEEP_RECORD, REPRODUCTION_RECORD} & set(files):
            folders.clear()
        if RECORD in files:
            folders[:] = set(folders) - {CHECKPOINTS, FIGURES, EXPORTS}  # a thousand runs have thousands
            yield Path(place)


def start_timestamp(info: RunRecord) -> float:
    """Return when a run was started, in seconds since 1970; 0 where its record does not have that."""
    try:
        return datetime.fromisoformat(info.get("started") or "").timestamp()
    except ValueError:
        return 0.0
