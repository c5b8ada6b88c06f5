"""Loggers: metrics.csv, the run folder's own curves, and TensorBoard's event files."""

import csv
import io
import re
import shutil
import zlib
from collections.abc import Mapping, Sequence
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
from mnist_lab.formatting import print_warning
from mnist_lab.runs.checkpoints import completed_epochs
from mnist_lab.runs.run import Run

AXES = ("step", "epoch", EXAMPLES_SEEN)  # TensorBoard's axis is the step.
STEP_COLUMNS = (*AXES, LEARNING_RATE, TRAIN_LOSS_STEP)  # StepLog logs these at a step.
# Events of a finished run as a whole: graph, hyperparameters, layout.
SUMMARY_EVENTS, SUMMARY_TAGS = ("graph_def", "tagged_run_metadata"), ("_hparams_/", "custom_scalars__config__")


class MetricsCSV(Logger):
    """Writes metrics.csv, a row for each logged step, in order; a resumed run continues it.

    Lightning's CSVLogger deletes the rows of an earlier start and writes several rows for one step.
    """

    name, version = "metrics", ""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = Run(folder).metrics_path
        self.rows: dict[int, dict[str, float]] = {}
        self.written = ""

    def restore(self, step: int, *, within_epoch: bool) -> None:
        """Load the rows before a step, without the metrics of an epoch that the resumed run completes."""
        rows = Run(self.path.parent).metrics()
        self.rows = {int(row["step"]): row | {"step": int(row["step"])} for row in rows if row["step"] < step}
        if within_epoch and TRAIN_LOSS in self.rows.get(step - 1, {}):
            last = self.rows.pop(step - 1)
            if TRAIN_LOSS_STEP in last:
                self.rows[step - 1] = {name: last[name] for name in STEP_COLUMNS if name in last}

    def checksum(self) -> int:
        """Return the CRC-32 of all rows without their speeds, which differ from start to start."""
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
        """Write the file if it changes."""
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

    Loss and accuracy come first: TensorBoard sorts charts by their tags, capitals before small letters. Accuracies are
    in percent, with a tag that says so, since former versions wrote fractions.
    """

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        tagged = {tensorboard_tag(name): value for name, value in metrics.items() if name not in AXES}
        shown = {tag: 100 * value if ", %/" in tag else value for tag, value in tagged.items()}
        if shown:
            super().log_metrics(shown, step)

    @rank_zero_only
    def save(self) -> None:
        self.experiment.flush()


def tensorboard_tag(name: str) -> str:
    """Return TensorBoard's tag of a metric: Loss/train for train/loss, so that all sets are in one group of charts."""
    for metric, group in (("loss", "Loss"), ("acc", "Accuracy, %"), ("balanced_acc", "Balanced accuracy, %")):
        name = re.sub(rf"^(train|val|test)/{metric}(_step)?$", rf"{group}/\1\2", name)
    return name


@rank_zero_only
def restore_logs(loggers: Sequence[Logger], checkpoint: Mapping[str, Any]) -> None:
    """Cut the curves in the run folder at a checkpoint's step; warn if they have changed since it was saved."""
    (metrics_csv,) = (logger for logger in loggers if isinstance(logger, MetricsCSV))
    step = checkpoint["global_step"]
    within_epoch = completed_epochs(checkpoint) < completed_epochs(checkpoint, "started")
    metrics_csv.restore(step, within_epoch=within_epoch)
    if checkpoint.get("metrics_crc", metrics_csv.checksum()) != metrics_csv.checksum():
        print_warning(f"{metrics_csv.path}: changed since step {step} was saved; curves may have gaps")
    run = Run(metrics_csv.path.parent)
    points = cut_events(run, step - within_epoch)
    for number, row in metrics_csv.rows.items():
        names = [name for name in row if name not in AXES and (tensorboard_tag(name), number) not in points]
        for logger in loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_metrics({name: row[name] for name in names}, step=number)


def cut_events(run: Run, step: int) -> set[tuple[str, int]]:
    """Remove a run's events from a step on and those of its end; return the tag and step of each point that is left."""
    points: set[tuple[str, int]] = set()
    for path in run.event_paths:
        with atomic_write(path) as partial, partial.open("wb") as file:
            writer = RecordWriter(file)
            for record in RawEventFileLoader(str(path)).Load():  # It ends at an incomplete or damaged one.
                event = Event.FromString(record)
                tags = [value.tag for value in event.summary.value]
                is_of_end = event.WhichOneof("what") in SUMMARY_EVENTS
                is_of_end |= any(tag.startswith(SUMMARY_TAGS) for tag in tags)
                if event.step < step and not is_of_end:
                    writer.write(record)
                    points |= {(tag, event.step) for tag in tags}
    # The projector's files are written at the end, too.
    run.projector_config_path.unlink(missing_ok=True)
    shutil.rmtree(run.projector_folder, ignore_errors=True)
    return points


def tensorboard_writers(loggers: Sequence[Logger]) -> list[Any]:
    """Return the writers of the event files."""
    return [logger.experiment for logger in loggers if isinstance(logger, TensorBoardLogger)]
