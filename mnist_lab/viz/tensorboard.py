"""The tabs of TensorBoard: CUSTOM SCALARS, IMAGES, HPARAMS, PROJECTOR, GRAPHS."""

import contextlib
import io
import logging
import math
import warnings
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.plugins.projector import EmbeddingInfo, ProjectorConfig, visualize_embeddings
from torch import Tensor, nn
from torch.utils.tensorboard.writer import SummaryWriter

from mnist_lab.config.metric_names import TEST_ACC, TEST_LOSS, TRAIN_ACC, VAL_ACC, VAL_LOSS
from mnist_lab.config.overrides import override_values
from mnist_lab.config.settings import identity_settings, short_names
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.files import atomic_write, write_text
from mnist_lab.formatting import format_value
from mnist_lab.models.classifier import Classifier
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.viz.model import tile_images

log = logging.getLogger(__name__)

# The charts of CUSTOM SCALARS: one for each metric, of all sets. The names are regular expressions.
LAYOUT = {
    "loss and accuracy": {
        "loss": ["Multiline", ["^Loss/train$", "^Loss/val$", "^Loss/test$"]],
        "accuracy": ["Multiline", ["^Accuracy/train$", "^Accuracy/val$", "^Accuracy/test$"]],
    },
    "training": {"learning rate": ["Multiline", ["^lr$"]], "images per second": ["Multiline", ["^images_per_second$"]]},
}
RGBA = 4  # Summary.Image's colorspace of matplotlib's files
MAIN_SETTINGS = ("model", "optimizer.lr", "optimizer.momentum", "data.batch_size", "trainer.max_epochs", "seed")
RARELY_VARIED = ("data.batch_size", "trainer.max_epochs")
# Settings of these are shown if they were given.
GROUPS = ("data", "augmentation", "test_augmentation", "label_smoothing", "model", "optimizer", "scheduler")
FINAL_METRICS = (VAL_ACC, TEST_ACC, VAL_LOSS, TEST_LOSS, TRAIN_ACC)  # the first ones, in this order


def add_picture(board: SummaryWriter, path: Path, step: int) -> None:
    """Add a PNG file to IMAGES as it is; SummaryWriter.add_image takes pixels, and would encode them again."""
    content = path.read_bytes()
    width, height = Image.open(io.BytesIO(content)).size
    image = Summary.Image(height=height, width=width, colorspace=RGBA, encoded_image_string=content)
    value = Summary.Value(tag=f"figures/{path.stem}", image=image)
    board.file_writer.add_summary(Summary(value=[value]), step)  # type: ignore[attr-defined]


def add_hyperparameters(board: SummaryWriter, run: Run, cfg: DictConfig, step: int, *, failed: bool = False) -> None:
    """Write a run's row of the HPARAMS tab: its main and its swept settings, and its final metrics, if it has any.

    A sweep's job has none of the test set's, as nothing is chosen by them, and which job is best is not known yet.

    TensorBoard takes the columns from one run, ticks the first five settings, those that "differ" before the others,
    and the first five metrics. A metric shows its last point; so the final ones, which are of the best epoch's weights,
    have tags of their own. All is written at the end: an early call, as Lightning's, needs values for the metrics.
    """
    sweep = Sweep(run.folder.absolute().parent)
    given = override_values(cfg.overrides)
    varied = sweep.record["swept"] if sweep.exists else [key for key in MAIN_SETTINGS if key not in RARELY_VARIED]
    others = varied if sweep.exists else [key for key in given if key.split(".")[0] in GROUPS]
    settings = {}
    for key in identity_settings(dict.fromkeys([*MAIN_SETTINGS, *others])):
        value = cfg.name if key == "model" else OmegaConf.select(cfg, key)
        if isinstance(value, DictConfig):
            settings[key] = given[key]  # such as optimizer, which is shown by its choice
        elif value is not None:
            settings[key] = value if type(value) in (int, float, str) else format_value(value)
    names = short_names(settings) | {"trainer.max_epochs": "epochs"}
    experiment, start = api_pb2.Experiment(), SessionStartInfo(group_name=run.folder.name)
    for key, value in settings.items():
        is_number = isinstance(value, int | float)
        if key in varied or not (sweep.exists and key in RARELY_VARIED):
            kind = api_pb2.DATA_TYPE_FLOAT64 if is_number else api_pb2.DATA_TYPE_STRING
            experiment.hparam_infos.add(name=names[key], type=kind, differs=key in varied)
        setattr(start.hparams[names[key]], "number_value" if is_number else "string_value", value)
    metrics = {} if failed else run.info["metrics"]
    for name in [*filter(metrics.__contains__, FINAL_METRICS), *sorted(metrics.keys() - FINAL_METRICS)]:
        if not (sweep.exists and name.startswith("test/")):
            metric = api_pb2.MetricName(tag=f"final/{name}")
            experiment.metric_infos.add(name=metric, display_name=name.replace("/", " "))
            board.add_scalar(metric.tag, metrics[name], step)
    end = SessionEndInfo(status=api_pb2.STATUS_FAILURE if failed else api_pb2.STATUS_SUCCESS)
    for tag, content in (
        (metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=experiment)),
        (metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start)),
        (metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end)),
    ):
        kind = metadata.create_summary_metadata(content)
        summary = Summary(value=[Summary.Value(tag=tag, metadata=kind, tensor=metadata.NULL_TENSOR)])
        board._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]  # closed where a run failed


def write_embeddings(
    board: Path, model: Classifier, images: Tensor, pixels: np.ndarray, predictions: Predictions, count: int = 1000
) -> None:
    """Write PROJECTOR's files of the first test images, normalised and as bytes, if the network has features.

    SummaryWriter.add_embedding names its folder by the step, so that a resumed run would have two.
    """
    rows = features(model, images[:count])
    if rows is None:
        return
    folder = Run(board).projector_folder
    folder.mkdir(exist_ok=True)
    with atomic_write(folder / "features.tsv", durable=False) as partial:
        np.savetxt(partial, rows.numpy(), fmt="%.6g", delimiter="\t")
    pairs = zip(predictions.labels[:count].tolist(), predictions.predicted[:count].tolist(), strict=True)
    names = predictions.classes
    lines = ["label\tpredicted", *(f"{names[label]}\t{names[predicted]}" for label, predicted in pairs)]
    write_text(folder / "labels.tsv", "\n".join(lines) + "\n", durable=False)
    # The sprite is white on black: the tab multiplies it by a point's colour.
    with atomic_write(folder / "sprite.png", durable=False) as partial:
        sheet = tile_images(pixels[:count], math.ceil(math.sqrt(len(rows))))
        Image.fromarray(sheet).save(partial, "png")
    embedding = EmbeddingInfo(
        tensor_name="penultimate features",
        tensor_path=f"{folder.name}/features.tsv",
        metadata_path=f"{folder.name}/labels.tsv",
    )
    embedding.sprite.image_path = f"{folder.name}/sprite.png"
    embedding.sprite.single_image_dim.extend((pixels.shape[2], pixels.shape[1]))
    visualize_embeddings(str(board), ProjectorConfig(embeddings=[embedding]))


def features(model: Classifier, images: Tensor) -> Tensor | None:
    """Return the inputs of a network's last linear layer, (N, F), or None if they are not one row for each image."""
    given: list[Tensor] = []
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_pre_hook(lambda _, inputs: given.extend(inputs)) for layer in layers]
    try:
        model.probabilities(images, batch_size=len(images))
    finally:
        for hook in hooks:
            hook.remove()
    return given[-1].float().cpu() if given and given[-1].shape[:-1] == (len(images),) else None


def add_graph(board: SummaryWriter, model: Classifier, image: Tensor) -> None:
    """Add the graph of a network for an image, (1, 1, S, S), unless the network cannot be traced."""
    # torch prints why a network cannot be traced.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch gives up jit.trace, for which its SummaryWriter has no substitute
        try:
            image = image.to(next(model.parameters()))
            # Traced here, because add_graph would run the network twice more to check the trace.
            board.add_graph(torch.jit.trace(model, image, check_trace=False), image)  # type: ignore[no-untyped-call]
        except Exception:  # a user's network may raise anything; the run is no worse for it
            log.info("TensorBoard has no graph of this network", exc_info=True)
