"""Folds a per-channel scale and shift that follow a convolution into its kernel and bias.

`conv(x, K) + b` followed by `· s + t` is `conv(x, K · s) + (b · s + t)`: what is left of a batch norm at inference.
TensorFlow's optimiser does this when it has the weights; here it is done on lazy arrays, so nothing is read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from exporter.lazy import LazyArray
from exporter.sources.onnx_graph import replace, stub, used_names

# Where the output channels are in the kernel: ONNX stores [M, C/group, …] for Conv, [C, M/group, …] for ConvTranspose.
CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1}


def fold_convolutions(model: ModelProto, weights: Mapping[str, LazyArray]) -> dict[str, LazyArray]:
    """Fold in place; returns the lazy initializers of the folded model."""
    folding = _Folding(model, weights)
    for node in model.graph.node:
        if node.op_type in CHANNEL_AXIS:
            folding.absorb(node)
    return folding.finish()


class _Folding:
    def __init__(self, model: ModelProto, weights: Mapping[str, LazyArray]) -> None:
        self.graph = model.graph
        self.values: dict[str, Any] = {
            proto.name: weights[proto.name] if proto.name in weights else numpy_helper.to_array(proto)
            for proto in self.graph.initializer
        }
        self.consumers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.graph.node:
            for name in used_names(node):
                self.consumers[name].append(node)
        self.outputs = {value.name for value in self.graph.output}
        self.removed: set[int] = set()
        self.made: dict[str, LazyArray] = {}

    def absorb(self, conv: NodeProto) -> None:
        """Take in the `Mul`, `Add` and `Sub` with per-channel constants that follow, also behind a `Squeeze`."""
        kernel = self.values.get(conv.input[1])
        axis = CHANNEL_AXIS[conv.op_type]
        if not isinstance(kernel, LazyArray) or (axis == 1 and _group(conv) != 1):
            return
        channels = kernel.shape[axis]
        bias = self.values.get(conv.input[2]) if len(conv.input) > 2 else None
        if len(conv.input) > 2 and bias is None:
            return
        changed = False
        last, ndim = self._squeezed(conv, kernel.ndim)
        while (following := self._follower(last.output[0], channels, ndim)) is not None:
            node, constant = following
            if node.op_type == "Mul":
                shape = [channels if a == axis else 1 for a in range(kernel.ndim)]
                kernel = np.multiply(kernel, constant.reshape(shape) if constant.size > 1 else constant)
                bias = None if bias is None else np.multiply(bias, constant)
            else:
                shift = np.negative(constant) if node.op_type == "Sub" else constant
                bias = shift if bias is None else np.add(bias, shift)
            self.removed.add(id(node))
            last.output[0] = node.output[0]
            changed = True
        if changed:
            self._set_constants(conv, kernel, bias, channels)

    def _single_consumer(self, output: str) -> NodeProto | None:
        consumers = self.consumers[output]
        return consumers[0] if len(consumers) == 1 and output not in self.outputs else None

    def _squeezed(self, conv: NodeProto, ndim: int) -> tuple[NodeProto, int]:
        """The node whose output is the convolution's, and its rank: one-dimensional ones are two-dimensional inside."""
        node = self._single_consumer(conv.output[0])
        if node is None or node.op_type != "Squeeze" or len(node.input) < 2:
            return conv, ndim
        axes = self.values.get(node.input[1])
        if not isinstance(axes, np.ndarray) or any(axis % ndim < 2 for axis in axes.tolist()):
            return conv, ndim
        return node, ndim - axes.size

    def _follower(self, output: str, channels: int, ndim: int) -> tuple[NodeProto, Any] | None:
        """The single consumer and its constant, as [channels] or [1], when the two can be folded."""
        node = self._single_consumer(output)
        if node is None or node.op_type not in ("Mul", "Add", "Sub"):
            return None
        if node.op_type == "Sub" and node.input[0] != output:
            return None
        constant = self.values.get(node.input[1] if node.input[0] == output else node.input[0])
        if constant is None or len(constant.shape) > ndim:
            return None
        padded = (1,) * (ndim - len(constant.shape)) + tuple(constant.shape)
        if padded[1] not in (1, channels) or any(size != 1 for a, size in enumerate(padded) if a != 1):
            return None
        return node, constant.reshape([padded[1]])

    def _set_constants(self, conv: NodeProto, kernel: LazyArray, bias: Any, channels: int) -> None:
        inputs = [conv.input[0], f"{conv.output[0]}/folded_kernel"]
        self.made[inputs[1]] = kernel
        if bias is not None:
            if bias.shape != (channels,):
                bias = np.add(bias, np.zeros(channels, bias.dtype))
            inputs.append(f"{conv.output[0]}/folded_bias")
            self.made[inputs[2]] = bias if isinstance(bias, LazyArray) else LazyArray.of(bias)
        del conv.input[:]
        conv.input.extend(inputs)

    def finish(self) -> dict[str, LazyArray]:
        """Drop what was folded away and the constants that nobody uses any more."""
        replace(self.graph.node, [node for node in self.graph.node if id(node) not in self.removed])
        uses = {name for node in self.graph.node for name in used_names(node)} | self.outputs
        kept = [proto for proto in self.graph.initializer if proto.name in uses]
        replace(self.graph.initializer, [*kept, *(stub(name, array) for name, array in self.made.items())])
        lazy = {name: value for name, value in self.values.items() if isinstance(value, LazyArray) and name in uses}
        return lazy | self.made


def _group(node: NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
