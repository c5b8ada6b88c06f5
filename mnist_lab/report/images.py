"""What a run's page shows of its test images: right and wrong ones, a map of them, and the filters that see them first.

All pictures are on one sheet, from which the page cuts them.
"""

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mnist_lab.evaluation.predictions import TrainedRun
from mnist_lab.models.deployed import Ensemble
from mnist_lab.viz.model import MAX_NAME, compute_features, describe_prediction, find_filters, tile
from mnist_lab.viz.style import shorten_name

MAX_IMAGES, MAX_WRONG = 2000, 1000  # images on a page, and wrong ones among them
MAX_EXAMPLES = 12  # right images of each kind
MAX_FILTERS = 64
COLUMNS = 50  # pictures in a row of the sheet
LEVELS = 15  # With 256 levels of grey instead of these, the sheet would be half as large again.
WIDTH, HEIGHT, MARGIN = 1000, 640, 24  # units of the map
LETTER, LINE = 26, 44  # units of a label on the map


def image_values(trained: TrainedRun) -> dict[str, Any]:
    """Return the wrong test images, the worst first, and right ones, each with its texts and its place on the map."""
    made, data = trained.predictions, trained.data
    sure, predicted = made.probabilities.max(1).values, made.predicted
    right = (predicted == made.labels).nonzero().flatten()
    by_sureness = right[sure[right].argsort(stable=True)].tolist()
    surest = dict(sorted({int(predicted[i]): i for i in by_sureness}.items()))  # the last one of each class
    examples = {
        "closest": by_sureness[:MAX_EXAMPLES],
        "surest": [*surest.values()][:: math.ceil(len(surest) / MAX_EXAMPLES) or 1],
    }
    worst = made.worst(MAX_WRONG).tolist()
    some = right[torch.linspace(0, len(right) - 1, min(len(right), MAX_IMAGES - len(worst))).long()].tolist()
    shown = list(dict.fromkeys([*worst, *examples["closest"], *examples["surest"], *some]))
    points, method = place_images(trained, shown)
    classes = list(zip(made.labels[shown].tolist(), predicted[shown].tolist(), strict=True))
    images = [
        (f"{i}-{j}", *point, *describe_prediction(i, j, shares, made.classes))
        for (i, j), point, shares in zip(classes, points.tolist(), made.probabilities[shown].tolist(), strict=True)
    ]
    pixels = data.raw_test_set()[0][shown]
    grey = np.round((255 - pixels if data.is_ink else pixels) / 255 * LEVELS) * (255 // LEVELS)
    return {
        "shown": images,
        "sheet": png_uri(tile(grey.astype(np.uint8), COLUMNS, 255)),
        "columns": COLUMNS,
        "is_ink": data.is_ink,
        **{name: [shown.index(i) for i in chosen] for name, chosen in examples.items()},
        "map": draw_map(points, classes, made.classes) | {"method": method},
        "filters": filter_values(trained),
    }


def place_images(trained: TrainedRun, shown: Sequence[int]) -> tuple[Tensor, str]:
    """Place test images on the map, (N, 2), by the two principal components of what the last layer gets."""
    model, data = trained.model, trained.data
    images = data.normalise(data.raw_test_set()[0][shown])
    # The members of an ensemble have a last layer each.
    features = None if isinstance(model, Ensemble) else compute_features(model, images)
    what = "values that the last layer gets"
    if features is None or features.shape[1] < 2:
        features, what = trained.predictions.probabilities[shown], "probabilities of the classes"
    rows = features.double()
    rows = rows - rows.mean(0)
    variances, components = torch.linalg.eigh(rows.T @ rows)
    components = components[:, [-1, -2]]
    points = rows @ (components * components.sum(0).sign())  # Either sign is right; the page is the same each time.
    points = points - points.min(0).values
    size = torch.tensor([WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN])
    places = MARGIN + points / points.max(0).values.clamp_min(1e-12) * size
    share = (variances[-2:].sum() / variances.sum().clamp_min(1e-12)).item()
    method = f"the {rows.shape[1]} {what}, by the two principal components (PCA), which have {share:.0%} of the variance"
    return places.round().long(), method


def draw_map(points: Tensor, classes: Sequence[tuple[int, int]], names: Sequence[str]) -> dict[str, Any]:
    """Return the map: paths of the right images of each class and of the wrong ones, and the classes' names."""
    labels: list[tuple[int, int, str]] = []
    right: dict[int, str] = {}
    truths, predictions = torch.tensor(classes).T

    def path(mask: Tensor) -> str:
        return "".join(f"M{x} {y}h0" for x, y in points[mask].tolist())

    for label, name in enumerate(names):
        members = (truths == label) & (predictions == label)
        if not members.any():
            continue
        right[label] = path(members)
        x, y = points[members].median(0).values.tolist()
        text = shorten_name(name, MAX_NAME)
        # Where labels would meet, only the first is written.
        if all(abs(y - y2) > LINE or abs(x - x2) > LETTER * (len(text) + len(text2)) / 2 for x2, y2, text2 in labels):
            labels.append((x, y, text))
    return {"width": WIDTH, "height": HEIGHT, "right": right, "wrong": path(truths != predictions), "labels": labels}


def filter_values(trained: TrainedRun) -> dict[str, Any] | None:
    """Return the first layer's weights as sheets of opacity, of the positive and the negative ones; None without."""
    found = find_filters(trained.model, trained.model.image_size)
    if found is None:
        return None
    name, pictures = found
    shown = pictures[:MAX_FILTERS]
    most = np.abs(shown).max()
    sheet = np.round(tile(shown, len(shown), 0) / (most or 1) * 255)
    values = {"name": name, "count": len(shown), "all": len(pictures), "most": f"{most:.2g}"}
    for sign, kind in ((1, "positive"), (-1, "negative")):
        opacity = (sign * sheet).clip(0, 255).astype(np.uint8)
        values[kind] = png_uri(np.stack([np.zeros_like(opacity), opacity], axis=2))
    return values | {"ranges": [f"{each.min():.2f} to {each.max():.2f}" for each in shown]}


def png_uri(pixels: np.ndarray) -> str:
    """Return pixels, grey or grey and opacity, as a PNG in a data URI."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
