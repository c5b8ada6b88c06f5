"""What a run shows when it ends: figures, and the tabs of TensorBoard."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter

from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.models.classifier import Classifier
from mnist_lab.runs.run import Run
from mnist_lab.viz.curves import plot_accuracy, plot_examples_seen, plot_loss
from mnist_lab.viz.model import plot_confusion, plot_filters, plot_images, plot_worst_errors
from mnist_lab.viz.save import write_figure
from mnist_lab.viz.tensorboard import LAYOUT, add_graph, add_hyperparameters, add_picture, write_embeddings

FIGURES = {  # of each part
    "curves": ("loss", "accuracy", "examples_seen"),
    "examples": ("truths_3x3", "predictions_3x3", "predictions_4x4"),
    "worst": ("worst",),
    "confusion": ("confusion",),
    "filters": ("filters",),
}


@dataclass(frozen=True)
class Dashboard:
    """The figures and TensorBoard tabs of a finished run, part by part.

    Attributes:
        curves: figures of loss and accuracy.
        examples: figures of the first test images, with their classes and with the network's predictions.
        worst: a figure of the test images that are most wrong.
        confusion: a figure of the confusion matrix of the test set.
        filters: a figure of the first layer's weights, if these are pictures.
        layout: CUSTOM SCALARS: training, validation and test in one chart per metric.
        hparams: HPARAMS: the run's main and swept settings beside its final metrics.
        pr_curves: PR CURVES: precision and recall of each class of the test set.
        projector: PROJECTOR: the inputs of the last linear layer, for 1,000 test images.
        graph: GRAPHS: the network.

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
                    write_embeddings(Path(board.log_dir), model, images, data.test_set()[0], predictions)
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
        paths = []
        for name, figure in drawn.items():
            path = run.figures_folder / f"{name}.png"
            if figure:
                path.parent.mkdir(exist_ok=True)
                write_figure(figure, path)
                paths.append(path)
            else:
                path.unlink(missing_ok=True)
        return paths
