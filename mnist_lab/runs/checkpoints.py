"""Save checkpoints atomically, verify them on reading, and load no code from them."""

import io
import os
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from itertools import islice
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
from mnist_lab.formatting import shorten

MAX_PICKLE, MAX_OPCODES = 1_000_000, 200_000  # bytes of what is not numbers; its opcodes, in the format of torch 1.5
Shapes = Mapping[str, tuple[int, ...] | str]


class SafeCheckpointIO(TorchCheckpointIO):
    """Saves beside the target and renames, so that a kill leaves the old checkpoint intact. Loads with weights_only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        path = Path(path)
        make_folder(path.parent)
        content = io.BytesIO()
        torch.save(checkpoint, content)  # Written to a full disk, torch would raise an error of its own.
        with atomic_write(path) as partial, partial.open("wb") as file:
            file.write(content.getbuffer())

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        checkpoint = read_checkpoint(path)
        # The run folder may have been moved or copied, and with it the checkpoints that callbacks keep in it.
        before, here = checkpoint.get("folder"), str(Path(path).parent.parent.resolve())
        for key, state in dict(checkpoint.get("callbacks", {})).items():
            if before is None and key.startswith("ModelCheckpoint{"):  # of version 0.2.0
                checkpoint["callbacks"][key.replace("Model", "Epoch", 1)] = state
        if isinstance(before, str) and before != here and "callbacks" in checkpoint:
            checkpoint["callbacks"] = _moved(checkpoint["callbacks"], before + os.sep, here + os.sep)
        return checkpoint


def _moved(value: Any, before: str, here: str) -> Any:
    """Return a state in which paths that begin with one folder begin with another one."""
    if isinstance(value, dict):
        return {_moved(name, before, here): _moved(each, before, here) for name, each in value.items()}
    return here + value.removeprefix(before) if isinstance(value, str) and value.startswith(before) else value


def read_checkpoint(path: str | os.PathLike[str], *, key: str = "") -> dict[str, Any]:
    """Load a checkpoint or a state_dict to the CPU; messages name the file with `key` before it, such as "resume="."""
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{key}{path}: checkpoint not found")
    try:
        with path.open("rb") as file:
            if file.read(4) != b"PK\3\4":  # This is how torch tells the formats apart.
                file.seek(0)
                opcodes = (each for _ in range(5) for each in pickletools.genops(file))  # It has five pickles.
                if next(islice(opcodes, MAX_OPCODES, None), None):
                    raise pickle.UnpicklingError
            else:
                archive = zipfile.ZipFile(file)
                members = archive.infolist()
                pickled = sum(each.file_size for each in members if each.orig_filename.count("/") < 2)
                # torch does not compress, so that larger members are a zip bomb, and does not check the CRC sums.
                larger = sum(each.file_size for each in members) > path.stat().st_size
                if larger or pickled > MAX_PICKLE or archive.testzip() is not None:
                    raise zipfile.BadZipFile
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that checking sparse tensors may take long.
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file.
        if isinstance(error, pickle.UnpicklingError) and "unsupported global" in str(error).lower():
            reason = "unsafe, holds more than tensors and plain values; not loaded (save a network's state_dict())"
            raise UsageError(f"{key}{path}: {reason}") from error
        raise UsageError(f"{key}{path}: corrupt, or not a checkpoint") from error
    if not isinstance(content, dict):
        raise UsageError(f"{key}{path}: holds a {type(content).__name__}, not a checkpoint or a state_dict")
    return content


def completed_epochs(checkpoint: Mapping[str, Any], counter: str = "processed") -> int:
    """Return the completed, or "started", epochs of a checkpoint, whose own "epoch" is the last begun."""
    try:
        return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"][counter])
    except (KeyError, TypeError, ValueError):  # It has weights only, or is another program's.
        return 0


def checkpoint_epoch(checkpoint: Mapping[str, Any], path: Path) -> int:
    """Return the epoch that a checkpoint was saved in, counted from 0."""
    epoch = checkpoint.get("epoch")
    if not isinstance(epoch, int) or not 0 <= epoch < 2**31:
        raise UsageError(f"{path}: not a checkpoint of training (it has no epoch)")
    return epoch


def load_weights(model: nn.Module, path: str | os.PathLike[str], *, key: str = "") -> dict[str, Tensor]:
    """Load the state_dict of a checkpoint, or a plain one, that must fit a model; `key` as in read_checkpoint."""
    content = read_checkpoint(path, key=key)
    weights = content.get("state_dict", content)
    theirs = {name: _shape(value) for name, value in weights.items()} if isinstance(weights, dict) else {}
    held = sum(weights[name].nbytes for name, shape in theirs.items() if isinstance(shape, tuple))
    if held > 4 * Path(path).stat().st_size:  # Some may be tied.
        raise UsageError(f"{key}{path}: its tensors share their numbers; save the state_dict() of a network")
    if theirs != _shapes(model):
        raise UsageError(f"{key}{path}: {_misfit(theirs, model, content.get('architecture'))}")
    return dict(weights)


def _misfit(theirs: Shapes, model: nn.Module, architecture: object) -> str:
    """Return why weights do not fit a model, with the network that they do fit if known."""
    ours, shapes = type(model).__name__, _shapes(model)
    same = next((name for name, others in _networks().items() if others == theirs), None)
    remedy = f"choose model={same}, or experiment={same} for its tutorial's" if same else "choose model= to match"
    if isinstance(architecture, str) and architecture.isidentifier() and architecture != ours:
        return f"holds weights of {architecture}, not of {ours}; {remedy}"
    if same:
        return f"looks like weights of {same}, by their shapes, not of {ours}; {remedy}"
    name = next(name for name in [*shapes, *theirs] if shapes.get(name) != theirs.get(name))
    problem = f"its {shorten(str(name), 40)} is {theirs.get(name, 'missing')}, not {shapes.get(name, 'missing')}"
    return f"holds no weights of {ours}: {problem}; save the state_dict() of the tutorial's own network"


def _networks() -> dict[str, Shapes]:
    """Return the shapes of the state_dict of each network of the package."""
    with torch.device("meta"):  # This gives shapes without memory.
        return {
            path.stem: _shapes(instantiate(OmegaConf.load(path)))
            for path in sorted((conf_dir() / "model").glob("*.yaml"))
        }


def _shape(value: Any) -> tuple[int, ...] | str:
    """Return the shape of a dense tensor of real numbers with data, or what another value is."""
    is_dense = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
    is_plain = is_dense and not value.is_complex() and not value.is_quantized
    return tuple(value.shape) if is_plain else "not an ordinary tensor"


def _shapes(model: nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
