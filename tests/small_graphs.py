"""Small ONNX graphs as text, what ONNX Runtime makes of them, and what the optimiser makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, numpy_helper, parser

from exporter.lazy import LazyArray
from exporter.sources.rewriting.onnx_graph import stub
from exporter.sources.rewriting.optimising import optimise

HEADER = '<ir_version: 8, opset_import: ["" : 18]>\n'


def graph(text: str) -> ModelProto:
    """`text` is `(float[2,3] x) => (float[2,3] y) { … }` in the syntax of `onnx.parser`; nodes get numbers as names."""
    model = parser.parse_model(f"{HEADER}g {text}")
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"n{number}"
    return model


def made_lazy(model: ModelProto, names: list[str]) -> dict[str, LazyArray]:
    """Empties these initializers; returns their values as lazy arrays, each its own weight."""
    lazy = {}
    for proto in model.graph.initializer:
        if proto.name in names:
            array = numpy_helper.to_array(proto)
            lazy[proto.name] = LazyArray.of(array).named(proto.name)
            proto.CopyFrom(stub(proto.name, lazy[proto.name]))
    return lazy


def filled(model: ModelProto, weights: Mapping[str, LazyArray]) -> ModelProto:
    full = onnx.ModelProto()
    full.CopyFrom(model)
    for number, node in enumerate(full.graph.node):
        node.name = f"{node.name}.{number}"
    for proto in full.graph.initializer:
        if proto.name in weights:
            proto.CopyFrom(numpy_helper.from_array(np.asarray(weights[proto.name].real()), proto.name))
    return full


def inputs_of(model: ModelProto, seed: int = 0) -> dict[str, np.ndarray]:
    """Normally distributed numbers; what is dynamic is 2."""
    generator = np.random.default_rng(seed)
    feeds = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        shape = [dim.dim_value or 2 for dim in kind.shape.dim]
        feeds[value.name] = generator.standard_normal(shape).astype(
            onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        )
    return feeds


def run(model: ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """As the graph says it: ONNX Runtime's own optimisations are off."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def optimised(model: ModelProto, lazy: list[str] | None = None) -> ModelProto:
    """The optimised graph, after a comparison: valid, of the same interface, and computing the same values."""
    before, after = onnx.ModelProto(), onnx.ModelProto()
    before.CopyFrom(model)
    after.CopyFrom(model)
    weights = optimise(after, made_lazy(after, lazy or []), 18)
    found = filled(after, weights)
    onnx.checker.check_model(found, full_check=True)
    for side in ("input", "output"):
        names = [[value.name for value in getattr(m.graph, side)] for m in (before, found)]
        assert names[0] == names[1]
    feeds = inputs_of(model)
    for a, b in zip(run(filled(before, {}), feeds), run(found, feeds), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)
    return after


def ops(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)
