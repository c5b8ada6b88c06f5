"""Two networks on the same images: known values of McNemar's exact test and of the interval, and whole runs."""

from __future__ import annotations

import pytest
import torch
from lab import Tiny, idx, tiny_arrays

from mnist_lab.data.source import FILES
from mnist_lab.errors import UsageError
from mnist_lab.evaluation.predictions import PairedComparison, Predictions, compare_on_test_set
from mnist_lab.runs.run import Run
from mnist_lab.training.build import load_trained_model, make_data
from mnist_lab.training.train import train


@pytest.fixture
def two(tiny: Tiny) -> list[Run]:
    """Two networks that err on different images; the second was tested on part of the test set."""
    return [
        train(tiny.compose("model=mlp", "trainer.max_epochs=1", "hydra.run.dir=runs/mlp")),
        train(tiny.compose("model=lenet", "trainer.limit_test_batches=1", "hydra.run.dir=runs/lenet")),
    ]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((160, 40, 20), (-0.21601726, -0.03089632)),  # the example of diffpropci.mp in R's package PropCIs
        ((21, 7, 1), (-0.493226, -0.028514)),  # Bentur et al., 2009: by hand, -6/23 -+ 1.959964 sqrt(9 - 36/23)/23
        ((4, 0, 4), (0.167684, 1.0)),  # by hand, 4/6 -+ 1.959964 sqrt(5 - 16/6)/6, which exceeds 1
        ((10_000, 0, 0), (-1.9596e-4, 1.9596e-4)),
    ],
)
def test_interval_has_the_known_values(counts: tuple[int, int, int], expected: tuple[float, float]) -> None:
    assert PairedComparison(*counts).interval() == pytest.approx(expected, abs=1e-6)
    low, high = PairedComparison(*counts).swapped.interval()
    assert (-high, -low) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("only_first", "only_second", "expected"),
    [
        (7, 1, 2 * (1 + 8) / 2**8),
        (0, 6, 2 / 2**6),
        (2, 3, 1.0),
        (4, 4, 1.0),
        (0, 0, 1.0),
        (31, 52, 0.0275341780122945),  # summed in integers
        (4000, 6000, 1.7404316412e-89),  # summed in integers
    ],
)
def test_p_is_the_two_sided_exact_one_of_mcnemar(only_first: int, only_second: int, expected: float) -> None:
    for counts in ((only_first, only_second), (only_second, only_first)):
        assert PairedComparison(20_000, *counts).p == pytest.approx(expected, rel=1e-9)


def test_images_that_one_network_alone_gets_right_are_counted() -> None:
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    one, other = (torch.eye(3)[classes] for classes in ([0, 1, 2, 0, 0, 0], [0, 2, 0, 0, 1, 1]))
    paired = PairedComparison.of(Predictions(labels, one), Predictions(labels, other))
    assert paired == PairedComparison(images=6, only_first=3, only_second=1)
    assert paired.difference == pytest.approx(2 / 6 - 4 / 6)


def test_runs_are_compared_on_the_whole_test_set(two: list[Run]) -> None:
    paired = compare_on_test_set(*two)
    right = []
    for run in two:
        model = load_trained_model(run)
        data = make_data(run.config, model)
        images, labels = data.test_set()
        right.append(model.predict(data.normalise(images)).numpy() == labels)
    assert paired == PairedComparison(57, int((right[0] > right[1]).sum()), int((right[1] > right[0]).sum()))
    assert paired.difference == pytest.approx(right[1].mean() - right[0].mean())
    assert paired.only_first + paired.only_second > 0
    assert compare_on_test_set(*reversed(two)) == paired.swapped


@pytest.mark.parametrize("changed", ["fewer", "labels", "pixels"])
def test_runs_with_different_test_images_are_not_compared(tiny: Tiny, two: list[Run], changed: str) -> None:
    arrays = tiny_arrays(test=56 if changed == "fewer" else 57)
    if changed == "labels":
        arrays[3][0] = 9
    if changed == "pixels":
        arrays[2][0] = 0
    other = Tiny(tiny.folder / "other", dict(zip(FILES, map(idx, arrays), strict=True)))
    other.write()
    config = two[1].config
    config.data.root, config.data.source.sha256 = str(other.root), other.sha256
    two[1].save_config(config)
    with pytest.raises(UsageError, match="runs/mlp and runs/lenet have different test images"):
        compare_on_test_set(*two)
