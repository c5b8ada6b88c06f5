"""Runs have tags and notes, and are found by these and by their results."""

import json
from pathlib import Path

import pytest
from lab import Command, Tiny
from test_ls import fake, names


@pytest.fixture
def runs(tiny: Tiny, lab: Command) -> Command:
    """Make runs, a of lenet, b and c of mlp, d failed, and return the command without the tiny data's settings."""
    fake("a", 1, model="lenet", metrics={"test/acc": 0.98, "val/acc": 0.97})
    fake("b", 2, metrics={"test/acc": 0.95, "val/acc": 0.96})
    fake("sweeps/s/c", 3, metrics={"test/acc": 0.90, "val/acc": 0.91})
    fake("d", 4, status="failed", metrics={})
    return lab


def tags(name: str) -> list[str]:
    found: list[str] = json.loads((Path("runs") / name / "annotations.json").read_text())["tags"]
    return found


def test_tags_are_added_shown_and_removed(runs: Command) -> None:
    assert runs("tag", "runs/a", "keep", "talk-1").out == "runs/a: keep talk-1\n"
    assert runs("tag", "a", "keep", "good").out == "runs/a: keep talk-1 good\n"
    assert runs("tag", "a", "keep", "--remove").out == "runs/a: talk-1 good\n"
    assert runs("tag", "a").out == "runs/a: talk-1 good\n"
    assert runs("tag", "b").out == "runs/b: no tag\n"
    head, first, second, *_ = runs("ls").out.splitlines()
    assert head.split()[6:] == ["tags", "overrides", "run"] and " talk-1 good " in first and "talk" not in second


def test_folder_or_a_condition_names_several_runs(runs: Command) -> None:
    assert runs("tag", "runs/sweeps", "swept").out == "runs/sweeps/s/c: swept\n"
    outcome = runs("tag", "--where", "test/acc > 94% or status == failed", "seen", "x")
    assert outcome.out == "runs/a: seen x\nruns/b: seen x\nruns/d: seen x\n"
    assert names(runs("ls", "--where", "tag == seen and not status == failed")) == ["a", "b"]
    assert names(runs("ls", "--where", "tag == swept or model == lenet")) == ["a", "c"]


def test_note_stays_with_the_run(runs: Command) -> None:
    assert runs("note", "a", "the one", "for the talk").out == "runs/a: the one for the talk\n"
    assert runs("tag", "a", "keep").status == 0
    assert runs("note", "a").out == "runs/a: the one for the talk\n"
    assert runs("ls", "--columns", "run,note,val/acc", "--where", "note != null").out.splitlines() == [
        "run     note                  val/acc",
        "runs/a  the one for the talk   97.00%",
    ]
    assert (runs("note", "a", "").out, tags("a")) == ("runs/a: no note\n", ["keep"])


def test_programs_get_the_columns_that_they_ask_for(runs: Command) -> None:
    runs("tag", "a", "keep")
    rows = json.loads(runs("ls", "--json", "--columns", "run,tags,note", "--where", "val/acc > 0.95").out)
    assert rows == [
        {"run": "runs/a", "tags": ["keep"], "note": None},
        {"run": "runs/b", "tags": [], "note": None},
    ]


def test_damaged_annotations_are_reported_and_replaced(runs: Command) -> None:
    path = Path("runs/a/annotations.json")
    path.write_text('{"tags": 3}')
    outcome = runs("ls")
    assert names(outcome) == ["a", "b", "c", "d"]
    assert outcome.err.startswith("mnist_lab: warning: runs/a/annotations.json: corrupt, or not tags and a note")
    runs("tag", "a", "keep")
    assert tags("a") == ["keep"]
