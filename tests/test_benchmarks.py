"""The benchmarks run and give numbers that can be; what they measure takes longer than a test may."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import epoch, scale, start, sweep
from benchmarks.timing import output_of, ratio

pytestmark = pytest.mark.real_data


@pytest.mark.parametrize("loop", ["plain", "mnist_lab", "fast"])
def test_loops_of_an_epoch_are_timed(loop: str) -> None:
    few, more = (epoch.seconds_of(loop, "mlp", [f"trainer.limit_train_batches={steps}"]) for steps in (5, 500))
    assert 0 < few < more


def test_data_are_there_as_often_as_asked_for() -> None:
    once, thrice = (scale.measure("mlp", copies, 4096).split(" | ") for copies in (1, 3))
    seconds, images, gigabytes = map(float, (thrice[0], thrice[1].replace(",", ""), thrice[2]))
    assert images * seconds == pytest.approx(180_000, rel=0.3)
    assert gigabytes >= float(once[2])


def test_sums_of_parts_of_an_epoch_are_those_of_the_whole() -> None:
    *parts, rest, seconds = (
        float(value.rstrip("%")) for value in output_of("benchmarks.profile", "mlp", "--only").split(" | ")
    )
    assert sum(parts) + rest == pytest.approx(100, abs=0.5)
    assert all(part > 0 for part in (*parts, rest, seconds))


def test_first_batch_is_ready_soon() -> None:
    assert 0 < start.first_batch() < 5  # 0.5 s on an idle machine


def test_jobs_of_a_sweep_are_timed_beyond_their_training(tmp_path: Path) -> None:
    seconds = sweep.sweep(str(tmp_path), "trainer.limit_train_batches=2")
    beyond = sweep.beyond_training(str(tmp_path))
    assert len(beyond) == 11
    assert min(beyond) > 0 and sum(beyond) < seconds


def test_figure_and_ratios(tmp_path: Path) -> None:
    seconds = {loop: [1.0, 2.0, 4.0] for loop in epoch.LOOPS}
    epoch.draw({"mlp": seconds}, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").stat().st_size > 5000
    assert ratio([2.0, 6.0, 4.0], [1.0, 2.0, 4.0]) == "2.00 (1.00 to 3.00)"
