"""Figures of predictions, compared with those by hand; two networks on the same images, with known values."""

import shutil
from pathlib import Path

import pytest
import torch
from lab import Tiny, change_settings, idx, tiny_arrays

from mnist_lab.data.mnist_files import FILES
from mnist_lab.errors import UsageError
from mnist_lab.evaluation.predictions import PairedComparison, Predictions, TrainedRun, compare_on_test_set
from mnist_lab.runs.run import Run
from mnist_lab.training.train import train

LABELS = [3, 3, 3, 5, 5, 8]
PREDICTED = [(3, 0.95), (3, 0.65), (5, 0.75), (5, 0.95), (5, 1.0), (3, 0.55)]  # class and probability


@pytest.fixture
def six() -> Predictions:
    probabilities = torch.zeros(6, 10)
    for row, (digit, sure) in zip(probabilities, PREDICTED, strict=True):
        row += (1 - sure) / 9
        row[digit] = sure
    return Predictions(torch.tensor(LABELS), probabilities)


def test_accuracy_confusion_precision_and_recall_count_what_was_taken_for_what(six: Predictions) -> None:
    assert six.accuracy == pytest.approx(4 / 6)
    confusion = six.confusion()
    assert (confusion[3, 3], confusion[3, 5], confusion[5, 5], confusion[8, 3]) == (2, 1, 2, 1)
    assert confusion.sum() == 6
    assert six.precision()[[3, 5]].tolist() == pytest.approx([2 / 3, 2 / 3])
    assert six.recall()[[3, 5, 8]].tolist() == pytest.approx([2 / 3, 1, 0])
    assert six.precision()[8].isnan() and six.recall()[0].isnan()


def test_worst_are_the_wrong_ones_least_probable_truth_first(six: Predictions) -> None:
    assert six.worst(9).tolist() == [2, 5]
    assert six.worst(1).tolist() == [2]


def test_calibration_has_a_bin_for_each_tenth_that_has_images(six: Predictions) -> None:
    expected = [(0.55, 0.0, 1), (0.65, 1.0, 1), (0.75, 0.0, 1), (2.9 / 3, 1.0, 3)]
    assert [pytest.approx(bin, abs=1e-6) for bin in six.calibration()] == expected
    assert six.calibration_error() == pytest.approx((0.55 + 0.35 + 0.75 + 0.1) / 6, abs=1e-6)


@pytest.fixture(scope="module")
def two(module_tiny: Tiny) -> list[Run]:
    """Train two networks that err on different images; the second is tested on part of the test set."""
    settings = (["model=mlp"], ["model=lenet", "trainer.limit_test_batches=1"])
    return [train(module_tiny.compose(*overrides)) for overrides in settings]


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
        (0, 0, 1.0),
        (4000, 6000, 1.7404316412e-89),  # the sum of whole numbers
    ],
)
def test_p_is_the_two_sided_exact_one_of_mcnemar(only_first: int, only_second: int, expected: float) -> None:
    for counts in ((only_first, only_second), (only_second, only_first)):
        assert PairedComparison(20_000, *counts).p == pytest.approx(expected, rel=1e-9)


def test_images_that_one_network_alone_gets_right_are_counted() -> None:
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    first, second = (torch.eye(3)[classes] for classes in ([0, 1, 2, 0, 0, 0], [0, 2, 0, 0, 1, 1]))
    paired = PairedComparison.of(Predictions(labels, first), Predictions(labels, second))
    assert paired == PairedComparison(images=6, only_first=3, only_second=1)
    assert paired.difference == pytest.approx(2 / 6 - 4 / 6)


def test_runs_are_compared_on_the_whole_test_set(two: list[Run]) -> None:
    paired = compare_on_test_set(*two)
    right = []
    for run in two:
        trained = TrainedRun(run)
        images, labels = trained.data.raw_test_set()
        right.append(trained.model.predict(trained.data.normalise(images)).numpy() == labels)
    assert paired == PairedComparison(57, int((right[0] > right[1]).sum()), int((right[1] > right[0]).sum()))
    assert paired.difference == pytest.approx(right[1].mean() - right[0].mean())
    assert paired.only_first + paired.only_second > 0
    assert compare_on_test_set(*reversed(two)) == paired.swapped


def test_runs_with_different_test_images_are_not_compared(two: list[Run], tmp_path: Path) -> None:
    changed = Run(shutil.copytree(two[1].folder, tmp_path / "changed"))
    for what, place in (("labels", 3), ("pixels", 2)):
        arrays = tiny_arrays()
        arrays[place][0] = 9
        other = Tiny(tmp_path / what, dict(zip(FILES, map(idx, arrays), strict=True)))
        other.write()
        change_settings(changed, {"data.root": str(other.root), "data.source.sha256": other.sha256})
        with pytest.raises(UsageError, match="different test images"):
            compare_on_test_set(two[0], changed)
