"""Folds a per-channel scale and shift that follow a convolution into its kernel and bias.

`conv(x, K) + b` followed by `· s + t` is `conv(x, K · s) + (b · s + t)`: what is left of a batch norm at inference.
TensorFlow's optimiser does this when it has the weights; here it is done on lazy arrays, so nothing is read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from exporter.lazy import LazyArray
from exporter.sources.conversion.precision import is_cast
from exporter.sources.rewriting.onnx_editor import Constant, Editor, Node

# Where the output channels are in the kernel: ONNX stores [M, C/group, …] for Conv, [C, M/group, …] for ConvTranspose.
CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1}


def fold_convolutions(editor: Editor) -> None:
    """Fold into every convolution the `Mul`, `Add` and `Sub` with per-channel constants that follow it."""
    for node in editor.nodes():
        if node.op_type in CHANNEL_AXIS and not node.domain:
            _absorb(editor, node)


def _absorb(editor: Editor, conv: Node) -> None:
    kernel, axis = editor.constant(conv.inputs[1]), CHANNEL_AXIS[conv.op_type]
    if kernel is None or is_cast(kernel) or (axis == 1 and conv.get("group", 1) != 1):
        return
    channels, ndim = kernel.shape[axis], len(kernel.shape)
    bias = editor.constant(conv.inputs[2]) if len(conv.inputs) > 2 else None
    if len(conv.inputs) > 2 and bias is None:
        return
    follower = _Follower(editor, conv, ndim)
    changed = False
    while (constant := follower.next_constant(channels)) is not None:
        if follower.node.op_type == "Mul":
            shape = [channels if place == axis else 1 for place in range(ndim)]
            kernel = np.multiply(kernel, constant.reshape(shape) if constant.size > 1 else constant)
            bias = None if bias is None else np.multiply(bias, constant)
        else:
            shift = np.negative(constant) if follower.node.op_type == "Sub" else constant
            bias = shift if bias is None else np.add(bias, shift)
        follower.drop()
        changed = True
    if changed:
        _set_constants(editor, conv, kernel, bias, channels)


class _Follower:
    """Walks from a convolution along the only use of each value, behind transposes and squeezes, to constants."""

    def __init__(self, editor: Editor, conv: Node, ndim: int) -> None:
        self._editor = editor
        self.node = conv
        # The value reached, and where its channels are.
        self._value, self._axis, self._ndim = conv.outputs[0], 1, ndim

    def next_constant(self, channels: int) -> Any:
        """What the next `Mul`, `Add` or `Sub` has for each channel, as [channels] or [1]; None when there is none."""
        node = self._editor.sole_consumer(self._value)
        while node is not None and self._passes(node):
            self._value = node.outputs[0]
            node = self._editor.sole_consumer(self._value)
        if node is None or node.domain or node.op_type not in ("Mul", "Add", "Sub"):
            return None
        if node.inputs[0] == node.inputs[1] or (node.op_type == "Sub" and node.inputs[0] != self._value):
            return None
        self.node = node
        return self._per_channel(node.inputs[1] if node.inputs[0] == self._value else node.inputs[0], channels)

    def drop(self) -> None:
        """Remove the node whose constant was taken."""
        output = self.node.outputs[0]
        self._editor.bypass(self.node, self._value)
        self._value = output if self._editor.is_output(output) else self._value

    def _per_channel(self, name: str, channels: int) -> Any:
        constant = self._editor.constant(name)
        if constant is None or len(constant.shape) > self._ndim:
            return None
        padded = (1,) * (self._ndim - len(constant.shape)) + tuple(constant.shape)
        own = padded[self._axis]
        if own not in (1, channels) or any(size != 1 for a, size in enumerate(padded) if a != self._axis):
            return None
        return constant.reshape([own])

    def _passes(self, node: Node) -> bool:
        """Whether the channels go through the node as they are: one-dimensional convolutions are two-dimensional."""
        if node.op_type == "Transpose" and "perm" in node.attributes:
            self._axis = node.get("perm").index(self._axis)
            return True
        axes = self._editor.constant(node.inputs[1]) if node.op_type == "Squeeze" and len(node.inputs) > 1 else None
        if not isinstance(axes, np.ndarray):
            return False
        gone = [int(axis) % self._ndim for axis in axes.reshape(-1)]
        if self._axis in gone:
            return False
        self._axis -= sum(axis < self._axis for axis in gone)
        self._ndim -= len(gone)
        return True


def _set_constants(editor: Editor, conv: Node, kernel: Constant, bias: Constant | None, channels: int) -> None:
    inputs = [conv.inputs[0], editor.add_constant(kernel, f"{conv.name}/folded_kernel")]
    if bias is not None:
        if bias.shape != (channels,):
            bias = np.add(bias, np.zeros(channels, bias.dtype))
        bias = bias if isinstance(bias, LazyArray) else LazyArray.of(bias)
        inputs.append(editor.add_constant(bias, f"{conv.name}/folded_bias"))
    editor.set_inputs(conv, inputs)
