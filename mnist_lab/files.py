"""Files that are whole or not there."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnist_lab.errors import BadInput


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A partial file beside a path, to write into; it takes the path's place when the block ends well.

    A reader, a kill or a full disk meets the old file or the new one, never half of one; what failed leaves no litter.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        error.filename = str(path)  # a full disk names none, and no one knows the partial file
        raise
    finally:
        partial.unlink(missing_ok=True)


def refuse_no_file(path: Path, told: str) -> None:
    """Raise BadInput for a path that a file cannot take, before the work on one; told as it was typed: --out=PATH."""
    if path.exists() and not path.is_file():
        raise BadInput(f"{told}: there already, and not a file; choose another")


@contextmanager
def asked_for(path: Path, told: str, remedy: str = "choose another") -> Iterator[Path]:
    """A partial file as replacing has it, for a file that a person asked for, in a folder that is made if need be.

    Raises:
        BadInput: it cannot be written; told as it was typed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            yield partial
    except OSError as error:
        raise BadInput(f"{told}: cannot be written ({error.strerror}); {remedy}") from error


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint's zip file is complete and its sums are right; torch itself does not look."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def as_typed(path: Path) -> str:
    """A path as a person would type it: from the current folder, if it lies below it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
