"""`compare` shows how runs and their results differ, in a table, in a figure, and for programs."""

import csv
import io
import json
import shutil
import statistics
from collections.abc import Mapping
from pathlib import Path

import pytest
from lab import Command, Outcome, Tiny, change_settings
from matplotlib.image import imread

from mnist_lab.cli.compare import PAIRED, describe_pair, line_labels
from mnist_lab.evaluation.predictions import PairedComparison, compare_on_test_set
from mnist_lab.formatting import format_accuracy
from mnist_lab.runs.listing import compare_settings
from mnist_lab.runs.record import RunState
from mnist_lab.runs.run import Run
from mnist_lab.training.train import train
from mnist_lab.viz.curves import plot_comparison
from mnist_lab.viz.style import rank_colours


@pytest.fixture(scope="module")
def trained(module_tiny: Tiny) -> Path:
    """Train an mlp and a compact_cnn of different learning rates; the latter is tested each epoch."""
    folder = module_tiny.folder / "runs"
    for name, *settings in (
        ("a/mlp", "model=mlp", "optimizer.lr=0.02"),
        ("b/cnn", "model=compact_cnn", "callbacks=test_curve"),
    ):
        train(module_tiny.compose("dashboard=none", f"hydra.run.dir={folder / name}", *settings))
    return folder


@pytest.fixture
def two(tiny: Tiny, trained: Path) -> list[Run]:
    """Return copies of the two runs, with their own data."""
    shutil.copytree(trained, "runs")
    runs = [Run(Path("runs/a/mlp")), Run(Path("runs/b/cnn"))]
    for run in runs:
        change(run, {"data.root": str(tiny.root)})
    return runs


def change(run: Run, settings: Mapping[str, object], **metrics: float) -> Run:
    """Change a run's settings and metrics, as if it had been trained so."""
    change_settings(run, settings)
    named = {name.replace("_", "/"): value for name, value in metrics.items()}
    run.update(seed=run.config.seed, metrics=run.info["metrics"] | named)
    return run


def copied(run: Run, place: str) -> Run:
    """Copy a run's folder to a place below runs."""
    return Run(shutil.copytree(run.folder, Path("runs") / place))


def lines(outcome: Outcome) -> dict[str, list[str]]:
    """Return the cells of each printed line by its first word."""
    assert outcome.status == 0, outcome.err
    return {line.split()[0]: line.split()[1:] for line in outcome.out.splitlines() if line}


def test_table_has_the_settings_that_differ_and_the_metrics(command: Command, two: list[Run]) -> None:
    shown = lines(command("compare", "runs/a/mlp", "latest", "--out", "curves.png", data=False))
    assert shown["1:"] == ["runs/a/mlp"] and shown["2:"] == ["runs/b/cnn"]
    assert shown["run"] == ["1", "2"]
    assert shown["model"] == ["mlp", "compact_cnn"]
    assert shown["optimizer.lr"] == ["0.02", "0.01"]
    assert shown["status"] == ["finished", "finished"]
    for name, form in (("val/acc", ".2%"), ("test/loss", ".4f")):
        assert shown[name] == [format(run.info["metrics"][name], form) for run in two]
    assert {"tested_epoch", "epochs", "time", "parameters", "images_per_second"} <= set(shown)
    settings = [name for name in shown if "." in name]
    assert not [name for name in settings if name.startswith(("folder", "logger", "model._target_", "callbacks.last"))]
    assert shown["curves:"] == ["curves.png"]
    assert imread("curves.png").std() > 0.01


def test_programs_get_values_unrounded_and_no_figure(command: Command, two: list[Run]) -> None:
    arguments = ["compare", "runs/a/mlp", "runs/b/cnn"]
    first, second = json.loads(command(*arguments, "--json", data=False).out)
    assert (first["run"], first["model"], first["optimizer.lr"]) == ("runs/a/mlp", "mlp", 0.02)
    assert second["test/acc"] == two[1].info["metrics"]["test/acc"]
    rows = list(csv.DictReader(io.StringIO(command(*arguments, "--csv", data=False).out)))
    assert [float(row["optimizer.lr"]) for row in rows] == [0.02, 0.01]
    assert float(rows[1]["val/loss"]) == two[1].info["metrics"]["val/loss"]
    assert not list(Path().glob("*.*"))
    outcome = command(*arguments, "--json", "--out", "new/curves.svg", data=False)
    assert len(json.loads(outcome.out)) == 2
    assert Path("new/curves.svg").read_text().startswith("<?xml")


def test_figure_has_the_curves_of_every_run_and_a_star_for_a_single_test(two: list[Run]) -> None:
    figure = plot_comparison(two, ["one", "other"])
    assert figure is not None
    panels = {
        (axes.get_title("left"), i < 3): {line.get_label(): line for line in axes.get_lines()}
        for i, axes in enumerate(figure.axes)
    }
    assert len(panels) == 6
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == ["accuracy (%)", "", "", "loss (nats per image)", "", ""], "of each row, since it shares the axis"
    for row in (figure.axes[:3], figure.axes[3:]):
        assert len({(axes.get_ylim(), axes.get_yscale()) for axes in row}) == 1
    for label, run in zip(("one", "other"), two, strict=True):
        for words, kind in (("training", "train"), ("validation", "val"), ("test", "test")):
            losses = panels[words, False][label]
            accuracies = panels[words, True][label]
            curves = ({x: y for x, y in run.curve(f"{kind}/{name}").items() if x > 0} for name in ("loss", "acc"))
            loss, accuracy = curves
            assert list(losses.get_ydata()) == list(loss.values())
            assert list(accuracies.get_xdata()) == list(accuracy)
            assert list(accuracies.get_ydata()) == [100 * value for value in accuracy.values()]
    assert {label: line.get_marker() for label, line in panels["test", True].items()} == {
        "one": "*",
        "other": "o",
    }


def test_best_runs_have_labels_and_seeds_are_a_mean_with_its_range(two: list[Run]) -> None:
    """The best are chosen by validation alone."""
    runs = [copied(two[0], f"own/{i}") for i in range(30)]
    for i, run in enumerate(runs):
        rows = f"step,epoch,train/loss,val/acc\n1,0,0.1,{0.6 + i / 100}\n2,1,0.1,{0.5 + i / 100}\n"
        run.metrics_path.write_text(rows)
    figure = plot_comparison(runs, [f"{i}: " for i in range(30)])
    assert figure is not None
    axes = figure.axes[0]
    assert [line.get_label() for line in axes.get_lines()] == [f"{i}: " for i in range(29, -1, -1)], "the best first"
    assert [text.get_text() for text in axes.texts] == [f"{i}:   {50 + i:.2f}%" for i in range(29, 19, -1)]
    figure = plot_comparison(runs[:4], ["1: a", "1: a", "2: b", "2: b"])
    assert figure is not None
    title = figure.get_suptitle().replace("\n", " ")
    assert title == "b reaches 62.50% in validation, 2.00 percentage points more than a"
    lines, bands = figure.axes[0].get_lines(), figure.axes[0].collections
    assert [line.get_color() for line in lines] == rank_colours(2)
    assert [line.get_ydata().tolist() for line in lines] == [[62.5, 52.5], [60.5, 50.5]]
    edges = [sorted(set(band.get_paths()[0].vertices[:, 1].round(9))) for band in bands]
    assert edges == [[52, 53, 62, 63], [50, 51, 60, 61]]


def test_same_settings_and_runs_without_metrics_are_shown(command: Command, two: list[Run]) -> None:
    for name in ("b", "c"):
        Path("runs", name).mkdir(exist_ok=True)
        shutil.copy("runs/a/mlp/config.yaml", f"runs/{name}")
        info = {"status": "running", "metrics": {}, "seconds": {}, "started": f"2026-11-21T1{name}"}
        Path("runs", name, "run.json").write_text(json.dumps(info))
    outcome = command("compare", "runs/a/mlp", "runs/b", data=False)
    *_, last, reason = outcome.out.splitlines()
    assert (last, reason) == ("no setting differs", "no paired test: runs/b: has no checkpoint (status: killed)")
    assert lines(outcome)["test/acc"][1] == "-"
    assert not list(Path().glob("*.*")), "without --out, nothing is drawn"
    outcome = command("compare", "runs/b", "runs/c", "--out", "curves.png", data=False)
    assert outcome.out.splitlines()[-1] == "no run has a curve yet; nothing is plotted"
    assert not Path("curves.png").exists()


def test_long_labels_are_shortened(two: list[Run]) -> None:
    many = dict.fromkeys((f"group.setting_{i}" for i in range(20)), 0)
    long, folder = line_labels(two, {two[0]: many, two[1]: {}})
    assert long.endswith("...") and len(long) == 100
    assert folder == "2: cnn"
    seeds = {run: {"model": "lenet", "seed": i} for i, run in enumerate(two)}
    assert line_labels(two, seeds) == ["1, 2: model=lenet"] * 2, "they are one line, with a band"


def test_settings_in_lists_are_compared(two: list[Run]) -> None:
    runs = [change(run, {"model": None, "optimizer": {"betas": [0.9, i]}}) for i, run in enumerate(two)]
    assert compare_settings(runs)["optimizer.betas"] == [[0.9, 0], [0.9, 1]]


@pytest.mark.parametrize(
    ("counts", "difference", "p", "verdict"),
    [
        ((10_000, 31, 52), "+0.21 percentage points, 95 % interval +0.03 to +0.39", "p = 0.0275", "run 2 is better"),
        ((10_000, 1302, 997), "-3.05 percentage points, 95 % interval -3.99 to -2.11", "p < 0.001", "run 1 is better"),
        ((100, 4, 6), "+2.00 percentage points, 95 % interval -4.40 to +8.32", "p = 0.754", "it may be chance"),
    ],
)
def test_comparison_of_two_runs_names_the_better_one_only_where_chance_is_unlikely(
    counts: tuple[int, int, int], difference: str, p: str, verdict: str
) -> None:
    described = describe_pair(PairedComparison(*counts))
    assert f"Of {counts[0]:,} test images, run 1 alone gets {counts[1]:,} right, run 2 alone {counts[2]}" in described
    assert difference in described and f"{p}, " in described and described.endswith(f": {verdict}.")
    assert max(map(len, described.splitlines())) < 80


def test_two_runs_are_also_compared_image_by_image(command: Command, two: list[Run]) -> None:
    paired = compare_on_test_set(*two)
    outcome = command("compare", "runs/a/mlp", "runs/b/cnn", data=False)
    assert outcome.out.splitlines()[-3:] == describe_pair(paired).splitlines()
    outcome = command("compare", "runs/a/mlp", "runs/b/cnn", "--json", data=False)
    first, second = json.loads(outcome.out)
    assert outcome.err == ""
    assert [each["paired/only_right"] for each in (first, second)] == [paired.only_first, paired.only_second]
    assert second["paired/difference"] == pytest.approx(second["test/acc"] - first["test/acc"]) == paired.difference
    assert (second["paired/low"], second["paired/high"]) == paired.interval()
    low, high = second["paired/low"], second["paired/high"]
    assert [first[f"paired/{name}"] for name in ("low", "high")] == pytest.approx([-high, -low])
    assert [(each["paired/images"], each["paired/p"]) for each in (first, second)] == [(57, paired.p)] * 2


def test_table_is_printed_even_if_two_runs_cannot_be_compared_image_by_image(command: Command, two: list[Run]) -> None:
    two[1].checkpoint_path("best").write_bytes(b"no")
    reason = "runs/b/cnn/checkpoints/best.ckpt: corrupt"
    outcome = command("compare", "runs/a/mlp", "runs/b/cnn", data=False)
    assert (outcome.status, lines(outcome)["test/acc"][0]) == (0, f"{two[0].info['metrics']['test/acc']:.2%}")
    last = outcome.out.splitlines()[-1]
    assert last.startswith("no paired test: ") and reason in last
    assert len(last) < 250
    outcome = command("compare", "runs/a/mlp", "runs/b/cnn", "--json", data=False)
    assert (outcome.status, outcome.err) == (0, f"{last}\n")
    for row in json.loads(outcome.out):
        assert {name: value for name, value in row.items() if name.startswith("paired/")} == dict.fromkeys(PAIRED)


def test_seeds_of_the_same_settings_are_a_column(command: Command, two: list[Run]) -> None:
    runs = []
    for number, (lr, seed) in enumerate(((0.01, 1), (0.01, 2), (0.02, 1), (0.02, 2))):
        run = change(copied(two[0], f"s/{lr}-{seed}"), {"seed": seed, "optimizer.lr": lr}, test_acc=lr * 9 + seed / 9)
        run.update(started=f"2026-11-21T13:0{number}:00.000000+00:00")
        runs.append(run)
    outcome = command("compare", *map(str, runs), "--group", "seed", data=False)
    shown = lines(outcome)
    assert shown["1:"] == ["runs/s/0.01-1", "and", "1", "more"]
    assert (shown["group"], shown["n"], shown["seeds"]) == (["1", "2"], ["2", "2"], ["1", "2", "1", "2"])
    assert shown["optimizer.lr"] == ["0.01", "0.02"]
    assert not {"seed", "status"} & set(shown)
    values = [run.info["metrics"]["test/acc"] for run in runs]
    cells = [format_accuracy(statistics.mean(own), statistics.stdev(own)) for own in (values[:2], values[2:])]
    assert " ".join(shown["test/acc"]) == " ".join(cells)
    assert "McNemar" not in outcome.out and "no paired test" not in outcome.out
    first, second = json.loads(command("compare", "runs/s", "--group", "seed", "--json", data=False).out)
    assert (first["n"], first["seeds"], first["optimizer.lr"]) == (2, [1, 2], 0.01)
    assert first["test/acc"] == statistics.mean(values[:2]) and first["test/acc_std"] == statistics.stdev(values[:2])
    assert "paired/p" not in second

    assert "McNemar" in command("compare", str(runs[0]), str(runs[2]), "--group", "seed", data=False).out
    for run in runs:
        run.update(status=RunState.FAILED)
    outcome = command("compare", "runs/s", "--group", "seed", data=False)
    assert (outcome.status, outcome.out, "--group: none of these 4 runs" in outcome.err) == (2, "", True)
