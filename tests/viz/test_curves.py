"""Figures show the data of the run folder, with labels and units on the axes."""

import json
from pathlib import Path

import numpy as np
import pytest
from lab import Tiny
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from mnist_lab.reproduce.results import plot_reproduction
from mnist_lab.runs.run import Run
from mnist_lab.training.train import train
from mnist_lab.viz.curves import plot_accuracy, plot_examples_seen, plot_loss
from mnist_lab.viz.model import format_probability, plot_images
from mnist_lab.viz.style import COLOURS
from mnist_lab.viz.sweep import WORST, plot_heat_map


@pytest.fixture(scope="module")
def preset_run(module_tiny: Tiny) -> Run:
    """Return a run of two epochs that was tested before training and after each epoch."""
    return train(module_tiny.compose("experiment=compact_cnn"))


@pytest.fixture(scope="module")
def plain_run(module_tiny: Tiny) -> Run:
    """Return a run of two epochs with a validation set that was tested once."""
    return train(module_tiny.compose("model=mlp"))


def lines(figure: Figure, panel: int = 0) -> dict[str, list[tuple[float, float]]]:
    """Return the points of each line by the beginning of its label."""
    names = [str(line.get_label()) for line in figure.axes[panel].get_lines()]
    names = [name.split(", ")[0] + ", published" * ("published" in name) for name in names]
    points = [map(tuple, np.asarray(line.get_xydata())) for line in figure.axes[panel].get_lines()]
    return dict(zip(names, map(list, points), strict=True))


def test_loss_and_accuracy_by_epoch_are_the_runs(preset_run: Run) -> None:
    shown = lines(plot_loss(preset_run))
    assert shown["training"] == list(preset_run.curve("train/loss").items())
    assert shown["test"] == list(preset_run.curve("test/loss").items())[1:], "from epoch 1 on"
    shown = lines(plot_accuracy(preset_run))
    assert shown["test"] == [(epoch, 100 * value) for epoch, value in preset_run.curve("test/acc").items()][1:]
    assert shown["test, published"] == [(1, 96.36), (2, 97.46), (3, 97.62)]
    figure = plot_accuracy(preset_run)
    assert "; test, published, 97.62%" in str(figure.get_label()), "the legend, and what a screen reader reads"
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "accuracy (%)")


def test_single_test_is_a_star(plain_run: Run) -> None:
    tested = plain_run.info["tested"]["epoch"]
    for figure, panel in ((plot_accuracy(plain_run), 0), (plot_examples_seen(plain_run), 1)):
        shown = lines(figure, panel)
        assert shown["test"] == [((190 if panel else 1) * tested, 100 * plain_run.info["metrics"]["test/acc"])]
        assert "validation" in shown
        (line,) = [line for line in figure.axes[panel].get_lines() if str(line.get_label()).startswith("test")]
        assert line.get_marker() == "*"


def test_examples_seen_are_on_the_horizontal_axis(preset_run: Run) -> None:
    figure = plot_examples_seen(preset_run)
    assert [x for x, _ in lines(figure)["test"]] == [0, 230, 460]
    assert len(lines(figure)["training"]) == 2
    names = [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes]
    assert names == [("", "loss (nats per image)"), ("training examples seen", "accuracy (%)")]


@pytest.mark.slow
def test_run_without_training_has_figures_too(tiny: Tiny) -> None:
    run = train(tiny.compose("model=mlp", "trainer.max_epochs=0", "figures=true"))
    assert lines(plot_accuracy(run))["test"] == [(0, 100 * run.info["metrics"]["test/acc"])]
    assert (run.folder / "figures" / "examples_seen.png").is_file()


def test_wrong_prediction_is_red_with_its_truth() -> None:
    figure = plot_images(np.zeros((4, 28, 28)), [1, 2, 3, 4], [1, 7, 3, 4], columns=2)
    texts = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    right = dict.fromkeys(("predicted 1", "predicted 3", "predicted 4"), COLOURS["right"])
    assert texts == right | {"predicted 7\nis 2": COLOURS["wrong"]}
    truths = plot_images(np.zeros((4, 28, 28)), [1, 2, 3, 4], columns=2)
    assert [text.get_text() for text in truths.axes[0].texts] == ["truth 1", "truth 2", "truth 3", "truth 4"]


def test_reproduced_curves_are_means_over_published_points() -> None:
    row = {
        "seeds": [1, 2],
        "published": {"test/acc": [None, 90.0]},
        "curves": {"test/acc": [[], [88.0, 92.0]], "train/loss": [[], [0.5, 0.7]]},
    }
    figure = plot_reproduction("mlp", row)
    assert lines(figure, 1)["test"] == [(1, 90.0)]
    assert lines(figure, 1)["test, published"] == [(1, 90.0)]
    assert lines(figure, 0)["training"] == [(1, pytest.approx(0.6))]
    (band,) = figure.axes[1].collections
    assert (band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()) == (88, 92)


def test_heat_map_has_the_mean_of_each_place(tmp_path: Path) -> None:
    runs = []
    for lr, momentum, seed, accuracy in ((0.01, 0.5, 0, 0.9), (0.01, 0.5, 1, 0.94), (0.1, 0.9, 0, 0.5)):
        folder = tmp_path / f"{lr}-{seed}"
        folder.mkdir()
        OmegaConf.save({"optimizer": {"lr": lr, "momentum": momentum}}, folder / "config.yaml")
        metrics = {"val/acc": accuracy, "val/loss": 0.2 if accuracy < 0.6 else 0.3}
        (folder / "run.json").write_text(json.dumps({"status": "finished", "metrics": metrics}))
        runs.append(Run(folder))
    figure = plot_heat_map(runs, "optimizer.lr", "optimizer.momentum")
    (axes,) = figure.axes
    empty = dict.fromkeys([(0, 1), (1, 0)], "no result")
    assert {text.get_position(): text.get_text() for text in axes.texts} == {(0, 0): "92.00", (1, 1): "50.00"} | empty
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("optimizer.lr", "optimizer.momentum")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.01", "0.1"]
    assert figure.get_label() == (
        "optimizer.momentum=0.5 optimizer.lr=0.01: 92.00, optimizer.momentum=0.9 optimizer.lr=0.1: 50.00"
    )
    for metric, strengths in (("val/acc", [0.5, 0.5 * WORST]), ("val/loss", [0.5 * WORST, 0.5])):
        (cells,) = plot_heat_map(runs, "optimizer.lr", "optimizer.momentum", metric).axes[0].collections
        assert cells.get_facecolor()[:, 3].tolist() == strengths, "the better, the stronger"
        assert cells.get_edgecolor()[:, 3].tolist() == [float(one == 0.5) for one in strengths], "the best has a frame"


def test_probability_does_not_look_certain() -> None:
    found = map(format_probability, (0, 0.0001, 0.25, 0.9994, 0.99999, 1))
    assert list(found) == ["< 0.1%", "< 0.1%", "25.0%", "99.9%", "> 99.9%", "> 99.9%"]
