"""Loggers: metrics.csv, the run folder's own curves, and TensorBoard's event files."""

import csv
import io
import re
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

from mnist_lab.config.metric_names import EXAMPLES_SEEN, IMAGES_PER_SECOND, LEARNING_RATE, TRAIN_LOSS, TRAIN_LOSS_STEP
from mnist_lab.files import atomic_write, write_text
from mnist_lab.runs.run import Run

OF_STEP = ("step", "epoch", EXAMPLES_SEEN, LEARNING_RATE, TRAIN_LOSS_STEP)  # StepLog logs these at a step.
NOT_SHOWN = ("step", "epoch", EXAMPLES_SEEN)  # TensorBoard's axis has steps.
# Events of a finished run as a whole: graph, hyperparameters, layout.
SUMMARY_EVENTS, SUMMARY_TAGS = ("graph_def", "tagged_run_metadata"), ("_hparams_/", "custom_scalars__config__")


class MetricsCSV(Logger):
    """metrics.csv: a row for each logged step, in order; a resumed run continues it.

    Lightning's own CSVLogger deletes the rows of an earlier start and writes several rows for one step.
    """

    name, version = "metrics", ""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = Run(folder).metrics_path
        self.rows: dict[int, dict[str, float]] = {}
        self.written = ""

    def restore(self, step: int, *, within_epoch: bool = False) -> None:
        """Load the rows of an earlier start before this step; within an epoch, without that of its early end."""
        rows = [{**row, "step": int(row["step"])} for row in Run(self.path.parent).metrics() if row["step"] < step]
        if within_epoch and rows and TRAIN_LOSS in rows[-1] and rows[-1]["step"] == step - 1:
            end = rows.pop()
            rows += [{name: end[name] for name in OF_STEP if name in end}] * (TRAIN_LOSS_STEP in end)
        self.rows = {int(row["step"]): row for row in rows}

    def checksum(self) -> int:
        """Return the CRC-32 of all rows but their speeds, which differ from start to start."""
        rows = [row for _, row in sorted(self.rows.items())]
        values = [sorted((name, float(row[name])) for name in row.keys() - {IMAGES_PER_SECOND}) for row in rows]
        return zlib.crc32(repr(values).encode())

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log nothing: config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        step = step or 0
        values = {name: float(value) for name, value in metrics.items()}
        self.rows.setdefault(step, {"step": step}).update(values)

    @rank_zero_only
    def save(self) -> None:
        """Write the file if an epoch is complete; Lightning calls this after each validation and epoch."""
        if self.rows and TRAIN_LOSS in self.rows[max(self.rows)]:
            self.write()

    @rank_zero_only
    def write(self) -> None:
        """Write the file if rows are new."""
        names = sorted({name for row in self.rows.values() for name in row} - {"step", "epoch"})
        text = io.StringIO()
        writer = csv.DictWriter(text, ["step", "epoch", *names], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows.values())
        if text.getvalue() != self.written:
            self.written = text.getvalue()
            write_text(self.path, self.written)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self.rows:
            self.write()


class TensorBoard(TensorBoardLogger):
    """Lightning's logger without its hparams.yaml: a run folder has config.yaml.

    Loss and accuracy come first: TensorBoard sorts charts by their tags, capitals before small letters.
    """

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        shown = {tensorboard_tag(name): value for name, value in metrics.items() if name not in NOT_SHOWN}
        if shown:
            super().log_metrics(shown, step)

    @rank_zero_only
    def save(self) -> None:
        self.experiment.flush()


def tensorboard_tag(name: str) -> str:
    """Return TensorBoard's tag of a metric: Loss/train of train/loss, so that one group of charts has all sets."""
    for metric, group in (("loss", "Loss"), ("acc", "Accuracy")):
        name = re.sub(rf"^(train|val|test)/{metric}(_step)?$", rf"{group}/\1\2", name)
    return name


def restore_events(folder: Path, step: int, rows: list[dict[str, float]], loggers: list[TensorBoardLogger]) -> None:
    """Cut a run's event files at a step, and have the loggers write the points of metrics.csv that they lack."""
    seen: set[tuple[str, int]] = set()
    for path in Run(folder).event_paths:
        with atomic_write(path) as partial, partial.open("wb") as file:
            writer = RecordWriter(file)
            for record in RawEventFileLoader(str(path)).Load():  # It ends at an incomplete or damaged one.
                event = Event.FromString(record)
                of_finished_run = event.WhichOneof("what") in SUMMARY_EVENTS
                of_finished_run |= any(value.tag.startswith(SUMMARY_TAGS) for value in event.summary.value)
                if event.step < step and not of_finished_run:
                    writer.write(record)
                    seen |= {(value.tag, event.step) for value in event.summary.value}
    Run(folder).projector_config_path.unlink(missing_ok=True)  # TensorBoard's embeddings
    shutil.rmtree(Run(folder).projector_folder, ignore_errors=True)
    for row in rows:
        shown, at = {name: value for name, value in row.items() if name not in NOT_SHOWN}, int(row["step"])
        missing = {name: value for name, value in shown.items() if (tensorboard_tag(name), at) not in seen}
        for logger in loggers:
            logger.log_metrics(missing, step=at)
