"""Each part of the dashboard is in TensorBoard's event files, is right, and can be switched off."""

import re
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from google.protobuf import text_format
from lab import Command, Tiny, slow, thorough
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from matplotlib import pyplot
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.util.tensor_util import make_ndarray
from torch import Tensor, nn
from torch.utils.tensorboard.writer import SummaryWriter

from mnist_lab.config.settings import differing_settings
from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.evaluation.predictions import Predictions, TrainedRun
from mnist_lab.models.classifier import Classifier
from mnist_lab.runs.run import Run
from mnist_lab.training.build import instantiate_node, make_data, make_model
from mnist_lab.training.train import CURVES, train
from mnist_lab.viz.dashboard import FIGURES, Dashboard, choose_charts, compute_features
from mnist_lab.viz.model import plot_confusion, plot_filters, plot_worst_errors

PARTS = {  # the tags, figures and files of each part
    **{part: {f"figures/{name}" for name in names} for part, names in FIGURES.items()},
    "layout": {"custom_scalars__config__"},
    "hparams": {"_hparams_/experiment", "_hparams_/session_start_info", "_hparams_/session_end_info"}
    | {f"final/{of}/{metric}" for of in ("train", "val", "test") for metric in ("loss", "acc")},
    "pr_curves": {f"pr_curve/{i}" for i in range(10)},
    "projector": {"projector_config.pbtxt"},
    "graph": {"graph_def", "tagged_run_metadata"},
}


NAMES = {name for names in FIGURES.values() for name in names}


@pytest.fixture(scope="module")
def trained(module_tiny: Tiny) -> TrainedRun:
    """Return a run of lenet with all figures."""
    return TrainedRun(train(module_tiny.compose("model=lenet", "optimizer.lr=0.003", "figures=true")))


@pytest.fixture(scope="module")
def events(trained: TrainedRun) -> EventAccumulator:
    return EventAccumulator(str(trained.run.folder)).Reload()


def fill(run: Run, model: Classifier, data: MNISTDataModule, folder: Path, dashboard: Dashboard) -> Counter[str]:
    """Fill a dashboard for a run in another folder, and return its contents."""
    settings: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "barebones": True}
    model.trainer = pl.Trainer(accelerator="cpu", plugins=[LightningEnvironment()], **settings)  # Ignores srun.
    for name in ("run.json", "config.yaml", "metrics.csv"):
        (folder / name).write_bytes((run.folder / name).read_bytes())
    dashboard.fill(Run(folder), run.config, model, data, [SummaryWriter(str(folder))], 24)
    return found(folder)


def found(folder: Path) -> Counter[str]:
    """Return the tags and kinds of entries in event files with their numbers, and the projector's file."""
    kinds: list[str] = []
    for path in folder.glob("events.out.tfevents.*"):
        for record in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(record)
            kinds += [value.tag for value in event.summary.value] or [str(event.WhichOneof("what"))]
    kinds += [path.name for path in folder.glob("projector_config.pbtxt")]
    return Counter(kind for kind in kinds if kind != "file_version")


def test_charts_show_all_sets_together_and_a_band_from_validation_to_training(events: EventAccumulator) -> None:
    (point,) = events.Tensors("custom_scalars__config__")
    charts = [c for part in Layout.FromString(make_ndarray(point.tensor_proto).item()).category for c in part.chart]
    logged = events.Tags()["scalars"]
    lines = [tag for chart in charts for pattern in chart.multiline.tag for tag in logged if re.match(pattern, tag)]
    sets = [f"{tag}/{name}" for tag in ("Accuracy, %", "Loss") for name in ("test", "train", "val")]
    assert sorted(lines) == sorted([*sets, "lr", "images_per_second"])
    bands = [(band.value, band.lower, band.upper) for chart in charts for band in chart.margin.series]
    assert bands == [(f"{tag}/val", f"{tag}/val", f"{tag}/train") for tag in ("Accuracy, %", "Loss")]
    for line, _, edge in bands:  # TensorBoard refuses a band whose steps differ from the line's.
        steps = [[event.step for event in events.Scalars(tag)] for tag in (line, edge)]
        assert steps[0] == steps[1] and len(steps[0]) == 2


def test_run_without_validation_has_charts_without_a_band(trained: TrainedRun, tmp_path: Path) -> None:
    for name in ("run.json", "metrics.csv"):
        text = (trained.run.folder / name).read_text()
        (tmp_path / name).write_text(text.replace("test/", "other/").replace("val/", "test/"))
    charts = [chart for charts in choose_charts(Run(tmp_path)).values() for chart in charts.values()]
    assert {kind for kind, _ in charts} == {"Multiline"}


def test_precision_and_recall_are_those_of_the_probabilities(trained: TrainedRun, events: EventAccumulator) -> None:
    predictions = trained.predictions
    for digit in (0, 9):
        (point,) = events.Tensors(f"pr_curve/{digit}")
        assert point.step == trained.run.info["steps"]
        is_digit, probabilities = predictions.labels == digit, predictions.probabilities[:, digit]
        is_predicted = probabilities * 126 >= torch.arange(127)[:, None]  # (thresholds, images)
        right, wrong = (is_predicted & is_digit).sum(1), (is_predicted & ~is_digit).sum(1)
        np.testing.assert_array_equal(make_ndarray(point.tensor_proto)[:2], torch.stack([right, wrong]))


def test_pictures_in_tensorboard_are_the_files_in_figures(trained: TrainedRun, events: EventAccumulator) -> None:
    folder = trained.run.folder / "figures"
    assert {path.stem for path in folder.iterdir()} == NAMES
    assert set(events.Tags()["images"]) == {f"figures/{name}" for name in NAMES}
    for name in NAMES:
        (image,) = events.Images(f"figures/{name}")
        shown, saved = imread(BytesIO(image.encoded_image_string)), imread(folder / f"{name}.png")
        np.testing.assert_array_equal(shown, saved)
        assert (image.height, image.width) == saved.shape[:2]
        assert image.step == trained.run.info["steps"]


def test_confusion_matrix_has_the_counts_and_leaves_nothing_in_pyplot(trained: TrainedRun) -> None:
    matrix = trained.predictions.confusion()
    figure = plot_confusion(trained.predictions)
    (axes,) = figure.axes
    texts = {text.get_position(): int(text.get_text()) for text in axes.texts}
    assert texts == {(int(column), int(row)): matrix[row, column].item() for row, column in matrix.nonzero()}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert figure.get_suptitle().startswith(f"{trained.run.info['metrics']['test/acc']:.2%} of 57 images")
    assert pyplot.get_fignums() == []


def test_worst_errors_have_label_prediction_and_both_probabilities() -> None:
    probabilities = torch.full((3, 10), 0.0)
    probabilities[0, 4] = probabilities[2, 1] = 1.0
    probabilities[1, [7, 2]] = torch.tensor([0.903, 0.097])
    probabilities[2, [5, 1]] = torch.tensor([0.6, 0.4])
    predictions = Predictions(torch.tensor([4, 2, 1]), probabilities)
    images = torch.stack([torch.full((1, 28, 28), float(i)) for i in range(3)])
    axes = plot_worst_errors(predictions, images).axes[0]  # type: ignore[union-attr]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["predicted 7: 90.3%\nis 2: 9.7%", "predicted 5: 60.0%\nis 1: 40.0%"]
    sheet = np.asarray(axes.images[0].get_array())
    assert sorted(set(sheet[~np.isnan(sheet)])) == [1, 2], "the right one is not among them"
    predictions = Predictions(torch.tensor([4, 7, 5]), probabilities)
    assert plot_worst_errors(predictions, images) is None


@pytest.mark.parametrize("name", ["lenet", "mlp"])
def test_filters_are_the_first_layers_weights(module_tiny: Tiny, name: str) -> None:
    model = make_model(module_tiny.compose(f"model={name}"))
    weight = next(model.parameters()).detach()
    pictures = weight[:, 0] if weight.ndim == 4 else weight.view(-1, 28, 28)
    figure = plot_filters(model, model.image_size)
    assert figure is not None
    count, side, _ = pictures.shape
    first = next(model.named_parameters())[0]
    assert f"({first}): {count} of {count}" in figure.get_suptitle().replace("\n", " ")
    drawn = figure.axes[0].images[0]
    sheet = np.ma.filled(np.ma.asarray(drawn.get_array()), np.nan)
    columns = (sheet.shape[1] + 1) // (side + 1)
    for i in (0, 1, count - 1):
        top, left = i // columns * (side + 1), i % columns * (side + 1)
        np.testing.assert_array_equal(sheet[top : top + side, left : left + side], pictures[i].numpy())
    assert drawn.get_clim() == pytest.approx((-pictures.abs().max().item(), pictures.abs().max().item()))


def test_projector_has_the_inputs_of_the_last_layer_with_labels_and_images(trained: TrainedRun) -> None:
    folder = trained.run.folder
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    rows = np.loadtxt(folder / embedding.tensor_path, delimiter="\t")
    images, labels = trained.data.examples(1000)
    np.testing.assert_allclose(rows, compute_features(trained.model, images), rtol=1e-4, atol=1e-5)
    header, *lines = (folder / embedding.metadata_path).read_text().splitlines()
    assert header == "label\tpredicted"
    predicted = trained.predictions.predicted
    assert lines == [f"{label}\t{digit}" for label, digit in zip(labels.tolist(), predicted.tolist(), strict=True)]
    sprite = imread(folder / embedding.sprite.image_path)
    assert list(embedding.sprite.single_image_dim) == [28, 28]
    for i, pixels in enumerate(trained.data.raw_test_set()[0]):
        top, left = 28 * (i // 8), 28 * (i % 8)  # The 57 images are in a square of 8 x 8.
        np.testing.assert_allclose(sprite[top : top + 28, left : left + 28, 0], pixels / 255, atol=1 / 255)


def test_graph_names_the_layers(events: EventAccumulator) -> None:
    names = {part for node in events.Graph().node for part in node.name.split("/")}
    assert {"LeNet", "Conv2d[conv1]", "Conv2d[conv2]", "Linear[fc1]", "Linear[fc2]", "Linear[fc3]"} <= names


@pytest.mark.parametrize("key", ["curves", *slow("graph"), *thorough(*sorted({*PARTS} - {"curves", "graph"}))])
def test_each_part_is_switched_off_by_its_key_and_nothing_else_is(
    module_tiny: Tiny, trained: TrainedRun, tmp_path: Path, key: str
) -> None:
    cfg = module_tiny.compose("figures=true", f"dashboard.{key}=false")
    dashboard = instantiate_node(cfg.dashboard, "dashboard")
    left = fill(trained.run, trained.model, trained.data, tmp_path, dashboard)
    assert left == Counter(set().union(*(tags for name, tags in PARTS.items() if name != key)))
    files = {f"figures/{path.stem}" for path in (tmp_path / "figures").iterdir()}
    assert files == {f"figures/{name}" for name in NAMES} - PARTS[key]


def test_run_without_figures_is_not_predicted_again(
    module_tiny: Tiny, trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Classifier, "probabilities", None)
    monkeypatch.setattr(Classifier, "probabilities_of_test_set", None)
    dashboard = instantiate_node(module_tiny.compose("figures=false").dashboard, "dashboard")
    assert fill(trained.run, trained.model, trained.data, tmp_path, dashboard) == Counter(
        PARTS["layout"] | PARTS["hparams"]
    )
    assert not (tmp_path / "figures").exists()


def test_choices_have_every_part(module_tiny: Tiny) -> None:
    parts = dict.fromkeys(PARTS, True)
    off = dict.fromkeys(PARTS, False)
    for overrides, expected in (
        (["figures=true"], parts),
        (["dashboard=none"], off),
        (["dashboard=none", "dashboard.graph=true"], off | {"graph": True}),
        (["figures=false"], off | {"layout": True, "hparams": True}),
    ):
        cfg = module_tiny.compose(*overrides)
        assert vars(instantiate_node(cfg.dashboard, "dashboard")) == expected
        assert differing_settings(module_tiny.compose(), cfg) == {}, "it makes no other job"


@pytest.mark.slow
def test_run_without_tensorboard_has_its_figures(command: Command) -> None:
    folder = Path("runs/a/none")
    settings = ("model=mlp", "trainer.max_epochs=1", "figures=true", "logger=csv", f"hydra.run.dir={folder}")
    outcome = command(*settings)
    assert outcome.status == 0 and CURVES not in outcome.out
    assert found(folder) == Counter()
    assert {path.stem for path in (folder / "figures").iterdir()} >= NAMES - {"worst"}


@pytest.mark.slow
def test_run_that_continues_has_everything_once(command: Command) -> None:
    """This also holds if parts are switched off when the run continues."""
    outcome, folder = command("model=lenet", "figures=true"), Run.find("latest").folder
    assert f"curves: tensorboard --logdir {folder}\n  {CURVES}\nrun folder: " in outcome.out
    before = found(folder)
    assert {before[tag] for tag in set().union(*PARTS.values())} == {1}
    for epochs, setting in ((3, []), (4, ["dashboard=none"])):
        assert command("resume=latest", f"trainer.max_epochs={epochs}", *setting, data=False).status == 0
        after = found(folder)
        assert {tag: after[tag] for tag in set().union(*PARTS.values()) if after[tag] != (epochs == 3)} == {}
    assert not (folder / "projector").exists()
    assert not list((folder / "figures").iterdir())


class Own(Classifier):
    """A network that depends on values and random numbers, even in eval mode, and cannot be traced.

    Its linear layer has several rows of inputs for each image, which are parts of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(56, 10)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 28, 28)
        noise = torch.rand(1) if x.sum() > 0 else 0
        if torch.jit.is_tracing():
            raise RuntimeError("not so")
        return self.linear(x.reshape(-1, 14, 56)).mean(1) + noise


def test_odd_network_has_the_parts_that_are_possible(
    module_tiny: Tiny, trained: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is printed, and random state, mode and hooks stay as they were."""
    model = Own().eval()
    without = {"figures/filters", "projector_config.pbtxt", "graph_def", "tagged_run_metadata"}
    data, before = make_data(module_tiny.compose("model=mlp"), model), torch.get_rng_state()
    assert fill(trained.run, model, data, tmp_path, Dashboard()) == Counter(set().union(*PARTS.values()) - without)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(layer.training or layer._forward_pre_hooks or layer._forward_hooks for layer in model.modules())
    assert capsys.readouterr() == ("", "")


def test_features_are_the_inputs_of_the_last_linear_layer_in_use() -> None:
    class Heads(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(5, 10), nn.Linear(784, 5)
            self.unused = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x.flatten(1)))

    model, images = Heads(), torch.rand(4, 1, 28, 28)
    features = compute_features(model, images)
    assert features is not None
    torch.testing.assert_close(features, model.first(images.flatten(1)).detach())
    model.last, model.first, model.unused = nn.Flatten(), nn.Flatten(), nn.Conv1d(1, 1, 1)  # type: ignore[assignment]
    assert compute_features(model, images) is None, "there is no linear layer"
