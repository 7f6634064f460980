"""The dtypes in which a finished graph is stored and computes.

`--dtype float16` rounds a finished float32 graph: every float value becomes float16, but for the parameters that ONNX
defines without it. Otherwise values keep their types, and ops that have no kernel for them compute in another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from exporter.lazy import LazyArray
from exporter.records import TensorSpec
from exporter.sources.conversion.casts import Casts, cast, value_types
from exporter.sources.conversion.kernels import detour, wants_float32
from exporter.sources.conversion.precision import FLOAT16, Losses, StoredArray, store
from exporter.sources.rewriting.onnx_graph import graphs, replace, stub, used_names

FLOAT, HALF, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE
# Attributes that name the dtype of an op's output.
DTYPE_ATTRIBUTES = ("to", "dtype")
# Constants of the graph (epsilons, masks) are kept from becoming 0 and infinite, as onnxconverter-common does.
SMALLEST_FLOAT16, LARGEST_FLOAT16 = 2.0**-24, float(np.finfo(np.float16).max)

# The norms that ONNX has as one op compute their sums in float32 (`stash_type`).
SUMS_IN_FLOAT32 = ("LayerNormalization", "RMSNormalization")

Notes = Callable[[], tuple[str, ...]]


def finish(
    model: ModelProto,
    weights: Mapping[str, LazyArray],
    dtype: str,
    interface: Iterable[TensorSpec],
    stays_float32: Callable[[NodeProto], bool],
) -> tuple[dict[str, LazyArray], Notes]:
    """Give the model the dtypes that it is stored and computed in, in place.

    `interface` are the source's inputs and outputs; `stays_float32` knows the nodes of layers that float16 does not
    suit. Returns the lazy initializers, and what to tell the user when they have been made.
    """
    losses, about = Losses(), ""
    if ops := ", ".join(_cast_around(model)):
        about = f"{ops} compute in float32: ONNX Runtime has no float64 kernels for them on the CPU"
    if dtype == FLOAT16:
        half = {spec.name for spec in interface if spec.dtype == "float16"}
        weights = _Rounding(model, weights, losses, stays_float32).finish(half)
    lazy = store(model, weights)
    return lazy, lambda: (*filter(None, [about]), *losses.notes())


def _opset(model: ModelProto) -> int:
    return next(entry.version for entry in model.opset_import if not entry.domain)


def _cast_around(model: ModelProto) -> list[str]:
    """Let ops compute in a type that they can run in; in place. Returns the types of those that lose float64."""
    typed = onnx.shape_inference.infer_shapes(model)
    casts = Casts(detour, _opset(model))
    casts.insert(model.graph, typed.graph)
    return sorted(casts.ops.get(DOUBLE, ()))


class _Rounding:
    """A float32 model becomes one of float16; its inputs and outputs stay as they are."""

    def __init__(
        self,
        model: ModelProto,
        weights: Mapping[str, LazyArray],
        losses: Losses,
        stays_float32: Callable[[NodeProto], bool],
    ) -> None:
        self.model, self.graph, self.stays_float32 = model, model.graph, stays_float32
        self.weights, self.losses = dict(weights), losses

    def finish(self, half: set[str]) -> dict[str, LazyArray]:
        """`half` are the inputs and outputs that are float16 in the source. Returns the lazy initializers."""
        typed = onnx.shape_inference.infer_shapes(self.model)
        exact = {f"{proto.name}/exact": proto for proto in typed.graph.initializer if proto.data_type == FLOAT}
        names = {proto.name: name for name, proto in exact.items()}
        arrays = {name: self.weights[proto.name] for name, proto in exact.items() if proto.name in self.weights}
        for inner in graphs(self.graph):
            self._round(inner)
        casts = Casts(self._detour, _opset(self.model), {FLOAT: HALF}, names)
        casts.insert(self.graph, typed.graph)
        for name in sorted(casts.used):
            self._add_exact(names[name], exact[names[name]], arrays)
        types = value_types(typed.graph)
        self._keep_border([value for value in self.graph.input if types[value.name] == FLOAT], half, is_input=True)
        self._keep_border([value for value in self.graph.output if types[value.name] == FLOAT], half, is_input=False)
        used = {name for node in self.graph.node for name in used_names(node)}
        used |= {value.name for value in self.graph.output}
        replace(self.graph.initializer, [proto for proto in self.graph.initializer if proto.name in used])
        return {name: array for name, array in self.weights.items() if name in used}

    def _round(self, graph: GraphProto) -> None:
        for value in (*graph.input, *graph.value_info, *graph.output):
            if value.type.tensor_type.elem_type == FLOAT:
                value.type.tensor_type.elem_type = HALF
        for proto in graph.initializer:
            if proto.data_type == FLOAT:
                self._round_initializer(proto)
        for node in graph.node:
            for attribute in node.attribute if not self._stays(node) else ():
                _round_attribute(attribute)

    def _detour(self, node: NodeProto, kind: int, allowed: Sequence[str]) -> int | None:
        return FLOAT if kind == FLOAT and ("tensor(float16)" not in allowed or self._stays(node)) else None

    def _stays(self, node: NodeProto) -> bool:
        is_sound = node.op_type in SUMS_IN_FLOAT32
        return wants_float32(node) or (not is_sound and self.stays_float32(node))

    def _round_initializer(self, proto: TensorProto) -> None:
        array = self.weights.get(proto.name)
        if array is None:
            proto.CopyFrom(_rounded(proto))
            return
        is_cast = isinstance(array, StoredArray)
        weight = min(array.origins, default=proto.name)
        narrow = array.astype(np.float16) if is_cast else self.losses.narrowed(array, weight)
        self.weights[proto.name] = narrow
        proto.CopyFrom(stub(proto.name, narrow))

    def _add_exact(self, name: str, proto: TensorProto, arrays: Mapping[str, LazyArray]) -> None:
        """A constant that a parameter wants in float32, such as the scales of `Resize`, is not rounded first."""
        added = self.graph.initializer.add()
        added.CopyFrom(proto)
        added.name = name
        if name in arrays:
            self.weights[name] = arrays[name]

    def _keep_border(self, values: Sequence[onnx.ValueInfoProto], half: set[str], *, is_input: bool) -> None:
        renamed = {value.name: f"{value.name}/float16" for value in values if value.name not in half}
        for value in values:
            if value.name in renamed:
                value.type.tensor_type.elem_type = FLOAT
        _rename(self.graph, renamed)
        self.weights = {renamed.get(name, name): array for name, array in self.weights.items()}
        kind = HALF if is_input else FLOAT
        ends = renamed.items() if is_input else ((inner, outer) for outer, inner in renamed.items())
        casts = [cast(value, output, kind, "") for value, output in ends]
        nodes = list(self.graph.node)
        replace(self.graph.node, [*casts, *nodes] if is_input else [*nodes, *casts])


def _rounded(proto: TensorProto) -> TensorProto:
    array = numpy_helper.to_array(proto)
    limited = np.where(np.isfinite(array), np.clip(array, -LARGEST_FLOAT16, LARGEST_FLOAT16), array)
    tiny = (limited != 0) & (np.abs(limited) < SMALLEST_FLOAT16)
    limited = np.where(tiny, np.copysign(SMALLEST_FLOAT16, limited), limited)
    return numpy_helper.from_array(np.asarray(limited, np.float16), proto.name)


def _round_attribute(attribute: AttributeProto) -> None:
    if attribute.name in DTYPE_ATTRIBUTES and attribute.type == AttributeProto.INT and attribute.i == FLOAT:
        attribute.i = HALF
    elif attribute.type == AttributeProto.TENSOR and attribute.t.data_type == FLOAT:
        attribute.t.CopyFrom(_rounded(attribute.t))


def _rename(graph: GraphProto, renamed: Mapping[str, str]) -> None:
    """Every node and initializer, also inside of loops and branches; not what the graph's interface is called."""
    for inner in graphs(graph):
        for node in inner.node:
            node.input[:] = [renamed.get(name, name) for name in node.input]
            node.output[:] = [renamed.get(name, name) for name in node.output]
        for proto in inner.initializer:
            proto.name = renamed.get(proto.name, proto.name)
        for value in inner.output if inner is not graph else ():
            value.name = renamed.get(value.name, value.name)
