"""Run a network on a dummy batch before it is trained, to check that its output fits its loss and the classes."""

import inspect
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mnist_lab.errors import UsageError, is_out_of_memory
from mnist_lab.models.classifier import LOSSES, Classifier

TOLERANCE = 1e-3  # A sum of probabilities may differ from 1 by this.


def check_output(model: Classifier) -> str | None:
    """Check that a network gives finite scores, (B, K), that fit its loss; return a warning if it should be changed.

    Two dummy images go through it in eval mode. Weights, modes and torch's random state stay as they are.
    """
    name, size = type(model).__name__, model.image_size
    if not isinstance(model.loss, str) or model.loss not in LOSSES:
        raise UsageError(f"model: {name}.loss={model.loss!r} is invalid; choose from {', '.join(LOSSES)}")
    if not isinstance(size, int) or size < 1:
        raise UsageError(f"model: {name}.image_size={size!r} is invalid; set the side of an image in pixels")
    images = dummy_images(model)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), eval_mode(model):
            scores = model(images)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise UsageError(
            f"model: {name}.forward fails on images of shape {tuple(images.shape)}, as image_size={size} makes them: "
            f"{describe_error(error, type(model))}"
        ) from error
    if problem := _find_problem(scores, model.loss, model.num_classes):
        raise UsageError(f"model: {name}.forward {problem}")
    if model.loss == "cross_entropy" and _are_probabilities(scores):
        return (
            f"model: {name}.forward returns probabilities, and loss='cross_entropy' applies softmax to them again, "
            "which slows training down; leave out the last softmax"
        )
    return None


def dummy_images(model: Classifier) -> Tensor:
    """Return two images of the size and on the device of a network, (2, 1, S, S)."""
    size = model.image_size
    return torch.linspace(-0.5, 3, 2 * size * size, device=model.device).reshape(2, 1, size, size)


def describe_error(error: BaseException, source: type) -> str:
    """Return an exception in one line, with the line in the file of a class, the source, that raised it."""
    message = " ".join(str(error).split())
    try:
        file = inspect.getsourcefile(source)
    except TypeError:
        file = None  # The class was defined in a notebook.
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f" ({file}, line {lines[-1].lineno})" if lines else ""
    return f"{type(error).__name__}: {message}{where}"


def _find_problem(scores: object, loss: str, classes: int) -> str | None:
    """Return what is wrong with the scores of two images, and what to do about it; None if they are right."""
    needed = f"a tensor of shape (B, {classes}), a score for each class"
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        return f"returns {getattr(scores, 'dtype', type(scores).__name__)}, not {needed} as a floating-point number"
    if scores.shape != (2, classes):
        return f"returns shape {tuple(scores.shape)} for 2 images, not {needed}"
    if not scores.isfinite().all():
        return "returns values that are NaN or infinite"
    if loss == "nll" and not _are_probabilities(scores.exp()):
        return (
            "does not return log-probabilities, which loss='nll' needs; "
            "end it with F.log_softmax(x, dim=1), or set loss = 'cross_entropy' if it returns logits"
        )
    return None


def _are_probabilities(scores: Tensor) -> bool:
    return bool((scores >= 0).all() and ((scores.sum(1) - 1).abs() < TOLERANCE).all())


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a network into eval mode, and at the end each of its modules into its former mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
