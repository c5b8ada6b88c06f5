"""The entries of run.json, sweep.json and job.json, and the one reader and writer of them. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import NotRequired, TypedDict

from mnist_lab.errors import UsageError
from mnist_lab.files import write_text
from mnist_lab.runs.state import RunState

_STRICT = ConfigDict(strict=True, extra="allow")
R = TypeVar("R")
State = Annotated[RunState, Field(strict=False)]


class TestedWeights(TypedDict):
    """The weights that were tested: their checkpoint, and the epochs they were trained for."""

    checkpoint: str
    epoch: int


class Member(TypedDict):
    """A network of an ensemble: its run, and its metrics of the test set, measured when the ensemble was made."""

    run: str
    model: str | None
    seed: int | None
    metrics: dict[str, float]


class GitState(TypedDict):
    """The commit of a checkout, and how its files differ from it.

    Attributes:
        commit: its hash.
        changed: whether files were changed since, or added.
        origin: the URL of the repository that it came from.
        untracked: files that git does not track; they are not kept.
        left_out: which changes of tracked files source.patch does not have, and why.
        restore: commands that make the same files again, but for those that were not kept.
    """

    commit: str
    changed: bool
    origin: NotRequired[str]
    untracked: NotRequired[list[str]]
    left_out: NotRequired[str]
    restore: NotRequired[str]


@with_config(_STRICT)
class RunRecord(TypedDict, total=False):
    """The entries of run.json; times are in seconds, accuracies from 0 to 1. A record that was read has them all."""

    status: State
    error: str | None
    command: str | None
    overrides: list[str]
    config_dir: str | None
    model: str | None
    parameters: int | None
    seed: int | None
    started: str | None
    finished: str | None
    max_epochs: int | None
    epochs: int
    steps: int
    tested: TestedWeights | None
    metrics: dict[str, float]
    seconds: dict[str, float]
    images_per_second: float | None
    device: str | None
    processor: str | None
    versions: dict[str, str]
    git: GitState | None
    checkpoints: dict[str, str | None]
    members: list[Member] | None
    trackers: dict[str, str]


class Submission(TypedDict):
    """A job in the queue of a cluster: its number there, and the file of what it prints."""

    number: str
    log: str


@with_config(_STRICT)
class SweepRecord(TypedDict):
    """The entries of sweep.json.

    Attributes:
        command: the command that continues the sweep.
        start: an id of its latest start, HOST-PID-DIGITS.
        swept: the keys that have several values.
        jobs: the overrides of each planned job by its id.
        submitted: the jobs that were handed to the queue of a cluster, by their ids.
    """

    command: str
    start: Annotated[str, Field(pattern=r"-\d+-[^-]*$")]
    swept: list[str]
    jobs: dict[str, list[str]]
    submitted: NotRequired[dict[str, Submission]]


class JobProcess(TypedDict, total=False):
    """The process that runs a job, or did: the sweep's start, its machine, number and start time, in seconds."""

    start: str
    host: str
    pid: int
    began: float


@with_config(_STRICT)
class JobRecord(TypedDict):
    """The entries of job.json; `runs.sweep.Job` describes them."""

    overrides: list[str]
    state: State
    attempts: int
    error: str | None
    process: JobProcess


def _without_nulls(record: Any) -> Any:
    return {key: value for key, value in record.items() if value is not None} if isinstance(record, dict) else record


def _complete(record: dict[str, Any]) -> dict[str, Any]:
    if "status" not in record:
        raise ValueError("it has no status")
    empty = {
        "overrides": [],
        "epochs": 0,
        "steps": 0,
        "metrics": {},
        "seconds": {},
        "versions": {},
        "checkpoints": {},
        "trackers": {},
    }
    return dict.fromkeys(RunRecord.__annotations__) | empty | record


RUN: TypeAdapter[RunRecord] = TypeAdapter(
    Annotated[RunRecord, BeforeValidator(_without_nulls), AfterValidator(_complete)]
)
SWEEP = TypeAdapter(SweepRecord)
JOB = TypeAdapter(JobRecord)


def read_record(path: Path, kind: TypeAdapter[R], told: str, remedy: str) -> R:
    """Read a record.

    Args:
        path: the JSON file.
        kind: its entries.
        told: what it is, for the message.
        remedy: what to do if it is not that.

    Raises:
        UsageError: it cannot be read, or has other entries.
    """
    try:
        return kind.validate_python(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False)[0]
            reason = ": ".join([".".join(map(str, first["loc"])), first["msg"].lower()]).removeprefix(": ")
        raise UsageError(f"{path}: corrupt, or not {told}; {remedy} ({reason})") from error


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record.

    Raises:
        UsageError: a folder is in its place.
    """
    try:
        write_text(path, json.dumps(record, indent=2) + "\n")
    except IsADirectoryError as error:
        raise UsageError(f"{path}: is a folder, where a record is to be written; remove it") from error
