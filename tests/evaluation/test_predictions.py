"""What follows from probabilities beside labels, worked out by hand."""

import pytest
import torch
from lab import Tiny, thorough

from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.training.build import make_data, make_model

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


@pytest.mark.parametrize("name", ["lenet", *thorough("mlp", "dropout_cnn")])
def test_probabilities_of_the_test_set_are_those_of_the_network_in_eval_mode(tiny: Tiny, name: str) -> None:
    cfg = tiny.compose(f"model={name}")
    model = make_model(cfg)
    data = make_data(cfg, model)
    made = Predictions.on_test_set(model.train(), data)
    images, labels = data.examples(1000)
    with torch.no_grad():
        scores = model.eval()(images)
    expected = scores.exp() if model.loss == "nll" else scores.softmax(1)
    assert torch.equal(made.labels, labels)
    torch.testing.assert_close(made.probabilities, expected, rtol=1e-4, atol=1e-6)
    assert made.probabilities.sum(1).tolist() == pytest.approx([1] * len(labels))
    assert 0 <= made.accuracy <= 1
