"""Tag runs, write notes on them, move them to the trash, and restore them.

Tags and notes are in annotations.json of the run folder, which training never writes. Removed runs and sweeps are in
.trash of the folder of the runs until they are restored, or the trash is emptied. An entry has the path of its folder.
"""

import os
import re
import shutil
from collections.abc import Sequence
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


def tag_run(run: Run, tags: Sequence[str], *, remove: bool = False) -> None:
    """Add tags to a run, or remove them."""
    for tag in tags:
        if not remove and not re.fullmatch(r"[\w.+-]{1,50}", tag):
            raise UsageError(f"{shorten(tag)}: a tag consists of letters, digits and . + - _, at most 50 of them")
    annotations = read_annotations(run)
    before = annotations["tags"]
    after = [tag for tag in before if tag not in tags] if remove else [*dict.fromkeys([*before, *tags])]
    annotate(run, {**annotations, "tags": after})


def annotate(run: Run, annotations: Annotations) -> None:
    """Write a run's tags and note."""
    try:
        write_record(run.annotations_path, annotations)
    except OSError as error:
        raise UsageError(f"{run.annotations_path}: cannot be written ({error.strerror})") from error


@dataclass(frozen=True)
class Removed:
    """A run or a sweep in the trash: its entry there, and its path below the folder of the runs and below the entry."""

    entry: Path
    path: Path

    @property
    def folder(self) -> Path:
        """The folder that it had."""
        return self.entry.parents[1].absolute() / self.path

    @property
    def date(self) -> str:
        """The time of its removal, in ISO 8601."""
        return datetime.fromtimestamp(self.entry.stat().st_mtime).isoformat()


def remove(folders: Sequence[Path], runs_dir: Path, *, force: bool = False) -> list[Removed]:
    """Move folders into the trash, all or none; `force` also moves what is in use, or a job of a sweep."""
    for folder in folders:
        problem = None if force else _find_problem_of_removal(folder)
        if problem is not None:
            raise UsageError(f"{display_path(folder)}: {problem}; --force removes it all the same")
    return [_remove(folder, runs_dir) for folder in folders]


def _find_problem_of_removal(folder: Path) -> str | None:
    jobs = Run.below(folder) if (folder / SWEEP_RECORD).is_file() else []
    for used in (folder, *(job.folder for job in jobs)):
        if (holder := holder_of(used)) is not None:
            return f"is in use by {holder}"
    sweep = folder.absolute().parent
    if (sweep / SWEEP_RECORD).is_file():
        return f"is a job of the sweep {sweep.name}, which would run it again"
    return None


def _remove(folder: Path, runs_dir: Path) -> Removed:
    path = folder.absolute().parent.resolve() / folder.absolute().name
    runs_dir = runs_dir if runs_dir.resolve() in path.parents else path.parent  # Other runs get a trash beside them.
    entry = runs_dir / TRASH / f"{datetime.now():%Y-%m-%dT%H-%M-%S-%f}-{path.name}"
    removed = Removed(entry, path.relative_to(runs_dir.resolve()))
    try:
        make_folder((entry / removed.path).parent)
        shutil.move(folder, entry / removed.path)
    except OSError as error:
        raise UsageError(f"{display_path(folder)}: cannot be moved to {entry} ({error.strerror})") from error
    return removed


def list_trash(runs_dir: Path) -> list[Removed]:
    """Return the entries of the trash, in the order of their removal."""
    trash = []
    for entry in sorted((runs_dir / TRASH).glob("*")):
        folders = (Path(folder) for folder, _, files in os.walk(entry) if {RECORD, SWEEP_RECORD} & set(files))
        if (folder := next(folders, None)) is not None:
            trash.append(Removed(entry, folder.relative_to(entry)))
    return trash


def find_removed(name: str, runs_dir: Path) -> Removed:
    """Return the only entry of the trash whose folder has this path, or a name that begins or ends with `name`."""
    trash = list_trash(runs_dir)
    matches = [removed for removed in trash if removed.folder == Path(name).absolute()] or [
        removed for removed in trash if removed.folder.name.startswith(name) or removed.folder.name.endswith(name)
    ]
    if len(matches) != 1:
        place = f"the trash of {runs_dir} (--runs-dir names another folder)"
        raise UsageError(f"{name}: {len(matches) or 'nothing'} in {place} has this name; `restore` lists it")
    return matches[0]


def restore(removed: Removed) -> Path:
    """Move a run or a sweep back to the folder that it had, and return this folder."""
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
    """Delete all entries of the trash for good, and return their number."""
    count = len(list_trash(runs_dir))
    shutil.rmtree(runs_dir / TRASH, ignore_errors=True)
    return count
