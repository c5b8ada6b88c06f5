"""The tables of the benchmarks are right. To run the benchmarks takes too long for a test."""

import math
from pathlib import Path

import pytest
import torch

from benchmarks import peer_loops
from benchmarks.ablation import Row, compare_with_recipe
from benchmarks.timing import ratio
from benchmarks.tutorials import NETWORKS
from mnist_lab.config.compose import compose
from mnist_lab.config.settings import format_differences
from mnist_lab.config.validate import validate
from mnist_lab.evaluation.predictions import Predictions

SEARCH = Path(__file__).parent.parent / "benchmarks" / "search"
VARIANTS = sorted(path.stem for path in (SEARCH / "experiment").glob("*.yaml"))
pytestmark = pytest.mark.thorough


def test_ratio_is_the_median_of_the_rounds_with_least_and_greatest() -> None:
    assert ratio([2.0, 6.0, 4.0], [1.0, 2.0, 4.0]) == "2.00 (1.00 to 3.00)"


@pytest.mark.parametrize("network", NETWORKS)
def test_network_for_other_frameworks_has_as_many_parameters_as_the_tutorials(network: str) -> None:
    count = 0
    for (kind, outputs, kernel), inputs in peer_loops.with_inputs(network, 32 if network == "lenet" else 28):
        if kind in ("conv", "dense"):
            count += outputs * (inputs * max(kernel, 1) ** 2 + 1)
    assert count == sum(parameter.numel() for parameter in NETWORKS[network]().parameters())


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_of_the_ablation_is_valid_and_differs_from_the_recipe(name: str) -> None:
    cfg = compose(f"experiment={name}", config_dir=str(SEARCH))
    validate(cfg)
    assert format_differences(compose("experiment=champion"), cfg)


def predictions(wrong: set[int]) -> Predictions:
    """Return predictions for ten images of class 0, of which the wrong ones are taken for class 1."""
    probabilities = torch.tensor([[0.2, 0.8] if i in wrong else [0.8, 0.2] for i in range(10)])
    return Predictions(torch.zeros(10, dtype=torch.long), probabilities, ("0", "1"))


def test_difference_is_the_mean_over_the_seeds_of_both_with_the_interval_of_student() -> None:
    recipe = {1: predictions({0}), 2: predictions({0, 1}), 3: predictions(set())}
    variant = {1: predictions({0, 1, 2}), 2: predictions({2})}
    row = compare_with_recipe("variant", recipe, variant)
    assert (row.seeds, row.accuracy, row.difference) == (2, pytest.approx(80), pytest.approx(-5))
    assert row.reach == pytest.approx(12.706 * 15, rel=1e-3), "Student's t for the differences -20 and 10"
    assert (row.only_recipe, row.only_variant) == (3, 2)
    one = compare_with_recipe("variant", {1: predictions({0})}, {1: predictions(set())})
    assert one == Row("variant", 1, 100.0, 10.0, math.inf, 0, 1), "one seed says nothing about the spread"
