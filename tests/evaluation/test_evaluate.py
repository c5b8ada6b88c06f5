"""`test RUN`: settings may be changed if they are valid; the process is as it was in training."""

from pathlib import Path

import pytest
import torch
from lab import Command, assert_refused

from mnist_lab.evaluation.evaluate import evaluate
from mnist_lab.models.mlp import MLP
from mnist_lab.runs.run import Run


def test_changed_setting_that_is_not_valid_is_refused_in_one_line(command: Command) -> None:
    command("model=mlp", "trainer.max_epochs=0", "hydra.run.dir=runs/a/b")
    for override, words in (
        ("data.eval_batchsize=7", "did you mean data.eval_batch_size?"),
        ("data.eval_batch_size=0", "greater than or equal to 1"),
        ("data.eval_batch_size=[1", "KEY=VALUE"),
        ("data.eval_batch_size=1,2", "one by one"),
        ("trainer.limit_test_batches=0.01", "less than one of the 3 batches"),
    ):
        assert_refused(command("test", "runs/a/b", override, data=False), f"{override}: ", words)


@pytest.mark.slow
def test_run_is_tested_on_its_own_number_of_threads(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    before, threads, test_step = torch.get_num_threads(), list[int](), MLP.test_step
    monkeypatch.setattr(MLP, "test_step", lambda *args: threads.append(torch.get_num_threads()) or test_step(*args))
    assert command("model=mlp", "trainer.max_epochs=1", f"threads={before + 1}", "hydra.run.dir=runs/a/b").status == 0
    evaluate(Run(Path("runs/a/b")))
    assert set(threads) == {before + 1} and len(threads) == 6
    assert torch.get_num_threads() == before
