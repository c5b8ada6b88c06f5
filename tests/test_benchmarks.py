"""The benchmarks run and give numbers that can be; what they measure takes longer than a test may."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks import epoch, scale, start, sweep
from benchmarks.timing import output_of, ratio
from mnist_lab.config.compose import compose
from mnist_lab.data.source import data_root
from mnist_lab.training.build import instantiate_node

pytestmark = [pytest.mark.real_data, pytest.mark.thorough]


@pytest.mark.parametrize("loop", ["plain", "mnist_lab", "fast"])
def test_loops_of_an_epoch_are_timed_without_their_start(loop: str) -> None:
    begun = time.monotonic()
    seconds = epoch.seconds_of(loop, "mlp", ["trainer.limit_train_batches=5"])
    assert 0 < seconds < (time.monotonic() - begun) / 2


def test_data_are_there_as_often_as_asked_for() -> None:
    cfg = compose("data.source._target_=benchmarks.scale.Copies", "+data.source.copies=3")
    arrays = instantiate_node(cfg.data.source, "data.source").load(data_root())
    assert (len(arrays.train_images), len(arrays.train_labels), len(arrays.test_images)) == (180_000, 180_000, 10_000)
    numbers = scale.measure("mlp", 1, 4096).replace(",", "").split(" | ")
    assert len(numbers) == 3 and min(map(float, numbers)) > 0


def test_sums_of_parts_of_an_epoch_are_those_of_the_whole() -> None:
    *parts, rest, seconds = (
        float(value.rstrip("%")) for value in output_of("benchmarks.profile", "mlp", "--only").split(" | ")
    )
    assert sum(parts) + rest == pytest.approx(100, abs=0.5)
    assert all(part > 0 for part in (*parts, rest, seconds))


def test_first_batch_comes_before_the_end_of_the_run() -> None:
    begun = time.monotonic()
    assert 0 < start.first_batch() < time.monotonic() - begun


def test_jobs_of_a_sweep_are_timed_beyond_their_training(tmp_path: Path) -> None:
    seconds = sweep.sweep(str(tmp_path), "trainer.limit_train_batches=2")
    beyond = sweep.beyond_training(str(tmp_path))
    assert len(beyond) == 11
    assert min(beyond) > 0 and sum(beyond) < seconds


def test_ratio_is_the_median_of_the_rounds_with_least_and_greatest() -> None:
    assert ratio([2.0, 6.0, 4.0], [1.0, 2.0, 4.0]) == "2.00 (1.00 to 3.00)"
