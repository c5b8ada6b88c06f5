"""The dashboard of a finished run: figures, and the tabs of TensorBoard."""

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
from torch import Tensor
from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import SummaryWriter

from mnist_lab.config.metric_names import TRAIN_LOSS, VAL_LOSS, is_loss
from mnist_lab.config.overrides import override_values
from mnist_lab.config.settings import identity_settings, short_names
from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.formatting import format_value, printable
from mnist_lab.models.classifier import Classifier
from mnist_lab.runs.record import RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.viz.curves import plot_accuracy, plot_examples_seen, plot_loss
from mnist_lab.viz.model import compute_features, plot_confusion, plot_filters, plot_images, plot_worst_errors
from mnist_lab.viz.save import write_figure

log = logging.getLogger(__name__)

CHARTS = {"accuracy, %": "Accuracy, %", "loss, nats per image": "Loss"}  # their titles, and their groups of tags
PROJECTED = 1000  # test images in the tab PROJECTOR
RGBA = 4  # the colorspace of matplotlib's files, as Summary.Image numbers it
MAIN_SETTINGS = ("model", "optimizer.lr", "optimizer.momentum", "data.batch_size", "trainer.max_epochs", "seed")
# The tab HPARAMS shows settings of these groups if the command line has them.
GROUPS: tuple[str, ...] = ("data", "augmentation", "test_augmentation", "model", "optimizer", "scheduler")
GROUPS += ("label_smoothing", "class_weights", "distillation")
# The figures of each part.
FIGURES = {
    "curves": ("loss", "accuracy", "examples_seen"),
    "examples": ("truths_3x3", "predictions_3x3", "predictions_4x4"),
    "worst": ("worst",),
    "confusion": ("confusion",),
    "filters": ("filters",),
}


@dataclass(frozen=True)
class Dashboard:
    """Makes a finished run's figures and TensorBoard tabs, whose parts conf/dashboard/default.yaml describes."""

    curves: bool = True
    examples: bool = True
    worst: bool = True
    confusion: bool = True
    filters: bool = True
    layout: bool = True
    hparams: bool = True
    pr_curves: bool = True
    projector: bool = True
    graph: bool = True

    def fill(
        self,
        run: Run,
        cfg: DictConfig,
        model: Classifier,
        data: MNISTDataModule,
        boards: Sequence[SummaryWriter],
        step: int,
    ) -> None:
        """Draw a finished run's figures, write the enabled parts into event files, and close the boards."""
        with torch.random.fork_rng(devices=[]):
            images, labels = data.examples(len(data.raw_test_set()[1]))
            predictions = None
            if self.examples or self.worst or self.confusion or self.pr_curves or self.projector:
                predictions = Predictions(labels, model.probabilities_of_test_set(images), data.classes)
            pictures = self._save_figures(run, model, data, images, predictions)
            for board in boards:
                if self.layout:
                    board.add_custom_scalars(choose_charts(run))
                if self.hparams:
                    add_hyperparameters(board, run, cfg, step, "pruned" if run.pruned_path.exists() else "")
                for path in pictures:
                    add_picture(board, path, step)
                if self.pr_curves and predictions:
                    for i, probabilities in enumerate(predictions.probabilities.unbind(1)):
                        board.add_pr_curve(f"pr_curve/{predictions.classes[i]}", labels == i, probabilities, step)
                if self.projector and predictions:
                    add_embedding(board, model, images, data.raw_test_set()[0], predictions)
                if self.graph:
                    add_graph(board, model, images[:1])
                board.close()

    def show_state(self, run: Run, cfg: DictConfig, boards: Sequence[SummaryWriter], step: int, state: str) -> None:
        """Write the row of a run that failed or pauses into the HPARAMS tab, if that is switched on."""
        for board in boards if self.hparams else ():
            add_hyperparameters(board, run, cfg, step, state)
            board.close()

    def _save_figures(
        self, run: Run, model: Classifier, data: MNISTDataModule, images: Tensor, predictions: Predictions | None
    ) -> list[Path]:
        """Write the figures, remove those of an earlier start that are switched off now, and return the paths."""
        figures: dict[str, Figure | None] = dict.fromkeys(name for part in FIGURES.values() for name in part)
        if self.curves:
            figures |= {"loss": plot_loss(run), "accuracy": plot_accuracy(run)}
            figures["examples_seen"] = plot_examples_seen(run)
        if self.examples and predictions:
            first, truths = images[:16], predictions.labels[:16].tolist()
            predicted = predictions.predicted[:16].tolist()
            plot = partial(plot_images, classes=predictions.classes, as_ink=data.is_ink)
            figures["truths_3x3"] = plot(first[:9], truths[:9], title="The first test images")
            title = "The first test images, as the network reads them"
            figures["predictions_3x3"] = plot(first[:9], truths[:9], predicted[:9], title=title)
            figures["predictions_4x4"] = plot(first, truths, predicted, columns=4, title=title)
        if self.worst and predictions:
            figures["worst"] = plot_worst_errors(predictions, images, as_ink=data.is_ink)
        if self.confusion and predictions:
            figures["confusion"] = plot_confusion(predictions)
        if self.filters:
            figures["filters"] = plot_filters(model, model.image_size)
        paths = {name: run.figures_folder / f"{name}.png" for name in figures}
        for name, figure in figures.items():
            if figure:
                run.figures_folder.mkdir(exist_ok=True)
                write_figure(figure, paths[name])
            else:
                paths.pop(name).unlink(missing_ok=True)
        return list(paths.values())


def choose_charts(run: Run) -> dict[str, dict[str, list[Any]]]:
    """Return the charts of the tab CUSTOM SCALARS; tags are regular expressions, except in a chart with a band.

    TensorBoard colours runs, not sets. So the first charts have validation as a line with a band to training, which
    need both at the same steps.
    """
    sets = {"training, validation and test": {name: ["Multiline", [f"^{tag}/"]] for name, tag in CHARTS.items()}}
    if run.curve(VAL_LOSS).keys() == run.curve(TRAIN_LOSS).keys():
        bands = {name: ["Margin", [f"{tag}/val", f"{tag}/val", f"{tag}/train"]] for name, tag in CHARTS.items()}
        sets = {"validation, with a band that ends at training": bands} | sets
    pace = {"learning rate": ["Multiline", ["^lr$"]], "images per second": ["Multiline", ["^images_per_second$"]]}
    return sets | {"pace": pace}


def add_picture(board: SummaryWriter, path: Path, step: int) -> None:
    """Add a PNG file to the tab IMAGES as it is; SummaryWriter.add_image takes pixels, and would encode them again."""
    content = path.read_bytes()
    width, height = Image.open(io.BytesIO(content)).size
    image = Summary.Image(height=height, width=width, colorspace=RGBA, encoded_image_string=content)
    value = Summary.Value(tag=f"figures/{path.stem}", image=image)
    board.file_writer.add_summary(Summary(value=[value]), step)  # type: ignore[attr-defined]


def add_hyperparameters(board: SummaryWriter, run: Run, cfg: DictConfig, step: int, state: str = "") -> None:
    """Write a run's row of the HPARAMS tab: its settings, and its final metrics unless it failed.

    The row of a sweep's job has the swept settings, since the others are equal; its name is its number, and its state
    if that is not "finished". It has no test metrics, since the test set chooses nothing.

    TensorBoard takes the columns from one run, and ticks the first five settings and metrics. It shows the last point
    of each metric; the final metrics, of the best epoch's weights, therefore have tags of their own. The row is
    written at the end, because it needs the values of the metrics.
    """
    sweep = Sweep(run.folder.absolute().parent)
    overrides, record = override_values(cfg.overrides), sweep.record if sweep.exists else None
    keys = [*MAIN_SETTINGS, *(key for key in overrides if key.split(".")[0] in GROUPS)]
    if record and record["swept"]:
        keys = record["swept"]
    settings = {}
    for key in identity_settings(dict.fromkeys(keys)):
        value = cfg.name if key == "model" else OmegaConf.select(cfg, key)
        if isinstance(value, DictConfig):
            settings[key] = overrides[key]  # A group, such as optimizer, is shown by the name of its choice.
        elif value is not None:
            settings[key] = value if type(value) in (int, float, str) else format_value(value)
    names = short_names(settings) | {"trainer.max_epochs": "epochs"}
    recorded = {} if state == RunState.FAILED else run.info["metrics"]
    shown = [name for name in sorted(recorded, reverse=True) if not (record and name.startswith("test/"))]
    metrics = {f"final/{name}": recorded[name] for name in sorted(shown, key=is_loss)}
    for tag, value in metrics.items():
        board.add_scalar(tag, value, step)
    row = {names[key]: value for key, value in settings.items()}
    experiment, start, end = hparams(row, metrics)  # type: ignore[no-untyped-call]
    content = _plugin_data(experiment)
    for info in content.experiment.metric_infos:
        info.display_name = info.name.tag.removeprefix("final/").replace("/", " ")
    experiment.value[0].metadata.CopyFrom(metadata.create_summary_metadata(content))
    if record:
        content = _plugin_data(start)
        number = next((i for i, id in enumerate(record["jobs"], 1) if run.folder.name.endswith(id)), run.folder.name)
        content.session_start_info.group_name = f"{number} {state}".strip() + f", {sweep.folder.name}"
        start.value[0].metadata.CopyFrom(metadata.create_summary_metadata(content))
    if state == RunState.FAILED:
        failure = HParamsPluginData(session_end_info=SessionEndInfo(status=api_pb2.STATUS_FAILURE))
        end.value[0].metadata.CopyFrom(metadata.create_summary_metadata(failure))
    # TensorBoard would take the columns from a failed run, too, and it has no metrics.
    for summary in (start, end) if state == RunState.FAILED else (experiment, start, end):
        # After a failure, the board may be closed; this method opens it again.
        board._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]


def _plugin_data(summary: Any) -> HParamsPluginData:
    return HParamsPluginData.FromString(summary.value[0].metadata.plugin_data.content)


def add_embedding(
    board: SummaryWriter, model: Classifier, images: Tensor, pixels: np.ndarray, predictions: Predictions
) -> None:
    """Write the tab PROJECTOR of normalised test images and their bytes, `pixels`, if the network has features."""
    rows, names = compute_features(model, images[:PROJECTED]), list(map(printable, predictions.classes))
    if rows is None:
        return
    pairs = [(names[i], names[j]) for i, j in zip(predictions.labels, predictions.predicted, strict=True)]
    board.add_embedding(
        rows,
        metadata=pairs[:PROJECTED],
        metadata_header=["label", "predicted"],
        label_img=torch.from_numpy(pixels[:PROJECTED, None]) / 255,  # The tab multiplies this by a point's colour.
        global_step=Run(Path(board.log_dir)).projector_folder.name,  # SummaryWriter makes the folder's name of it.
        tag="features",
    )


def add_graph(board: SummaryWriter, model: Classifier, image: Tensor) -> None:
    """Add the graph of a network for an image, (1, 1, S, S), unless the network cannot be traced."""
    # torch prints why it cannot trace a network.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jit.trace is deprecated, but SummaryWriter needs it.
        try:
            image = image.to(next(model.parameters()))
            # add_graph itself would run the network twice more to check the trace.
            board.add_graph(torch.jit.trace(model, image, check_trace=False), image)  # type: ignore[no-untyped-call]
        except Exception:  # A user's network may raise anything, and the run does not need the graph.
            log.info("TensorBoard has no graph of this network", exc_info=True)
