"""What a run shows when it ends: figures, and the tabs of TensorBoard."""

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
from torch import Tensor, nn
from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import SummaryWriter

from mnist_lab.config.metric_names import is_loss
from mnist_lab.config.overrides import override_values
from mnist_lab.config.settings import identity_settings, short_names
from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.formatting import format_value, printable
from mnist_lab.models.classifier import Classifier
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.viz.curves import plot_accuracy, plot_examples_seen, plot_loss
from mnist_lab.viz.model import plot_confusion, plot_filters, plot_images, plot_worst_errors
from mnist_lab.viz.save import write_figure

log = logging.getLogger(__name__)

# The charts of CUSTOM SCALARS: one for each metric, of all sets. The names are regular expressions.
LAYOUT = {
    "loss and accuracy": {
        "loss": ["Multiline", ["^Loss/train$", "^Loss/val$", "^Loss/test$"]],
        "accuracy": ["Multiline", ["^Accuracy/train$", "^Accuracy/val$", "^Accuracy/test$"]],
    },
    "training": {"learning rate": ["Multiline", ["^lr$"]], "images per second": ["Multiline", ["^images_per_second$"]]},
}
PROJECTED = 1000  # test images in PROJECTOR
RGBA = 4  # Summary.Image's colorspace of matplotlib's files
MAIN_SETTINGS = ("model", "optimizer.lr", "optimizer.momentum", "data.batch_size", "trainer.max_epochs", "seed")
# Settings of these groups are shown if they were given.
GROUPS = ("data", "augmentation", "test_augmentation", "label_smoothing", "model", "optimizer", "scheduler")
# The names of each part's figures.
FIGURES = {
    "curves": ("loss", "accuracy", "examples_seen"),
    "examples": ("truths_3x3", "predictions_3x3", "predictions_4x4"),
    "worst": ("worst",),
    "confusion": ("confusion",),
    "filters": ("filters",),
}


@dataclass(frozen=True)
class Dashboard:
    """The figures and TensorBoard tabs of a finished run, part by part, as conf/dashboard/default.yaml describes them.

    The figures are files in the run's folder figures/, and images in TensorBoard.
    """

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
        """Draw a finished run's figures, and write all parts that are switched on into TensorBoard's event files.

        The network is put into eval mode; random states stay as they are. The boards are closed.
        """
        with torch.random.fork_rng(devices=[]):
            images, labels = data.examples(len(data.test_set()[1]))
            predictions = None
            if self.examples or self.worst or self.confusion or self.pr_curves or self.projector:
                predictions = Predictions(labels, model.test_probabilities(images), data.classes)
            pictures = self._save_figures(run, model, data, images, predictions)
            for board in boards:
                if self.layout:
                    board.add_custom_scalars(LAYOUT)
                if self.hparams:
                    add_hyperparameters(board, run, cfg, step)
                for path in pictures:
                    add_picture(board, path, step)
                if self.pr_curves and predictions:
                    for i, probabilities in enumerate(predictions.probabilities.unbind(1)):
                        board.add_pr_curve(f"pr_curve/{predictions.classes[i]}", labels == i, probabilities, step)
                if self.projector and predictions:
                    add_embedding(board, model, images, data.test_set()[0], predictions)
                if self.graph:
                    add_graph(board, model, images[:1])
                board.close()

    def show_failure(self, run: Run, cfg: DictConfig, boards: Sequence[SummaryWriter], step: int) -> None:
        """Write the row of a run that failed into the HPARAMS tab, if that is switched on; the boards are closed."""
        for board in boards if self.hparams else ():
            add_hyperparameters(board, run, cfg, step, failed=True)
            board.close()

    def _save_figures(
        self, run: Run, model: Classifier, data: MNISTDataModule, images: Tensor, predictions: Predictions | None
    ) -> list[Path]:
        """Write the figures, and remove an earlier start's that are switched off now; return the paths."""
        drawn: dict[str, Figure | None] = dict.fromkeys(name for part in FIGURES.values() for name in part)
        if self.curves:
            drawn |= {"loss": plot_loss(run), "accuracy": plot_accuracy(run)}
            drawn["examples_seen"] = plot_examples_seen(run)
        if self.examples and predictions:
            few, truths, predicted = images[:16], predictions.labels[:16].tolist(), predictions.predicted[:16].tolist()
            plot = partial(plot_images, classes=predictions.classes, as_ink=data.is_ink)
            drawn["truths_3x3"] = plot(few[:9], truths[:9])
            drawn["predictions_3x3"] = plot(few[:9], truths[:9], predicted[:9])
            drawn["predictions_4x4"] = plot(few, truths, predicted, columns=4)
        if self.worst and predictions:
            drawn["worst"] = plot_worst_errors(predictions, images, as_ink=data.is_ink)
        if self.confusion and predictions:
            drawn["confusion"] = plot_confusion(predictions)
        if self.filters:
            drawn["filters"] = plot_filters(model, model.image_size)
        paths = {name: run.figures_folder / f"{name}.png" for name in drawn}
        for name, figure in drawn.items():
            if figure:
                run.figures_folder.mkdir(exist_ok=True)
                write_figure(figure, paths[name])
            else:
                paths.pop(name).unlink(missing_ok=True)
        return list(paths.values())


def add_picture(board: SummaryWriter, path: Path, step: int) -> None:
    """Add a PNG file to IMAGES as it is; SummaryWriter.add_image takes pixels, and would encode them again."""
    content = path.read_bytes()
    width, height = Image.open(io.BytesIO(content)).size
    image = Summary.Image(height=height, width=width, colorspace=RGBA, encoded_image_string=content)
    value = Summary.Value(tag=f"figures/{path.stem}", image=image)
    board.file_writer.add_summary(Summary(value=[value]), step)  # type: ignore[attr-defined]


def add_hyperparameters(board: SummaryWriter, run: Run, cfg: DictConfig, step: int, *, failed: bool = False) -> None:
    """Write a run's row of the HPARAMS tab: its swept and its main settings, and its final metrics, if it has any.

    A sweep's job has none of the test set's, as nothing is chosen by them, and which job is best is not known yet.

    TensorBoard takes the columns from one run, and ticks the first five settings and metrics. A metric shows its last
    point; so the final ones, which are of the best epoch's weights, have tags of their own. All is written at the end:
    an early call, as Lightning's, needs values for the metrics.
    """
    sweep = Sweep(run.folder.absolute().parent)
    given = override_values(cfg.overrides)
    swept = sweep.record["swept"] if sweep.exists else []
    others = () if sweep.exists else (key for key in given if key.split(".")[0] in GROUPS)
    settings = {}
    for key in identity_settings(dict.fromkeys([*swept, *MAIN_SETTINGS, *others])):
        value = cfg.name if key == "model" else OmegaConf.select(cfg, key)
        if isinstance(value, DictConfig):
            settings[key] = given[key]  # such as optimizer, which is shown by its choice
        elif value is not None:
            settings[key] = value if type(value) in (int, float, str) else format_value(value)
    names = short_names(settings) | {"trainer.max_epochs": "epochs"}
    recorded = {} if failed else run.info["metrics"]
    shown = [name for name in sorted(recorded) if not (sweep.exists and name.startswith("test/"))]
    metrics = {f"final/{name}": recorded[name] for name in sorted(shown, key=is_loss)}
    for tag, value in metrics.items():
        board.add_scalar(tag, value, step)
    named = {names[key]: value for key, value in settings.items()}
    summaries = hparams(named, metrics)  # type: ignore[no-untyped-call]
    shown_metadata = summaries[0].value[0].metadata
    content = HParamsPluginData.FromString(shown_metadata.plugin_data.content)
    for info in content.experiment.metric_infos:
        info.display_name = info.name.tag.removeprefix("final/").replace("/", " ")
    shown_metadata.CopyFrom(metadata.create_summary_metadata(content))
    if failed:
        ended = HParamsPluginData(session_end_info=SessionEndInfo(status=api_pb2.STATUS_FAILURE))
        summaries[-1].value[0].metadata.CopyFrom(metadata.create_summary_metadata(ended))
    for summary in summaries:
        board._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]  # closed where a run failed


def add_embedding(
    board: SummaryWriter, model: Classifier, images: Tensor, pixels: np.ndarray, predictions: Predictions
) -> None:
    """Write PROJECTOR's files of the first test images, normalised and as bytes, if the network has features."""
    rows, names = features(model, images[:PROJECTED]), list(map(printable, predictions.classes))
    if rows is None:
        return
    pairs = [(names[i], names[j]) for i, j in zip(predictions.labels, predictions.predicted, strict=True)]
    board.add_embedding(
        rows,
        metadata=pairs[:PROJECTED],
        metadata_header=["label", "predicted"],
        label_img=torch.from_numpy(pixels[:PROJECTED, None]) / 255,  # the tab multiplies it by a point's colour
        global_step=Run(Path(board.log_dir)).projector_folder.name,  # it names the folder
        tag="features",
    )


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
