"""A person's tags and note on a run, in annotations.json of its folder, which training never writes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from mnist_lab.errors import UsageError
from mnist_lab.formatting import printable, shorten
from mnist_lab.runs.record import read_record, write_record
from mnist_lab.runs.run import Run


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
            print(f"mnist_lab: warning: {printable(str(error))}", file=sys.stderr)
    return {"tags": [], "note": None}


def tag_run(run: Run, add: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
    """Add tags to a run's, and remove others.

    Raises:
        UsageError: a tag is not one word.
    """
    for tag in add:
        if not re.fullmatch(r"[\w.+-]{1,50}", tag):
            raise UsageError(f"{shorten(tag)}: a tag consists of letters, digits and . + - _, at most 50 of them")
    found = read_annotations(run)
    tags = [tag for tag in dict.fromkeys([*found["tags"], *add]) if tag not in set(remove)]
    write_record(run.annotations_path, {**found, "tags": tags})


def note_run(run: Run, text: str) -> None:
    """Replace a run's note; an empty text removes it."""
    write_record(run.annotations_path, {**read_annotations(run), "note": text.strip() or None})
