"""What goes wrong in a run ends it in one line, with the last good checkpoint kept and named."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lab import Command, same, thorough, weights
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lab.models.classifier import Classifier
from mnist_lab.runs.run import Run

RUN = Path("runs/a/b")


class Poison(Callback):
    """NaN or infinite pixels at one step."""

    def __init__(self, step: int, value: float) -> None:
        self.step, self.value = step, value

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            batch[0][:] = self.value


@pytest.mark.parametrize(("value", "every"), [("nan", True), ("inf", False)], ids=["every loss is read", "as on a GPU"])
def test_loss_that_is_not_finite_stops_the_run_before_it_touches_the_weights(
    command: Command, monkeypatch: pytest.MonkeyPatch, value: str, every: bool
) -> None:
    monkeypatch.setattr(Classifier, "reads_every_loss", every)
    poison = f"+callbacks.poison={{_target_: test_failures.Poison, step: 17, value: {value}}}"
    outcome = command("model=mlp", "trainer.max_epochs=3", "optimizer.momentum=0", f"hydra.run.dir={RUN}", poison)
    assert outcome.status == 1
    assert outcome.err.count("\n") == 1
    seen = 17 if every else 19  # trainer.log_every_n_steps=4: the twentieth step is the next that is looked at
    assert f"epoch 2, step {seen + (not every)}: the training loss is nan" in outcome.err
    assert f"the last good checkpoint is {(RUN / 'checkpoints' / 'last.ckpt').absolute()}" in outcome.err
    run = Run(RUN)
    assert run.info["status"] == "failed" and "the training loss is nan" in run.info["error"]
    assert run.info["epochs"] == 1
    for name in ("last.ckpt", "best.ckpt"):
        assert all(tensor.isfinite().all() for tensor in weights(run.folder / "checkpoints" / name).values())
    assert command(f"resume={RUN}", "~callbacks.poison", data=False).status == 0
    assert Run(RUN).info["epochs"] == 3


class Infinite(Callback):
    """Weights that a step has made infinite."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == 24:
            torch.nn.init.constant_(next(pl_module.parameters()), float("inf"))


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ("data.val_size=40", "epoch 2, step 24: the validation loss is nan; the last good checkpoint is "),
        ("data.val_size=0", "epoch 2, step 24: a step has made the weights NaN or infinite, and they were not saved; "),
    ],
)
def test_weights_that_are_not_finite_are_not_saved(command: Command, extra: str, told: str) -> None:
    limits = ("trainer.limit_train_batches=12", "model=mlp", f"hydra.run.dir={RUN}")
    outcome = command(*limits, extra, "+callbacks.infinite._target_=test_failures.Infinite")
    assert (outcome.status, outcome.err.count("\n")) == (1, 1)
    assert told in outcome.err and outcome.err.endswith("try a smaller optimizer.lr\n")
    assert (Run(RUN).info["status"], Run(RUN).info["epochs"]) == ("failed", 1)
    for path in RUN.rglob("*.ckpt"):
        assert all(tensor.isfinite().all() for tensor in weights(path).values())


def test_weights_stand_still_on_a_gpu_until_a_bad_loss_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Classifier, "reads_every_loss", False)
    from mnist_lab.models.mlp import MLP

    model = MLP()
    model.bad_loss = torch.tensor(float("nan"))
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    model.on_before_optimizer_step(torch.optim.SGD(model.parameters()))
    assert all((parameter.grad == 0).all() for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("how", ["truncated", *thorough("flipped", "empty")])
def test_corrupt_last_checkpoint_falls_back_to_the_newest_good_one(command: Command, how: str) -> None:
    arguments = ("model=mlp", "trainer.max_epochs=2")
    assert command(*arguments, f"hydra.run.dir={RUN}").status == 0
    last = RUN / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= how == "flipped"
    last.write_bytes(content if how == "flipped" else content[: 5000 if how == "truncated" else 0])
    outcome = command(f"resume={RUN}", "trainer.max_epochs=3", data=False)
    assert outcome.status == 0, outcome.err
    best = last.with_name("best.ckpt")
    assert f"{last} is corrupt" in outcome.err and str(best) in outcome.err and outcome.err.count("\n") == 1
    assert command(*arguments[:1], "trainer.max_epochs=3", "hydra.run.dir=runs/a/whole").status == 0
    assert same(weights(last), weights(Path("runs/a/whole/checkpoints/last.ckpt")))


def test_corrupt_checkpoint_that_is_named_is_refused_with_the_good_one(command: Command) -> None:
    command("model=mlp", f"hydra.run.dir={RUN}")
    last, best = (RUN / "checkpoints" / name for name in ("last.ckpt", "best.ckpt"))
    last.write_bytes(b"")
    outcome = command(f"resume={last}", "trainer.max_epochs=3", data=False)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert f"resume={last}: corrupt, or not a checkpoint; the newest good one is " in outcome.err
    assert str(best) in outcome.err
    best.write_bytes(b"")
    outcome = command(f"resume={RUN}", "trainer.max_epochs=3", data=False)
    assert outcome.status == 2
    assert "the run has no good one; start it anew: python -m mnist_lab" in outcome.err


@pytest.mark.slow
def test_auto_starts_anew_continues_and_says_when_all_epochs_are_trained(command: Command) -> None:
    assert command("model=mlp", "resume=auto", "trainer.max_epochs=1").status == 0
    assert command("model=mlp", "resume=auto", "trainer.max_epochs=2").status == 0
    (path,) = Path("runs").rglob("run.json")
    assert Run(path.parent).info["epochs"] == 2
    assert "already trained for 2 epochs" in command("model=mlp", "resume=auto").out
    assert command("resume=latest", "runs_dir=elsewhere", data=False).status == 2
