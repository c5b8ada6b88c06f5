"""--where selects the runs for which a condition holds, and refuses other texts."""

import pytest

from mnist_lab.errors import UsageError
from mnist_lab.runs.query import Condition

RUN = {
    "test/acc": 0.985,
    "model": "lenet",
    "tag": ["keep", "for the talk"],
    "date": "2026-11-21T13:05",
    "optimizer.lr": 0.01,
    "data.download": True,
    "val/loss": None,
    "epochs": 5,
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("test/acc >= 98.5%", True),
        ("model == 'lenet' and epochs == 5", True),
        ("model == mlp or epochs < 6", True),
        ("model == mlp or epochs > 5 and model == lenet", False),
        ("model == mlp or (epochs > 5 or optimizer.lr <= 1e-2)", True),
        ("not model == mlp and not (epochs == 4)", True),
        ('tag == "for the talk"', True),
        ("tag == talk", False),
        ("tag != keep", False),
        ("tag > a", False),
        ("date < 2026-11-21", False),
        ("date > 2026-11-21", False),
        ("date == 2026-11-21 and date == 2026 and date >= 2026-11", True),
        ("data.download == true", True),
        ("data.download == True", True),
        ("data.download != FALSE", True),
        ("optimizer.lr < .5 and optimizer.lr == 1E-2", True),
        ('date > "2026-11-21 13:00"', True),
        ("val/loss == None", True),
        ("val/loss < 1", False),
        ("val/loss != 1", True),
        ("val/loss == null", True),
        ("val/loss < null", False),
        ("model >= null", False),
    ],
)
def test_condition_holds(text: str, holds: bool) -> None:
    assert Condition.parse(text).holds(RUN) is holds


@pytest.mark.parametrize(
    "text",
    [
        *("", "model = lenet", "model == lenet epochs == 3", "tag == for the talk", "(model == lenet", "model == 'x"),
        *("(" * 3000 + "model == lenet" + ")" * 3000, "not " * 9000 + "a == b"),
        *("__import__('os').system('x')", "model (epochs = 3)", "0 < epochs < 3", "()", "model", "not model", "\\ #"),
    ],
)
def test_text_without_a_condition_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Condition.parse(text)
    message = str(caught.value)
    assert message.startswith("--where=") and "not a condition" in message and "\n" not in message
    assert len(message) < 400


def test_condition_may_be_long_and_nested_within_reason() -> None:
    assert Condition.parse(" or ".join(["(model == mlp)"] * 500 + ["(" * 40 + "epochs == 5" + ")" * 40])).holds(RUN)


@pytest.mark.parametrize(
    "text",
    [
        *("test/acc > 0,985", "val/loss < 0,3", "epochs == True", "model == lenet or not test/acc < 98,5%"),
        *("data.download == yes", "data.download >= false", "date > 21.11.2026", "tag < keep", "betas == 0,9"),
    ],
)
def test_value_of_another_type_than_the_column_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Condition.parse(text).require_fit([RUN | {"betas": [0.9, 0.999]}, {}])
    message = str(caught.value)
    assert message.startswith("--where=") and " makes no sense" in message and "\n" not in message


@pytest.mark.parametrize(
    ("text", "selected"), [("devices == 2", [2]), ("devices != auto", [2, None]), ("devices == auto", ["auto"])]
)
def test_column_of_several_types_takes_values_of_each(text: str, selected: list[object]) -> None:
    rows, condition = [{"devices": value} for value in (2, "auto", None)], Condition.parse(text)
    condition.require_fit(rows)
    assert [row["devices"] for row in rows if condition.holds(row)] == selected
