"""Checkpoints: written whole or not at all, verified when read, never run."""

from __future__ import annotations

import io
import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from omegaconf import OmegaConf
from torch import Tensor, nn

from mnist_lab.config import conf_dir
from mnist_lab.errors import UsageError
from mnist_lab.files import atomic_write, make_folder

Shapes = dict[str, tuple[int, ...]]


class SafeCheckpointIO(TorchCheckpointIO):
    """Saves beside the target, then renames: a kill leaves the old checkpoint whole. Reads with weights_only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        path = Path(path)
        make_folder(path.parent)
        content = io.BytesIO()
        torch.save(checkpoint, content)  # not into the file: of a full disk torch makes an error of its own
        with atomic_write(path) as partial, partial.open("wb") as file:
            file.write(content.getbuffer())

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        checkpoint = read_checkpoint(path)
        # A run folder may have been moved or copied: its best checkpoint is the one beside this.
        here = Path(path).parent.resolve()
        for state in checkpoint.get("callbacks", {}).values():
            if "best_model_path" in state:
                state["dirpath"] = str(here)
                for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
                    state[name] = state[name] and str(here / Path(state[name]).name)
                state["best_k_models"] = {
                    str(here / Path(best).name): score for best, score in state["best_k_models"].items()
                }
        return checkpoint


def read_checkpoint(path: str | os.PathLike[str], *, key: str = "") -> dict[str, Any]:
    """A checkpoint's or state_dict's contents, on the CPU; key= is what the message puts before the path.

    Raises:
        UsageError: the file is missing, damaged, no checkpoint, or holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{key}{path}: no such checkpoint")
    try:
        damaged = None
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
                if sum(member.file_size for member in members) > path.stat().st_size:
                    raise zipfile.BadZipFile("its members are compressed, or overlap")  # torch's never are: a bomb
                damaged = archive.testzip()  # torch itself does not look at the sums
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, that to look at sparse tensors may take long
            content = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's errors for a broken file are of every kind
        if isinstance(error, pickle.UnpicklingError) and "unsupported global" in str(error).lower():
            told = (
                "unsafe, holds more than tensors and plain values; not loaded (save a network's state_dict() instead)"
            )
            raise UsageError(f"{key}{path}: {told}") from error
        raise UsageError(f"{key}{path}: the checkpoint is corrupt, or is none") from error
    if damaged is not None:
        raise UsageError(f"{key}{path}: the checkpoint is corrupt (wrong sum of {damaged})")
    if not isinstance(content, dict):
        raise UsageError(f"{key}{path}: holds a {type(content).__name__}, not a checkpoint or a state_dict")
    return content


def completed_epochs(checkpoint: Mapping[str, Any]) -> int:
    """Whole epochs in a checkpoint of training; its "epoch" is the one under way, or the last at an epoch's end."""
    try:
        return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
    except (KeyError, TypeError, ValueError):  # weights alone, or none of ours
        return 0


def checkpoint_epoch(checkpoint: Mapping[str, Any], path: Path) -> int:
    """Return the epoch that a checkpoint was saved in, counted from 0.

    Raises:
        UsageError: it has none.
    """
    epoch = checkpoint.get("epoch")
    if not isinstance(epoch, int) or not 0 <= epoch < 2**31:
        raise UsageError(f"{path}: not a checkpoint of training (it has no epoch)")
    return epoch


def load_weights(model: nn.Module, path: str | os.PathLike[str], *, key: str = "") -> dict[str, Tensor]:
    """The state_dict in a checkpoint of ours, or the file's own, if it fits the model.

    Raises:
        UsageError: as read_checkpoint, or the weights are another network's; the message says which, by their shapes.
    """
    content = read_checkpoint(path, key=key)
    weights = content.get("state_dict", content)
    theirs = _shapes(weights) if isinstance(weights, dict) else {}
    odd = next((name for name, value in theirs.items() if not _is_plain(weights[name])), None)
    if odd is not None:
        raise UsageError(f"{key}{path}: {str(odd)[:60]!r} is not an ordinary tensor of numbers in memory")
    if theirs != _shapes(model.state_dict()):
        raise UsageError(f"{key}{path}: {_misfit(theirs, model, content.get('architecture'))}")
    return dict(weights)


def _misfit(theirs: Shapes, model: nn.Module, architecture: object) -> str:
    """Whose weights these are instead of the model's."""
    ours, others = type(model).__name__, _networks()
    if not isinstance(architecture, str) or not architecture.isidentifier():
        architecture = None
    same = next((name for name, shapes in others.items() if shapes == theirs), None)
    remedy = f"choose model={same}, or experiment={same} for its tutorial's" if same else "choose model= to match"
    if architecture not in (None, ours):
        return f"holds weights of {architecture}, not of {ours}; {remedy}"
    if same:
        return f"looks like weights of {same}, by their shapes, not of {ours}; {remedy}"
    others = {ours: _shapes(model.state_dict())} | others
    nearest = max(others, key=lambda name: len(others[name].items() & theirs.items()))
    if not others[nearest].items() & theirs.items():
        first = ", ".join(repr(str(name)[:40])[1:-1] for name in list(theirs)[:3]) or "nothing"
        return (
            f"looks like no network here, it begins with {first}; save the state_dict() of one of {', '.join(others)}"
        )
    told = _difference(theirs, others[nearest])
    return f"looks most like {nearest}, but {told}; save the state_dict() of the tutorial's own network"


def _difference(theirs: Shapes, ours: Shapes) -> str:
    for name, shape in ours.items():
        if name not in theirs:
            return f"has no {name}"
        if theirs[name] != shape:
            return f"its {name} is {theirs[name]}, not {shape}"
    besides = next(name for name in theirs if name not in ours)
    return f"has {repr(str(besides)[:40])[1:-1]} besides"


def _networks() -> dict[str, Shapes]:
    """What the state_dicts of the package's networks look like."""
    with torch.device("meta"):  # shapes without weights
        return {
            path.stem: _shapes(instantiate(OmegaConf.load(path)).state_dict())
            for path in sorted((conf_dir() / "model").glob("*.yaml"))
        }


def _is_plain(value: Any) -> bool:
    """Return whether a value is a dense tensor of real numbers with its content."""
    dense = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
    return dense and not value.is_complex() and not value.is_quantized


def _shapes(weights: Mapping[str, Any]) -> Shapes:
    return {name: tuple(getattr(tensor, "shape", ())) for name, tensor in weights.items()}
