"""Runs and sweeps of another version are read and continued; what this version does not know is ignored."""

import shutil
from pathlib import Path

import pytest
from lab import Command, Tiny, change_settings
from omegaconf import OmegaConf
from test_digits import drawn

from mnist_lab.config.keys import ADDED_KEYS
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep

RUN = Run(Path("runs/other"))
UNKNOWN = {
    "compiler": "auto",
    "notes": {"_target_": "mnist_lab.Notes"},
    "optimizer.gone": 0.5,
    "trainer.lost": {"_target_": "mnist_lab.models.MLP", "gone": 1},
}
SWEEP = ("-m", "sweep=s", "model=mlp", "optimizer.lr=0.01,0.1", "trainer.max_epochs=1")


@pytest.fixture
def other(command: Command) -> Run:
    """Make a run of another version, and a copy without the settings that this version does not know."""
    assert command("model=mlp", "trainer.max_epochs=1", "hydra.run.dir=runs/other").status == 0
    shutil.copytree(RUN.folder, "runs/plain")
    change_settings(RUN, UNKNOWN)
    theirs = ["compiler=true", "notes=long", "optimizer.gone=0.5", "+trainer.lost=1"]
    RUN.update(overrides=[*RUN.info["overrides"], *theirs])
    return RUN


def test_unknown_settings_are_ignored_by_what_reads_the_run(command: Command, other: Run) -> None:
    drawn().save("one.png")
    run = str(other.folder)
    for arguments in (
        ("test", run),
        ("report", run),
        ("predict", run, "one.png"),
        ("export", run, "--format", "state_dict"),
        ("ls",),
        ("ls", "--group", "seed"),
    ):
        outcome = command(*arguments, data=False)
        assert (outcome.status, outcome.err) == (0, ""), arguments
    for name in ("optimizer.gone", "trainer.lost"):  # Only their classes know that they are unknown.
        config = OmegaConf.load(other.config_path)
        config[name.split(".")[0]].pop(name.split(".")[1])
        OmegaConf.save(config, other.config_path)
    assert "no setting differs" in command("compare", run, "runs/plain", data=False).out


def test_resume_continues_without_unknown_settings_and_names_them_in_one_line(command: Command, other: Run) -> None:
    refused = command("resume=runs/other", "trainer.max_epochs=2", "compiler=false", data=False)
    assert (refused.status, "compiler=false: unknown setting" in refused.err) == (2, True)
    outcome = command("resume=runs/other", "trainer.max_epochs=2", data=False)
    assert outcome.status == 0, outcome.err
    (line,) = [line for line in outcome.err.splitlines() if "does not know" in line]
    assert line.endswith(": compiler, notes, optimizer.gone, trainer.lost")
    assert (other.info["status"], other.info["epochs"]) == ("finished", 2)
    assert not set(UNKNOWN) & set(other.config) and "gone" not in other.config.optimizer
    assert not [override for override in other.info["overrides"] if override.startswith(("compiler", "notes"))]


def test_run_without_a_key_that_was_added_since_has_its_default(
    command: Command, tiny: Tiny, other: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = OmegaConf.load(other.config_path)
    del config["label_smoothing"], config.optimizer["nesterov"]
    OmegaConf.save(config, other.config_path)
    monkeypatch.setitem(ADDED_KEYS, "label_smoothing", 0.0)
    monkeypatch.setitem(ADDED_KEYS, "optimizer.nesterov", False)
    assert (other.config.label_smoothing, other.config.optimizer.nesterov) == (0.0, False)
    assert command("test", "runs/other", data=False).status == 0


@pytest.mark.slow
def test_sweep_made_before_a_key_was_added_is_not_repeated(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(*SWEEP, "~optimizer.nesterov").status == 0  # It is as if conf/ did not have the key.
    sweep = Sweep(Path("runs/sweeps/s"))
    before = {job.id: job.info["started"] for job in sweep.jobs()}
    for job in sweep.jobs():
        change_settings(Run(job.folder), UNKNOWN)
    monkeypatch.setitem(ADDED_KEYS, "optimizer.nesterov", False)
    assert command(*SWEEP).status == 0
    assert {job.id: job.info["started"] for job in sweep.jobs()} == before
    assert command("report", str(sweep.folder), data=False).status == 0
    assert command(*SWEEP, "optimizer.nesterov=true").status == 0
    assert len(sweep.jobs()) == 4
