"""Save checkpoints atomically, verify them before they are loaded, and load no code from them."""

import io
import os
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor, nn

from mnist_lab.errors import UsageError
from mnist_lab.files import atomic_write, make_folder
from mnist_lab.formatting import shorten

MAX_PICKLE = 1_000_000  # bytes of what is not numbers
MAX_OPCODES = 200_000  # A pickle in the format of torch 1.5 has no sizes, so its opcodes are counted.
Shapes = Mapping[str, tuple[int, ...] | str]


class SafeCheckpointIO(TorchCheckpointIO):
    """Saves beside the target and renames, so that a kill leaves the old checkpoint; loads with weights_only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        path = Path(path)
        make_folder(path.parent)
        content = io.BytesIO()
        torch.save(checkpoint, content)  # On a full disk, torch would raise an error that does not say so.
        with atomic_write(path) as partial, partial.open("wb") as file:
            file.write(content.getbuffer())

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        checkpoint = read_checkpoint(path)
        # The run folder, and the checkpoints that callbacks keep in it, may have been moved or copied.
        before, now = checkpoint.get("folder"), str(Path(path).parent.parent.resolve())
        for key, state in dict(checkpoint.get("callbacks", {})).items():
            if before is None and key.startswith("ModelCheckpoint{"):  # Version 0.2.0 recorded no folder.
                checkpoint["callbacks"][key.replace("Model", "Epoch", 1)] = state
        if isinstance(before, str) and before != now and "callbacks" in checkpoint:
            checkpoint["callbacks"] = _move_paths(checkpoint["callbacks"], before + os.sep, now + os.sep)
        return checkpoint


def _move_paths(value: Any, before: str, now: str) -> Any:
    """Return a state in which the paths that began with one folder begin with another."""
    if isinstance(value, dict):
        return {_move_paths(name, before, now): _move_paths(each, before, now) for name, each in value.items()}
    return now + value.removeprefix(before) if isinstance(value, str) and value.startswith(before) else value


def read_checkpoint(path: str | os.PathLike[str], *, key: str = "") -> dict[str, Any]:
    """Load a checkpoint or a state_dict to the CPU; messages put `key`, such as "resume=", before the file's name."""
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{key}{path}: checkpoint not found; name a file, such as RUN/checkpoints/best.ckpt")
    try:
        with path.open("rb") as file:
            _reject_damaged(file, path.stat().st_size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that checking sparse tensors may take long.
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # For a broken file, torch raises errors of many kinds.
        if isinstance(error, pickle.UnpicklingError) and "unsupported global" in str(error).lower():
            reason = "unsafe, holds more than tensors and plain values; not loaded (save a network's state_dict())"
            raise UsageError(f"{key}{path}: {reason}") from error
        raise UsageError(f"{key}{path}: corrupt, or not a checkpoint") from error
    if not isinstance(content, dict):
        raise UsageError(f"{key}{path}: holds a {type(content).__name__}, not a checkpoint or a state_dict")
    return content


def _reject_damaged(file: IO[bytes], size: int) -> None:
    """Raise an error for a checkpoint that is damaged, or would take much more memory than its file."""
    if file.read(4) == b"PK\3\4":  # torch tells its two formats apart by these bytes.
        archive = zipfile.ZipFile(file)
        members = archive.infolist()
        pickled = sum(member.file_size for member in members if member.orig_filename.count("/") < 2)
        # torch does not compress, so larger members are a zip bomb. It does not check the CRC sums either.
        is_larger = sum(member.file_size for member in members) > size
        if is_larger or pickled > MAX_PICKLE or archive.testzip() is not None:
            raise zipfile.BadZipFile
    else:
        file.seek(0)
        opcodes = (opcode for _ in range(5) for opcode in pickletools.genops(file))  # It consists of five pickles.
        if next(islice(opcodes, MAX_OPCODES, None), None):
            raise pickle.UnpicklingError


def completed_epochs(checkpoint: Mapping[str, Any], counter: str = "processed") -> int:
    """Return the number of completed, or "started", epochs of a checkpoint; its "epoch" is the last begun."""
    try:
        return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"][counter])
    except (KeyError, TypeError, ValueError):  # It has only weights, or belongs to another program.
        return 0


def checkpoint_epoch(checkpoint: Mapping[str, Any], path: Path) -> int:
    """Return the epoch that a checkpoint was saved in, counted from 0."""
    epoch = checkpoint.get("epoch")
    if not isinstance(epoch, int) or not 0 <= epoch < 2**31:
        raise UsageError(f"{path}: not a checkpoint of training (it has no epoch)")
    return epoch


def load_weights(model: nn.Module, path: str | os.PathLike[str], *, key: str = "") -> dict[str, Tensor]:
    """Load the state_dict of a checkpoint, or a plain one, that must fit a model; for `key` see read_checkpoint."""
    content = read_checkpoint(path, key=key)
    weights = content.get("state_dict", content)
    shapes = {name: _shape(value) for name, value in weights.items()} if isinstance(weights, dict) else {}
    size = sum(weights[name].nbytes for name, shape in shapes.items() if isinstance(shape, tuple))
    if size > 4 * Path(path).stat().st_size:  # A few tensors may be tied.
        raise UsageError(f"{key}{path}: its tensors share their numbers; save the state_dict() of a network")
    if shapes != _shapes(model):
        raise UsageError(f"{key}{path}: {_explain_misfit(shapes, model, content.get('architecture'))}")
    return dict(weights)


def _explain_misfit(shapes: Shapes, model: nn.Module, architecture: object) -> str:
    """Return why weights do not fit a model."""
    wanted, needed = type(model).__name__, _shapes(model)
    if isinstance(architecture, str) and architecture.isidentifier() and architecture != wanted:
        return f"holds weights of {architecture}, not of {wanted}; choose model= to match"
    name = next(name for name in [*needed, *shapes] if needed.get(name) != shapes.get(name))
    problem = f"its {shorten(str(name), 40)} is {shapes.get(name, 'missing')}, not {needed.get(name, 'missing')}"
    return f"holds no weights of {wanted}: {problem}; choose model= or experiment= to match"


def _shape(value: Any) -> tuple[int, ...] | str:
    """Return the shape of a dense tensor of real numbers with data, or a text for any other value."""
    is_dense = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
    is_plain = is_dense and not value.is_complex() and not value.is_quantized
    return tuple(value.shape) if is_plain else "not an ordinary tensor"


def _shapes(model: nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
