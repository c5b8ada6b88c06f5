"""TensorBoard's PROJECTOR: the features of test images, with their classes and pictures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.plugins.projector import (
    EmbeddingInfo,
    ProjectorConfig,
    visualize_embeddings,
)
from torch import Tensor, nn

from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.files import atomic_write, write_text
from mnist_lab.models.classifier import Classifier
from mnist_lab.runs.run import Run
from mnist_lab.viz.images import tile_images


def write_embeddings(
    board: Path, model: Classifier, images: Tensor, pixels: np.ndarray, predictions: Predictions, count: int = 1000
) -> None:
    """Write the features of the first test images, their classes and predictions, and the images themselves.

    Nothing is written for a network without features. (SummaryWriter.add_embedding names its folder by the step, so
    that a resumed run would have two, and pads the sprite to a square.)

    Args:
        board: the folder of the event files.
        model: the network.
        images: the normalised test images, (N, 1, S, S).
        pixels: the same images as bytes, (N, 28, 28).
        predictions: predictions for them.
        count: how many are shown at most.
    """
    rows = features(model, images[:count])
    if rows is None:
        return
    folder = Run(board).projector_folder
    folder.mkdir(exist_ok=True)
    with atomic_write(folder / "features.tsv", durable=False) as partial:
        np.savetxt(partial, rows.numpy(), fmt="%.6g", delimiter="\t")
    pairs = zip(predictions.labels[:count].tolist(), predictions.predicted[:count].tolist(), strict=True)
    names = predictions.classes
    lines = ["label\tpredicted", *(f"{names[label]}\t{names[predicted]}" for label, predicted in pairs)]
    write_text(folder / "labels.tsv", "\n".join(lines) + "\n", durable=False)
    # The sprite is white on black: the tab multiplies it by a point's colour.
    with atomic_write(folder / "sprite.png", durable=False) as partial:
        sheet = tile_images(pixels[:count], math.ceil(math.sqrt(len(rows))))
        Image.fromarray(sheet).save(partial, "png")
    embedding = EmbeddingInfo(
        tensor_name="penultimate features",
        tensor_path=f"{folder.name}/features.tsv",
        metadata_path=f"{folder.name}/labels.tsv",
    )
    embedding.sprite.image_path = f"{folder.name}/sprite.png"
    embedding.sprite.single_image_dim.extend((pixels.shape[2], pixels.shape[1]))
    visualize_embeddings(str(board), ProjectorConfig(embeddings=[embedding]))


def features(model: Classifier, images: Tensor) -> Tensor | None:
    """Return the inputs of a network's last linear layer, (N, F), for normalised images, (N, 1, S, S).

    None for a network without such a layer, or if its input is not one row of numbers for each image.
    """
    given: list[Tensor] = []
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_pre_hook(lambda _, inputs: given.extend(inputs)) for layer in layers]
    try:
        model.probabilities(images, batch_size=len(images))
    finally:
        for hook in hooks:
            hook.remove()
    return given[-1].float().cpu() if given and given[-1].shape[:-1] == (len(images),) else None
