"""The states of runs as text, as Python's StrEnum has it from 3.11 on."""

import json

import pytest

from mnist_lab.runs.record import RunState


@pytest.mark.parametrize("state", list(RunState))
def test_a_state_is_written_and_shown_as_its_text(state: RunState) -> None:
    assert [str(state), f"{state}", f"{state:>11}".strip(), json.loads(json.dumps(state))] == [state.value] * 4
    assert {state.value: 1}[state] == 1
