"""What a network makes of labelled images: where it errs, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.models.classifier import Classifier


@dataclass(frozen=True)
class Predictions:
    """Classes (N,) and the probabilities (N, 10) that a network gave them."""

    labels: Tensor
    probabilities: Tensor

    @classmethod
    def on_test_set(cls, model: Classifier, data: MNISTDataModule) -> Predictions:
        """A network's on the whole test set, in float32."""
        images, labels = data.test_set()
        return cls(torch.from_numpy(labels).long(), model.probabilities(data.normalised(images)))

    @property
    def predicted(self) -> Tensor:
        """The most probable classes, (N,)."""
        return self.probabilities.argmax(1)

    @property
    def accuracy(self) -> float:
        """The share of images whose class is the most probable one."""
        return (self.predicted == self.labels).double().mean().item()

    def confusion(self) -> Tensor:
        """How many images of each class, a row, were taken for each, a column: (10, 10)."""
        classes = self.probabilities.shape[1]
        return torch.bincount(self.labels * classes + self.predicted, minlength=classes**2).reshape(classes, classes)

    def precision(self) -> Tensor:
        """Of the images taken for a class, the share that is of it, (10,); NaN for a class that none was taken for."""
        confusion = self.confusion()
        return confusion.diagonal() / confusion.sum(0)

    def recall(self) -> Tensor:
        """Of the images of a class, the share that was taken for it, (10,); NaN for a class without images."""
        confusion = self.confusion()
        return confusion.diagonal() / confusion.sum(1)

    def worst(self, count: int) -> Tensor:
        """Indices of the wrong predictions, at most so many, least probable true class first."""
        of_truth = self.probabilities.gather(1, self.labels.unsqueeze(1)).squeeze(1)
        wrong = (self.predicted != self.labels).nonzero().squeeze(1)
        return wrong[of_truth[wrong].argsort(stable=True)][:count]

    def calibration(self, bins: int = 10) -> list[tuple[float, float, int]]:
        """Mean probability of the predicted class, accuracy and number of images, by tenths of that probability.

        A tenth without images is left out. (The reliability diagram of Guo et al., "On Calibration of Modern Neural
        Networks", 2017.)
        """
        sure = self.probabilities.max(1).values.double()
        right = (self.predicted == self.labels).double()
        place = (sure * bins).long().clamp(max=bins - 1)
        found = [(place == i).nonzero().squeeze(1) for i in range(bins)]
        return [(sure[own].mean().item(), right[own].mean().item(), len(own)) for own in found if len(own)]

    def calibration_error(self, bins: int = 10) -> float:
        """The expected calibration error: what probability and accuracy differ by, weighted by images."""
        total = sum(count * abs(sure - right) for sure, right, count in self.calibration(bins))
        return total / len(self.labels)
