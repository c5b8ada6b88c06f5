"""TensorBoard's event files: a resumed run's are cut and filled, a finished run's parameters and metrics put in."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c  # type: ignore[import-untyped]
from tensorboard.plugins.hparams.api_pb2 import (  # type: ignore[import-untyped]
    DATA_TYPE_FLOAT64,
    DATA_TYPE_STRING,
    STATUS_SUCCESS,
    Experiment,
    MetricName,
)
from tensorboard.plugins.hparams.metadata import (  # type: ignore[import-untyped]
    EXPERIMENT_TAG,
    NULL_TENSOR,
    SESSION_END_INFO_TAG,
    SESSION_START_INFO_TAG,
    create_summary_metadata,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import (  # type: ignore[import-untyped]
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from torch.utils.tensorboard.writer import SummaryWriter

from mnist_lab.files import atomic_write
from mnist_lab.projector import remove_projection
from mnist_lab.runs import Run
from mnist_lab.settings import short_names, typed, what_a_job_does
from mnist_lab.sweeps.sweep import Sweep, key_of

MAIN_SETTINGS = ("model", "optimizer.lr", "optimizer.momentum", "data.batch_size", "trainer.max_epochs", "seed")
RARELY_VARIED = ("data.batch_size", "trainer.max_epochs")
GROUPS = ("data", "augmentation", "model", "optimizer", "scheduler")  # whose settings a run shows where they were given
FINAL_METRICS = ("val/acc", "test/acc", "val/loss", "test/loss", "train/acc")  # the first, as a person looks for them


class TensorBoard(TensorBoardLogger):
    """Lightning's logger, but that it leaves no hparams.yaml: a run folder has config.yaml.

    Loss and accuracy come first: TensorBoard sorts charts by their tags, capitals before small letters.
    """

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics({tag_of(name): value for name, value in metrics.items() if name != "epoch"}, step)

    @rank_zero_only
    def save(self) -> None:
        self.experiment.flush()


def tag_of(name: str) -> str:
    """Return TensorBoard's tag of a metric: Loss/train of train/loss, so that one group of charts has all sets."""
    for metric, group in (("loss", "Loss"), ("acc", "Accuracy")):
        name = re.sub(rf"^(train|val|test)/{metric}(_step)?$", rf"{group}/\1\2", name)
    return name


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
            if name not in ("step", "epoch", "examples_seen") and (tag_of(name), at) not in seen
        }
        for logger in loggers:
            if missing:
                logger.log_metrics(dict(missing), step=at)


def log_hyperparameters(board: SummaryWriter, run: Run, cfg: DictConfig, step: int) -> None:
    """Write a run's row of the HPARAMS tab: its main and its swept settings, and its final metrics.

    TensorBoard takes the columns from one run, ticks the first five settings, those that "differ" before the others,
    and the first five metrics. A metric shows its last point; so the final ones, which are of the best epoch's weights,
    have tags of their own. All is written at the end: an early call, as Lightning's, needs values for the metrics.
    """
    sweep = Sweep(run.folder.absolute().parent)
    given = {key_of(override): override.partition("=")[2] for override in cfg.overrides}
    varied = sweep.record["swept"] if sweep.exists else [key for key in MAIN_SETTINGS if key not in RARELY_VARIED]
    settings = {}
    others = varied if sweep.exists else [key for key in given if key.split(".")[0] in GROUPS]
    for key in what_a_job_does(dict.fromkeys([*MAIN_SETTINGS, *others])):
        value = cfg.name if key == "model" else OmegaConf.select(cfg, key)
        if value is not None:
            is_group = isinstance(value, DictConfig)  # such as optimizer, which is shown by its choice
            number_or_name = type(value) in (int, float, str)
            settings[key] = given[key] if is_group else value if number_or_name else typed(value)
    names = short_names(settings) | {"trainer.max_epochs": "epochs"}
    experiment, start = Experiment(), SessionStartInfo(group_name=run.folder.name)
    for key, value in settings.items():
        is_number = isinstance(value, int | float)
        if key in varied or not (sweep.exists and key in RARELY_VARIED):
            kind = DATA_TYPE_FLOAT64 if is_number else DATA_TYPE_STRING
            experiment.hparam_infos.add(name=names[key], type=kind, differs=key in varied)
        setattr(start.hparams[names[key]], "number_value" if is_number else "string_value", value)
    metrics = run.info["metrics"]
    for name in sorted(metrics, key=lambda name: (FINAL_METRICS.index(name) if name in FINAL_METRICS else 99, name)):
        metric = MetricName(tag=f"final/{name}")
        experiment.metric_infos.add(name=metric, display_name=name.replace("/", " "))
        board.add_scalar(metric.tag, metrics[name], step)
    for tag, content in (
        (EXPERIMENT_TAG, HParamsPluginData(experiment=experiment)),
        (SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start)),
        (SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=SessionEndInfo(status=STATUS_SUCCESS))),
    ):
        value = Summary.Value(tag=tag, metadata=create_summary_metadata(content), tensor=NULL_TENSOR)
        board._get_file_writer().add_summary(Summary(value=[value]))  # type: ignore[no-untyped-call]


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
