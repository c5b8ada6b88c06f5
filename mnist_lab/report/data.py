"""The values of a page about a data set: examples of each class, and the labels that a network doubts."""

from typing import Any

import numpy as np
import torch

from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.data.summary import Summary
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.models.classifier import Classifier
from mnist_lab.report.images import png_uri
from mnist_lab.viz.model import format_probability

# A page has this many examples of a class, at least so many where there are many classes, and so many in all.
EXAMPLES, MIN_EXAMPLES, ALL_EXAMPLES = 24, 8, 2400

Doubt = tuple[list[str], np.ndarray]  # set, image, label, its probability, prediction, its probability; pixels


def find_doubts(model: Classifier, data: MNISTDataModule) -> list[Doubt]:
    """Return the validation and test images that a network gets wrong, those with the least probable label first."""
    sets, names = data.raw_sets(), data.image_names()
    images, labels = (np.concatenate(parts) for parts in zip(sets["validation"], sets["test"], strict=True))
    places = [(kind, str(name)) for kind in ("validation", "test") for name in names[kind]]
    made = Predictions(torch.from_numpy(labels).long(), model.probabilities(data.normalise(images)), data.classes)
    predicted, doubts = made.predicted.tolist(), []
    for index in made.worst(len(labels)).tolist():
        texts = [*places[index]]
        for label in (labels[index], predicted[index]):
            texts += [made.classes[label], format_probability(made.probabilities[index, label].item())]
        doubts.append((texts, images[index]))
    return doubts


def data_page(data: MNISTDataModule, summary: Summary, doubts: list[Doubt] | None) -> dict[str, Any]:
    """Return the values of data.html.j2; doubts are None without a network."""

    def picture(image: np.ndarray) -> str:
        return png_uri(255 - image if data.is_ink else image)

    images, labels = data.raw_sets()["training"]
    most, examples = min(EXAMPLES, max(MIN_EXAMPLES, ALL_EXAMPLES // len(data.classes))), []
    for label in range(len(data.classes)):
        members = (labels == label).nonzero()[0]
        chosen = np.linspace(0, len(members) - 1, min(most, len(members))).astype(int)
        examples.append(images[members[chosen]])
    return {"summary": summary, "examples": examples, "doubts": doubts, "is_ink": data.is_ink, "picture": picture}
