"""The tables of the benchmarks are right; that they run, and what they measure, takes longer than a test may."""

import math
from pathlib import Path

import pytest
import torch

from benchmarks import peer_loops, peers
from benchmarks.ablation import Row, _row
from benchmarks.timing import ratio
from benchmarks.tutorials import NETWORKS
from mnist_lab.config.compose import compose
from mnist_lab.config.settings import format_differences
from mnist_lab.config.validate import validate
from mnist_lab.data.mnist_files import data_root
from mnist_lab.evaluation.predictions import Predictions
from mnist_lab.training.build import instantiate_node

SEARCH = Path(__file__).parent.parent / "benchmarks" / "search"
VARIANTS = sorted(path.stem for path in (SEARCH / "experiment").glob("*.yaml"))
pytestmark = pytest.mark.thorough


@pytest.mark.real_data
def test_data_are_there_as_often_as_asked_for() -> None:
    cfg = compose("data.source._target_=benchmarks.scale.Copies", "+data.source.copies=3")
    arrays = instantiate_node(cfg.data.source, "data.source").load(data_root())
    assert (len(arrays.train_images), len(arrays.train_labels), len(arrays.test_images)) == (180_000, 180_000, 10_000)


def test_ratio_is_the_median_of_the_rounds_with_least_and_greatest() -> None:
    assert ratio([2.0, 6.0, 4.0], [1.0, 2.0, 4.0]) == "2.00 (1.00 to 3.00)"


def test_table_has_a_column_for_each_network_with_the_first_in_bold_and_the_ratio_to_the_best_peer() -> None:
    mlp = {loop: [8.0, 9.0, 8.0] for loop in peers.LOOPS}
    mlp |= {"mnist_lab": [2.0, 3.0, 4.0], "fast": [1.0, 1.0, 1.0]}
    mlp |= {"plain": [4.0, 4.0, 4.0], "flax": [8.0, 1.5, 8.0]}
    lenet = {loop: [8.0] * 3 for loop in peers.LOOPS} | {"keras_50": [0.5] * 3}
    heads, _, *lines = peers.table({"mlp": mlp, "lenet": lenet}).splitlines()
    cells = {line.split(" | ")[0].strip("| "): line.strip("|").split("|")[1:] for line in lines}
    assert heads == "| seconds of an epoch | mlp | lenet |"
    assert [cell.strip() for cell in cells["mnist_lab, fast"]] == ["**1.00 (1.00 to 1.00)**", "8.00 (8.00 to 8.00)"]
    assert [cell.strip() for cell in cells["Flax NNX"]] == ["8.00 (1.50 to 8.00)", "8.00 (8.00 to 8.00)"]
    assert cells["Keras on JAX, 50 steps"][1].strip() == "**0.50 (0.50 to 0.50)**"
    ratios = ["1.00 (0.50 to 2.00)", "16.00 (16.00 to 16.00)"]
    assert [cell.strip() for cell in cells["mnist_lab / best of the others"]] == ratios


def test_loop_with_twice_or_half_the_errors_of_the_others_is_odd() -> None:
    accuracies = {loop: [0.96, 0.97, 0.95] for loop in peers.LOOPS}
    assert peers.odd_loops(accuracies) == []
    assert peers.odd_loops(accuracies | {"keras": [0.1, 0.1, 0.96], "flax": [0.99, 0.99, 0.99]}) == ["keras", "flax"]


@pytest.mark.parametrize("network", NETWORKS)
def test_layers_have_as_many_parameters_as_the_tutorials_network(network: str) -> None:
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
    """Of ten images of class 0, of which some are taken for class 1."""
    probabilities = torch.tensor([[0.2, 0.8] if i in wrong else [0.8, 0.2] for i in range(10)])
    return Predictions(torch.zeros(10, dtype=torch.long), probabilities, ("0", "1"))


def test_difference_is_the_mean_over_the_seeds_that_both_have() -> None:
    recipe = {1: predictions({0}), 2: predictions({0, 1}), 3: predictions(set())}
    variant = {1: predictions({0, 1, 2}), 2: predictions({2})}
    row = _row("variant", recipe, variant)
    assert (row.seeds, row.accuracy, row.difference) == (2, pytest.approx(80), pytest.approx(-5))
    assert row.reach == pytest.approx(12.706 * 15, rel=1e-3)  # Student's t for the differences -20 and 10
    assert (row.only_recipe, row.only_variant) == (3, 2)


def test_one_seed_says_nothing_about_the_spread() -> None:
    assert _row("variant", {1: predictions({0})}, {1: predictions(set())}) == Row(
        "variant", 1, 100.0, 10.0, math.inf, 0, 1
    )
