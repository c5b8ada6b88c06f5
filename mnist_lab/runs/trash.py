"""What a user does to a run folder: tag it, note something on it, move it to the trash, restore it.

Tags and note are in annotations.json of the folder, which training never writes. Removed runs and sweeps are in .trash
of the folder of the runs until they are restored, or the trash is emptied; each entry has the path that its folder had.
"""

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from mnist_lab.errors import UsageError
from mnist_lab.files import exists, make_folder
from mnist_lab.formatting import display_path, print_warning, shorten
from mnist_lab.runs.locks import holder_of
from mnist_lab.runs.record import read_record, write_record
from mnist_lab.runs.run import RECORD, SWEEP_RECORD, TRASH, Run


@with_config(ConfigDict(strict=True))
class Annotations(TypedDict):
    """The entries of annotations.json."""

    tags: list[str]
    note: str | None


ANNOTATIONS = TypeAdapter(Annotations)


def read_annotations(run: Run) -> Annotations:
    """Return a run's tags and note; none, with a warning, if the file is damaged."""
    if run.annotations_path.exists():
        try:
            return read_record(run.annotations_path, ANNOTATIONS, "tags and a note", "tag the run anew")
        except UsageError as error:
            print_warning(str(error))
    return {"tags": [], "note": None}


def tag_run(run: Run, add: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
    """Add tags to a run's, and remove others."""
    for tag in add:
        if not re.fullmatch(r"[\w.+-]{1,50}", tag):
            raise UsageError(f"{shorten(tag)}: a tag consists of letters, digits and . + - _, at most 50 of them")
    found = read_annotations(run)
    tags = [tag for tag in dict.fromkeys([*found["tags"], *add]) if tag not in set(remove)]
    annotate(run, {**found, "tags": tags})


def annotate(run: Run, annotations: Annotations) -> None:
    """Write a run's tags and note."""
    try:
        write_record(run.annotations_path, annotations)
    except OSError as error:
        raise UsageError(f"{run.annotations_path}: cannot be written ({error.strerror})") from error


@dataclass(frozen=True)
class Removed:
    """A run or a sweep in the trash: its entry there, and its path from the folder of the runs, and from its entry."""

    entry: Path
    path: Path

    @property
    def folder(self) -> Path:
        """The place that it had."""
        return self.entry.parents[1].absolute() / self.path

    @property
    def date(self) -> str:
        """When it was removed, in ISO 8601."""
        return datetime.fromtimestamp(self.entry.stat().st_mtime).isoformat()


def remove(folders: Sequence[Path], runs_dir: Path, *, force: bool = False) -> list[Removed]:
    """Move folders into the trash, all or none; with `force` also what is in use, or a job of a sweep."""
    for folder in () if force else folders:
        if (problem := _problem_of_removal(folder)) is not None:
            raise UsageError(f"{display_path(folder)}: {problem}; --force removes it all the same")
    return [_remove(folder, runs_dir) for folder in folders]


def _problem_of_removal(folder: Path) -> str | None:
    jobs = Run.below(folder) if (folder / SWEEP_RECORD).is_file() else [Run(folder)]
    for place in (folder, *(run.folder for run in jobs)):
        if (holder := holder_of(place)) is not None:
            return f"is in use by {holder}"
    sweep = folder.absolute().parent
    if (sweep / SWEEP_RECORD).is_file():
        return f"is a job of the sweep {sweep.name}, which would run it again"
    return None


def _remove(folder: Path, runs_dir: Path) -> Removed:
    place = folder.absolute().parent.resolve() / folder.absolute().name
    runs_dir = runs_dir if runs_dir.resolve() in place.parents else place.parent  # Others' trash is beside them.
    entry = runs_dir / TRASH / f"{datetime.now():%Y-%m-%dT%H-%M-%S-%f}-{place.name}"
    removed = Removed(entry, place.relative_to(runs_dir.resolve()))
    try:
        make_folder((entry / removed.path).parent)
        shutil.move(folder, entry / removed.path)
    except OSError as error:
        raise UsageError(f"{display_path(folder)}: cannot be moved to {entry} ({error.strerror})") from error
    return removed


def list_trash(runs_dir: Path) -> list[Removed]:
    """Return what is in the trash, in the order of removal."""
    removed = []
    for entry in sorted((runs_dir / TRASH).glob("*")):
        places = (Path(place) for place, _, files in os.walk(entry) if {RECORD, SWEEP_RECORD} & set(files))
        if (place := next(places, None)) is not None:
            removed.append(Removed(entry, place.relative_to(entry)))
    return removed


def find_removed(name: str, runs_dir: Path) -> Removed:
    """Return the only entry of the trash with this folder, or whose folder's name begins or ends so."""
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
    """Move a run or a sweep back to where it was, and return that folder."""
    folder = removed.folder
    if exists(folder):
        raise UsageError(f"{display_path(folder)}: is there again; move that away first")
    try:
        make_folder(folder.parent)
        shutil.move(removed.entry / removed.path, folder)
        shutil.rmtree(removed.entry)
    except OSError as error:
        raise UsageError(f"{display_path(folder)}: cannot be restored ({error.strerror})") from error
    return folder


def empty_trash(runs_dir: Path) -> int:
    """Delete for good what is in the trash, and return how many runs and sweeps that were."""
    entries = list_trash(runs_dir)
    shutil.rmtree(runs_dir / TRASH, ignore_errors=True)
    return len(entries)
