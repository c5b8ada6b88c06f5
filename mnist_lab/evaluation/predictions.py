"""Predictions of networks for labelled images: errors, calibration, and the comparison of two networks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
import torch
from scipy.special import bdtr
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_confusion_matrix

from mnist_lab.data.image_source import DIGITS
from mnist_lab.errors import UsageError
from mnist_lab.runs.run import Run
from mnist_lab.training.build import load_trained_model, make_data


@dataclass(frozen=True)
class Predictions:
    """Predictions for labelled images."""

    labels: Tensor  # (N,)
    probabilities: Tensor  # (N, K)
    classes: Sequence[str] = DIGITS  # K names

    @property
    def predicted(self) -> Tensor:
        """The most probable classes, (N,)."""
        return self.probabilities.argmax(1)

    @property
    def accuracy(self) -> float:
        """The share of images whose class is the most probable one."""
        return (self.predicted == self.labels).double().mean().item()

    def confusion(self) -> Tensor:
        """Return the number of images of each true class (row) that were predicted as each class (column), (K, K)."""
        return multiclass_confusion_matrix(self.predicted, self.labels, self.probabilities.shape[1])

    def precision(self) -> Tensor:
        """Return the precision of each class, (K,); NaN for a class that was never predicted."""
        confusion = self.confusion()
        return confusion.diagonal() / confusion.sum(0)

    def recall(self) -> Tensor:
        """Return the recall of each class, (K,); NaN for a class without images."""
        confusion = self.confusion()
        return confusion.diagonal() / confusion.sum(1)

    def worst(self, count: int) -> Tensor:
        """Return the indices of at most `count` wrong predictions, those with the least probable true class first."""
        true_probabilities = self.probabilities.gather(1, self.labels.unsqueeze(1)).squeeze(1)
        wrong = (self.predicted != self.labels).nonzero().squeeze(1)
        return wrong[true_probabilities[wrong].argsort(stable=True)][:count]

    def calibration(self) -> list[tuple[float, float, int]]:
        """Return mean probability, accuracy and number of images for each interval that has images.

        The probability of the predicted class is divided into ten intervals of equal width. These are the points of the
        reliability diagram (Guo et al., "On Calibration of Modern Neural Networks", 2017).
        """
        confidence = self.probabilities.max(1).values.double()
        correct = (self.predicted == self.labels).double()
        interval = (10 * confidence).long().clamp(max=9)
        masks = [interval == i for i in sorted(set(interval.tolist()))]
        return [(confidence[mask].mean().item(), correct[mask].mean().item(), int(mask.sum())) for mask in masks]

    def calibration_error(self) -> float:
        """Return the expected calibration error: the mean of |probability - accuracy|, weighted by images."""
        classes = self.probabilities.shape[1]
        return multiclass_calibration_error(self.probabilities.double(), self.labels, classes, n_bins=10).item()


class TrainedRun:
    """A run's network with the weights that were tested, its data, and its predictions for the whole test set."""

    def __init__(self, run: Run) -> None:
        self.run, self.model = run, load_trained_model(run)
        self.data = make_data(run.config, self.model)

    @cached_property
    def predictions(self) -> Predictions:
        """The predictions in float32, whatever the precision of the run."""
        images, labels = self.data.raw_test_set()
        probabilities = self.model.probabilities(self.data.normalise(images))
        return Predictions(torch.from_numpy(labels).long(), probabilities, self.data.classes)


@dataclass(frozen=True)
class PairedComparison:
    """The numbers of images that only one of two networks gets right, out of the same images."""

    images: int
    only_first: int
    only_second: int

    @classmethod
    def of(cls, first: Predictions, second: Predictions) -> "PairedComparison":
        """Count the images in two networks' predictions for the same images in the same order."""
        first_right, second_right = first.predicted == first.labels, second.predicted == second.labels
        only_first, only_second = first_right & ~second_right, second_right & ~first_right
        return cls(len(first.labels), int(only_first.sum()), int(only_second.sum()))

    @property
    def swapped(self) -> "PairedComparison":
        """The comparison with the networks in the other order."""
        return PairedComparison(self.images, self.only_second, self.only_first)

    @property
    def difference(self) -> float:
        """The accuracy of the second network minus that of the first, from -1 to 1."""
        return (self.only_second - self.only_first) / self.images

    @property
    def p(self) -> float:
        """The two-sided p-value of McNemar's exact test of the hypothesis that both networks have the same accuracy.

        Under this hypothesis, either network is equally likely to be the only one that gets an image right, so the
        numbers are binomial (McNemar, "Note on the sampling error of the difference between correlated proportions or
        percentages", Psychometrika 12, 1947). It is 1 if there are no such images.
        """
        fewer = min(self.only_first, self.only_second)
        return min(2 * float(bdtr(fewer, self.only_first + self.only_second, 0.5)), 1.0)  # Both tails are equal.

    def interval(self) -> tuple[float, float]:
        """Return the ends of a 95 % interval for the difference of the accuracies, within -1 and 1.

        It is the Wald interval after adding 0.5 to each cell of the table of right and wrong (Agresti and Min,
        "Simple improved confidence intervals for comparing matched proportions", Statistics in Medicine 24, 2005).
        """
        first, second, images = self.only_first + 0.5, self.only_second + 0.5, self.images + 2
        centre = (second - first) / images
        error = math.sqrt(first + second - (second - first) ** 2 / images) / images
        half_width = NormalDist().inv_cdf(0.975) * error
        return max(centre - half_width, -1.0), min(centre + half_width, 1.0)


def compare_on_test_set(first: Run, second: Run) -> PairedComparison:
    """Compare the tested weights of two runs on the whole test set, in float32."""
    trained_first, trained_second = TrainedRun(first), TrainedRun(second)
    if not all(map(np.array_equal, trained_first.data.raw_test_set(), trained_second.data.raw_test_set())):
        raise UsageError(f"{first} and {second} have different test images")
    return PairedComparison.of(trained_first.predictions, trained_second.predictions)
