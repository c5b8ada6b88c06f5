"""A checkpoint is written whole or not at all, and a bad one is told by its file's name, never loaded, never run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Outcome

from mnist_lab.checkpoints import SafeCheckpointIO, read_checkpoint, weights_for
from mnist_lab.errors import BadInput
from mnist_lab.models.lenet import LeNet
from mnist_lab.models.mlp import MLP


class Evil:
    """Pickles into a call."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("evil_was_here",)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "saved.ckpt"
    SafeCheckpointIO().save_checkpoint({"state_dict": MLP().state_dict(), "architecture": "MLP"}, path)
    return path


def broken(path: Path, how: str) -> Path:
    content = bytearray(path.read_bytes())
    if how == "flipped bit":
        content[len(content) // 2] ^= 1
    if how == "evil":
        torch.save({"state_dict": Evil()}, path)
        return path
    path.write_bytes({"truncated": content[:5000], "empty": b"", "text": b"hello", "flipped bit": content}[how])
    return path


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("truncated", "corrupt"),
        ("empty", "corrupt"),
        ("text", "corrupt"),
        ("flipped bit", "corrupt"),
        ("evil", "unsafe"),
    ],
)
@pytest.mark.parametrize("key", ["init_from", "resume"])
def test_bad_checkpoint_is_told_in_one_line_and_nothing_is_left(
    command: Callable[..., Outcome], saved: Path, how: str, told: str, key: str
) -> None:
    if key == "resume":
        assert command("model=mlp", "trainer.max_epochs=1", "hydra.run.dir=runs/a/b").status == 0
        saved = Path("runs/a/b/checkpoints/last.ckpt").absolute()
    before = sorted(Path().rglob("*"))
    outcome = command("model=mlp", f"{key}={broken(saved, how)}")
    assert outcome.status == 2
    assert outcome.err.startswith(f"mnist_lab: {key}={saved}: ") and told in outcome.err
    assert outcome.err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before


def test_missing_checkpoint_is_told(command: Callable[..., Outcome]) -> None:
    for key in ("init_from", "resume"):
        outcome = command(f"{key}=nowhere.ckpt")
        assert outcome.status == 2
        assert f"{key}=nowhere.ckpt: no such checkpoint" in outcome.err


def test_checkpoint_of_another_architecture_is_told_with_both_names(
    command: Callable[..., Outcome], saved: Path
) -> None:
    outcome = command("model=lenet", f"init_from={saved}")
    assert outcome.status == 2
    assert "weights of MLP, not of LeNet" in outcome.err
    assert outcome.err.count("\n") == 1


def test_state_dict_of_a_tutorial_loads_in_the_format_of_its_time(tmp_path: Path) -> None:
    state = LeNet().state_dict()
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    loaded = weights_for(LeNet(), tmp_path / "old.pth")
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_save_that_fails_leaves_the_old_checkpoint_and_no_litter(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        SafeCheckpointIO().save_checkpoint({"state_dict": {}}, saved)
    assert read_checkpoint(saved)["architecture"] == "MLP"
    assert list(saved.parent.glob("*.partial")) == list(saved.parent.glob(".*")) == []


def test_plain_values_only_are_what_a_checkpoint_may_hold(saved: Path) -> None:
    broken(saved, "evil")
    with pytest.raises(BadInput, match="unsafe"):
        read_checkpoint(saved)
    assert not Path("evil_was_here").exists()
