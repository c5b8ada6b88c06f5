"""A checkpoint is written whole or not at all, and a bad one is told by its file's name, never loaded, never run."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lab import Outcome, slow

from mnist_lab.errors import UsageError
from mnist_lab.models.lenet import LeNet
from mnist_lab.models.mlp import MLP
from mnist_lab.runs.checkpoints import SafeCheckpointIO, load_weights, read_checkpoint


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


@pytest.mark.slow
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
@pytest.mark.parametrize("key", ["resume", *slow("init_from")])
def test_bad_checkpoint_is_reported_in_one_line_and_nothing_is_left(
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


def test_missing_checkpoint_is_reported(command: Callable[..., Outcome]) -> None:
    for key in ("init_from", "resume"):
        outcome = command(f"{key}=nowhere.ckpt")
        assert outcome.status == 2
        assert f"{key}=nowhere.ckpt: checkpoint not found" in outcome.err


def test_checkpoint_of_another_architecture_is_reported_with_both_names(
    command: Callable[..., Outcome], saved: Path
) -> None:
    outcome = command("model=lenet", f"init_from={saved}")
    assert outcome.status == 2
    assert "weights of MLP, not of LeNet" in outcome.err
    assert outcome.err.count("\n") == 1


def test_state_dict_of_a_tutorial_loads_in_the_format_of_its_time(tmp_path: Path) -> None:
    state = LeNet().state_dict()
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    loaded = load_weights(LeNet(), tmp_path / "old.pth")
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
    with pytest.raises(UsageError, match="unsafe"):
        read_checkpoint(saved)
    assert not Path("evil_was_here").exists()


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
    with pytest.raises(UsageError, match=r"'0\.weight' is not an ordinary tensor") as caught:
        load_weights(MLP(), saved)
    assert "\n" not in str(caught.value)


def test_resume_from_a_checkpoint_of_odd_structure_is_refused_and_leaves_the_run_as_it_was(
    command: Callable[..., Outcome],
) -> None:
    assert command("model=mlp", "trainer.max_epochs=1", "hydra.run.dir=runs/a/b").status == 0
    last, record = Path("runs/a/b/checkpoints/last.ckpt"), Path("runs/a/b/run.json")
    whole, before = torch.load(last, weights_only=True), record.read_bytes()
    del whole["optimizer_states"][0]["param_groups"][0]["lr"]
    torch.save(whole, last)
    outcome = command(f"resume={last}", "trainer.max_epochs=2", data=False)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "not a checkpoint of this run (optimizer_states.param_groups.0.lr is missing)" in outcome.err
    assert record.read_bytes() == before


class SpareLayer(MLP):
    """A network with a layer that takes no part in the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = torch.nn.Linear(2, 2)


@pytest.mark.parametrize("optimizer", ["adam", *slow("sgd")])
def test_resume_needs_the_optimizer_state_of_the_trained_parameters_and_of_no_others(
    command: Callable[..., Outcome], optimizer: str
) -> None:
    network = ("model=mlp", "model._target_=test_checkpoints.SpareLayer", f"optimizer={optimizer}")
    assert command(*network, "trainer.max_epochs=1", "hydra.run.dir=runs/a/b").status == 0
    last = Path("runs/a/b/checkpoints/last.ckpt")
    assert command(f"resume={last}", "trainer.max_epochs=2", data=False).status == 0
    whole = torch.load(last, weights_only=True)
    states = whole["optimizer_states"][0]["state"]
    assert len(states) == len(list(MLP().parameters()))
    del states[3]
    torch.save(whole, last)
    outcome = command(f"resume={last}", "trainer.max_epochs=3", data=False)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "not a checkpoint of this run (optimizer_states.state.3 is missing)" in outcome.err
