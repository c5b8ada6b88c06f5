"""The recipe without one of its ingredients: each variant is a valid preset, and is compared seed by seed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from benchmarks.ablation import Row, _row
from mnist_lab.config.compose import compose
from mnist_lab.config.settings import format_differences
from mnist_lab.config.validate import validate
from mnist_lab.evaluation.predictions import Predictions

SEARCH = Path(__file__).parent.parent / "benchmarks" / "search"
VARIANTS = sorted(path.stem for path in (SEARCH / "experiment").glob("*.yaml"))
pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_is_valid_and_differs_from_the_recipe(name: str) -> None:
    cfg = compose(f"experiment={name}", config_dir=str(SEARCH))
    validate(cfg)
    assert format_differences(compose("experiment=champion"), cfg)


def predictions(wrong: set[int]) -> Predictions:
    """Of ten images of class 0, of which some are taken for class 1."""
    probabilities = torch.tensor([[0.2, 0.8] if i in wrong else [0.8, 0.2] for i in range(10)])
    return Predictions(torch.zeros(10, dtype=torch.long), probabilities, ("0", "1"))


def test_difference_is_the_mean_over_the_seeds_that_both_have() -> None:
    recipe = {1: predictions({0}), 2: predictions({0, 1}), 3: predictions(set())}
    variant = {1: predictions({0, 1, 2}), 2: predictions({2})}
    row = _row("variant", recipe, variant)
    assert (row.seeds, row.accuracy, row.difference) == (2, pytest.approx(80), pytest.approx(-5))
    assert row.reach == pytest.approx(12.706 * 15, rel=1e-3), (
        "Student's t of one degree of freedom; differences -20 and 10"
    )
    assert (row.only_recipe, row.only_variant) == (3, 2)


def test_one_seed_says_nothing_about_the_spread() -> None:
    assert _row("variant", {1: predictions({0})}, {1: predictions(set())}) == Row(
        "variant", 1, 100.0, 10.0, math.inf, 0, 1
    )
