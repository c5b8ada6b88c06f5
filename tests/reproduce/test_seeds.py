"""--seeds names seeds."""

from __future__ import annotations

import pytest

from mnist_lab.reproduce.seeds import format_seeds, parse_seeds


@pytest.mark.parametrize(("text", "seeds"), [("1", [1]), ("3", [1, 2, 3]), ("11-13", [11, 12, 13]), ("0-1", [0, 1])])
def test_seeds_are_named_by_a_number_or_by_the_first_and_the_last(text: str, seeds: list[int]) -> None:
    assert list(parse_seeds(text)) == seeds
    assert format_seeds(seeds) == text
