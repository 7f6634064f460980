"""A converted graph is decoded once, made better in steps that each take time proportional to it, and written once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import onnx
from onnx import ModelProto

from exporter.lazy import LazyArray
from exporter.sources.rewriting.constant_folding import fold_constants
from exporter.sources.rewriting.conv_folding import fold_convolutions
from exporter.sources.rewriting.einsum import split_einsums
from exporter.sources.rewriting.fusion import fuse
from exporter.sources.rewriting.layout import reduce_transposes
from exporter.sources.rewriting.onnx_editor import Editor
from exporter.sources.rewriting.onnx_graph import subgraphs
from exporter.sources.rewriting.simplifying import simplify


def optimise(model: ModelProto, weights: Mapping[str, LazyArray], opset: int) -> dict[str, LazyArray]:
    """The model with fewer and better nodes that computes the same, in place; returns its lazy initializers.

    Every step takes time proportional to the graph, and reads no weight. Each node keeps the name of one of those that
    it comes from, and each array its origins: by them its layer is found.
    """
    # Twice: shapes can be inferred when the axes and sizes on which they depend have been computed.
    weights = _edited(model, weights, fold_constants)
    model.CopyFrom(onnx.shape_inference.infer_shapes(model, data_prop=True))
    return _edited(model, weights, lambda editor: _improve(editor, opset))


def _improve(editor: Editor, opset: int) -> None:
    split_einsums(editor)
    simplify(editor)
    fold_convolutions(editor)
    reduce_transposes(editor)
    simplify(editor)
    fuse(editor, opset)


def _edited(
    model: ModelProto, weights: Mapping[str, LazyArray], edit: Callable[[Editor], None]
) -> dict[str, LazyArray]:
    """Bodies of loops and branches first, the innermost first: what they take from outside must be known then."""
    _edit_bodies(model.graph, edit, "")
    editor = Editor(model, weights)
    edit(editor)
    return editor.finish()


def _edit_bodies(graph: onnx.GraphProto, edit: Callable[[Editor], None], scope: str) -> None:
    for node in graph.node:
        for place, body in enumerate(subgraphs(node)):
            inner = f"{scope}{node.name}.{place}."
            _edit_bodies(body, edit, inner)
            editor = Editor(body, {}, inner)
            edit(editor)
            made = editor.finish()
            for proto in body.initializer:
                if proto.name in made:
                    proto.CopyFrom(onnx.numpy_helper.from_array(made[proto.name].real(), proto.name))
            _name_apart(body)


def _name_apart(body: onnx.GraphProto) -> None:
    """No two nodes of one name, by a number like tf2onnx's. Those of the main graph are all named anew at the end."""
    seen: Counter[str] = Counter()
    for node in body.node:
        seen[node.name] += 1
        if seen[node.name] > 1:
            node.name = f"{node.name}__{seen[node.name]}"
