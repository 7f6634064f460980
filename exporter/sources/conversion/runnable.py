"""Casts where ONNX, or ONNX Runtime's CPU provider, does not take an op's inputs in the dtype that flows there.

`--dtype float16` rounds a finished float32 graph: every float value becomes float16, but for the parameters that ONNX
defines without it. A float64 graph keeps its values, and the ops without a float64 kernel compute in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exporter.lazy import LazyArray
from exporter.records import TensorSpec
from exporter.sources.conversion.precision import FLOAT16, Losses, StoredArray, store
from exporter.sources.rewriting.onnx_graph import graphs, replace, stub, subgraphs, used_names

FLOAT, HALF, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE
# Ops that ONNX defines for float64 and ONNX Runtime 1.32 cannot run in it on the CPU: its registry of kernels says so,
# for recurrent ops the kernel itself does when it runs.
# fmt: off
NO_FLOAT64_KERNEL = frozenset((
    "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "AveragePool", "Conv", "ConvTranspose", "Cosh", "Erf",
    "Gelu", "GlobalAveragePool", "GlobalMaxPool", "GRU", "InstanceNormalization", "LRN", "LSTM", "NonZero",
    "OneHot", "Resize", "RNN", "Sinh", "Softplus", "Tan",
))
# fmt: on
# Lookup tables; their numbers are of float32.
LABEL_ENCODER_DOMAIN, LABEL_ENCODER_OPSET = "ai.onnx.ml", 2
# Without a float16 kernel ONNX Runtime takes ONNX's own formula, if there is one, in which exp(12) is infinite.
OVERFLOWING = ("ReduceLogSumExp", "Softplus")
# Attributes that name the dtype of an op's output.
DTYPE_ATTRIBUTES = ("to", "dtype")
# Constants of the graph (epsilons, masks) are kept from becoming 0 and infinite, as onnxconverter-common does.
SMALLEST_FLOAT16, LARGEST_FLOAT16 = 2.0**-24, float(np.finfo(np.float16).max)

# The norms that ONNX has as one op compute their sums in float32 (`stash_type`).
SUMS_IN_FLOAT32 = ("LayerNormalization", "RMSNormalization")

Notes = Callable[[], tuple[str, ...]]
# Whether a parameter of the node, for which ONNX allows these types, is not to have the dtype that flows there.
Refuses = Callable[[NodeProto, Sequence[str]], bool]


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
    if dtype == FLOAT16:
        half = {spec.name for spec in interface if spec.dtype == "float16"}
        weights = _Rounding(model, weights, losses, stays_float32).finish(half)
    else:
        _cast_around(model, HALF, _wants_float32)
        if ops := ", ".join(_cast_around(model, DOUBLE, lambda node: node.op_type in NO_FLOAT64_KERNEL)):
            about = f"{ops} compute in float32: ONNX Runtime has no float64 kernels for them on the CPU"
    lazy = store(model, weights)
    return lazy, lambda: (*filter(None, [about]), *losses.notes())


@dataclass
class _Casts:
    """Casts to float32 and back, to `back`, around the parameters of type `kind` that refuse it.

    `exact` has constants that exist in float32 too: name → that one's name. `used` collects those that are wanted,
    and `ops` the types of the nodes.
    """

    kind: int
    back: int
    refuses: Refuses
    opset: int
    exact: Mapping[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    ops: set[str] = field(default_factory=set)

    def insert(self, graph: GraphProto, typed: GraphProto, outer: Mapping[str, int]) -> None:
        """`typed` is the same graph with the types of its values; `outer` has those of what is around it."""
        types = {**outer, **value_types(typed)}
        nodes: list[NodeProto] = []
        made: dict[str, str] = {}
        for node, typed_node in zip(list(graph.node), list(typed.node), strict=True):
            for body, typed_body in zip(subgraphs(node), subgraphs(typed_node), strict=True):
                self.insert(body, typed_body, types)
            before, after = self._around(node, types, made)
            self.ops.update({node.op_type} if before or after else ())
            nodes += [*before, node, *after]
        used = {name for node in nodes for name in used_names(node)} | {value.name for value in graph.output}
        unused = {name for name in made if name not in used}
        replace(graph.node, [node for node in nodes if not (node.op_type == "Cast" and node.output[0] in unused)])

    def _around(
        self, node: NodeProto, types: Mapping[str, int], made: dict[str, str]
    ) -> tuple[list[NodeProto], list[NodeProto]]:
        before: list[NodeProto] = []
        after: list[NodeProto] = []
        opset = LABEL_ENCODER_OPSET if node.domain == LABEL_ENCODER_DOMAIN else self.opset
        if not onnx.defs.has(node.op_type, opset, node.domain):
            return before, after
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
        for place, name in enumerate(node.input):
            if types.get(name) == self.kind and self.refuses(node, _allowed(schema.inputs, place)):
                if name in self.exact:
                    self.used.add(name)
                elif name not in made:
                    before.append(_cast(name, f"{name}/float32", FLOAT, node.name))
                made[name] = self.exact.get(name, f"{name}/float32")
                node.input[place] = made[name]
        for place, name in enumerate(node.output):
            if types.get(name) == self.kind and self.refuses(node, _allowed(schema.outputs, place)):
                # Where the next node wants float32 too, it takes this.
                node.output[place] = made[name] = f"{name}/float32"
                after.append(_cast(made[name], name, self.back, node.name))
        return before, after


def _cast(value: str, output: str, dtype: int, name: str) -> NodeProto:
    return helper.make_node("Cast", [value], [output], name=name, to=dtype)


def _allowed(parameters: Sequence[Any], place: int) -> Sequence[str]:
    """The types that ONNX allows for a parameter; the last one may be there any number of times."""
    return parameters[min(place, len(parameters) - 1)].types


def value_types(graph: GraphProto) -> dict[str, int]:
    """Element types of the tensors of a graph, as far as it says them."""
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values} | {
        proto.name: proto.data_type for proto in graph.initializer
    }


def _opset(model: ModelProto) -> int:
    return next(entry.version for entry in model.opset_import if not entry.domain)


def _wants_float32(node: NodeProto) -> bool:
    """Whether ONNX Runtime has no kernel for float16: `ScatterND` has one as long as it reduces nothing."""
    reduces = any(each.name == "reduction" and each.s != b"none" for each in node.attribute)
    return node.op_type in OVERFLOWING or (node.op_type == "ScatterND" and reduces)


def _cast_around(model: ModelProto, kind: int, wanted: Callable[[NodeProto], bool]) -> list[str]:
    """Let the wanted ops compute in float32 what flows in `kind`; in place. Returns the types that there are."""
    typed = onnx.shape_inference.infer_shapes(model)
    if not any(kind in value_types(graph).values() for graph in graphs(typed.graph)):
        return []
    casts = _Casts(kind, kind, lambda node, types: wanted(node) and "tensor(float)" in types, _opset(model))
    casts.insert(model.graph, typed.graph, {})
    return sorted(casts.ops)


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
        casts = _Casts(FLOAT, HALF, self._refuses, _opset(self.model), names)
        casts.insert(self.graph, typed.graph, {})
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

    def _refuses(self, node: NodeProto, types: Sequence[str]) -> bool:
        return "tensor(float16)" not in types or self._stays(node)

    def _stays(self, node: NodeProto) -> bool:
        is_sound = node.op_type in SUMS_IN_FLOAT32
        return _wants_float32(node) or (not is_sound and self.stays_float32(node))

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
        casts = [_cast(value, output, kind, "") for value, output in ends]
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
