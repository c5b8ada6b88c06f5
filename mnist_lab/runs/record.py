"""The entries of run.json, a run's record, and their types. Imports neither torch nor Lightning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import NotRequired, TypedDict

from mnist_lab.errors import UsageError
from mnist_lab.runs.state import RunState


class TestedWeights(TypedDict):
    """The weights that were tested: their checkpoint, and the epochs they were trained for."""

    checkpoint: str
    epoch: int


class RunRecord(TypedDict):
    """What run.json says of a run; times are in seconds, accuracies from 0 to 1."""

    status: Annotated[RunState, Field(strict=False)]
    error: NotRequired[str | None]
    command: NotRequired[str | None]
    overrides: NotRequired[list[str] | None]
    config_dir: NotRequired[str | None]
    model: NotRequired[str | None]
    parameters: NotRequired[int | None]
    seed: NotRequired[int | None]
    started: NotRequired[str | None]
    finished: NotRequired[str | None]
    max_epochs: NotRequired[int | None]
    epochs: NotRequired[int | None]
    steps: NotRequired[int | None]
    tested: NotRequired[TestedWeights]
    metrics: NotRequired[dict[str, float] | None]
    seconds: NotRequired[dict[str, float] | None]
    images_per_second: NotRequired[float | None]
    device: NotRequired[str | None]
    processor: NotRequired[str | None]
    versions: NotRequired[dict[str, str] | None]
    git: NotRequired[dict[str, str | bool] | None]
    checkpoints: NotRequired[dict[str, str | None] | None]


RunRecord.__pydantic_config__ = ConfigDict(strict=True, extra="allow")  # type: ignore[attr-defined]
RECORD = TypeAdapter(RunRecord)


def read_record(path: Path) -> dict[str, Any]:
    """Read a run.json; lists and tables that it lacks are empty.

    Raises:
        UsageError: it cannot be read, or is not the record of a run.
    """
    try:
        record: dict[str, Any] = dict(RECORD.validate_python(json.loads(path.read_text(encoding="utf-8"))))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise UsageError(
            f"{path}: not a run's record ({where}: {first['msg'].lower()}); move the folder away"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UsageError(f"{path}: cannot be read ({reason})") from error
    for name, empty in (("overrides", []), ("metrics", {}), ("seconds", {})):
        if record.get(name) is None:
            record[name] = empty
    return record
