"""A run that was stopped at any step and resumed ends as the one that was not, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Outcome
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lab.runs import Run

Command = Callable[..., Outcome]


class StopAt(Callback):
    """Ctrl-C within a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step - 1:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)


def content(run: Run, name: str) -> dict[str, Any]:
    path = run.checkpoint(name)
    assert path is not None
    return torch.load(path, weights_only=True)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def rows(run: Run) -> list[dict[str, float]]:
    return [{name: row[name] for name in row if name != "images_per_second"} for row in run.metrics()]


@pytest.mark.parametrize("step", [1, 5, 11, 12, 13, 23, 24])
@pytest.mark.parametrize(
    "settings",
    [
        ("model=dropout_cnn", "scheduler=onecycle"),
        ("model=mlp", "scheduler=step", "scheduler.step_size=1"),
    ],
    ids=["dropout_cnn onecycle", "mlp step"],
)
def test_stopped_at_any_step_and_resumed_it_ends_bit_for_bit_the_same(
    command: Command, settings: tuple[str, ...], step: int
) -> None:
    arguments = (*settings, "trainer.max_epochs=3")
    assert command(*arguments, "hydra.run.dir=runs/a/whole").status == 0
    stop = f"+callbacks.stop={{_target_: test_resume.StopAt, step: {step}}}"
    stopped = command(*arguments, "hydra.run.dir=runs/a/parts", stop)
    assert stopped.status == 130, stopped.err
    parts, whole = Run(Path("runs/a/parts")), Run(Path("runs/a/whole"))
    assert parts.info["steps"] == step
    resumed = command("resume=runs/a/parts", "~callbacks.stop", data=False)
    assert resumed.status == 0, resumed.err
    for name in ("last", "best"):
        one, other = content(whole, name), content(parts, name)
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
            assert same(one[part], other[part]), (name, part)
    assert rows(whole) == rows(parts)
    assert whole.info["metrics"] == parts.info["metrics"]
    assert whole.info["tested"] == parts.info["tested"]
