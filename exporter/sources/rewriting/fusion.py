"""Ops in the place of the formulas that they stand for: those that runtimes have a kernel for, or fuse further."""

from __future__ import annotations

from collections.abc import Callable

from exporter.sources.rewriting.fusion_activations import (
    fuse_gelu,
    fuse_gelu_tanh,
    fuse_hard_sigmoid,
    fuse_hard_swish,
    fuse_mish,
)
from exporter.sources.rewriting.fusion_linear import (
    fold_padding,
    fold_scale,
    fuse_gemm,
    fuse_global_average,
    keep_dims,
    mean_before_transpose,
    move_bias_before_heads,
)
from exporter.sources.rewriting.fusion_norms import fuse_layer_norm, fuse_rms_norm
from exporter.sources.rewriting.fusion_shapes import keep_batch, remove_idle_reshape, use_negative_indices
from exporter.sources.rewriting.onnx_editor import Editor, Node

# Changes what computes the node's output, for the given opset; says whether it did.
Fusion = Callable[[Editor, Node, int], bool]

# In this order, each over the whole graph: a `HardSwish` is made of a `HardSigmoid`, a `Gemm` of what a norm left.
FUSIONS: tuple[tuple[str, Fusion], ...] = (
    ("Reshape", remove_idle_reshape),
    ("Reshape", keep_batch),
    ("Gather", use_negative_indices),
    ("MatMul", fold_scale),
    ("Add", move_bias_before_heads),
    ("Add", fuse_layer_norm),
    ("Mul", fuse_rms_norm),
    ("Mul", fuse_gelu),
    ("Mul", fuse_gelu_tanh),
    ("Mul", fuse_hard_sigmoid),
    ("Mul", fuse_hard_swish),
    ("Mul", fuse_mish),
    ("Add", fuse_gemm),
    ("Conv", fold_padding),
    ("MaxPool", fold_padding),
    ("ReduceMean", mean_before_transpose),
    ("Reshape", keep_dims),
    ("ReduceMean", fuse_global_average),
)


def fuse(editor: Editor, opset: int) -> None:
    """Fuse what the opset has ops for. Values inside of a formula that others use, or that are outputs, stay."""
    for op_type, fusion in FUSIONS:
        for node in editor.nodes():
            if node.op_type == op_type and not node.domain and editor.producer(node.outputs[0]) is node:
                fusion(editor, node, opset)
