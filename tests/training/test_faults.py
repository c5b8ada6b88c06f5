"""What the machine and the data may do to a run: each fault through the command line, its exit status and its line."""

import os
import shutil
import subprocess
import sys
import tempfile
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import torch
from lab import Command, Mirror, Outcome, Tiny, disk_full, thorough
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lab.data import mnist_files
from mnist_lab.models.mlp import MLP
from mnist_lab.runs.run import Run

RUN = Path("runs/a/b")


class Hungry(MLP):
    """Wants more memory than there is for the last batch of an epoch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) not in (1, 16):
            torch.empty(2**60, dtype=torch.uint8)
        scores: torch.Tensor = super().forward(x)
        return scores


class Full(Callback):
    """A GPU whose memory is full at the second epoch."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has ...")


class RemovesRun(Callback):
    """A person who removes the run folder in the second epoch."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            shutil.rmtree(RUN)


def one_line(outcome: Outcome, status: int, *parts: str) -> None:
    """The outcome is this exit status and one line on stderr with these parts."""
    assert outcome.status == status, outcome.err
    assert outcome.err.startswith("mnist_lab: ") and outcome.err.count("\n") == 1, outcome.err
    assert all(part in outcome.err for part in parts), outcome.err


def test_data_that_no_mirror_gives_end_in_1_with_what_to_do_by_hand(
    command: Command, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(handler: BaseHTTPRequestHandler, number: int) -> bool:
        handler.send_error(403)
        return True

    mirror.behave = fail
    monkeypatch.setattr(mnist_files, "PAUSE", 0.01)
    outcome = command(f"data.source.mirrors=[{mirror.address}]", "data.root=new")
    assert outcome.status == 1
    assert str(Path("new/Tiny/raw").absolute()) in outcome.err
    assert mirror.address in outcome.err and "403" in outcome.err
    assert not Path("runs").exists()


@pytest.mark.slow
def test_full_temporary_folder_has_no_effect(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mkstemp", "mkdtemp", "NamedTemporaryFile", "TemporaryFile", "SpooledTemporaryFile"):
        monkeypatch.setattr(tempfile, name, disk_full)
    assert command("model=mlp", f"hydra.run.dir={RUN}", "figures=true").status == 0
    assert command(f"resume={RUN}", "trainer.max_epochs=3", data=False).status == 0


def in_a_small_file_system(tiny: Tiny, kilobytes: int) -> subprocess.CompletedProcess[str]:
    """A run whose folder lies in a real file system that is nearly full, mounted for it alone."""
    place = tiny.folder / "small"
    place.mkdir(exist_ok=True)
    arguments = ["--config-dir", str(tiny.conf), *tiny.overrides, "model=mlp", "hydra.run.dir=small/run"]
    program = (
        f"mount -t tmpfs -o size={kilobytes}k none small && {sys.executable} -m mnist_lab {' '.join(arguments)}; "
        "status=$?; cp -r small kept; exit $status"
    )
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", program],
        cwd=tiny.folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def can_mount() -> bool:
    try:
        tried = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
        return subprocess.run(tried, capture_output=True, timeout=20, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="a file system cannot be mounted here")
@pytest.mark.parametrize(
    ("kilobytes", "status", "told", "left"),
    [
        (4, 2, "hydra.run.dir=", set()),  # not even for the run's own record
        *thorough((600, 1, "checkpoints/best.ckpt", set())),
        (2500, 1, "checkpoints/best.ckpt", {"best.ckpt", "last.ckpt"}),  # the second epoch's
    ],
)
def test_disk_that_is_full_leaves_the_checkpoints_before_whole_and_no_litter(
    tiny: Tiny, kilobytes: int, status: int, told: str, left: set[str]
) -> None:
    done = in_a_small_file_system(tiny, kilobytes)
    one_line(Outcome(done.returncode, done.stdout, done.stderr), status, told, "No space left on device")
    kept = tiny.folder / "kept" / "run"
    assert not list(kept.rglob("*.partial"))
    assert {path.name for path in kept.rglob("*.ckpt")} == left
    for path in kept.rglob("*.ckpt"):
        assert torch.load(path, weights_only=True)["epoch"] == 0
    if status == 1:
        assert Run(kept).info["status"] == "failed"
    else:
        assert not kept.exists()


def test_out_of_memory_suggests_smaller_batches(command: Command) -> None:
    outcome = command("model=mlp", f"hydra.run.dir={RUN}", "+callbacks.full._target_=test_faults.Full")
    one_line(outcome, 1, "data.batch_size=16: out of memory; try data.batch_size=8", "data.eval_batch_size=12")
    assert Run(RUN).info["status"] == "failed" and Run(RUN).info["epochs"] == 1
    assert "Tried to allocate" in Run(RUN).info["error"]
    outcome = command("model=mlp", "model._target_=test_faults.Hungry")
    one_line(outcome, 1, "data.batch_size=16: out of memory; try data.batch_size=8", "DefaultCPUAllocator")


def test_logger_that_is_not_installed_is_reported_with_the_pip_line(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning.pytorch.loggers import wandb

    monkeypatch.setattr(wandb, "_WANDB_AVAILABLE", wandb.RequirementCache("wandb>=9999"))
    outcome = command("+logger.wandb._target_=lightning.pytorch.loggers.WandbLogger")
    one_line(outcome, 2, "logger.wandb: needs a package that is not installed: pip install 'wandb>=9999'")
    assert not Path("runs").exists()


@pytest.mark.slow
def test_truncated_curves_leave_the_rest_to_be_read_and_resumed(command: Command) -> None:
    command("model=mlp", f"hydra.run.dir={RUN}")
    rows = Run(RUN).metrics()
    path = RUN / "metrics.csv"
    whole = path.read_text()
    path.write_text(whole[:-7])
    assert Run(RUN).metrics() == rows[:-1], "a number that is cut is not taken for a number"
    head, first, *rest = whole.splitlines(keepends=True)
    path.write_text("".join([head, first.replace(".", "\0garbage"), *rest]))
    assert Run(RUN).metrics() == rows[1:]
    for events in RUN.glob("events.*"):
        content = events.read_bytes()
        events.write_bytes(content[: len(content) // 2] + b"\xff" * 9 + content[len(content) // 2 + 9 :])
    outcome = command(f"resume={RUN}", "trainer.max_epochs=3", data=False)
    assert outcome.status == 0
    (warning,) = outcome.err.splitlines()
    assert f"{path}: changed since step 24 was saved; curves may have gaps" in warning
    assert [row["epoch"] for row in Run(RUN).epochs()] == [0, 1, 2]


def test_run_whose_folder_is_removed_ends_in_1_and_one_line(command: Command) -> None:
    removes = "+callbacks.removes._target_=test_faults.RemovesRun"
    one_line(command("model=mlp", f"hydra.run.dir={RUN}", removes), 1, f"{RUN}: the run folder was removed during")
    assert not RUN.exists()


def test_current_folder_that_was_removed_or_that_hydra_misreads_is_refused_in_one_line(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    misread = tmp_path / "${x}"
    misread.mkdir()
    monkeypatch.chdir(misread)
    one_line(command("model=mlp"), 2, f"{misread}: Hydra reads ${{...}} in this folder's name as a setting; rename it")
    misread.rmdir()
    one_line(command("ls", data=False), 2, "the current folder was removed; change to another one")
