"""Figures of a sweep: heat map, response to a setting, ranking, learning curves."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mnist_lab.config.overrides import without_keys
from mnist_lab.runs.ranking import Results
from mnist_lab.runs.record import RunState
from mnist_lab.runs.sweep import Job, Sweep
from mnist_lab.viz.axes import place_values, sort_key
from mnist_lab.viz.save import inline_svg
from mnist_lab.viz.style import COLOURS
from mnist_lab.viz.sweep import plot_coordinates, plot_response, plot_sweep_curves


def results(*settings: dict[str, str]) -> Results:
    """Return results of jobs with these settings whose accuracy falls from 97 % by 1 % each; seeds share a place."""
    groups: dict[tuple[str, ...], list[Job]] = {}
    for i, values in enumerate(settings):
        epochs = [{"epoch": 0, "val/acc": 0.9}, {"epoch": 1, "val/acc": 0.95}]
        metrics = {"metrics": {"val/acc": 0.97 - 0.01 * i}}
        job = SimpleNamespace(id=str(i), state="finished", info=metrics, folder=Path("job"), epochs=epochs, error=None)
        job.overrides = [f"{key}={value}" for key, value in values.items()]
        groups.setdefault(tuple(without_keys(job.overrides, "seed")), []).append(job)  # type: ignore[arg-type]
    ranked = list(groups.values())
    return Results(Sweep(Path("s")), [job for group in ranked for job in group], ranked)


@pytest.mark.parametrize(
    ("values", "places", "ticks"),
    [
        (["0.1", "0.001", "0.01"], [0, 0.5, 1], ["0.001", "0.01", "0.1"]),
        (["5", "none", "30"], [0, 0.5, 1], ["5", "30", "none"]),
        (["0.95"], [0.5], ["0.95"]),
        ([f"{0.0021 * 1.7**i:.4g}" for i in range(9)], [i / 8 for i in range(9)], ["0.003", "0.01", "0.03", "0.1"]),
        ([f"{0.07 + 0.1 * i:.4g}" for i in range(9)], [i / 8 for i in range(9)], ["0.2", "0.4", "0.6", "0.8"]),
    ],
)
def test_values_of_a_setting_have_places_and_round_ticks(
    values: list[str], places: list[float], ticks: list[str]
) -> None:
    found, shown = place_values(values)
    assert sorted(found, key=found.__getitem__) == sorted(values, key=sort_key)
    assert sorted(found.values()) == pytest.approx(places, abs=0.01)
    assert [shown[place] for place in sorted(shown)] == ticks


def test_response_has_mean_and_spread_over_seeds_and_marks_jobs_without_a_rank() -> None:
    found = results(*({"model": model, "seed": seed} for model in ("mlp", "lenet") for seed in "01"))
    for state, info, error in (("failed", {}, "nan"), ("pruned", {"metrics": {"val/acc": 0.3}}, None)):
        lost = SimpleNamespace(id=state, state=state, info=info, overrides=["model=none", "seed=0"], error=error)
        found.jobs.append(lost)  # type: ignore[arg-type]
    figure = plot_response(found, "model")
    (axes,) = figure.axes
    np.testing.assert_allclose(np.asarray(axes.get_lines()[0].get_xydata()), [(0, 94.5), (0.5, 96.5)])
    bars, *marks, _ = axes.collections
    lengths = [np.ptp(segment, axis=0).max() for segment in bars.get_segments()]  # type: ignore[attr-defined]
    np.testing.assert_allclose(lengths, 2 * np.std([0, 1], ddof=1))
    assert [text.get_text() for text in axes.get_xticklabels()] == ["lenet", "mlp", "none"]
    assert [mark.get_offsets().tolist() for mark in marks] == [[[1, 0]]] * 2  # type: ignore[union-attr]
    assert axes.get_title("right") == "○ 1 pruned, × 1 failed"
    assert figure.get_label() == "model=lenet: 94.50% ± 0.71; model=mlp: 96.50% ± 0.71"
    svg = inline_svg(figure, "By model")
    assert "model=none seed=0: failed, nan" in svg and "model=none seed=0: pruned at 30.00%" in svg


def test_coordinates_lead_from_settings_to_accuracy_or_to_the_state() -> None:
    """A line passes a job's settings; of three jobs with an accuracy, the best has the heaviest line."""
    found = grid(2, 2)
    lost = found.ranked.pop()[0]
    lost.state = RunState.FAILED  # type: ignore[misc]
    figure = plot_coordinates(found, KEYS[:2])
    lines = [line for line in figure.axes[0].get_lines() if line.get_gid()]
    ends = [line.get_xdata().tolist() for line in lines]  # type: ignore[union-attr]
    assert ends == [[0, 1, 0], [0, 0, pytest.approx(0.2)], [1, 1, pytest.approx(0.6)], [1, 0, 1]]
    assert max(lines, key=lambda line: line.get_linewidth()) == lines[-1]
    assert len({line.get_linestyle() for line in lines}) == 4, "they differ without colour"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["best", "second", "third", "failed"]
    assert "rank 1: lr=1.0 weight_decay=0: 97.00%" in inline_svg(figure, "Settings")


KEYS = ("optimizer.lr", "optimizer.weight_decay", "data.batch_size", "model.dropout", "optimizer.momentum")


def grid(rows: int, columns: int) -> Results:
    return results(*(dict(zip(KEYS, (str(0.5**i), str(j)), strict=False)) for i in range(columns) for j in range(rows)))


def test_legend_of_curves_tells_the_first_ranks_apart() -> None:
    figure = plot_sweep_curves(grid(3, 3), "acc")
    assert figure is not None
    (legend,) = figure.legends
    first = ["best: lr=1.0 weight_decay=0", "second: lr=1.0 weight_decay=1", "third: lr=1.0 weight_decay=2"]
    assert [text.get_text() for text in legend.get_texts()] == [*first, "the others"]
    assert len({line.get_linestyle() for line in legend.get_lines()[:3]}) == 3
    assert legend.get_lines()[0].get_color() == COLOURS["val"]
    names = [f"a_long_name_of_a_value_{i}_at_the_end_of_which_is_another_{i}" for i in range(3)]
    figure = plot_sweep_curves(results(*({"model": name, "data.source.path": name} for name in names)), "acc")
    assert figure is not None
    whole = ["".join(text.get_text().split()).partition(":")[2] for text in figure.legends[0].get_texts()]
    assert whole == [f"model={name}path={name}" for name in names]
