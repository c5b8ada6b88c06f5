"""--check describes what a command line would run, or what is wrong with it, and writes nothing."""

import shutil
from pathlib import Path

import pytest
from lab import Command, assert_refused


def files() -> set[Path]:
    return set(Path().rglob("*"))


def test_run_is_described_and_nothing_is_written(command: Command) -> None:
    outcome = command("model=mlp", "trainer.max_epochs=3", "seed=4", "--check")
    first, second, third = outcome.out.splitlines()
    assert (outcome.status, first) == (0, "valid: mlp, 130,058 parameters, 3 epochs, seed 4")
    assert second.startswith("run folder: runs/20") and second.endswith("-mlp")
    assert third.startswith("time: unknown")
    assert not files()


@pytest.mark.slow
def test_time_is_that_of_earlier_runs_like_it_and_a_run_to_resume_is_described(command: Command) -> None:
    assert command("model=mlp", "trainer.max_epochs=1", "dashboard=none", "hydra.run.dir=runs/a").status == 0
    shutil.copytree("runs/a", "runs/b")
    before = files()
    time = command("model=mlp", "trainer.max_epochs=100", "--check").out.splitlines()[-1]
    assert time.startswith("time: about ") and time.endswith(", by earlier runs")
    for other in ("model=lenet", "data.batch_size=7"):
        assert "time: unknown" in command("model=mlp", other, "--check").out, other
    assert "continues: runs/a, from runs/a/checkpoints/last.ckpt" in command("resume=runs/a", "--check").out
    refused = command("resume=runs/a", "seed=5", "--check")
    assert (refused.status, "seed=5: cannot change on resume" in refused.err) == (2, True)
    assert files() == before


@pytest.mark.thorough
def test_sweep_is_described_with_what_is_done_already(command: Command) -> None:
    given = ("-m", "sweep=s", "model=mlp", "optimizer.lr=0.01,0.1", "trainer.max_epochs=1", "dashboard=none")
    assert command(*given).status == 0
    before = files()
    outcome = command(*given, "seed=0,1,2", "--check")
    _, second, third, last = outcome.out.splitlines()
    assert second == "6 jobs over optimizer.lr, seed; 2 finished" and third == "sweep folder: runs/sweeps/s"
    assert last.endswith(" for all jobs, one after the other, by earlier runs")
    assert files() == before


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("-m optimizer.lr=0.1,-1", "optimizer.lr=-1: "),
        ("+trainer.max_time=abc", "trainer.max_time=abc: "),
        ("data=qmnist data.download=false data.root=none", "data.download=false, but QMNIST is incomplete: "),
    ],
)
def test_what_would_not_run_ends_in_2_with_the_reason(command: Command, line: str, reason: str) -> None:
    assert_refused(command(*line.split(), "--check", data=False), reason)
    assert not files()
