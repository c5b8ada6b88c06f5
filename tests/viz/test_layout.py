"""Every text of every figure is whole, apart from the others, and plain, for small and large subjects."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lab import slow
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from omegaconf import OmegaConf
from test_sweep import KEYS, grid, results

from mnist_lab.config.metric_names import METRIC_NAMES
from mnist_lab.data.corruptions import CORRUPTIONS
from mnist_lab.evaluation.evaluate import Robustness
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.reproduce.results import plot_reproduction
from mnist_lab.runs.ranking import Results
from mnist_lab.runs.run import Run
from mnist_lab.training.lr_range import RangeTest
from mnist_lab.viz import curves, model, sweep
from mnist_lab.viz.save import DPI

LONG = "a_name_of_$forty$_letters_for_a_thing_00"
assert len(LONG) == 40


def faults(figure: Figure) -> list[str]:
    """Return the texts of a figure that leave it, cover each other, or are mathtext."""
    FigureCanvasAgg(figure)
    figure.set_dpi(DPI)
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]  # type: ignore[attr-defined]
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            drawn = axis._update_ticks() if axes.axison else []  # type: ignore[attr-defined]
            ticks = [tick for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()) if tick not in drawn]
            hidden = {id(text) for tick in ticks for text in (tick.label1, tick.label2)}
            hidden |= set() if axes.axison else {id(axis.label), id(axis.get_offset_text())}
            texts = [text for text in texts if id(text) not in hidden]
    boxes = []
    for text in texts:
        gap = (-1, 2) if text.get_rotation() else (2, -1)  # Words need a gap between them, lines do not.
        boxes.append((text.get_text(), Text.get_window_extent(text).padded(*gap)))
    whole, found = figure.bbox, []
    for i, (text, box) in enumerate(boxes):
        if (box.min < whole.min).any() or (box.max > whole.max).any():
            found.append(f"outside: {text}")
        found += [f"{text!r} and {other!r}" for other, its in boxes[:i] if box.overlaps(its)]
    return found + [f"mathtext: {text}" for text, _ in boxes if "mathdefault" in text or "$\\" in text]


def run(
    folder: Path, epochs: int, name: str = "lenet", best: float = 0.99, tests: bool = False, **settings: Any
) -> Run:
    """Write a run whose curves approach their ends."""
    folder.mkdir(parents=True)
    config: dict[str, Any] = {
        "tutorial": {"published": {"test/acc": [9.8, *(98 - 30 / i for i in range(1, epochs + 1))]}}
    }
    OmegaConf.save(OmegaConf.create(config | settings), folder / "config.yaml")
    metrics = [m for m in METRIC_NAMES if tests or m[:4] != "test"]
    lines = [",".join(["step", "epoch", "examples_seen", "train/loss_step", *metrics])]
    values: dict[str, float] = {}
    for epoch in range(1, epochs + 1):
        lost = 1 - best + 0.4 / epoch**2
        for part in (1, 2):
            lines += [f"{epoch * 20 - 20 + part},{epoch - 1},{epoch * 900 - 800 + 300 * part},{9 * lost * part}"]
        values = {m: (1 - lost if m.endswith("acc") else 3 * lost) * (1 - 0.01 * i) for i, m in enumerate(METRIC_NAMES)}
        lines += [",".join(map(str, [20 * epoch, epoch - 1, 900 * epoch, "", *(values[m] for m in metrics)]))]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    info = {
        "status": "finished",
        "model": name,
        "metrics": values,
        "tested": {"epoch": max(1, epochs - 1), "checkpoint": "best"},
    }
    (folder / "run.json").write_text(json.dumps(info))
    return Run(folder)


@pytest.mark.parametrize("tests", [False, True])
@pytest.mark.parametrize(("epochs", "name"), [(1, "mlp"), (2, LONG), (1000, LONG)])
def test_curves_of_a_run(tmp_path: Path, epochs: int, name: str, tests: bool) -> None:
    made = run(tmp_path / LONG, epochs, name, tests=tests)
    for plot in (curves.plot_loss, curves.plot_accuracy, curves.plot_examples_seen):
        assert faults(plot(made)) == []


@pytest.mark.parametrize(
    ("count", "seeds", "epochs", "label"),
    [(2, 1, 1, "mlp"), (2, 1, 5, "mlp"), (3, 2, 2, LONG), *slow((40, 1, 5, LONG), (10, 1, 1000, "lr=0.1"))],
)
def test_comparison(tmp_path: Path, count: int, seeds: int, epochs: int, label: str) -> None:
    """Every third run fails, so that its line is cut off."""
    runs = [
        run(tmp_path / f"{i}-{j}", epochs, best=(0.99 - 0.002 * i if i % 3 else 0.2 + 0.01 * i) - j / 999, tests=i > 0)
        for i in range(count)
        for j in range(seeds)
    ]
    figure = curves.plot_comparison(runs, [f"{1 + i // seeds}: {label}" for i in range(len(runs))])
    assert figure is not None and faults(figure) == []


@pytest.mark.parametrize("metric", ["val/acc", "val/loss"])
def test_heat_map_of_one_run_with_long_names(tmp_path: Path, metric: str) -> None:
    made = run(tmp_path / "a", 2, **{LONG: LONG, "b": LONG})
    assert faults(sweep.plot_heat_map([made], LONG, "b", metric)) == []


def plot_range(low: float, high: float) -> Figure:
    rates = np.geomspace(low, high, 100)
    result = RangeTest(rates.tolist(), (2.3 - np.sin(np.linspace(0, 3, 100)) + rates**3).tolist())
    return curves.plot_range_test(result, f"{LONG}, {LONG}")


def predictions(classes: Sequence[str]) -> Predictions:
    """Return predictions for ten images of each class, some of them wrong."""
    labels = torch.arange(10 * len(classes)) % len(classes)
    probabilities = torch.full((len(labels), len(classes)), 0.001 / len(classes))
    probabilities[torch.arange(len(labels)), (labels + (torch.arange(len(labels)) % 7 == 0)) % len(classes)] = 0.9996
    return Predictions(labels, probabilities, classes)


DIGITS, MANY, HUNDREDS = list("0123456789"), [f"{LONG[:-2]}{i:02}" for i in range(62)], [f"c{i}" for i in range(300)]
FEW = MANY[:2]


def plot_errors(classes: Sequence[str], columns: int = 5) -> Figure:
    predicted = predictions(classes)
    figure = model.plot_worst_errors(predicted, torch.rand(len(predicted.labels), 28, 28), columns=columns)
    assert figure is not None
    return figure


def plot_robust(names: Sequence[str], kinds: int) -> Figure:
    result = Robustness(
        torch.zeros(28, 28, dtype=torch.uint8),
        100,
        0.99,
        {kind: [0.9, 0.8, 0.7, 0.6, 0.5] for kind in list(CORRUPTIONS)[:kinds]},
    )
    return model.plot_robustness({name: [result] for name in names})


def plot_first_layer(units: int) -> Figure:
    figure = model.plot_filters(torch.nn.Linear(784, units), 28)
    assert figure is not None
    return figure


def rates(*values: float) -> Results:
    return results(*({KEYS[0]: str(value)} for value in values))


def ended(found: Results, states: int) -> Results:
    """Let the last jobs end without a result, each in another way."""
    for state in list(sweep.MARKS)[:states]:
        found.ranked.pop()[0].state = state  # type: ignore[misc]
    return found


def rows(count: int, width: int = 1) -> Results:
    names = [f"{LONG[:-2]}{i:02}" for i in range(count)]
    return results(*(dict.fromkeys(KEYS[:width], name) for name in names))


FIGURES: dict[str, Callable[[], Figure | None]] = {
    "heat map of 2 x 2": lambda: sweep.plot_accuracy_map(grid(2, 2), *KEYS[:2]),
    "heat map of 12 x 10": lambda: sweep.plot_accuracy_map(grid(12, 10), *KEYS[:2]),
    "response to rates": lambda: sweep.plot_response(rates(*(10.0**-i for i in range(6))), KEYS[0]),
    "response to samples": lambda: sweep.plot_response(rates(*(0.00123 * 1.37**i for i in range(12))), KEYS[0]),
    "response to names": lambda: sweep.plot_response(rows(12), KEYS[0]),
    "coordinates": lambda: sweep.plot_coordinates(grid(12, 10), KEYS[:2]),
    "coordinates of names": lambda: sweep.plot_coordinates(rows(30, 5), KEYS),
    "coordinates and a state": lambda: sweep.plot_coordinates(ended(grid(3, 3), 1), KEYS[:2]),
    "coordinates and states": lambda: sweep.plot_coordinates(ended(grid(3, 3), 3), KEYS[:2]),
    "response and states": lambda: sweep.plot_response(ended(grid(3, 3), 3), KEYS[0]),
    "coordinates of two": lambda: sweep.plot_coordinates(rows(2, 2), KEYS[:2]),
    "curves of a sweep": lambda: sweep.plot_sweep_curves(rows(30, 5), "acc"),
    "losses of a sweep": lambda: sweep.plot_sweep_curves(rows(30, 5), "loss"),
    "range test": lambda: plot_range(1e-5, 10),
    "short range test": lambda: plot_range(0.15, 0.45),
    "digits": lambda: model.plot_images(np.zeros((9, 28, 28)), range(9), [8, *range(8)]),
    "long names": lambda: model.plot_images(np.zeros((16, 28, 28)), range(16), range(1, 17), classes=MANY, columns=4),
    "one image": lambda: model.plot_images(np.zeros((1, 28, 28)), [0], [1], classes=MANY, columns=1),
    "worst errors": lambda: plot_errors(DIGITS),
    "worst errors of long names": lambda: plot_errors(MANY, 6),
    "two classes": lambda: model.plot_confusion(predictions(FEW)),
    "ten classes": lambda: model.plot_confusion(predictions(DIGITS)),
    "62 classes": lambda: model.plot_confusion(predictions(MANY)),
    "300 classes": lambda: model.plot_confusion(predictions(HUNDREDS)),
    "reliability": lambda: model.plot_reliability(predictions(DIGITS)),
    "robustness": lambda: plot_robust(["mlp"], 7),
    "robustness to one": lambda: plot_robust([LONG, "mlp"], 1),
    "robustness of many": lambda: plot_robust([f"{LONG}, {LONG}, {i}" for i in range(12)], 3),
    "filters": lambda: plot_first_layer(50),
    "a filter": lambda: plot_first_layer(1),
    "reproduction": lambda: plot_reproduction(LONG, {
        "seeds": [1, 2],
        "published": {"test/acc": [None, 60.0, 97.0, 98.0], "test/loss": [None, 2.0, 0.1, 0.09]},
        "curves": {"test/acc": [[], [58.0, 62.0], [96, 97], [97.5, 98]], "train/loss": [[], [1.5, 1.7], [0.2], [0.1]]},
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_figure(name: str) -> None:
    figure = FIGURES[name]()
    assert figure is not None and faults(figure) == []
