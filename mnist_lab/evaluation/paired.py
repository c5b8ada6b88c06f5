"""Compare two networks on the same test images: McNemar's exact test, and an interval for the difference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.special import bdtr

from mnist_lab.errors import UsageError
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.runs.run import Run
from mnist_lab.training.build import load_trained_model, make_data


@dataclass(frozen=True)
class PairedComparison:
    """How many of the same images each of two networks gets right.

    Attributes:
        images: the number of images.
        only_first: images that the first network alone gets right.
        only_second: images that the second network alone gets right.
    """

    images: int
    only_first: int
    only_second: int

    @classmethod
    def of(cls, first: Predictions, second: Predictions) -> PairedComparison:
        """Count the images of two networks' predictions, which are for the same images in the same order."""
        one, other = (each.predicted == each.labels for each in (first, second))
        return cls(len(first.labels), int((one & ~other).sum()), int((other & ~one).sum()))

    @property
    def swapped(self) -> PairedComparison:
        """The comparison with the networks in the other order."""
        return PairedComparison(self.images, self.only_second, self.only_first)

    @property
    def difference(self) -> float:
        """The accuracy of the second network minus that of the first, from -1 to 1."""
        return (self.only_second - self.only_first) / self.images

    @property
    def p(self) -> float:
        """The two-sided p-value of McNemar's exact test, that both networks have the same accuracy.

        Under this hypothesis, each image that one network alone gets right is as likely the one's as the other's: their
        numbers are binomial (McNemar, "Note on the sampling error of the difference between correlated proportions or
        percentages", Psychometrika 12, 1947). It is 1 where there are no such images.
        """
        fewer = min(self.only_first, self.only_second)
        return min(2 * float(bdtr(fewer, self.only_first + self.only_second, 0.5)), 1.0)  # both tails are alike

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return an interval for the difference of the accuracies.

        It is the Wald interval after 0.5 is added to each cell of the table of right and wrong (Agresti and Min,
        "Simple improved confidence intervals for comparing matched proportions", Statistics in Medicine 24, 2005).

        Args:
            confidence: the share of such intervals that contain the true difference, between 0 and 1.

        Returns:
            Its ends, from -1 to 1.
        """
        first, second, images = self.only_first + 0.5, self.only_second + 0.5, self.images + 2
        centre = (second - first) / images
        error = math.sqrt(first + second - (second - first) ** 2 / images) / images
        reach = NormalDist().inv_cdf((1 + confidence) / 2) * error
        return max(centre - reach, -1.0), min(centre + reach, 1.0)


def compare_on_test_set(first: Run, second: Run) -> PairedComparison:
    """Compare the tested weights of two runs on the whole test set, in float32.

    Raises:
        UsageError: a run has no checkpoint, or the two have different test sets.
        DataUnavailable: the test set could not be had.
    """
    for run in (first, second):
        run.chosen_checkpoint()  # raises the error before the work
    models = [load_trained_model(run) for run in (first, second)]
    data = [make_data(run.config, model) for run, model in zip((first, second), models, strict=True)]
    if not all(map(np.array_equal, data[0].test_set(), data[1].test_set())):
        raise UsageError(f"{first} and {second} have different test images")
    return PairedComparison.of(*map(Predictions.on_test_set, models, data))
