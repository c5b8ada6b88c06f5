"""What compile=true gains in an epoch, and what compiling costs: from how many steps on it pays.

    python -m benchmarks.compiled [NETWORK ...] [--rounds 3]

Two epochs at the tutorial's settings, in eager mode and compiled, in turn, each in a process of its own and with an
empty cache of compiled code; then compiled with what the cache keeps. The first epoch contains the compiling.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from functools import partial

from benchmarks.epoch import time_epochs
from benchmarks.timing import in_turn, output_of, ratio, spread
from mnist_lab.config.compose import compose

WAYS = ("eager", "compiled", "cached")
IMAGES = 60_000


def measure(network: str, way: str) -> tuple[float, float]:
    """Seconds of the first epoch, and of the second."""
    first, second = output_of("benchmarks.compiled", network, "--only", way).split()
    return float(first), float(second)


def row(network: str, seconds: dict[str, list[tuple[float, float]]]) -> str:
    """Return a network's row of the table."""
    second = {way: [pair[1] for pair in pairs] for way, pairs in seconds.items()}
    cost = {way: statistics.median(first - usual for first, usual in seconds[way]) for way in WAYS}
    compiling = [max(cost[way] - cost["eager"], 0) for way in ("compiled", "cached")]
    steps = -(-IMAGES // compose(f"experiment={network}").data.batch_size)
    saved = (statistics.median(second["eager"]) - statistics.median(second["compiled"])) / steps
    pays = [f"{seconds / saved:,.0f}" if saved > 0 else "never" for seconds in compiling]
    cells = [spread(second["eager"]), spread(second["compiled"]), ratio(second["compiled"], second["eager"])]
    return f"| {' | '.join([network, *cells, *(f'{each:.1f}' for each in compiling), *pays])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", metavar="NETWORK", nargs="*", default=["mlp", "lenet"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        compiles = str(options.only != "eager").lower()
        print(*time_epochs("mnist_lab", options.networks[0], [f"compile={compiles}"], 2)[0])
        return
    heads = ("network", "eager, s", "compiled, s", "compiled / eager", "compiling, s", "from the cache, s")
    print(f"| {' | '.join([*heads, 'pays from steps', 'from the cache'])} |\n{'|---' * 8}|", flush=True)
    for network in options.networks:
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory() as cache:
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
                for way, values in in_turn({way: partial(measure, network, way) for way in WAYS}, 1).items():
                    found[way] += values
        print(row(network, found), flush=True)


if __name__ == "__main__":
    main()
