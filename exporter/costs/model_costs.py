"""What the layers of a model cost in one run: operations, activation bytes, and their totals.

Only the description of the model is used, so that every source gives the same numbers, with or without TensorFlow.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from exporter.costs.call_shapes import IMPOSSIBLE, CallShapes, Resolver, settings
from exporter.costs.calls import Call, Calls
from exporter.costs.counting import Operations, Sizes, count
from exporter.costs.layer_costs import FORMULAS, operations
from exporter.costs.layer_formulas import LayerCall
from exporter.costs.live_activations import live_bytes
from exporter.records import Cost, Job, Layer, LayerCosts, ModelGraph, OnnxNode, Shape, TensorSpec

# What stands for a dynamic dimension that is no batch (a sequence's length, an image's side) when nothing else is said.
DIMENSION = 128
# Bits of the types whose names do not end with their number of bits.
OTHER_BITS = {"bool": 8, "bfloat16": 16, "float8_e4m3fn": 8, "float8_e5m2": 8, "complex64": 64, "complex128": 128}


def stated_sizes(job: Job, inputs: Sequence[TensorSpec]) -> tuple[int, int]:
    """What stands for a dynamic batch and for any other dynamic dimension of a model with these inputs.

    That is what `--input-shape` gives to dimensions that the model leaves open, if it is one size.
    """
    given: tuple[set[int], set[int]] = (set(), set())
    for spec in inputs:
        for axis, (have, want) in enumerate(zip(spec.shape or (), _asked(job, spec) or (), strict=False)):
            if have is None and want is not None:
                given[axis > 0].add(want)
    batch, dimension = (sizes.pop() if len(sizes) == 1 else None for sizes in given)
    return job.batch_size or batch or 1, dimension or DIMENSION


def _asked(job: Job, spec: TensorSpec) -> Shape | None:
    return job.input_shapes.get(spec.name, job.input_shapes.get(""))


def job_costs(job: Job, graph: ModelGraph, nodes: Sequence[OnnxNode] | None) -> LayerCosts:
    """`layer_costs` with the sizes that the job fixes: those of its batch and of its inputs."""
    inputs = tuple(_fixed(spec, _asked(job, spec)) for spec in graph.inputs)
    return layer_costs(replace(graph, inputs=inputs), nodes, *stated_sizes(job, graph.inputs))


def _fixed(spec: TensorSpec, asked: Shape | None) -> TensorSpec:
    if spec.shape is None or asked is None or len(spec.shape) != len(asked):
        return spec if asked is None else replace(spec, shape=asked)
    sizes = zip(spec.shape, asked, strict=True)
    return replace(spec, shape=tuple(want if want is not None else have for have, want in sizes))


def layer_costs(
    graph: ModelGraph, nodes: Sequence[OnnxNode] | None, batch_size: int = 1, dimension: int = DIMENSION
) -> LayerCosts:
    """The costs of every layer and of the model, in time linear in the graph.

    A formula for the layer comes first, then the sum over the layers inside, then the sum over its ONNX nodes.
    `batch_size` stands for a dynamic first dimension, `dimension` for any other dynamic one. Reads no weight.
    """
    calls = Calls.of(graph)
    shapes = Resolver(calls, batch_size, dimension).resolve(graph.inputs)
    counter = _Counter(
        calls, shapes, _node_sums(calls, nodes or ()), _weight_bytes(graph), _weights(graph), graph.level
    )
    costs: dict[str, Cost] = {}
    # What is inside of a layer comes behind it.
    for layer in reversed(graph.layers):
        costs[layer.namespace] = counter.cost(layer, costs)
    output_bytes = {call: _output_bytes(calls.layers[call[0]], found.outputs) for call, found in shapes.items()}
    live = live_bytes(calls, output_bytes, {spec.name for spec in graph.outputs})
    outermost = [costs[layer.namespace] for layer in calls.inside.get(None, ())]
    return LayerCosts(
        layers={layer.namespace: costs[layer.namespace] for layer in graph.layers},
        batch_size=batch_size,
        dimension=dimension,
        layers_without_cost=sum(cost.macs is None for cost in outermost),
        macs=_sum_of_known([cost.macs for cost in outermost]),
        flops=_sum_of_known([cost.flops for cost in outermost]),
        peak_activation_bytes=max(live.values()) if live else None,
        live_activation_bytes=live or {},
    )


@dataclass(frozen=True)
class _Counter:
    """Finds the cost of a layer when those of the layers inside are known."""

    calls: Calls
    shapes: Mapping[Call, CallShapes]
    node_sums: Mapping[str, Operations | None]
    weight_bytes: Mapping[str, int]
    weights: Mapping[str, tuple[tuple[int, ...], ...]]
    level: str

    @cached_property
    def runs(self) -> dict[str | None, int | None]:
        """How often what is inside of each layer runs (None: of the model); None when that is not known."""
        runs: dict[str | None, int | None] = {None: 1}
        for layer in self.calls.layers.values():
            times = runs[layer.parent]
            runs[layer.namespace] = times * layer.calls if times and layer.calls and self._calls_agree(layer) else None
        return runs

    def cost(self, layer: Layer, inside: Mapping[str, Cost]) -> Cost:
        made = [self.shapes.get((layer.namespace, number)) for number in range(layer.calls)]
        times = self.runs[layer.parent]
        found, method = self._operations(layer, made, times, inside)
        activation_bytes = _bytes_of(layer.outputs, [None if at is None else at.outputs for at in made], times)
        input_bytes = _bytes_of(layer.inputs, [None if at is None else at.inputs for at in made], times)
        intensity = None
        if found and found.flops is not None and activation_bytes is not None and input_bytes is not None:
            moved = activation_bytes + input_bytes + self.weight_bytes.get(layer.namespace, 0)
            intensity = found.flops / moved if moved else None
        macs, flops = (None, None) if found is None else (found.macs, found.flops)
        return Cost(macs, flops, activation_bytes, method, intensity)

    def _operations(
        self, layer: Layer, made: Sequence[CallShapes | None], times: int | None, inside: Mapping[str, Cost]
    ) -> tuple[Operations | None, str | None]:
        found = self._by_formula(layer, made, times)
        if found is not None:
            return found, "layer"
        found = self._sum(layer, inside)
        if found is not None:
            return found, "sum"
        # One ONNX node may do the work of several layers inside of such a layer.
        found = None if self._has_formula_around(layer) else self.node_sums.get(layer.namespace)
        return found, "onnx" if found else None

    def _has_formula_around(self, layer: Layer) -> bool:
        return layer.parent is not None and self.calls.layers[layer.parent].class_name in FORMULAS

    def _by_formula(self, layer: Layer, made: Sequence[CallShapes | None], times: int | None) -> Operations | None:
        if not made or times is None:
            return None
        config, total = settings(layer), Operations()
        dtypes = tuple(spec.dtype for spec in layer.inputs or ())
        for at in made:
            if at is None or None in at.inputs or None in at.outputs:
                return None
            held = self.weights.get(layer.namespace, ())
            call = LayerCall(layer.class_name, config, at.inputs, at.outputs, dtypes, held)  # type: ignore[arg-type]
            try:
                # Where there is an ONNX graph, one of its nodes may do the work of several rows.
                found = operations(call, "layer" if self.node_sums else self.level)
            except IMPOSSIBLE:
                return None
            if found is None:
                return None
            total += found
        return total * times

    def _sum(self, layer: Layer, inside: Mapping[str, Cost]) -> Operations | None:
        """Of the layers of a nested model; None when it is called on other shapes than they were counted for."""
        children = self.calls.inside.get(layer.namespace, ())
        if not any(child.calls for child in children) or self.runs[layer.namespace] is None:
            return None
        total = Operations()
        for cost in (inside[child.namespace] for child in children):
            if cost.macs is None:
                return None
            total += Operations(cost.macs, None if cost.flops is None else cost.flops - 2 * cost.macs)
        return total

    def _calls_agree(self, layer: Layer) -> bool:
        """Whether all calls of a nested model have the shapes that its own layers were counted for."""
        inner = [child for child in self.calls.inside.get(layer.namespace, ()) if child.class_name == "InputLayer"]
        if not inner:
            return True
        found = [self.shapes.get((child.namespace, 0)) for child in inner]
        counted = [shape for at in found for shape in (at.outputs if at is not None else (None,))]
        calls = [self.shapes.get((layer.namespace, number)) for number in range(layer.calls)]
        return all(call is not None and list(call.inputs) == counted for call in calls)


def _bytes_of(
    specs: Sequence[TensorSpec] | None, calls: Sequence[Sequence[Sizes | None] | None], times: int | None
) -> int | None:
    """Bytes of the inputs or the outputs of all calls; None when a shape or a dtype is unknown."""
    if specs is None or times is None:
        return None
    total = 0
    for sizes in calls:
        for place, spec in enumerate(specs):
            shape = sizes[place] if sizes is not None and place < len(sizes) else None
            itemsize = _itemsize(spec.dtype)
            if shape is None or itemsize is None:
                return None
            total += count(shape) * itemsize
    return total * times


def _output_bytes(layer: Layer, outputs: Sequence[Sizes | None]) -> tuple[int | None, ...]:
    if layer.outputs is None:
        return (None,)
    return tuple(_bytes_of((spec,), ((sizes,),), 1) for spec, sizes in zip(layer.outputs, outputs, strict=False))


def _itemsize(dtype: str | None) -> int | None:
    """Bytes of an element; None for text and unknown types."""
    digits = (dtype or "").lstrip("uintfloa")
    bits = OTHER_BITS.get(dtype or "", int(digits) if digits.isdigit() else None)
    return None if bits is None else math.ceil(bits / 8)


def _node_sums(calls: Calls, nodes: Sequence[OnnxNode]) -> dict[str, Operations | None]:
    """The operations of the ONNX nodes of each layer and of those inside it; None when one of them is unknown."""
    sums: dict[str, Operations | None] = {}
    for node in nodes:
        if node.layer in calls.layers:
            found = _node_operations(node)
            before = sums.get(node.layer, Operations())
            sums[node.layer] = None if found is None or before is None else before + found
    for layer in reversed(calls.layers.values()):
        if layer.parent is not None and layer.namespace in sums:
            own, rest = sums[layer.namespace], sums.get(layer.parent, Operations())
            sums[layer.parent] = None if own is None or rest is None else own + rest
    return sums


def _node_operations(node: OnnxNode) -> Operations | None:
    if node.cost is None or node.cost.macs is None:
        return None
    return Operations(node.cost.macs, None if node.cost.flops is None else node.cost.flops - 2 * node.cost.macs)


def _weight_bytes(graph: ModelGraph) -> dict[str, int]:
    """The bytes of the weights of each layer and of those inside it."""
    total: dict[str, int] = defaultdict(int)
    for layer in reversed(graph.layers):
        total[layer.namespace] += layer.weight_bytes
        if layer.parent is not None:
            total[layer.parent] += total[layer.namespace]
    return total


def _weights(graph: ModelGraph) -> dict[str, tuple[tuple[int, ...], ...]]:
    """The shapes of the weights that each row of a graph of operations holds; formulas of layers do without."""
    held: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    for weight in graph.weights if graph.level != "layer" else ():
        held[weight.layer].append(weight.shape)
    return {layer: tuple(shapes) for layer, shapes in held.items()}


def _sum_of_known(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
