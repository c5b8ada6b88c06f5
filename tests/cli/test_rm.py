"""What rm removes can be restored, and what is needed is not removed without --force."""

from pathlib import Path

import pytest
from lab import Command, Tiny, assert_refused
from test_archive import content
from test_ls import fake, fake_runs, names

from mnist_lab.runs.locks import run_lock

EMPTY = "the trash of runs is empty; --runs-dir names another folder of runs\n"


@pytest.fixture
def lab(tiny: Tiny, lab: Command) -> Command:
    """Make some runs, and return the command without the tiny data's settings."""
    fake_runs()
    return lab


@pytest.mark.parametrize("name", ["a", "sweeps/s"])
def test_removed_folder_is_gone_from_every_list_and_comes_back_as_it_was(lab: Command, name: str) -> None:
    folder = Path("runs") / name
    before, listed = content(folder), names(lab("ls"))
    outcome = lab("rm", str(folder))
    command = f"python -m mnist_lab restore {folder.name}"
    assert (outcome.status, outcome.out) == (0, f"removed: {folder}\nto restore it: {command}\n")
    assert not folder.exists() and len(names(lab("ls"))) == 2
    assert lab("restore").out.splitlines()[1].endswith(f"  {folder}")
    assert lab("restore", folder.name).out == f"restored: {folder}\n"
    assert (content(folder), names(lab("ls"))) == (before, listed)
    assert lab("restore").out == EMPTY


def test_condition_names_what_to_remove(lab: Command) -> None:
    assert lab("rm", "a", "--where", "status == failed").status == 2, "a has not failed"
    assert lab("rm", "--where", "status == failed").out.startswith("removed: runs/b\n")
    assert names(lab("ls")) == ["a", "lr=0.1-0123456789ab"]


def test_same_name_can_be_removed_again_and_an_existing_run_is_not_overwritten(lab: Command) -> None:
    lab("rm", "a")
    fake("a", 5, seed=7)
    assert lab("restore", "a").status == 2, "runs/a exists again"
    assert lab("rm", "runs/a").status == 0
    twice = lab("restore", "runs/a")
    assert (twice.status, "2 in the trash of runs" in twice.err) == (2, True)


def test_trash_is_emptied_only_on_request(lab: Command) -> None:
    lab("rm", "a", "b")
    assert lab("rm", "--empty-trash").out == "deleted for good: 2 folders\n"
    assert lab("restore").out == EMPTY and not Path("runs/.trash").exists()
    assert lab("restore", "a").err.startswith("mnist_lab: a: nothing in the trash of runs (--runs-dir names another")


@pytest.mark.parametrize("place", ["runs/b", "runs/sweeps/s", "runs/sweeps/s/lr=0.1-0123456789ab"])
def test_nothing_is_removed_if_one_of_the_folders_is_in_use(lab: Command, place: str) -> None:
    target = "runs/sweeps/s" if "sweeps" in place else place
    with run_lock(Path(place)):
        outcome = lab("rm", "runs/a", target)
        assert_refused(outcome, f"{target}: is in use by process ", "--force removes it all the same")
        assert Path("runs/a").exists() and Path(target).exists()


def test_job_that_its_sweep_would_run_again_is_removed_by_force(lab: Command) -> None:
    assert lab("rm", "0123456789ab", "--force").status == 0
    assert names(lab("ls")) == ["a", "b"]


def test_run_in_another_folder_is_restored_by_the_printed_command(lab: Command) -> None:
    Path("runs").rename("others")
    _, command = lab("rm", "others/a", "--runs-dir", "others").out.splitlines()
    assert command.endswith("restore a --runs-dir others")
    _, command = lab("rm", "others/b").out.splitlines()
    before = sorted(Path("others").glob(".trash/*"))
    assert len(before) == 2 and lab("restore", "b", *command.split()[-2:]).status == 0
    assert Path("others/b/run.json").exists() and not Path("others/a").exists()
