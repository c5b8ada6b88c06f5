"""Take training steps as one compiled graph each: forward, loss, backward and the optimizer's update."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value
from torch.optim.adam import adam

from mnist_lab.data.batches import Batch, Group
from mnist_lab.models.classifier import Classifier, own_loss
from mnist_lab.models.multistep import eager_steps

STATE = {  # what an optimizer keeps for each parameter
    torch.optim.SGD: ("momentum_buffer",),
    torch.optim.Adam: ("exp_avg", "exp_avg_sq", "step"),
    torch.optim.AdamW: ("exp_avg", "exp_avg_sq", "step"),
}


def compile_obstacle(model: Classifier) -> str | None:
    """Return what prevents the steps of a network in training from being compiled; None if they can be."""
    (optimizer,) = model.trainer.optimizers
    settings = optimizer.param_groups
    present = {
        f"the optimizer {type(optimizer).__name__}": type(optimizer) not in STATE or len(settings) > 1,
        "optimizer.maximize": settings[0].get("maximize", False),
        "optimizer.amsgrad": settings[0].get("amsgrad", False),
        f"precision {model.trainer.precision}": model.trainer.precision != "32-true",
        f"the device {model.device.type}": model.device.type != "cpu",  # not tried yet
    }
    present |= {f"its {name}": True for name, _ in model.named_buffers()}
    present |= {f"its {name}": not parameter.requires_grad for name, parameter in model.named_parameters()}
    return own_loss(model) or next((obstacle for obstacle, is_present in present.items() if is_present), None)


@dataclass(frozen=True)
class Weights:
    """What a step changes in place.

    Attributes:
        parameters: the network's.
        state: what the optimizer keeps: for each kind a list over the parameters, empty for SGD without momentum.
    """

    parameters: list[Tensor]
    state: list[list[Tensor]]

    @classmethod
    def of(cls, optimizer: torch.optim.Optimizer) -> Weights:
        """Return those of an optimizer with one group of parameters, sharing their memory."""
        parameters = optimizer.param_groups[0]["params"]
        kept = [optimizer.state.get(parameter, {}) for parameter in parameters]
        state = [[each[kind] for each in kept if each.get(kind) is not None] for kind in STATE[type(optimizer)]]
        return cls([each.detach() for each in parameters], state)

    def clone(self) -> Weights:
        """Return a copy with memory of its own."""
        parameters, *state = ([each.clone() for each in tensors] for tensors in (self.parameters, *self.state))
        return Weights(parameters, state)

    def copy(self, other: Weights) -> None:
        """Take the values of others."""
        for mine, theirs in zip(self._tensors(), other._tensors(), strict=True):
            mine.copy_(theirs)

    def is_close_to(self, other: Weights) -> bool:
        """Return whether both are the same up to the rounding of a step in float32."""
        pairs = zip(self._tensors(), other._tensors(), strict=True)
        return all(torch.allclose(mine, theirs, rtol=1e-3, atol=1e-5, equal_nan=True) for mine, theirs in pairs)

    def _tensors(self) -> list[Tensor]:
        return [*self.parameters, *(each for kind in self.state for each in kind)]


Step = Callable[[Weights, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class CompiledSteps:
    """Takes the steps of a network as `eager_steps` does, up to rounding.

    The graph is compiled once the optimizer has made its state, in its first step, and its weights are compared with
    those of eager mode. Where they differ, or it cannot be compiled, as without a C++ compiler, `eager_steps` goes on.

    Attributes:
        failure: why no graph is used; None if one is.
    """

    def __init__(self) -> None:
        self.failure: str | None = None
        self._step: Step | None = None

    def __call__(self, model: Classifier, group: Group) -> Iterator[Tensor]:
        """Take the steps of a group, and yield the loss of each, ()."""
        if self.failure is not None:
            yield from eager_steps(model, group)
            return
        (optimizer,) = model.trainer.optimizers
        weights: Weights | None = None
        for step in group.steps:
            if self._is_untried and _has_state(optimizer):
                self._compile(model, optimizer, group.batch(step))
            if self._step is None:
                yield from eager_steps(model, Group(group.batches, group.order, range(step, step + 1)))
                continue
            images, labels = group.batch(step)
            weights = weights or Weights.of(optimizer)
            loss, scores = self._step(weights, images, labels, _learning_rate(optimizer))
            model.train_metrics.add(loss, scores, labels)
            model.stop_unless_finite(loss, "training loss is {}")
            yield loss

    @property
    def _is_untried(self) -> bool:
        """Whether the graph is yet to be compiled: there is none, and no attempt has failed."""
        has_graph, has_failed = self._step is not None, self.failure is not None
        return not has_graph and not has_failed

    def _compile(self, model: Classifier, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
        """Compile the graph, and compare its step with that of eager mode; neither is kept."""
        images, labels = batch
        before, step = Weights.of(optimizer).clone(), make_step(model, optimizer)
        compiled = before.clone()
        try:
            with torch.random.fork_rng(devices=[]):
                step(compiled, images, labels, _learning_rate(optimizer))
        except Exception as error:  # whatever a compiler meets
            self.failure = str(error).strip().partition("\n")[0] or type(error).__name__
            return
        with torch.random.fork_rng(devices=[]):
            optimizer.zero_grad()
            model.loss_of(model.scores(images), labels, model.label_smoothing).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if compiled.is_close_to(Weights.of(optimizer)):
            self._step = step
        else:
            self.failure = "the compiled graph gives other weights"
        Weights.of(optimizer).copy(before)


def _has_state(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether an optimizer has what it makes in its first step; SGD without momentum makes nothing."""
    return bool(optimizer.state) or optimizer.param_groups[0].get("momentum") == 0


def _learning_rate(optimizer: torch.optim.Optimizer) -> Tensor:
    """Return it as a tensor: with a number the graph would be compiled for each of its values."""
    return torch.tensor(optimizer.param_groups[0]["lr"])


def make_step(model: Classifier, optimizer: torch.optim.Optimizer) -> Step:
    """Return a compiled step of a network and its optimizer, which gives the loss, (), and the scores, (B, K)."""
    (settings,) = optimizer.param_groups
    place = {id(parameter): number for number, parameter in enumerate(settings["params"])}
    names = {name: place[id(parameter)] for name, parameter in model.named_parameters()}
    update = update_sgd if type(optimizer) is torch.optim.SGD else update_adam
    options = {name: value for name, value in settings.items() if name not in ("params", "lr", "initial_lr")}
    label_smoothing = model.label_smoothing

    def loss_and_scores(parameters: list[Tensor], images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        named = {name: parameters[number] for name, number in names.items()}
        scores: Tensor = functional_call(model, named, (images,))
        return model.loss_of(scores, labels, label_smoothing), scores

    def step(
        parameters: list[Tensor], state: list[list[Tensor]], images: Tensor, labels: Tensor, lr: Tensor
    ) -> tuple[Tensor, Tensor]:
        gradients, (loss, scores) = grad_and_value(loss_and_scores, has_aux=True)(parameters, images, labels)
        if options["weight_decay"] and not options.get("decoupled_weight_decay"):
            pairs = zip(gradients, parameters, strict=True)
            # Not add(alpha=...): torch 2.14 fuses that with a product and forgets alpha (see pytorch issue 167313).
            gradients = [gradient + options["weight_decay"] * parameter for gradient, parameter in pairs]
        update(parameters, gradients, state, lr, options)
        return loss, scores

    # A folder of CUDA on a machine without a GPU is worth a warning to it.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    # With the fallback, dropout draws the numbers that it draws in eager mode.
    compiled = torch.compile(step, fullgraph=True, dynamic=False, options={"fallback_random": True})
    return lambda weights, *batch: compiled(weights.parameters, weights.state, *batch)


def update_sgd(
    parameters: list[Tensor], gradients: list[Tensor], state: list[list[Tensor]], lr: Tensor, settings: dict[str, Any]
) -> None:
    """Update parameters as torch.optim.SGD does, but for weight decay."""
    (momentum_buffers,) = state
    for number, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        change = gradient
        if settings["momentum"]:
            momentum = momentum_buffers[number]
            momentum.mul_(settings["momentum"]).add_((1 - settings["dampening"]) * gradient)
            change = gradient + settings["momentum"] * momentum if settings["nesterov"] else momentum
        parameter.sub_(lr * change)


def update_adam(
    parameters: list[Tensor], gradients: list[Tensor], state: list[list[Tensor]], lr: Tensor, settings: dict[str, Any]
) -> None:
    """Update parameters as torch.optim.Adam and AdamW do, but for weight decay that is added to gradients."""
    exp_avgs, exp_avg_sqs, steps = state
    decoupled = settings["decoupled_weight_decay"]
    adam(
        parameters,
        gradients,
        exp_avgs,
        exp_avg_sqs,
        [],
        steps,
        foreach=False,
        amsgrad=False,
        beta1=settings["betas"][0],
        beta2=settings["betas"][1],
        lr=lr,
        weight_decay=settings["weight_decay"] if decoupled else 0,
        eps=settings["eps"],
        maximize=False,
        decoupled_weight_decay=decoupled,
    )
