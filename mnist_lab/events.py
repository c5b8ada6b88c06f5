"""TensorBoard's event files of a resumed run: what came after the checkpoint is cut, what a kill lost is put back."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

from mnist_lab.files import replacing


def go_on_from(folder: Path, step: int, rows: list[dict[str, float]], loggers: list[TensorBoardLogger]) -> None:
    """Make the event files in a run folder those of the steps before this one.

    Args:
        folder: the run folder.
        step: the first step that is to be done, counted from 0.
        rows: those of metrics.csv, which is whole at every checkpoint, before this step.
        loggers: which are to write what is missing.
    """
    seen: set[tuple[str, int]] = set()
    for path in sorted(folder.glob("events.out.tfevents.*")):
        kept = []
        for record, event in _records(path.read_bytes()):
            if event.step < step:
                kept.append(record)
                seen |= {(value.tag, event.step) for value in event.summary.value}
        with replacing(path) as partial:
            partial.write_bytes(b"".join(kept))
    for row in rows:
        at = int(row["step"])
        missing: Mapping[str, float] = {
            name: value
            for name, value in row.items()
            if name not in ("step", "examples_seen") and (name, at) not in seen
        }
        for logger in loggers:
            if missing.keys() - {"epoch"}:
                logger.log_metrics(dict(missing), step=at)


def _records(content: bytes) -> Iterator[tuple[bytes, Event]]:
    """The records of an event file, each with its event, up to one that a kill left half or that is damaged.

    A record is its length in eight bytes, a sum of that in four, the event, and a sum of that in four.
    """
    start = 0
    while start + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        end = start + 16 + length
        if end > len(content):
            return
        try:
            event = Event.FromString(content[start + 12 : end - 4])
        except DecodeError:
            return
        yield content[start:end], event
        start = end
