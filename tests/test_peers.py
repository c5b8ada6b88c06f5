"""The table and the figure beside other frameworks, from given times; their packages are not needed."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from benchmarks import peer_loops, peers
from benchmarks.tutorials import NETWORKS

pytestmark = pytest.mark.thorough


def test_table_has_a_column_for_each_network_with_the_first_in_bold_and_the_ratio_to_the_best_peer() -> None:
    mlp = {loop: [8.0, 9.0, 8.0] for loop in peers.LOOPS}
    mlp |= {"mnist_lab": [2.0, 3.0, 4.0], "fast": [1.0, 1.0, 1.0]}
    mlp |= {"plain": [4.0, 4.0, 4.0], "flax": [8.0, 1.5, 8.0]}
    lenet = {loop: [8.0] * 3 for loop in peers.LOOPS if loop != "compiled"} | {"keras_50": [0.5] * 3}
    heads, _, *lines = peers.table({"mlp": mlp, "lenet": lenet}).splitlines()
    cells = {line.split(" | ")[0].strip("| "): line.strip("|").split("|")[1:] for line in lines}
    assert heads == "| seconds of an epoch | mlp | lenet |"
    assert [cell.strip() for cell in cells["mnist_lab, fast"]] == ["**1.00 (1.00 to 1.00)**", "8.00 (8.00 to 8.00)"]
    assert [cell.strip() for cell in cells["Flax NNX"]] == ["8.00 (1.50 to 8.00)", "8.00 (8.00 to 8.00)"]
    assert [cell.strip() for cell in cells["mnist_lab, compiled"]] == ["8.00 (8.00 to 9.00)", ""]
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


def test_figure_has_a_panel_for_each_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **kwargs: saved.append(figure))
    seconds = {loop: [1.0, 2.0, 4.0] for loop in peers.LOOPS}
    peers.draw(dict.fromkeys(("lenet", "dropout_cnn", "mlp"), seconds), tmp_path / "peers.png")
    assert [axes.get_title(loc="left") for axes in saved[0].axes if axes.axison] == ["lenet", "dropout_cnn", "mlp"]
