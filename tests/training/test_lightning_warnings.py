"""Lightning's harmless warnings are ignored while it works, and only then: with `srun` on the path, and from Python."""

import os
from pathlib import Path

import pytest
from lab import Command, Tiny, run


@pytest.fixture
def srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program of the name srun on the path, as on the login node of a cluster."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    (folder / "srun").write_text("#!/bin/sh\nexit 1\n")
    (folder / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("srun")
def test_srun_on_the_path_causes_no_warning_in_training_and_testing(command: Command) -> None:
    """pytest makes warnings errors."""
    for arguments in (["model=mlp", "trainer.max_epochs=1"], ["test", "latest"]):
        outcome = command(*arguments, data=arguments[0] != "test")
        assert (outcome.status, outcome.err) == (0, "")
        assert "srun" not in outcome.out


@pytest.mark.slow
def test_epochs_without_validation_cause_no_warning(command: Command) -> None:
    outcome = command("model=mlp", "+trainer.check_val_every_n_epoch=2", "hydra.run.dir=runs/a/b")
    assert (outcome.status, outcome.err) == (0, "")


@pytest.mark.thorough
@pytest.mark.usefixtures("srun")
def test_parallel_sweep_succeeds_where_python_makes_warnings_errors(tiny: Tiny) -> None:
    processes = ("hydra/launcher=processes", "hydra.launcher.n_jobs=2")
    sweep = ("-m", "model=mlp", "seed=0,1", "sweep=s", "trainer.max_epochs=1")
    status, out = run(tiny, *sweep, *processes, program=("-W", "error", "-m", "mnist_lab"))
    assert status == 0, out
    assert "srun" not in out and "Warning" not in out
