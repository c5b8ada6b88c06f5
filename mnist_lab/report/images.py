"""The test images on a run's page, as parts of one sheet, a map of them, and the filters that see them first."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mnist_lab.evaluation.predictions import TrainedRun
from mnist_lab.models.deployed import Ensemble
from mnist_lab.viz.model import MAX_NAME, compute_features, describe_prediction, find_filters, tile
from mnist_lab.viz.style import shorten_name

MAX_IMAGES, MAX_WRONG = 1500, 1000  # images on a page, and wrong ones among them
MAX_EXAMPLES = 12  # right images
MAX_FILTERS = 64
COLUMNS = 50  # pictures in a row of the sheet
LEVELS = 15  # With 256 levels of grey instead of these, the sheet would be half as large again.
WIDTH, HEIGHT, MARGIN = 1000, 760, 50  # units of the map
LETTER, LINE = 28, 44  # units of a label on the map


def image_values(trained: TrainedRun) -> dict[str, Any]:
    """Return the wrong test images, the worst first, and right ones, each with its texts and its place on the map."""
    made, data = trained.predictions, trained.data
    sure, predicted = made.probabilities.max(1).values, made.predicted
    right = (predicted == made.labels).nonzero().flatten()
    closest = right[sure[right].argsort(stable=True)][:MAX_EXAMPLES].tolist()
    worst = made.worst(MAX_WRONG).tolist()
    some = right[torch.linspace(0, len(right) - 1, min(len(right), MAX_IMAGES - len(worst))).long()].tolist()
    shown = list(dict.fromkeys([*worst, *closest, *some]))
    points, method = place_images(trained, shown)
    classes = list(zip(made.labels[shown].tolist(), predicted[shown].tolist(), strict=True))
    names = [shorten_name(name, MAX_NAME) for name in made.classes]
    pixels = data.raw_test_set()[0][shown]
    grey = np.round((255 - pixels if data.is_ink else pixels) / 255 * LEVELS) * (255 // LEVELS)
    return {
        "shown": [
            (f"{i}-{j}", *point, *describe_prediction(i, j, shares, names, "as"))
            for (i, j), point, shares in zip(classes, points.tolist(), made.probabilities[shown].tolist(), strict=True)
        ],
        "sheet": png_uri(tile(grey.astype(np.uint8), COLUMNS, 255)),
        "columns": COLUMNS,
        "names": names,
        "is_ink": data.is_ink,
        "closest": [shown.index(i) for i in closest],
        "map": {"size": (WIDTH, HEIGHT), "method": method, "labels": place_names(points, classes, names)},
        "filters": filter_values(trained),
    }


def place_images(trained: TrainedRun, shown: Sequence[int]) -> tuple[Tensor, str]:
    """Place test images on the map, (N, 2), by what the last layer gets of them; describe how."""
    model, data = trained.model, trained.data
    # The members of an ensemble have a last layer each.
    is_one = not isinstance(model, Ensemble)
    features = compute_features(model, data.normalise(data.raw_test_set()[0][shown])) if is_one else None
    what = "values that the last layer gets"
    if features is None:
        features, what = trained.predictions.probabilities[shown], "probabilities of the classes"
    rows = features.double() - features.double().mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # The algorithm is a random one, but the page is to stay the same.
        _, lengths, components = torch.pca_lowrank(rows, q=min(8, *rows.shape), center=False)
    points = F.pad(rows @ components, (0, 2))[:, :2]  # A single image has one component.
    points = (points - points.min(0).values) / (points.max(0).values - points.min(0).values).clamp_min(1e-12)
    places = MARGIN + points * (torch.tensor([WIDTH, HEIGHT]) - 2 * MARGIN)
    share = (lengths[:2].square().sum() / rows.square().sum().clamp_min(1e-12)).item()
    method = f"the first two principal components (PCA) of the {rows.shape[1]} {what}, with {share:.0%} of the variance"
    return places.round().long(), method


def place_names(points: Tensor, classes: Sequence[tuple[int, int]], names: Sequence[str]) -> list[tuple[int, int, str]]:
    """Place the names of classes among their right images on the map; one that has no room is left out."""
    labels: list[tuple[int, int, str]] = []
    for label, name in enumerate(names):
        members = [i for i, pair in enumerate(classes) if pair == (label, label)]
        x, middle = points[members].median(0).values.tolist() if members else (0, 0)
        for y in (middle, middle + LINE, middle - LINE) if members else ():
            if all(abs(y - y2) >= LINE or 2 * abs(x - x2) > LETTER * len(name + name2) for x2, y2, name2 in labels):
                labels.append((x, y, name))
                break
    return labels


def filter_values(trained: TrainedRun) -> dict[str, Any] | None:
    """Return the first layer's weights as a sheet of opacity for each sign; None if they are no pictures."""
    found = find_filters(trained.model, trained.model.image_size)
    if found is None:
        return None
    name, pictures = found
    shown = pictures[:MAX_FILTERS]
    most = np.abs(shown).max()
    sheet = tile(shown, len(shown), 0) / (most or 1) * 255
    values = {"name": name, "count": len(shown), "all": len(pictures), "most": f"{most:.2g}"}
    for kind, weights in (("positive", sheet), ("negative", -sheet)):
        opacity = weights.clip(0).round().astype(np.uint8)
        values[kind] = png_uri(np.stack([np.zeros_like(opacity), opacity], axis=2))
    return values


def png_uri(pixels: np.ndarray) -> str:
    """Return pixels, grey or grey and opacity, as a PNG in a data URI."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
