"""A checkpoint is written whole or not at all; a bad one is reported by its file's name, and never loaded or run."""

import copy
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lab import Command, assert_refused

from mnist_lab.errors import UsageError
from mnist_lab.models.lenet import LeNet
from mnist_lab.models.mlp import MLP
from mnist_lab.runs.checkpoints import SafeCheckpointIO, load_weights, read_checkpoint
from mnist_lab.runs.run import Run


class Evil:
    """An object whose pickle calls a function."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("evil_was_here",)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "saved.ckpt"
    SafeCheckpointIO().save_checkpoint({"state_dict": MLP().state_dict(), "architecture": "MLP"}, path)
    return path


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "flipped bit":
        content[len(content) // 2] ^= 1
    if how == "evil":
        torch.save({"state_dict": Evil()}, path)
    else:
        path.write_bytes(content[:5000] if how == "truncated" else content)


@pytest.mark.slow
def test_bad_checkpoint_is_reported_in_one_line_and_nothing_is_left(command: Command, saved: Path) -> None:
    whole = saved.read_bytes()
    run = Path("runs/a/b").absolute()
    assert command("model=mlp", "trainer.max_epochs=1", f"hydra.run.dir={run}").status == 0
    before = sorted(Path().rglob("*"))
    for how in ("truncated", "flipped bit", "evil"):
        for key, path in (("init_from", saved), ("resume", run / "checkpoints/last.ckpt")):
            path.write_bytes(whole)
            damage(path, how)
            outcome = command("model=mlp", f"{key}={path}")
            assert_refused(outcome, f"{key}={path}: ", "unsafe" if how == "evil" else "corrupt")
    assert sorted(Path().rglob("*")) == before


def test_weights_of_another_network_are_refused_by_the_networks_names(saved: Path) -> None:
    with pytest.raises(UsageError, match=r"saved\.ckpt: holds weights of MLP, not of LeNet; choose model="):
        load_weights(LeNet(), saved)


def test_state_dict_of_a_tutorial_loads_in_the_format_of_its_time(tmp_path: Path) -> None:
    state = LeNet().state_dict()
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    loaded = load_weights(LeNet(), tmp_path / "old.pth")
    assert all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.mark.parametrize("kind", ["zip", "old", "both"])
def test_pickle_of_more_objects_than_a_checkpoint_has_is_not_loaded(tmp_path: Path, kind: str) -> None:
    """The pickle makes two million sets: in a ZIP file, as torch 1.5 saved it, or as both."""
    pickled, path = b"\x80\x02(" + b"\x8f" * 2_000_000 + b"l.", tmp_path / "x.ckpt"
    path.write_bytes(pickled if kind != "zip" else b"")
    if kind != "old":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("x/DATA.pkl", pickled if kind == "zip" else b"")
    before = time.process_time()
    with pytest.raises(UsageError, match="corrupt, or not a checkpoint"):
        read_checkpoint(path)
    assert time.process_time() - before < 2


@pytest.mark.parametrize("numbers", [torch.zeros(1), torch.zeros(700, 90)], ids=["one", "tied"])
def test_tensors_of_more_numbers_than_their_file_fit_no_network(tmp_path: Path, numbers: torch.Tensor) -> None:
    torch.save({str(place): numbers.expand(700, 90) for place in range(9)}, tmp_path / "x.ckpt")
    with pytest.raises(UsageError, match="its tensors share their numbers"):
        load_weights(LeNet(), tmp_path / "x.ckpt")


def test_compressed_checkpoint_is_refused_before_it_is_decompressed(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive, zipfile.ZipFile(saved.with_name("bomb"), "w", zipfile.ZIP_DEFLATED) as bomb:
        for member in archive.namelist():
            bomb.writestr(member, archive.read(member))
        bomb.writestr("archive/data/zeros", bytes(10_000_000))
    with pytest.raises(UsageError, match="corrupt"):
        read_checkpoint(saved.with_name("bomb"))


@pytest.mark.parametrize(
    "value",
    [torch.zeros(128, 784, device="meta"), torch.zeros(128, 784).to_sparse(), torch.zeros(128, 784).cfloat(), None],
    ids=["meta", "sparse", "complex", "None"],
)
def test_weights_that_are_no_dense_tensor_of_real_numbers_are_refused(saved: Path, value: torch.Tensor | None) -> None:
    torch.save({"state_dict": MLP().state_dict() | {"0.weight": value}}, saved)
    with pytest.raises(UsageError, match=r"its 0\.weight is not an ordinary tensor") as caught:
        load_weights(MLP(), saved)
    assert "\n" not in str(caught.value)


class SpareLayer(MLP):
    """A network with a layer that the forward pass does not use, so the optimizer has no state for it."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = torch.nn.Linear(2, 2)


def change(whole: dict[str, Any], place: str, value: object) -> dict[str, Any]:
    """Copy a checkpoint with another value at a place, given by keys and spaces; DROP removes the value."""
    changed = copy.deepcopy(whole)
    *keys, last = [int(key) if key.isdigit() else key for key in place.split()]
    node: Any = changed
    for key in keys:
        node = node[key]
    if value is DROP:
        del node[last]
    else:
        node[last] = value
    return changed


DROP = object()
UNFIT = {  # The check of the optimizer and the scheduler refuses these.
    "optimizer_states 0 param_groups 0 lr": DROP,
    "optimizer_states 0 state 0 exp_avg": torch.zeros(3),
    "lr_schedulers": [],
    "global_step": "x",
}
REFUSED = {  # Lightning, torch and the lab's callbacks refuse these while they restore them.
    "loops fit_loop": None,
    "callbacks RandomState torch": torch.zeros(3),
    "callbacks StepLog": 7,
}


@pytest.mark.slow
def test_resume_refuses_a_checkpoint_of_another_structure_and_keeps_other_peoples_states(command: Command) -> None:
    timer = ("+trainer.max_time=00:01:00:00",)
    network = ("model=mlp", "model._target_=test_checkpoints.SpareLayer", "optimizer=adam", "scheduler=step")
    assert command(*network, *timer, "trainer.max_epochs=1", "hydra.run.dir=runs/a/b").status == 0
    last, record = Path("runs/a/b/checkpoints/last.ckpt"), Path("runs/a/b/run.json")
    whole, before = torch.load(last, weights_only=True), record.read_bytes()
    assert "Timer" in whole["callbacks"], "the state of Lightning's own callback"
    for place, value in (UNFIT | REFUSED).items():
        torch.save(change(whole, place, value), last)
        outcome = command(f"resume={last}", "trainer.max_epochs=2", data=False)
        assert_refused(outcome, f"resume={last.absolute()}: not a checkpoint of this run: ")
        assert (record.read_bytes() == before) == (place in UNFIT)
    torch.save(whole, last)
    assert command(f"resume={last}", "trainer.max_epochs=2", data=False).status == 0


class FailsInSecondEpoch(pl.Callback):
    """A user's callback with an error."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            raise ZeroDivisionError("in training")


@pytest.mark.slow
def test_error_of_resumed_training_is_not_blamed_on_the_checkpoint(command: Command) -> None:
    assert command("model=mlp", "trainer.max_epochs=1", "hydra.run.dir=runs/a/b").status == 0
    fails = "+callbacks.fails._target_=test_checkpoints.FailsInSecondEpoch"
    assert command("resume=runs/a/b", "trainer.max_epochs=2", fails, data=False).status == 1
    assert Run(Path("runs/a/b")).info["error"] == "ZeroDivisionError: in training"
