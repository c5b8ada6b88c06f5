"""Kill -9 at random moments loses nothing: the quick version of benchmarks/kills.py."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from lab import Tiny

from benchmarks.kills import killed, losses, whole
from mnist_lab.runs.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked")]


def test_killed_at_random_moments_and_resumed_a_run_loses_nothing(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = ["--config-dir", str(tiny.conf), *tiny.overrides, "model=dropout_cnn", "scheduler=onecycle"]
    settings += ["callbacks.checkpoint.every_n_train_steps=2"]
    settings[settings.index("trainer.max_epochs=2")] = "trainer.max_epochs=40"
    left_alone, seconds = whole(Path("whole"), settings)
    chance = random.Random(0)
    for number in range(10):  # a machine that has become faster may end a run before its moment comes
        kills = killed(Path(f"parts{number}"), settings, seconds, chance, most=6)
        assert losses(left_alone, Run.find("latest", f"parts{number}")) == []
        if kills:
            return
    pytest.fail("no run was killed")
