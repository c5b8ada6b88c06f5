"""Corruptions change images by known amounts, the same for every network; `robustness` shows the accuracies."""

import csv
import io
import json
import shutil
import statistics
from pathlib import Path

import pytest
import torch
from lab import Command, Tiny, assert_refused, thorough, tiny_arrays, tiny_data
from torch import Tensor

from mnist_lab.cli.robustness import name_groups
from mnist_lab.data.corruptions import CORRUPTIONS, corrupt
from mnist_lab.evaluation.evaluate import measure_robustness
from mnist_lab.runs.run import Run
from mnist_lab.training.build import load_trained_model, make_data
from mnist_lab.training.train import train
from mnist_lab.viz.model import plot_robustness


def images(count: int = 57) -> Tensor:
    return torch.from_numpy(tiny_arrays(1, count)[2])


def box(height: int, width: int) -> Tensor:
    """Return 200 times a white box in the middle of black."""
    white_box = torch.zeros(200, 28, 28, dtype=torch.uint8)
    top, left = (28 - height) // 2, (28 - width) // 2
    white_box[:, top : 28 - top, left : 28 - left] = 255
    return white_box


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_images_stay_images_and_differ_more_with_every_strength(name: str) -> None:
    plain = box(16, 6)
    changes = [(corrupt(plain, name, strength).float() - plain).abs().mean().item() for strength in range(6)]
    assert changes[0] == 0
    assert changes == sorted(set(changes))
    for strength in range(6):
        corrupted = corrupt(images(), name, strength)
        assert (corrupted.shape, corrupted.dtype) == ((57, 28, 28), torch.uint8)
    torch.manual_seed(1)
    first = corrupt(images(), name, 3)
    torch.manual_seed(2)
    assert torch.equal(corrupt(images(), name, 3), first), "whatever was drawn before"


@pytest.mark.parametrize("strength", [1, 5, *thorough(2, 3, 4)])
def test_shift_is_by_whole_pixels_to_each_of_the_four_sides(strength: int) -> None:
    before = images(200)
    after, pixels = corrupt(before, "shift", strength), int(CORRUPTIONS["shift"].amounts[strength - 1])
    rolled = []
    for axis, way in ((1, 1), (1, -1), (2, 1), (2, -1)):
        expected = before.roll(way * pixels, dims=axis)
        expected.narrow(axis, 0 if way > 0 else 28 - pixels, pixels).zero_()
        rolled.append((after == expected).all(2).all(1))
    assert torch.stack(rolled).sum(0).tolist() == [1] * 200
    assert min(side.sum().item() for side in rolled) > 20


def test_rotation_by_90_degrees_is_torchs_own_either_way() -> None:
    before = images(200)
    turned = CORRUPTIONS["rotation"].apply(before.unsqueeze(1).float(), 90, torch.Generator().manual_seed(0))
    ways = [(turned.squeeze(1).round() == before.rot90(k, (1, 2))).all(2).all(1) for k in (1, -1)]
    assert torch.stack(ways).sum(0).tolist() == [1] * 200
    assert min(way.sum().item() for way in ways) > 50


def test_scale_shrinks_the_sides_by_so_many_per_cent() -> None:
    for strength, percent in enumerate(CORRUPTIONS["scale"].amounts, start=1):
        light = corrupt(box(20, 20), "scale", strength)[0].float().sum() / 255
        assert light.sqrt() == pytest.approx(20 * (1 - percent / 100), rel=0.02)


def test_noise_has_its_standard_deviation_and_no_bias() -> None:
    grey = torch.full((200, 28, 28), 128, dtype=torch.uint8)
    noise = corrupt(grey, "noise", 1).float() - 128
    assert noise.std() == pytest.approx(25.5, rel=0.01)
    assert noise.mean() == pytest.approx(0, abs=0.2)
    assert len(noise.unique(dim=0)) == 200


def test_blur_of_a_point_is_the_gaussian_and_keeps_the_light() -> None:
    for sigma in CORRUPTIONS["blur"].amounts:
        point = torch.zeros(1, 1, 28, 28)
        point[..., 14, 14] = 255
        blurred = CORRUPTIONS["blur"].apply(point, sigma, torch.Generator())
        assert blurred.sum() == pytest.approx(255, rel=1e-5)
        assert blurred[0, 0, 14, 15] / blurred[0, 0, 14, 14] == pytest.approx(torch.tensor(-1 / (2 * sigma**2)).exp())
        assert torch.allclose(blurred, blurred.mT) and torch.allclose(blurred[..., 14, 13], blurred[..., 14, 15])


def test_inversion_of_100_per_cent_is_the_negative_and_its_strengths_mirror_each_other() -> None:
    plain = images()
    assert torch.equal(corrupt(plain, "inversion", 5), 255 - plain)
    assert (corrupt(plain, "inversion", 1).int() - (0.8 * plain + 0.2 * (255 - plain.float()))).abs().max() <= 0.5
    assert torch.equal(corrupt(plain, "inversion", 2), corrupt(255 - plain, "inversion", 3))


def test_occlusion_is_a_black_square_over_the_middle_box() -> None:
    white = torch.full((200, 28, 28), 255, dtype=torch.uint8)
    for strength, side in enumerate(CORRUPTIONS["occlusion"].amounts, start=1):
        dark = corrupt(white, "occlusion", strength) == 0
        heights, widths = dark.any(2).sum(1), dark.any(1).sum(1)
        assert torch.equal(heights * widths, dark.sum((1, 2))), "a rectangle"
        inside = ~(dark[:, 0].any(1) | dark[:, -1].any(1) | dark[:, :, 0].any(1) | dark[:, :, -1].any(1))
        assert inside.sum() > 20
        assert set(heights[inside].tolist()) == set(widths[inside].tolist()) == {int(side)}
    assert len(dark.unique(dim=0)) > 150


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a lenet, an mlp with two seeds, and an mlp with another learning rate, in one folder."""
    folder = tmp_path_factory.mktemp("trained")
    data = tiny_data(folder / "tiny")
    data.overrides = ["data=tiny", "figures=false"]
    for name, settings in {
        "lenet": ["model=lenet", "trainer.max_epochs=3", "optimizer.lr=0.05"],
        "mlp0": ["model=mlp", "trainer.max_epochs=3", "optimizer.lr=0.1"],
        "mlp1": ["model=mlp", "trainer.max_epochs=3", "optimizer.lr=0.1", "seed=1"],
        "other": ["model=mlp", "trainer.max_epochs=1", "optimizer.lr=0.2"],
    }.items():
        train(data.compose(*settings, "logger=csv", f"hydra.run.dir={folder / name}"))
    return folder


@pytest.fixture
def runs(tiny: Tiny, trained: Path, capsys: pytest.CaptureFixture[str]) -> list[Run]:
    """Copy the runs of the lenet and of the mlp with two seeds into runs."""
    for name in ("lenet", "mlp0", "mlp1"):
        shutil.copytree(trained / name, Path("runs") / name)
    capsys.readouterr()  # The tests read only the output of commands.
    return [Run(Path("runs") / name) for name in ("lenet", "mlp0", "mlp1")]


def measure_singly(run: Run, name: str, strength: int) -> float:
    """Return the accuracy on corrupted images, image by image."""
    model = load_trained_model(run)
    data = make_data(run.config, model)
    test_images, labels = data.raw_test_set()
    corrupted = corrupt(torch.from_numpy(test_images), name, strength).numpy()
    hits = [model.predict(data.normalise(corrupted[i : i + 1])).item() == labels[i] for i in range(len(labels))]
    return sum(hits) / len(hits)


def cells(line: str) -> list[str]:
    return [word for word in line.split() if word.endswith("%")]


@pytest.mark.slow
def test_runs_are_compared_best_first_and_seeds_together(command: Command, runs: list[Run]) -> None:
    before = sorted(Path().rglob("*"))
    outcome = command("robustness", "runs", data=False)
    assert outcome.status == 0, outcome.err
    assert sorted(Path().rglob("*")) == before, "nothing is written without --out"
    measured = {run: measure_robustness(run, list(CORRUPTIONS)) for run in runs}
    heads, *columns = zip(*map(str.split, outcome.out.splitlines()), strict=True)
    assert heads == ("network", "runs", "plain", *CORRUPTIONS, "mean")
    column_of = {network: column for network, *column in columns}
    for network, group in (("lenet", runs[:1]), ("mlp", runs[1:])):
        assert column_of[network][0] == str(len(group))
        plain = statistics.fmean(measured[run].accuracy for run in group)
        means = [statistics.fmean(a for run in group for a in measured[run].accuracies[name]) for name in CORRUPTIONS]
        assert column_of[network][1:] == [f"{value:.2%}" for value in (plain, *means, statistics.fmean(means))]
    last_cells = [float(column[-1][:-1]) for column in columns]
    assert last_cells == sorted(last_cells, reverse=True)


def test_figure_has_a_line_for_each_network_on_the_axes_of_each_corruption(runs: list[Run]) -> None:
    names = ["shift", "blur"]
    groups = {
        group: [measure_robustness(run, names) for run in members] for group, members in name_groups(runs).items()
    }
    figure = plot_robustness(groups)
    panels = [axes for axes in figure.axes if axes.get_lines()]
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == names
    for axes, name in zip(panels, names, strict=True):
        assert axes.get_xlabel() == CORRUPTIONS[name].unit
        for line in axes.get_lines():
            measured = groups[str(line.get_label()).partition(":")[0]]
            series = [[robustness.accuracy, *robustness.accuracies[name]] for robustness in measured]
            assert line.get_ydata() == pytest.approx(
                [100 * statistics.fmean(values) for values in zip(*series, strict=True)]
            )
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {text.partition(":")[0] for text in texts} == {"lenet", "mlp"}
    means = [float(text.partition(": ")[2].partition("%")[0]) for text in texts]
    assert means == sorted(means, reverse=True), "the best first"


def test_json_and_csv_have_a_row_for_each_accuracy_unrounded(command: Command, runs: list[Run]) -> None:
    arguments = ["robustness", "runs/mlp0", "--only", "noise,shift"]
    outcome = command(*arguments, "--json", data=False)
    rows = json.loads(outcome.out)
    assert outcome.err == ""
    assert [(row["corruption"], row["strength"]) for row in rows] == [
        (None, 0), *(("noise", i) for i in range(1, 6)), *(("shift", i) for i in range(1, 6))
    ]  # fmt: skip
    assert rows[0]["test/acc"] == pytest.approx(runs[1].info["metrics"]["test/acc"])
    assert rows[9]["test/acc"] == pytest.approx(measure_singly(runs[1], "shift", 4))
    assert (rows[9]["amount"], rows[9]["unit"], rows[9]["model"], rows[9]["seed"]) == (4, "pixels", "mlp", 0)
    outcome = command(*arguments, "--csv", "--out", "new/shown.svg", data=False)
    read = list(csv.DictReader(io.StringIO(outcome.out)))
    assert [float(row["test/acc"]) for row in read] == [row["test/acc"] for row in rows]
    assert outcome.err == "figure: new/shown.svg\n"
    assert Path("new/shown.svg").read_text().startswith("<?xml")
    head, *_, noise, shift = command(*arguments, data=False).out.splitlines()
    assert head == f"mlp: {rows[0]['test/acc']:.2%} of 57 test images without corruption"
    for line, strengths in ((noise, rows[1:6]), (shift, rows[6:])):
        accuracies = [row["test/acc"] for row in strengths]
        assert cells(line)[-6:] == [f"{value:.2%}" for value in (*accuracies, statistics.fmean(accuracies))]


def test_runs_are_grouped_by_settings_that_differ_beside_the_seed(runs: list[Run], trained: Path) -> None:
    other = Run(trained / "other")
    assert name_groups([*runs, other]) == {
        "lenet": runs[:1],
        "mlp, optimizer.lr=0.1, trainer.max_epochs=3": runs[1:],
        "mlp, optimizer.lr=0.2, trainer.max_epochs=1": [other],
    }


def test_unmeasurable_run_is_reported_in_one_line(command: Command, tiny: Tiny, trained: Path) -> None:
    shutil.copytree(trained / "other", "runs/a")
    settings = Run(Path("runs/a")).config
    settings.data.root = str(tiny.root)
    Run(Path("runs/a")).save_config(settings)
    Path("runs/b").mkdir()
    Run.create(Path("runs/b"), Run(Path("runs/a")).info, settings)
    for arguments, message in (
        (["runs/b"], "runs/b: has no checkpoint"),
        (["runs/a", "--only", "shift,fog"], "--only=fog: unknown corruption"),
        (["runs/a", "--out", "x.doc"], "--out=x.doc: must end in one of"),
    ):
        assert_refused(command("robustness", *arguments, data=False), message)
    outcome = command("robustness", "runs", "--only", "blur", data=False)
    assert outcome.status == 0
    assert outcome.err == "mnist_lab: warning: runs/b: has no checkpoint; left out\n"
