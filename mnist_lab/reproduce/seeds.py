"""The seeds of a reproduction, as `--seeds` names them: N for 1 to N, or FIRST-LAST."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mnist_lab.errors import UsageError


def parse_seeds(text: str) -> range:
    """Return the seeds that a text names.

    Raises:
        UsageError: it names none.
    """
    found = re.fullmatch(r"(?:(\d{1,9})-)?(\d{1,9})", text)
    seeds = range(int(found[1] or 1), int(found[2]) + 1) if found else range(0)
    if not seeds:
        raise UsageError(f"--seeds={text}: must be a number from 1 on, or the first and the last seed, such as 11-20")
    return seeds


def format_seeds(seeds: Sequence[int]) -> str:
    """Return the shortest text that names these seeds, and any others between the first and the last of them."""
    first, last = min(seeds), max(seeds)
    return str(last) if first == 1 else f"{first}-{last}"
