"""Removed runs and sweeps lie in .trash of the folder of the runs until they are restored, or the trash is emptied."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from mnist_lab.errors import UsageError
from mnist_lab.files import make_folder
from mnist_lab.formatting import display_path
from mnist_lab.runs.locks import holder_of
from mnist_lab.runs.record import read_record, write_record
from mnist_lab.runs.run import TRASH, Run
from mnist_lab.runs.sweep import Sweep

PLACE = "place.json"  # of an entry: where its folder was


@with_config(ConfigDict(strict=True))
class Place(TypedDict):
    """The entries of place.json: the folder's absolute path, and when it was removed."""

    folder: str
    removed: str


PLACE_RECORD = TypeAdapter(Place)


@dataclass(frozen=True)
class Removed:
    """A run or a sweep in the trash.

    Attributes:
        entry: its folder there, which contains place.json and the run's or sweep's own folder.
    """

    entry: Path

    @property
    def place(self) -> Place:
        """Where it was, and since when it is here."""
        told = "an entry of the trash"
        return read_record(self.entry / PLACE, PLACE_RECORD, told, f"take the folder out of {self.entry} by hand")

    @property
    def folder(self) -> Path:
        """Where it was."""
        return Path(self.place["folder"])


def problem_of_removal(folder: Path) -> str | None:
    """Return why the folder of a run or a sweep should stay, or None."""
    jobs = Run.below(folder) if Sweep(folder).exists else [Run(folder)]
    for place in (folder, *(run.folder for run in jobs)):
        if (holder := holder_of(place)) is not None:
            return f"is in use by {holder}"
    if (sweep := Sweep(folder.absolute().parent)).exists:
        return f"is a job of the sweep {sweep.folder.name}, which would run it again"
    return None


def remove(folders: Sequence[Path], runs_dir: Path, *, force: bool = False) -> list[Removed]:
    """Move the folders of runs and sweeps into the trash, all of them or none.

    Args:
        folders: the folders.
        runs_dir: the folder of the runs, in which the trash is.
        force: whether to remove also what is in use, or a job of a sweep.

    Raises:
        UsageError: one should stay, or cannot be moved.
    """
    for folder in () if force else folders:
        if (problem := problem_of_removal(folder)) is not None:
            raise UsageError(f"{display_path(folder)}: {problem}; --force removes it all the same")
    return [_remove(folder, runs_dir / TRASH) for folder in folders]


def _remove(folder: Path, trash: Path) -> Removed:
    now = datetime.now().astimezone()
    entry = trash / f"{now:%Y-%m-%dT%H-%M-%S-%f}-{folder.absolute().name}"
    try:
        make_folder(entry)
        write_record(entry / PLACE, {"folder": str(folder.absolute()), "removed": now.isoformat(timespec="seconds")})
        shutil.move(folder, entry / folder.absolute().name)
    except OSError as error:
        raise UsageError(f"{display_path(folder)}: cannot be moved to {entry} ({error.strerror})") from error
    return Removed(entry)


def list_trash(runs_dir: Path) -> list[Removed]:
    """Return what is in the trash, in the order of removal."""
    return [Removed(path.parent) for path in sorted((runs_dir / TRASH).glob(f"*/{PLACE}"))]


def find_removed(name: str, runs_dir: Path) -> Removed:
    """Return the only entry of the trash with this folder, or whose folder's name begins or ends so.

    Raises:
        UsageError: there is none, or there are several.
    """
    entries = list_trash(runs_dir)
    found = [each for each in entries if each.folder == Path(name).absolute()] or [
        each for each in entries if each.folder.name.startswith(name) or each.folder.name.endswith(name)
    ]
    if len(found) != 1:
        known = ", ".join(display_path(each.folder) for each in (found or entries)[:5]) or "nothing"
        problem = f"{len(found)} match; give more of the name" if found else "not in the trash, which has"
        raise UsageError(f"{name}: {problem}: {known}")
    return found[0]


def restore(removed: Removed) -> Path:
    """Move a run or a sweep back to where it was, and return that folder.

    Raises:
        UsageError: something else is there now, or it cannot be moved.
    """
    folder = removed.folder
    if folder.exists():
        raise UsageError(f"{display_path(folder)}: is there again; move that away first")
    try:
        make_folder(folder.parent)
        shutil.move(removed.entry / folder.name, folder)
        shutil.rmtree(removed.entry)
    except OSError as error:
        raise UsageError(f"{display_path(folder)}: cannot be restored ({error.strerror})") from error
    return folder


def empty_trash(runs_dir: Path) -> int:
    """Delete for good what is in the trash, and return how many runs and sweeps that were."""
    entries = list_trash(runs_dir)
    shutil.rmtree(runs_dir / TRASH, ignore_errors=True)
    return len(entries)
