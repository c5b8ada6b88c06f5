"""The range test suggests rates at which the loss falls, and changes nothing."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from lab import Command, Tiny, assert_refused

from mnist_lab.errors import UsageError
from mnist_lab.training.lr_range import RangeTest, longest_fall, range_test


def test_steepest_descent_and_valley_are_found() -> None:
    """The loss is smooth: it falls from 2 to 1, fastest at a rate of 0.1, and rises again at much higher rates."""
    rates: np.ndarray = np.geomspace(1e-5, 10, 300)
    x = np.log10(rates / 0.1)
    losses = 2 - 1 / (1 + np.exp(-4 * x)) + np.where(x > 1.5, (x - 1.5) ** 2, 0)
    test = RangeTest(rates.tolist(), losses.tolist())
    assert test.steepest == pytest.approx(0.1, rel=0.06)
    fall = [test.rates[i] for i in longest_fall(test.smoothed)]
    assert test.valley in test.rates and fall[0] < test.valley < fall[-1]


def test_longest_fall_is_as_long_as_the_best_of_all_subsequences() -> None:
    values = [random.Random(i).randrange(20) for i in range(12)]
    places = longest_fall([float(value) for value in values])
    chosen = [values[i] for i in places]
    assert places == sorted(places) and chosen == sorted(set(chosen), reverse=True)
    subsequences = ([value for i, value in enumerate(values) if mask >> i & 1] for mask in range(1, 2**12))
    falls = (chosen for chosen in subsequences if chosen == sorted(set(chosen), reverse=True))
    assert len(places) == max(map(len, falls))


def test_same_seed_gives_the_same_rates_and_rates_grow_evenly(tiny: Tiny) -> None:
    cfg = tiny.compose("model=dropout_cnn", "data.batch_size=16")
    first, second = (range_test(cfg, 1e-4, 1, 60) for _ in range(2))
    assert first == second
    ratios = np.diff(np.log(first.rates))
    assert np.allclose(ratios, math.log(1e4) / 59)
    assert first.rates[0] == pytest.approx(1e-4) and len(first.losses) == len(first.smoothed)
    assert {first.steepest, first.valley} <= set(first.rates)


def test_command_prints_two_rates_and_writes_nothing_but_the_figure(tiny: Tiny, command: Command) -> None:
    conf = ("--config-dir", str(tiny.conf))
    options = (*conf, "--steps", "60", "--lowest", "0.001", "--highest", "1", "--out", "lr.png")
    outcome = command("lr", "data=tiny", "model=mlp", *options, data=False)
    assert outcome.status == 0, outcome.err
    first, second, third, last = outcome.out.splitlines()
    rate = second.removeprefix("valley: ")
    assert first.startswith("steepest descent: ")
    assert third.endswith(f"python -m mnist_lab {' '.join(conf)} data=tiny model=mlp optimizer.lr={rate}")
    assert last == "figure: lr.png" and Path("lr.png").stat().st_size > 5000
    assert [path.name for path in Path().iterdir()] == ["lr.png"]
    values = json.loads(command("lr", "data=tiny", "model=mlp", *options[:-2], "--json", data=False).out)
    assert f"{values['valley']:.2g}" == rate and len(values["lr"]) == len(values["loss"]) > 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "39"], "--steps=39: "),
        (["--lowest", "0"], "--lowest=0 "),
        (["--lowest", "20"], "--lowest=20 "),
        (["--highest", "inf"], "--lowest=1e-05 --highest=inf: "),
        (["optimizer.momentum=2"], "optimizer.momentum=2: "),
        (["optimizer.lr=0.1,0.2"], "optimizer.lr=0.1,0.2: several values"),
        (["--out", "lr.xyz"], "--out=lr.xyz: "),
    ],
)
def test_wrong_argument_is_refused(tiny: Tiny, command: Command, arguments: list[str], message: str) -> None:
    outcome = command("lr", "--config-dir", str(tiny.conf), "data=tiny", *arguments, data=False)
    assert_refused(outcome, message)


def test_loss_that_diverges_at_once_is_an_error(tiny: Tiny) -> None:
    with pytest.raises(UsageError, match=r"the loss diverges after \d+ steps; begin with a lower rate"):
        range_test(tiny.compose("model=mlp", "optimizer.momentum=0.99"), 1e3, 1e6, 200)
