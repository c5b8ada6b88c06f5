"""TensorBoard's HPARAMS tab: a finished run's settings and metrics."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.api_pb2 import (
    DATA_TYPE_FLOAT64,
    DATA_TYPE_STRING,
    STATUS_SUCCESS,
    Experiment,
    MetricName,
)
from tensorboard.plugins.hparams.metadata import (
    EXPERIMENT_TAG,
    NULL_TENSOR,
    SESSION_END_INFO_TAG,
    SESSION_START_INFO_TAG,
    create_summary_metadata,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from torch.utils.tensorboard.writer import SummaryWriter

from mnist_lab.config.metric_names import TEST_ACC, TEST_LOSS, TRAIN_ACC, VAL_ACC, VAL_LOSS
from mnist_lab.config.overrides import override_values
from mnist_lab.config.settings import identity_settings, short_names
from mnist_lab.formatting import format_value
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep

MAIN_SETTINGS = ("model", "optimizer.lr", "optimizer.momentum", "data.batch_size", "trainer.max_epochs", "seed")
RARELY_VARIED = ("data.batch_size", "trainer.max_epochs")
# Settings of these are shown if they were given.
GROUPS = ("data", "augmentation", "test_augmentation", "label_smoothing", "model", "optimizer", "scheduler")
FINAL_METRICS = (VAL_ACC, TEST_ACC, VAL_LOSS, TEST_LOSS, TRAIN_ACC)  # the first ones, in this order


def log_hyperparameters(board: SummaryWriter, run: Run, cfg: DictConfig, step: int) -> None:
    """Write a run's row of the HPARAMS tab: its main and its swept settings, and its final metrics.

    TensorBoard takes the columns from one run, ticks the first five settings, those that "differ" before the others,
    and the first five metrics. A metric shows its last point; so the final ones, which are of the best epoch's weights,
    have tags of their own. All is written at the end: an early call, as Lightning's, needs values for the metrics.
    """
    sweep = Sweep(run.folder.absolute().parent)
    given = override_values(cfg.overrides)
    varied = sweep.record["swept"] if sweep.exists else [key for key in MAIN_SETTINGS if key not in RARELY_VARIED]
    settings = {}
    others = varied if sweep.exists else [key for key in given if key.split(".")[0] in GROUPS]
    for key in identity_settings(dict.fromkeys([*MAIN_SETTINGS, *others])):
        value = cfg.name if key == "model" else OmegaConf.select(cfg, key)
        if value is not None:
            is_group = isinstance(value, DictConfig)  # such as optimizer, which is shown by its choice
            number_or_name = type(value) in (int, float, str)
            settings[key] = given[key] if is_group else value if number_or_name else format_value(value)
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
        board.file_writer.add_summary(Summary(value=[value]))  # type: ignore[attr-defined]
