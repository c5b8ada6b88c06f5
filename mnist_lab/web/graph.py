"""A network's graph as plain data, for a forward pass outside of Python: its operators, and where their arrays are."""

from __future__ import annotations

import contextlib
import io
import operator
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from mnist_lab.errors import LabError
from mnist_lab.models.classifier import Classifier

aten = torch.ops.aten
Step = dict[str, Any]  # an operation in JSON, as engine.js reads it


@dataclass
class Arrays:
    """The arrays of a page, one after another: in float32, or in float16 where they need not be exact."""

    kind: str = "<f4"  # "<f4" or "<f2", little-endian
    parts: list[np.ndarray] = field(default_factory=list)
    length: int = 0

    def add(self, tensor: Tensor) -> dict[str, Any]:
        """Add an array, and return where it is."""
        array = tensor.detach().cpu().float().contiguous().numpy()
        place = {"offset": self.length, "shape": list(array.shape)}
        self.parts.append(array.ravel())
        self.length += array.size
        return place

    def to_bytes(self) -> bytes:
        """Return the bytes of all arrays; in float16, numbers that are too large become its largest."""
        most = np.finfo(self.kind).max
        return np.concatenate(self.parts).clip(-most, most).astype(self.kind).tobytes()


def to_graph(
    network: Classifier, arrays: Arrays, earlier: Iterable[tuple[Mapping[str, Tensor], Arrays]] = ()
) -> list[Step]:
    """Return the steps of a network's forward pass, and add its weights and earlier ones to arrays at equal places."""
    image, name = torch.zeros(1, 1, network.image_size, network.image_size), type(network).__name__
    program = trace(network, image, name).run_decompositions()
    for weights, others in earlier:
        _Converter(program, weights, others, name)
    return _Converter(program, program.state_dict, arrays, name).steps


def trace(module: nn.Module, example: Tensor, name: str, **settings: Any) -> torch.export.ExportedProgram:
    """Trace a module for one example; errors give the name of the network."""
    module = module.eval().to(memory_format=torch.contiguous_format)  # Torch warns of channels_last.
    try:
        with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")  # The warnings, which torch also prints, are about its internals.
            return torch.export.export(module, (example,), strict=False, **settings)
    except Exception as error:  # A network may raise anything.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise LabError(f"{name}: torch cannot trace it ({reason}); export its weights: --format state_dict") from error


class _Converter:
    """Converts a traced program node by node; values that do not depend on the image are computed here."""

    def __init__(
        self, program: torch.export.ExportedProgram, weights: Mapping[str, Tensor], arrays: Arrays, network: str
    ) -> None:
        self.arrays, self.network = arrays, network
        self.steps: list[Step] = []
        self.constants: dict[fx.Node, Any] = {}
        self.layers: dict[fx.Node, str] = {}  # the names of the layers that constants belong to
        self.names: dict[fx.Node, str] = {}  # the names of values that depend on the image
        state = {**weights, **program.constants}
        signature = program.graph_signature
        sources = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        for node in program.graph.nodes:
            if node.op == "placeholder":
                if node.name in sources:
                    self.constants[node] = state[sources[node.name]]
                    self.layers[node] = sources[node.name].rpartition(".")[0]
                else:
                    self.names[node] = "input"
            elif node.op == "call_function":
                self._convert(node)

    def _convert(self, node: fx.Node) -> None:
        inputs = node.all_input_nodes
        layers = [self.layers[source] for source in inputs if source in self.layers]
        if all(source in self.constants for source in inputs):
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: self.constants[source])
            self.constants[node] = node.target(*args, **kwargs)  # type: ignore[operator]
            if layers:
                self.layers[node] = layers[-1]
            return
        if node.target in IDENTITIES:
            self.names[node] = self.names[inputs[0]]
            return
        name, convert = CONVERTERS.get(node.target, ("", lambda graph, node: None))
        fields = convert(self, node)
        if fields is None:
            raise LabError(
                f"{self.network}: the page has no operator {node.target}; docs/guides/export.md lists those it has"
            )
        self.names[node] = node.name
        value = node.meta["val"]
        first = value[0] if isinstance(value, tuple | list) else value
        step: Step = {
            "name": node.name,
            "operator": name,
            "layer": layers[0] if layers else "",
            "shape": list(first.shape[1:]),
            "inputs": self.inputs(*(source for source in inputs if source in self.names)),
        }
        self.steps.append(step | fields)

    def inputs(self, *nodes: Any) -> list[str]:
        return [self.names[node] for node in nodes]

    def array(self, node: Any) -> dict[str, Any] | None:
        """Add a constant's array, if there is one, and return where it is."""
        return None if node is None else self.arrays.add(self.constants[node])


# Returns the fields of a node's step that not every step has; None if the page cannot compute it.
Converter = Callable[[_Converter, Any], Step | None]


def _convolution(graph: _Converter, node: Any) -> Step | None:
    _, weight, bias, stride, padding, dilation, transposed, _, groups = node.args
    if transposed or len(stride) != 2:
        return None
    arrays = {"weight": graph.array(weight), "bias": graph.array(bias)}
    return arrays | {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


def _linear(graph: _Converter, node: Any) -> Step | None:
    bias, _, weight = node.args if node.target is aten.addmm.default else (None, *node.args)
    if weight not in graph.constants:
        return None
    return {"weight": graph.arrays.add(graph.constants[weight].T), "bias": graph.array(bias)}


def _pool(graph: _Converter, node: Any) -> Step | None:
    is_max = node.target is aten.max_pool2d_with_indices.default
    values = [*node.args[1:]]
    defaults: list[Any] = [[2, 2], [], [0, 0], [1, 1], False] if is_max else [[2, 2], [], [0, 0], False, True, None]
    kernel, stride, padding, *rest = values + defaults[len(values) :]
    dilation, ceil = (rest[0], rest[1]) if is_max else ([1, 1], rest[0])
    if list(dilation) != [1, 1] or (not is_max and rest[2] is not None):
        return None
    return {
        "kind": "max" if is_max else "mean",
        "kernel": kernel,
        "stride": stride or kernel,
        "padding": padding,
        "ceil": ceil,
        "counts": True if is_max else rest[1],
    }


def _batch_norm(graph: _Converter, node: Any) -> Step:
    _, weight, bias, mean, variance, _, epsilon = node.args
    mean, variance = graph.constants[mean].double(), graph.constants[variance].double()
    factor = (variance + epsilon).rsqrt()
    if weight is not None:
        factor = factor * graph.constants[weight]
    shift = -mean * factor
    if bias is not None:
        shift = shift + graph.constants[bias]
    return {"factor": graph.arrays.add(factor), "shift": graph.arrays.add(shift)}


def _mean(graph: _Converter, node: Any) -> Step | None:
    x, axes, *_ = node.args
    return {} if sorted(axis % 4 for axis in axes) == [2, 3] and len(x.meta["val"].shape) == 4 else None


def _arithmetic(graph: _Converter, node: Any) -> Step | None:
    x, y = node.args[:2]
    if x in graph.constants or y in graph.constants or node.kwargs.get("alpha", 1) != 1:
        return None
    if not isinstance(y, fx.Node):
        return {"value": y}
    return {"inputs": graph.inputs(x, y)} if x.meta["val"].shape == y.meta["val"].shape else None


def _reshape(graph: _Converter, node: Any) -> Step | None:
    (x,) = node.all_input_nodes
    return {} if x.meta["val"].shape[0] == node.meta["val"].shape[0] else None


def _pointwise(**defaults: float) -> Converter:
    """Return a converter of an operator whose arguments after its input are these options, in this order."""
    return lambda graph, node: defaults | dict(zip(defaults, node.args[1:], strict=False))


def _softmax(graph: _Converter, node: Any) -> Step | None:
    return {} if node.args[1] in (1, -1) and len(node.meta["val"].shape) == 2 else None


def _concatenate(graph: _Converter, node: Any) -> Step | None:
    parts, axis = (*node.args, 0)[:2]
    is_covered = axis == 1 and not any(part in graph.constants for part in parts)
    return {"inputs": graph.inputs(*parts)} if is_covered else None


IDENTITIES = {operator.getitem, aten.clone.default, aten.detach.default, aten.alias.default, aten._to_copy.default}
# The name in engine.js and the converter of each of torch's operators.
CONVERTERS: dict[Any, tuple[str, Converter]] = {
    aten.convolution.default: ("convolution", _convolution),
    aten.addmm.default: ("linear", _linear),
    aten.mm.default: ("linear", _linear),
    aten.max_pool2d_with_indices.default: ("pool", _pool),
    aten.avg_pool2d.default: ("pool", _pool),
    aten._native_batch_norm_legit_no_training.default: ("scale", _batch_norm),
    aten.mean.dim: ("mean", _mean),
    **{getattr(aten, name).default: (name, _pointwise()) for name in ("relu", "sigmoid", "tanh", "gelu", "silu")},
    aten.leaky_relu.default: ("leaky_relu", _pointwise(slope=0.01)),
    aten.elu.default: ("elu", _pointwise(alpha=1.0)),
    aten.view.default: ("reshape", _reshape),
    aten._unsafe_view.default: ("reshape", _reshape),
    aten.reshape.default: ("reshape", _reshape),
    aten.squeeze.dims: ("reshape", _reshape),
    aten.unsqueeze.default: ("reshape", _reshape),
    aten._softmax.default: ("softmax", _softmax),
    aten._log_softmax.default: ("log_softmax", _softmax),
    aten.add.Tensor: ("add", _arithmetic),
    aten.sub.Tensor: ("subtract", _arithmetic),
    aten.mul.Tensor: ("multiply", _arithmetic),
    aten.div.Tensor: ("divide", _arithmetic),
    aten.cat.default: ("concatenate", _concatenate),
}
