"""What a run shows when it ends: each part is in TensorBoard's event files, is right, and can be switched off."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from google.protobuf import text_format
from lab import Command, Tiny, slow, thorough, tiny_data
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from matplotlib import pyplot
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.util.tensor_util import make_ndarray
from torch import Tensor, nn
from torch.utils.tensorboard.writer import SummaryWriter

from mnist_lab.config.settings import differing_settings
from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.models.classifier import Classifier
from mnist_lab.runs.run import Run
from mnist_lab.training.build import instantiate_node, load_trained_model, make_data, make_model
from mnist_lab.training.train import train
from mnist_lab.viz.dashboard import FIGURES, Dashboard
from mnist_lab.viz.model import plot_confusion, plot_filters, plot_worst_errors
from mnist_lab.viz.tensorboard import features, write_embeddings

PARTS = {  # what each part adds to a folder of its own
    "curves": {"figures/loss", "figures/accuracy", "figures/examples_seen"},
    "examples": {"figures/truths_3x3", "figures/predictions_3x3", "figures/predictions_4x4"},
    "worst": {"figures/worst"},
    "confusion": {"figures/confusion"},
    "filters": {"figures/filters"},
    "layout": {"custom_scalars__config__"},
    "hparams": {"_hparams_/experiment", "_hparams_/session_start_info", "_hparams_/session_end_info"}
    | {f"final/{of}/{metric}" for of in ("train", "val", "test") for metric in ("loss", "acc")},
    "pr_curves": {f"pr_curve/{i}" for i in range(10)},
    "projector": {"projector_config.pbtxt"},
    "graph": {"graph_def", "tagged_run_metadata"},
}


@dataclass
class Trained:
    """A run of lenet with its network and data, and the configuration that it was made from."""

    run: Run
    model: Classifier
    data: MNISTDataModule
    tiny: Tiny

    @cached_property
    def events(self) -> EventAccumulator:
        return EventAccumulator(str(self.run.folder)).Reload()

    @cached_property
    def predictions(self) -> Predictions:
        return Predictions.on_test_set(self.model, self.data)

    def fill(self, folder: Path, dashboard: Dashboard, model: Classifier | None = None) -> Counter[str]:
        """What a dashboard leaves in a folder of its own, for this run or for another network."""
        board, model = SummaryWriter(str(folder)), model or self.model
        alone = [LightningEnvironment()]  # also where srun is installed
        model.trainer = pl.Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, barebones=True, plugins=alone
        )
        copy = Run(folder)
        for name in ("run.json", "config.yaml", "metrics.csv"):
            (folder / name).write_bytes((self.run.folder / name).read_bytes())
        dashboard.fill(copy, self.run.config, model, self.data, [board], 24)
        return found(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("dashboard")
    tiny = tiny_data(folder / "tiny")
    tiny.overrides = ["data=tiny", "trainer.max_epochs=2", "trainer.accelerator=cpu", f"runs_dir={folder / 'runs'}"]
    run = train(tiny.compose("model=lenet", "optimizer.lr=0.003"))
    model = load_trained_model(run)
    return Trained(run, model, make_data(run.config, model), tiny)


def found(folder: Path) -> Counter[str]:
    """What event files hold, each tag or kind as often as it is there; and whether there is a projector."""
    kinds: list[str] = []
    for path in folder.glob("events.out.tfevents.*"):
        for record in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(record)
            kinds += [value.tag for value in event.summary.value] or [str(event.WhichOneof("what"))]
    kinds += [path.name for path in folder.glob("projector_config.pbtxt")]
    return Counter(kind for kind in kinds if kind != "file_version")


def test_every_metric_has_one_chart_of_all_sets(trained: Trained) -> None:
    (point,) = trained.events.Tensors("custom_scalars__config__")
    layout = Layout.FromString(make_ndarray(point.tensor_proto).item())
    logged = trained.events.Tags()["scalars"]
    shown = {
        chart.title: [tag for pattern in chart.multiline.tag for tag in logged if re.match(pattern, tag)]
        for category in layout.category
        for chart in category.chart
    }
    assert shown == {
        "loss": ["Loss/train", "Loss/val", "Loss/test"],
        "accuracy": ["Accuracy/train", "Accuracy/val", "Accuracy/test"],
        "learning rate": ["lr"],
        "images per second": ["images_per_second"],
    }


def test_precision_and_recall_of_each_digit_are_those_of_the_probabilities(trained: Trained) -> None:
    predictions = trained.predictions
    for digit in (0, 9):
        (point,) = trained.events.Tensors(f"pr_curve/{digit}")
        assert point.step == trained.run.info["steps"]
        of_it, sure = predictions.labels == digit, predictions.probabilities[:, digit]
        expected = []
        for i in range(127):
            taken = sure * 126 >= i
            right, wrong = (taken & of_it).sum().item(), (taken & ~of_it).sum().item()
            left = (~of_it).sum().item() - wrong, of_it.sum().item() - right
            precision = right / (right + wrong) if right + wrong else 0
            expected.append([right, wrong, *left, precision, right / of_it.sum().item()])
        np.testing.assert_allclose(make_ndarray(point.tensor_proto), np.transpose(expected), rtol=1e-6)


def test_pictures_in_tensorboard_are_the_files_in_figures(trained: Trained) -> None:
    folder, events = trained.run.folder / "figures", trained.events
    assert {path.stem for path in folder.iterdir()} == set(FIGURES)
    assert set(events.Tags()["images"]) == {f"figures/{name}" for name in FIGURES}
    for name in FIGURES:
        (image,) = events.Images(f"figures/{name}")
        shown, saved = imread(BytesIO(image.encoded_image_string)), imread(folder / f"{name}.png")
        np.testing.assert_array_equal(shown, saved)
        assert (image.height, image.width) == saved.shape[:2]
        assert image.step == trained.run.info["steps"]


def test_confusion_matrix_has_the_counts_and_leaves_nothing_in_pyplot(trained: Trained) -> None:
    matrix = trained.predictions.confusion()
    style = dict(pyplot.rcParams)
    figure = plot_confusion(trained.predictions)
    (axes,) = figure.axes
    texts = {text.get_position(): int(text.get_text()) for text in axes.texts}
    assert texts == {(int(column), int(row)): matrix[row, column].item() for row, column in matrix.nonzero()}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert figure.get_suptitle() == f"57 images, accuracy {trained.run.info['metrics']['test/acc']:.2%}"
    assert pyplot.get_fignums() == []
    assert dict(pyplot.rcParams) == style


def test_worst_errors_have_label_prediction_and_both_probabilities() -> None:
    probabilities = torch.full((3, 10), 0.0)
    probabilities[0, 4] = probabilities[2, 1] = 1.0
    probabilities[1, [7, 2]] = torch.tensor([0.903, 0.097])
    probabilities[2, [5, 1]] = torch.tensor([0.6, 0.4])
    predictions = Predictions(torch.tensor([4, 2, 1]), probabilities)
    images = torch.stack([torch.full((1, 28, 28), float(i)) for i in range(3)])
    figure = plot_worst_errors(predictions, images)
    assert figure is not None
    axes = figure.axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["predicted 7: 90.3%\nis 2: 9.7%", "predicted 5: 60.0%\nis 1: 40.0%"]
    sheet = np.asarray(axes.images[0].get_array())
    assert sorted(set(sheet[~np.isnan(sheet)])) == [1, 2], "the right one is not among them"
    predictions = Predictions(torch.tensor([4, 7, 5]), probabilities)
    assert plot_worst_errors(predictions, images) is None


@pytest.mark.parametrize("name", ["lenet", "mlp", *thorough("simple_cnn", "compact_cnn", "dropout_cnn")])
def test_filters_are_the_first_layers_weights(trained: Trained, name: str) -> None:
    model = make_model(trained.tiny.compose(f"model={name}"))
    weight = next(model.parameters()).detach()
    pictures = weight[:, 0] if weight.ndim == 4 else weight.view(-1, 28, 28)
    figure = plot_filters(model, model.image_size)
    assert figure is not None
    count, side, _ = pictures.shape
    first = next(model.named_parameters())[0]
    assert figure.get_suptitle() == f"{first}: {count} of {count}"
    drawn = figure.axes[0].images[0]
    sheet = np.ma.filled(np.ma.asarray(drawn.get_array()), np.nan)
    columns = (sheet.shape[1] + 1) // (side + 1)
    for i in (0, 1, count - 1):
        top, left = i // columns * (side + 1), i % columns * (side + 1)
        np.testing.assert_array_equal(sheet[top : top + side, left : left + side], pictures[i].numpy())
    assert drawn.get_clim() == pytest.approx((-pictures.abs().max().item(), pictures.abs().max().item()))


def test_projector_has_what_the_last_layer_is_given_with_labels_and_pictures(trained: Trained) -> None:
    folder = trained.run.folder
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    rows = np.loadtxt(folder / embedding.tensor_path, delimiter="\t")
    images, labels = trained.data.examples(1000)
    last, trained.model.fc3 = trained.model.fc3, nn.Identity()
    with torch.no_grad():
        given = trained.model.eval()(images)  # (57, 84)
    trained.model.fc3 = last
    np.testing.assert_allclose(rows, given.numpy(), rtol=1e-4, atol=1e-5)
    header, *lines = (folder / embedding.metadata_path).read_text().splitlines()
    assert header == "label\tpredicted"
    predicted = trained.predictions.predicted
    assert lines == [f"{label}\t{digit}" for label, digit in zip(labels.tolist(), predicted.tolist(), strict=True)]
    sprite = imread(folder / embedding.sprite.image_path)
    assert list(embedding.sprite.single_image_dim) == [28, 28]
    for i, pixels in enumerate(trained.data.test_set()[0]):
        top, left = 28 * (i // 8), 28 * (i % 8)  # rows of eight: the next square after 57 is 64
        np.testing.assert_allclose(sprite[top : top + 28, left : left + 28], pixels / 255, atol=1e-6)


def test_projector_shows_no_more_than_asked_for(trained: Trained, tmp_path: Path) -> None:
    images, _ = trained.data.examples(57)
    write_embeddings(tmp_path, trained.model, images, trained.data.test_set()[0], trained.predictions, count=20)
    assert len(np.loadtxt(tmp_path / "projector" / "features.tsv")) == 20
    assert len((tmp_path / "projector" / "labels.tsv").read_text().splitlines()) == 1 + 20
    assert imread(tmp_path / "projector" / "sprite.png").shape[:2] == (4 * 28, 5 * 28)


def test_graph_names_the_layers(trained: Trained) -> None:
    (record,) = [
        event.graph_def
        for path in trained.run.folder.glob("events.out.tfevents.*")
        for event in map(Event.FromString, RawEventFileLoader(str(path)).Load())
        if event.graph_def
    ]
    names = {part for node in GraphDef.FromString(record).node for part in node.name.split("/")}
    assert {"LeNet", "Conv2d[conv1]", "Conv2d[conv2]", "Linear[fc1]", "Linear[fc2]", "Linear[fc3]"} <= names


@pytest.mark.parametrize("key", ["curves", *slow("graph"), *thorough(*sorted({*PARTS} - {"curves", "graph"}))])
def test_each_part_is_switched_off_by_its_key_and_nothing_else_is(trained: Trained, tmp_path: Path, key: str) -> None:
    cfg = trained.tiny.compose(f"dashboard.{key}=false")
    left = trained.fill(tmp_path, instantiate_node(cfg.dashboard, "dashboard"))
    assert left == Counter(set().union(*(tags for name, tags in PARTS.items() if name != key)))
    files = {f"figures/{path.stem}" for path in (tmp_path / "figures").iterdir()}
    assert files == {f"figures/{name}" for name in FIGURES} - PARTS[key]


def test_choices_have_every_part(trained: Trained) -> None:
    parts = dict.fromkeys(PARTS, True)
    off = dict.fromkeys(PARTS, False)
    for overrides, expected in (
        ([], parts),
        (["dashboard=none"], off),
        (["dashboard=none", "dashboard.graph=true"], off | {"graph": True}),
        (["figures=false"], off | {"layout": True, "hparams": True}),
    ):
        assert vars(instantiate_node(trained.tiny.compose(*overrides).dashboard, "dashboard")) == expected


def test_dashboard_makes_no_other_job(trained: Trained) -> None:
    assert differing_settings(trained.tiny.compose(), trained.tiny.compose("dashboard=none")) == {}


def test_unknown_or_ill_typed_part_is_refused(command: Command) -> None:
    outcome = command("+dashboard.graf=true", "dashboard.worst=3")
    assert outcome.status == 2
    assert "dashboard.graf=true: Dashboard has no such setting; remove it with ~dashboard.graf, or" in outcome.err
    assert "dashboard.worst=3: input should be a valid boolean" in outcome.err


@pytest.mark.slow
def test_run_without_tensorboard_or_without_figures_is_left_what_it_asks_for(command: Command) -> None:
    shown = ("figures=true", "logger=csv", "hydra.run.dir=runs/a/none")
    assert command("model=mlp", "trainer.max_epochs=1", *shown).status == 0
    folder = Path("runs/a/none")
    assert found(folder) == Counter()
    assert {path.stem for path in (folder / "figures").iterdir()} >= set(FIGURES) - {"worst"}
    bare = ("figures=false", "dashboard.hparams=false", "hydra.run.dir=runs/a/bare")
    assert command("model=mlp", "trainer.max_epochs=1", *bare).status == 0
    folder = Path("runs/a/bare")
    assert not (folder / "figures").exists()
    assert not (folder / "hparams.yaml").exists()
    kept = found(folder)
    assert kept["custom_scalars__config__"] == 1
    assert not kept.keys() & (set().union(*PARTS.values()) - PARTS["layout"])


@pytest.mark.slow
def test_run_that_continues_has_everything_once(command: Command) -> None:
    """After a run that went on, and after one in which a part is then switched off."""
    assert command("model=lenet", "figures=true").status == 0
    (path,) = Path("runs").glob("*/*/run.json")
    folder = path.parent
    before = found(folder)
    assert {before[tag] for tag in set().union(*PARTS.values())} == {1}
    for epochs, setting in ((3, []), (4, ["dashboard=none"])):
        assert command("resume=latest", f"trainer.max_epochs={epochs}", *setting, data=False).status == 0
        after = found(folder)
        assert {tag: after[tag] for tag in set().union(*PARTS.values()) if after[tag] != (epochs == 3)} == {}
    assert not (folder / "projector").exists()
    assert not list((folder / "figures").iterdir())


@pytest.mark.slow
def test_tutorials_test_curve_has_one_point_an_epoch(command: Command) -> None:
    assert command("experiment=compact_cnn").status == 0
    (path,) = Path("runs").glob("*/*/run.json")
    run = Run(path.parent)
    events = EventAccumulator(str(run.folder)).Reload()
    assert [event.step for event in events.Scalars("Accuracy/test")] == [-1, 3, 7]
    assert [row["step"] for row in run.metrics() if "test/acc" in row] == [-1, 3, 7]
    assert events.Scalars("Accuracy/test")[-1].value == pytest.approx(run.info["metrics"]["test/acc"])


@pytest.mark.parametrize("name", [*slow("mlp"), *thorough("simple_cnn", "compact_cnn", "dropout_cnn")])
def test_every_network_has_every_part(trained: Trained, tmp_path: Path, name: str) -> None:
    model = make_model(trained.tiny.compose(f"model={name}"))
    data = make_data(trained.tiny.compose(f"model={name}"), model)
    other = Trained(trained.run, model, data, trained.tiny)
    assert other.fill(tmp_path, Dashboard()) == Counter(set().union(*PARTS.values()))
    (last,) = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1:]
    assert np.loadtxt(tmp_path / "projector" / "features.tsv").shape == (57, last.in_features)


class Plain(Classifier):
    """A network without a layer whose weights are pictures, and without a linear one."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.linspace(-1, 1, 10))

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 28, 28)
        return x.mean((1, 2, 3))[:, None] * self.shift


class Patches(Classifier):
    """A network whose first layer sees parts of an image, and whose last is given several rows for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(56, 10)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 28, 28)
        return self.linear(x.reshape(-1, 14, 56)).mean(1)


class Untraceable(Patches):
    """A network that torch.jit cannot trace."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_tracing():
            raise RuntimeError("not so")
        return super().forward(x)


class Guesses(Classifier):
    """A network that draws from the random state in eval mode too, and asks what the values are."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(784, 10)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 28, 28)
        noise = torch.rand(1)
        return self.linear(x.flatten(1)) + (noise if x.sum() > 0 else -noise)


@pytest.mark.parametrize(
    ("network", "without"),
    [
        (Untraceable, {"figures/filters", "projector_config.pbtxt", "graph_def", "tagged_run_metadata"}),
        *slow(
            (Plain, {"figures/filters", "projector_config.pbtxt"}),
            (Guesses, set()),
        ),
    ],
)
def test_network_of_a_users_own_has_what_there_is_to_show_of_it(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], network: Any, without: set[str]
) -> None:
    """Nothing is said, and random state, mode and hooks are as they were."""
    torch.manual_seed(1)
    model = network().eval()
    data = make_data(trained.tiny.compose("model=mlp"), model)
    other = Trained(trained.run, model, data, trained.tiny)
    before = torch.get_rng_state()
    assert other.fill(tmp_path, Dashboard()) == Counter(set().union(*PARTS.values()) - without)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(layer.training or layer._forward_pre_hooks or layer._forward_hooks for layer in model.modules())
    assert capsys.readouterr() == ("", "")


def test_features_are_what_the_last_linear_layer_that_is_used_is_given() -> None:
    class Heads(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(5, 10), nn.Linear(784, 5)
            self.unused = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x.flatten(1)))

    model, images = Heads(), torch.rand(4, 1, 28, 28)
    given = features(model, images)
    assert given is not None
    torch.testing.assert_close(given, model.first(images.flatten(1)).detach())
