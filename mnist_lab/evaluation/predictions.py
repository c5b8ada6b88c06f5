"""Predictions of a network for labelled images: where it errs, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_confusion_matrix

from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.data.image_source import DIGITS
from mnist_lab.models.classifier import Classifier


@dataclass(frozen=True)
class Predictions:
    """Predictions for labelled images.

    Attributes:
        labels: classes of the images, (N,).
        probabilities: class probabilities by a network, (N, K).
        classes: the names of the K classes.
    """

    labels: Tensor
    probabilities: Tensor
    classes: Sequence[str] = DIGITS

    @classmethod
    def on_test_set(cls, model: Classifier, data: MNISTDataModule) -> Predictions:
        """Return the predictions of a network for the whole test set, in float32."""
        images, labels = data.test_set()
        return cls(torch.from_numpy(labels).long(), model.probabilities(data.normalise(images)), data.classes)

    @property
    def predicted(self) -> Tensor:
        """The most probable classes, (N,)."""
        return self.probabilities.argmax(1)

    @property
    def accuracy(self) -> float:
        """The share of images whose class is the most probable one."""
        return (self.predicted == self.labels).double().mean().item()

    def confusion(self) -> Tensor:
        """Return how many images of each true class (row) were predicted as each class (column), (K, K)."""
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
        """Return the indices of at most `count` wrong predictions, least probable true class first."""
        true_probabilities = self.probabilities.gather(1, self.labels.unsqueeze(1)).squeeze(1)
        wrong = (self.predicted != self.labels).nonzero().squeeze(1)
        return wrong[true_probabilities[wrong].argsort(stable=True)][:count]

    def calibration(self, bins: int = 10) -> list[tuple[float, float, int]]:
        """Return the points of the reliability diagram (Guo et al., "On Calibration of Modern Neural Networks", 2017).

        Args:
            bins: intervals of equal width into which the predicted class's probability is sorted.

        Returns:
            Mean probability, accuracy and number of images of each interval that has images.
        """
        confidence = self.probabilities.max(1).values.double()
        correct = (self.predicted == self.labels).double()
        interval = (confidence * bins).long().clamp(max=bins - 1)
        members = [(interval == i).nonzero().squeeze(1) for i in range(bins)]
        return [(confidence[own].mean().item(), correct[own].mean().item(), len(own)) for own in members if len(own)]

    def calibration_error(self, bins: int = 10) -> float:
        """Return the expected calibration error: |probability - accuracy| of the intervals, weighted by images."""
        classes = self.probabilities.shape[1]
        return multiclass_calibration_error(self.probabilities.double(), self.labels, classes, n_bins=bins).item()
