"""Check that a checkpoint has the structure that a run saves, before training continues from it.

A file may be whole, by its sums, and still hold something else: Lightning and torch would fail somewhere on the way,
each with a traceback of its own. So its structure is compared with that of a run that has not started yet.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn

from mnist_lab.errors import UsageError
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.trial import trained_parameters
from mnist_lab.training.callbacks import AveragedWeights

LARGEST = 2**63  # of an integer
OLDEST_LIGHTNING = (2, 6)


def check_structure(checkpoint: Mapping[str, Any], trainer: pl.Trainer, model: Classifier, name: str) -> None:
    """Check that training can continue from a checkpoint's content.

    Args:
        checkpoint: the content.
        trainer: made of the run's configuration; it has trained nothing yet.
        model: the network, likewise.
        name: of the checkpoint, for the message.

    Raises:
        UsageError: something in it is missing, of another type or shape, or out of range.
    """
    for problem in _problems(checkpoint, trainer, model):
        raise UsageError(f"{name}: not a checkpoint of this run ({problem})")


def _problems(checkpoint: Mapping[str, Any], trainer: pl.Trainer, model: Classifier) -> Iterator[str]:
    loops = {
        "fit_loop": trainer.fit_loop.state_dict(),
        "validate_loop": trainer.validate_loop.state_dict(),
        "test_loop": trainer.test_loop.state_dict(),
        "predict_loop": trainer.predict_loop.state_dict(),
    }
    optimizer, scheduler = _stepped_optimizer(model)
    expected = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": "",
        "loops": loops,
        "lr_schedulers": [{}] if scheduler is not None else [],
        "optimizer_states": [{"state": {}, "param_groups": [{} for _ in optimizer["param_groups"]]}],
        "callbacks": {},
    }
    if any(isinstance(callback, AveragedWeights) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        expected |= {
            "current_model_state": dict(model.state_dict()),
            "averaging_state": {"n_averaged": torch.tensor(0)},
        }
    yield from _differences(expected, checkpoint, "")
    if scheduler is not None:
        yield from _differences(scheduler, checkpoint["lr_schedulers"][0], "lr_schedulers", same_text=True)
    yield from _optimizer_problems(optimizer, checkpoint["optimizer_states"][0])
    if checkpoint["global_step"]:
        for number in optimizer["state"].keys() - checkpoint["optimizer_states"][0]["state"].keys():
            yield f"optimizer_states.state.{number} is missing"
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        state = checkpoint["callbacks"].get(callback.state_key)
        if state is not None:
            yield from _differences(callback.state_dict(), state, f"callbacks.{callback.state_key}")
    if "RandomState" in checkpoint["callbacks"]:
        yield from _random_state_problems(checkpoint["callbacks"]["RandomState"])
    if "train_metrics" in checkpoint:
        yield from _differences(model.train_metrics.sums(), checkpoint["train_metrics"], "train_metrics")
    yield from _progress_problems(checkpoint["loops"], "loops")
    yield from _count_problems(checkpoint)


def _differences(expected: Any, found: Any, place: str, *, same_text: bool = False) -> Iterator[str]:
    """Yield where a value is not of the structure of the expected one; what it has besides is left alone.

    Args:
        expected: of a run that has not started; None in it may be a value later, and an empty container be filled.
        found: the value.
        place: its keys, joined by dots.
        same_text: whether strings must be the same, and not strings only.
    """
    where = place or "the file"
    if isinstance(expected, Mapping):
        if not isinstance(found, dict):
            yield f"{where} is {_kind(found)}, not a dict"
            return
        for key, value in expected.items():
            if key not in found:
                yield f"{place and place + '.'}{key} is missing"
            else:
                yield from _differences(value, found[key], f"{place and place + '.'}{key}", same_text=same_text)
        if not expected and not all(isinstance(key, str) for key in found) and not place.endswith(".state"):
            yield f"{where} has a key that is no text"
    elif isinstance(expected, list | tuple):
        if not isinstance(found, list | tuple) or (expected and len(found) != len(expected)):
            yield f"{where} is {_kind(found)}, not {_kind(expected)}"
            return
        for number, (value, other) in enumerate(zip(expected, found, strict=False)):
            yield from _differences(value, other, f"{place}.{number}", same_text=same_text)
    elif isinstance(expected, Tensor):
        if not _fits(expected, found):
            yield f"{where} is {_kind(found)}, not {_kind(expected)}"
    elif isinstance(expected, str):
        if not isinstance(found, str) or (same_text and found != expected):
            yield f"{where} is {_kind(found)}, not {expected!r}"
    elif isinstance(expected, bool):
        if not isinstance(found, bool):
            yield f"{where} is {_kind(found)}, not true or false"
    elif isinstance(expected, int):
        if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < LARGEST:
            yield f"{where} is {_kind(found)}, not a count"
    elif isinstance(expected, float):
        if isinstance(found, bool) or not isinstance(found, int | float) or abs(found) >= LARGEST:
            yield f"{where} is {_kind(found)}, not a number"
    elif expected is None:
        scalar = (
            found.shape == () if isinstance(found, Tensor) else found is None or isinstance(found, str | int | float)
        )
        if not scalar:
            yield f"{where} is {_kind(found)}, not a value"


def _fits(expected: Tensor, found: Any) -> bool:
    """Return whether a value is a tensor that can be copied into the expected one."""
    return (
        isinstance(found, Tensor)
        and found.shape == expected.shape
        and found.layout == torch.strided
        and not found.is_meta
        and (found.dtype == expected.dtype or (found.is_floating_point() and expected.is_floating_point()))
    )


def _kind(value: Any) -> str:
    """Return a short description of a value."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}, {value.dtype}"
    if isinstance(value, dict | list | tuple):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < LARGEST):
        return repr(value)
    return type(value).__name__


def _stepped_optimizer(model: Classifier) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the states of the configured optimizer after a step and of its scheduler; the network is left alone."""
    parameters = [nn.Parameter(torch.zeros_like(parameter)) for parameter in model.parameters()]
    for parameter, is_trained in zip(parameters, trained_parameters(model), strict=True):
        parameter.grad = torch.zeros_like(parameter) if is_trained else None
    optimizer, scheduler, _ = model.make_optimizer(parameters, steps_per_epoch=100)
    optimizer.step()
    return optimizer.state_dict(), scheduler.state_dict() if scheduler is not None else None


def _optimizer_problems(expected: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    for number, (group, other) in enumerate(zip(expected["param_groups"], found["param_groups"], strict=True)):
        place = f"optimizer_states.param_groups.{number}"
        flags = {key for key, value in group.items() if value is None or isinstance(value, bool)}
        for flag in flags & other.keys():
            if other[flag] is not group[flag]:
                yield f"{place}.{flag} is {_kind(other[flag])}, not {group[flag]!r}"
        yield from _differences({key: group[key] for key in group.keys() - flags}, other, place)
        if other["params"] != group["params"]:
            yield f"{place}.params are not those of the network"
    numbers = [number for group in expected["param_groups"] for number in group["params"]]
    for number, state in found["state"].items():
        if number not in numbers:
            yield f"optimizer_states.state has {_kind(number)}, which is no parameter of the network"
        else:
            yield from _differences(expected["state"].get(number, {}), state, f"optimizer_states.state.{number}")


def _random_state_problems(state: dict[str, Any]) -> Iterator[str]:
    try:
        torch.Generator().set_state(state["torch"])
        np.random.RandomState().set_state(tuple(state["numpy"]))
        version, numbers, gauss = state["python"]
        random.Random().setstate((version, tuple(numbers), gauss))
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        yield f"callbacks.RandomState is not a random state: {' '.join(str(error).split())[:200]}"


def _progress_problems(node: dict[str, Any], place: str) -> Iterator[str]:
    """Yield counters of a loop that have completed more than they have started."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _progress_problems(value, f"{place}.{key}")
    counts = [node[key] for key in ("ready", "started", "processed", "completed") if key in node]
    if counts != sorted(counts, reverse=True):
        yield f"{place} counts {counts}, which rise"


def _count_problems(checkpoint: Mapping[str, Any]) -> Iterator[str]:
    fit = checkpoint["loops"]["fit_loop"]
    steps = fit["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]["completed"]
    for name, counted in (("epoch", fit["epoch_progress"]["current"]["completed"]), ("global_step", steps)):
        if checkpoint[name] != counted:
            yield f"{name} is {checkpoint[name]}, while its loop counts {counted}"
    version = re.match(r"(\d+)\.(\d+)\.\d+", checkpoint["pytorch-lightning_version"])
    if not version or tuple(map(int, version.groups())) < OLDEST_LIGHTNING:
        yield "pytorch-lightning_version is too old, or none"
    loaders = fit["state_dict"].get("combined_loader", [])
    for loader in loaders if isinstance(loaders, list) else [loaders]:
        yield from _differences({"epoch": 0, "position": 0}, loader, "loops.fit_loop.state_dict.combined_loader")
