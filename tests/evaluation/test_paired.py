"""Two networks on the same images: known values of McNemar's exact test and of the interval, and whole runs."""

import shutil
from pathlib import Path

import pytest
import torch
from lab import Tiny, idx, tiny_arrays, tiny_data

from mnist_lab.data.mnist_files import FILES
from mnist_lab.errors import UsageError
from mnist_lab.evaluation.predictions import PairedComparison, Predictions, compare_on_test_set, load_trained
from mnist_lab.runs.run import Run
from mnist_lab.training.train import train


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two networks that err on different images; the second was tested on part of the test set."""
    folder = tmp_path_factory.mktemp("two")
    tiny = tiny_data(folder)
    given = ("data=tiny", "trainer.accelerator=cpu", "figures=false", "trainer.max_epochs=2")
    return [
        train(tiny.compose(*given, "model=mlp", f"hydra.run.dir={folder / 'mlp'}")),
        train(tiny.compose(*given, "model=lenet", "trainer.limit_test_batches=1", f"hydra.run.dir={folder / 'lenet'}")),
    ]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((160, 40, 20), (-0.21601726, -0.03089632)),  # the example of diffpropci.mp in R's package PropCIs
        ((21, 7, 1), (-0.493226, -0.028514)),  # Bentur et al., 2009: by hand, -6/23 -+ 1.959964 sqrt(9 - 36/23)/23
        ((4, 0, 4), (0.167684, 1.0)),  # by hand, 4/6 -+ 1.959964 sqrt(5 - 16/6)/6, which exceeds 1
        ((10_000, 0, 0), (-1.9596e-4, 1.9596e-4)),
    ],
)
def test_interval_has_the_known_values(counts: tuple[int, int, int], expected: tuple[float, float]) -> None:
    assert PairedComparison(*counts).interval() == pytest.approx(expected, abs=1e-6)
    low, high = PairedComparison(*counts).swapped.interval()
    assert (-high, -low) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("only_first", "only_second", "expected"),
    [
        (7, 1, 2 * (1 + 8) / 2**8),
        (0, 6, 2 / 2**6),
        (0, 0, 1.0),
        (4000, 6000, 1.7404316412e-89),  # summed in integers
    ],
)
def test_p_is_the_two_sided_exact_one_of_mcnemar(only_first: int, only_second: int, expected: float) -> None:
    for counts in ((only_first, only_second), (only_second, only_first)):
        assert PairedComparison(20_000, *counts).p == pytest.approx(expected, rel=1e-9)


def test_images_that_one_network_alone_gets_right_are_counted() -> None:
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    one, other = (torch.eye(3)[classes] for classes in ([0, 1, 2, 0, 0, 0], [0, 2, 0, 0, 1, 1]))
    paired = PairedComparison.of(Predictions(labels, one), Predictions(labels, other))
    assert paired == PairedComparison(images=6, only_first=3, only_second=1)
    assert paired.difference == pytest.approx(2 / 6 - 4 / 6)


def test_runs_are_compared_on_the_whole_test_set(two: list[Run]) -> None:
    paired = compare_on_test_set(*two)
    right = []
    for run in two:
        model, data = load_trained(run)
        images, labels = data.test_set()
        right.append(model.predict(data.normalise(images)).numpy() == labels)
    assert paired == PairedComparison(57, int((right[0] > right[1]).sum()), int((right[1] > right[0]).sum()))
    assert paired.difference == pytest.approx(right[1].mean() - right[0].mean())
    assert paired.only_first + paired.only_second > 0
    assert compare_on_test_set(*reversed(two)) == paired.swapped


def test_runs_with_different_test_images_are_not_compared(two: list[Run], tmp_path: Path) -> None:
    changed = Run(shutil.copytree(two[1].folder, tmp_path / "changed"))
    for what, place in (("labels", 3), ("pixels", 2)):
        arrays = tiny_arrays()
        arrays[place][0] = 9
        other = Tiny(tmp_path / what, dict(zip(FILES, map(idx, arrays), strict=True)))
        other.write()
        config = changed.config
        config.data.root, config.data.source.sha256 = str(other.root), other.sha256
        changed.save_config(config)
        with pytest.raises(UsageError, match="different test images"):
            compare_on_test_set(two[0], changed)
