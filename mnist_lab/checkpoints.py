"""Checkpoints: written whole or not at all, verified when read, never run."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor, nn

from mnist_lab.errors import BadInput
from mnist_lab.files import replacing


class SafeCheckpointIO(TorchCheckpointIO):
    """Saves beside the target, then renames: a kill leaves the old checkpoint whole. Reads with weights_only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())

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
        BadInput: the file is missing, damaged, no checkpoint, or holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{key}{path}: no such checkpoint")
    try:
        damaged = None
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()  # torch itself does not look at the sums
        content = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's errors for a broken file are of every kind
        if isinstance(error, pickle.UnpicklingError) and "unsupported global" in str(error).lower():
            raise BadInput(f"{key}{path}: unsafe, holds more than tensors and plain values; not loaded") from error
        raise BadInput(f"{key}{path}: the checkpoint is corrupt, or is none") from error
    if damaged is not None:
        raise BadInput(f"{key}{path}: the checkpoint is corrupt (wrong sum of {damaged})")
    if not isinstance(content, dict):
        raise BadInput(f"{key}{path}: holds a {type(content).__name__}, not a checkpoint or a state_dict")
    return content


def weights_for(model: nn.Module, path: str | os.PathLike[str], *, key: str = "") -> dict[str, Tensor]:
    """The state_dict in a checkpoint of ours, or the file's own, if it fits the model.

    Raises:
        BadInput: as read_checkpoint, or the weights are another architecture's.
    """
    content = read_checkpoint(path, key=key)
    weights: Mapping[str, Any] = content.get("state_dict", content)
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if {name: tuple(getattr(tensor, "shape", ())) for name, tensor in weights.items()} != ours:
        theirs = content.get("architecture") or "another network"
        raise BadInput(f"{key}{path}: holds weights of {theirs}, not of {type(model).__name__}; choose model= to match")
    return dict(weights)
