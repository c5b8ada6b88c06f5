"""Files that are whole or not there."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
