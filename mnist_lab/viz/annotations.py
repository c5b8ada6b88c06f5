"""A run's tags and note on TensorBoard's text tab."""

from __future__ import annotations

import time

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from mnist_lab.runs.run import Run
from mnist_lab.runs.trash import read_annotations

DT_STRING = 7  # of tensorboard.compat.proto.types_pb2


def write_annotations(run: Run) -> None:
    """Write tags and note into an event file of their own, if the run has event files."""
    if not run.event_paths:
        return
    found = read_annotations(run)
    texts = {"tags": " ".join(found["tags"]), "note": found["note"] or ""}
    values = [
        Summary.Value(
            tag=name,
            metadata=create_summary_metadata(display_name="", description=""),
            tensor=TensorProto(dtype=DT_STRING, string_val=[text.encode()]),
        )
        for name, text in texts.items()
    ]
    writer = EventFileWriter(str(run.folder))
    writer.add_event(Event(wall_time=time.time(), step=0, summary=Summary(value=values)))
    writer.close()
