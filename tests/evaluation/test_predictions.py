"""What follows from probabilities beside labels, worked out by hand."""

import pytest
import torch

from mnist_lab.evaluation.predictions import Predictions

LABELS = [3, 3, 3, 5, 5, 8]
GIVEN = [(3, 0.95), (3, 0.65), (5, 0.75), (5, 0.95), (5, 1.0), (3, 0.55)]  # predicted class, and how sure


@pytest.fixture
def six() -> Predictions:
    probabilities = torch.zeros(6, 10)
    for row, (digit, sure) in zip(probabilities, GIVEN, strict=True):
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
