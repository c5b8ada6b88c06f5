"""A run folder whose files are not what they should be is refused in one line by every command."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import Outcome

from mnist_lab.runs.record import RunState

RUN = Path("runs/a")


@pytest.mark.parametrize("name", ["config.yaml", "run.json", "metrics.csv"])
def test_folder_in_the_place_of_a_file_is_refused_in_one_line(command: Callable[..., Outcome], name: str) -> None:
    assert command("model=mlp", "trainer.max_epochs=1", f"hydra.run.dir={RUN}").status == 0
    for kept in RUN.iterdir():
        if kept.name == name:
            kept.unlink()
            kept.mkdir()
    run = str(RUN)
    readers = [("test", run), ("report", run), ("compare", run, "latest"), ("predict", run, "x.png")]
    refused = 0
    for arguments in (*readers, (f"resume={run}", "trainer.max_epochs=2")):
        outcome = command(*arguments, data=False)
        assert "Traceback" not in outcome.err and outcome.err.count("\n") <= 1 + outcome.err.count("warning")
        refused += outcome.status == 2 and name in outcome.err
    assert refused >= 2
    assert command("ls", data=False).status == 0


@pytest.mark.parametrize("state", list(RunState))
def test_a_state_is_written_and_shown_as_its_text(state: RunState) -> None:
    """As enum.StrEnum does from Python 3.11 on."""
    assert [str(state), f"{state}", f"{state:>11}".strip(), json.loads(json.dumps(state))] == [state.value] * 4
