"""TensorBoard's event files: a resumed run's are cut and filled, a finished run's parameters and metrics put in."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c  # type: ignore[import-untyped]
from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import SummaryWriter

from mnist_lab.files import atomic_write
from mnist_lab.projector import remove_projection
from mnist_lab.settings import flat, typed, what_a_job_does


class TensorBoard(TensorBoardLogger):
    """Lightning's logger, but that it leaves no hparams.yaml: a run folder has config.yaml."""

    @rank_zero_only
    def save(self) -> None:
        self.experiment.flush()


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
            if event.step < step and not _of_the_end(event):
                kept.append(record)
                seen |= {(value.tag, event.step) for value in event.summary.value}
        with atomic_write(path) as partial:
            partial.write_bytes(b"".join(kept))
    remove_projection(folder)
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


def log_hyperparameters(board: SummaryWriter, cfg: DictConfig, metrics: Mapping[str, float], step: int) -> None:
    """Write a run's line of the HPARAMS tab: what it does, by dotted name, and its final metrics, as final/NAME.

    The metrics have names of their own, for the tab shows a name's last point, and that of an epoch is not the final
    one. It is one call, at the end: an early one, as Lightning's, needs values that are none.
    """
    groups = ("data", "augmentation", "model", "optimizer", "scheduler", "seed")
    settings = {"model": cfg.name}
    for key, value in what_a_job_does(flat(cfg)).items():
        group, _, rest = key.partition(".")
        of_interest = (group in groups or rest == "max_epochs") and rest[:1] != "_" and "source." not in rest
        if of_interest and isinstance(value, bool | int | float | str):
            settings[key] = typed(value) if isinstance(value, bool) else value  # as a bool, torch would show 0 or 1
    final = {f"final/{name}": value for name, value in metrics.items()}
    for summary in hparams(settings, final):  # type: ignore[no-untyped-call]
        board._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]
    for name, value in final.items():
        board.add_scalar(name, value, step)


def _of_the_end(event: Event) -> bool:
    """Whether an event without a step of its own is one that a finished run has, and will have anew."""
    if event.WhichOneof("what") in ("graph_def", "tagged_run_metadata"):
        return True
    return any(value.tag.startswith(("_hparams_/", "custom_scalars__config__")) for value in event.summary.value)


def _records(content: bytes) -> Iterator[tuple[bytes, Event]]:
    """The records of an event file, each with its event, up to one that a kill left half or that is damaged.

    A record is its length in eight bytes, the CRC of that in four, the event, and the CRC of that in four.
    """
    start = 0
    while start + 12 <= len(content):
        length, crc = struct.unpack_from("<QI", content, start)
        end = start + 16 + length
        if end > len(content) or masked_crc32c(content[start : start + 8]) != crc:
            return
        (crc,) = struct.unpack_from("<I", content, end - 4)
        if masked_crc32c(content[start + 12 : end - 4]) != crc:
            return
        try:
            event = Event.FromString(content[start + 12 : end - 4])
        except DecodeError:
            return
        yield content[start:end], event
        start = end
