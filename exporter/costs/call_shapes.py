"""Concrete shapes for every call of a layer, when the model's inputs get concrete shapes.

Keras gives the shapes with the batch and other dynamic dimensions left open. Here a size stands for each of them at
the inputs and goes through the layers: convolutions, pooling, padding and reshaping change it, the others keep it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.costs.calls import Call, Calls
from exporter.costs.counting import Sizes
from exporter.records import Layer, Shape, TensorSpec

RESHAPES = ("Reshape", "Flatten", "Ravel")

# What comes of settings and inputs that no layer has, such as steps of 0, in arithmetic that takes them for sound.
IMPOSSIBLE = (ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class CallShapes:
    """The shapes of one call; None for a tensor whose rank is unknown."""

    inputs: tuple[Sizes | None, ...]
    outputs: tuple[Sizes | None, ...]


class Resolver:
    """Finds the shapes of all calls. `batch_size` stands for a dynamic first dimension, `dimension` for any other."""

    def __init__(self, calls: Calls, batch_size: int, dimension: int) -> None:
        self._calls, self._batch_size, self._dimension = calls, batch_size, dimension
        self.shapes: dict[Call, CallShapes] = {}
        # Equal ones are one object: large models repeat a few blocks.
        self._known: dict[CallShapes, CallShapes] = {}

    def resolve(self, inputs: Sequence[TensorSpec]) -> dict[Call, CallShapes]:
        """The calls inside of layers that have no graph are left out."""
        self._resolve_inside(None, {spec.name: spec.shape for spec in inputs})
        return self.shapes

    def _resolve_inside(self, parent: str | None, given: Mapping[str, Shape | None]) -> None:
        """`given` has the shapes of input layers, by name; their dynamic dimensions are still open."""
        for call in self._calls.order(parent):
            layer = self._calls.layers[call[0]]
            inputs = self._inputs(layer, call)
            if layer.class_name == "InputLayer":
                shape = given.get(layer.name)
                outputs = [self._filled(shape if shape is not None else spec.shape) for spec in layer.outputs or ()]
            else:
                if call[1] == 0 and layer.namespace in self._calls.inside:
                    self._resolve_inside(layer.namespace, self._handed_in(layer, inputs))
                outputs = self._outputs(layer, call, inputs)
            found = CallShapes(tuple(inputs), tuple(outputs))
            self.shapes[call] = self._known.setdefault(found, found)

    def _handed_in(self, layer: Layer, inputs: Sequence[Sizes | None]) -> dict[str, Shape | None]:
        """What the input layers of a nested model get, in the order of its inputs."""
        inner = [child for child in self._calls.inside[layer.namespace] if child.class_name == "InputLayer"]
        fits = len(inner) == len(inputs) and all(
            fits_into(shape, child.outputs[0].shape if child.outputs else None)
            for shape, child in zip(inputs, inner, strict=True)
        )
        return {child.name: shape for child, shape in zip(inner, inputs, strict=True)} if fits else {}

    def _inputs(self, layer: Layer, call: Call) -> list[Sizes | None]:
        edges = self._calls.incoming.get(call, ())
        if call[1] == 0 and len(edges) != len(layer.inputs or ()):
            return [self._filled(spec.shape) for spec in layer.inputs or ()]
        return [self._made((edge.source, edge.source_call), edge.source_output, edge.shape) for edge in edges]

    def _made(self, call: Call, output: int, declared: Shape | None) -> Sizes | None:
        made = self.shapes[call].outputs if call in self.shapes else ()
        return made[output] if output < len(made) else self._filled(declared)

    def _outputs(self, layer: Layer, call: Call, inputs: Sequence[Sizes | None]) -> list[Sizes | None]:
        declared_inputs = [edge.shape for edge in self._calls.incoming.get(call, ())]
        if len(declared_inputs) != len(inputs):
            # What comes from outside of the scope has no edge here.
            declared_inputs = [spec.shape for spec in layer.inputs or ()]
        declared = [spec.shape for spec in layer.outputs or ()]
        if call[1] > 0 and declared_inputs != [spec.shape for spec in layer.inputs or ()]:
            by_output = {edge.source_output: edge.shape for edge in self._calls.outgoing.get(call, ())}
            declared = [by_output.get(place) for place in range(len(declared))]
        inner = self._only_result(layer)
        config = settings(layer) if any(shape and None in shape for shape in declared) else {}
        return [
            inner if inner and fits_into(inner, shape) else self._found(layer, config, shape, inputs, declared_inputs)
            for shape in declared
        ]

    def _only_result(self, layer: Layer) -> Sizes | None:
        """What the one call inside that nothing inside takes makes; None when there are several, or nothing inside."""
        if layer.calls > 1 or layer.namespace not in self._calls.inside:
            return None
        calls = (
            (child.namespace, number) for child in self._calls.inside[layer.namespace] for number in range(child.calls)
        )
        last = [call for call in calls if call not in self._calls.outgoing and call in self.shapes]
        results = self.shapes[last[0]].outputs if len(last) == 1 else ()
        return results[0] if len(results) == 1 else None

    def _found(
        self,
        layer: Layer,
        config: Mapping[str, Any],
        declared: Shape | None,
        inputs: Sequence[Sizes | None],
        declared_inputs: Sequence[Shape | None],
    ) -> Sizes | None:
        """None where the settings are of no layer that there can be."""
        try:
            return self._output(layer, config, declared, inputs, declared_inputs)
        except IMPOSSIBLE:
            return None

    def _output(
        self,
        layer: Layer,
        config: Mapping[str, Any],
        declared: Shape | None,
        inputs: Sequence[Sizes | None],
        declared_inputs: Sequence[Shape | None],
    ) -> Sizes | None:
        if declared is None or None not in declared:
            return declared  # type: ignore[return-value]
        known = [
            (sizes, shape) for sizes, shape in zip(inputs, declared_inputs, strict=False) if sizes and shape is not None
        ]
        found = [
            size if size is not None else self._kept(axis, len(declared), known) for axis, size in enumerate(declared)
        ]
        if known and layer.class_name in RESHAPES:
            return _reshaped(declared, found, known[0][0])
        if known and layer.class_name == "Concatenate":
            axis = int(config.get("axis", -1))
            found[axis] = sum(sizes[axis] for sizes, _ in known) if declared[axis] is None else found[axis]
        if known and len(known[0][0]) == len(declared):
            for axis, size in spatial_sizes(layer.class_name, config, known[0][0]).items():
                found[axis] = size if declared[axis] is None else found[axis]
        return tuple(found)

    def _kept(self, axis: int, rank: int, inputs: Sequence[tuple[Sizes, Shape]]) -> int:
        """The size of a dynamic dimension: that of the same axis of an input, else of the only other dynamic one.

        `EinsumDense` may leave open what its input has fixed.
        """
        same = [sizes[axis] for sizes, shape in inputs if len(shape) == rank and shape[axis] is None]
        if axis == 0:
            same = same or [sizes[0] for sizes, shape in inputs if shape and shape[0] is None]
            return max(same, default=self._batch_size)
        if same:
            return max(same)
        others = {size for sizes, shape in inputs for size, at in zip(sizes[1:], shape[1:], strict=True) if at is None}
        fixed = [sizes[axis] for sizes, _ in inputs if len(sizes) > axis]
        if not others and fixed:
            return fixed[0]
        return others.pop() if len(others) == 1 else self._dimension

    def _filled(self, shape: Shape | None) -> Sizes | None:
        if shape is None:
            return None
        stand_in = (self._batch_size, *[self._dimension] * len(shape))
        return tuple(size if size is not None else stand_in[axis] for axis, size in enumerate(shape))


def settings(layer: Layer) -> dict[str, Any]:
    """The layer's config; empty when it has none that is an object."""
    try:
        config = json.loads(layer.config or "{}")
    except (ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def fits_into(sizes: Sizes | None, declared: Shape | None) -> bool:
    """Whether a tensor of these sizes may have the declared shape."""
    if sizes is None or declared is None:
        return sizes is None and declared is None
    return len(sizes) == len(declared) and all(want in (None, have) for have, want in zip(sizes, declared, strict=True))


def _reshaped(declared: Shape, found: Sequence[int], source: Sizes) -> Sizes:
    """Reshaping keeps the number of elements; one dimension follows from the others, the last dynamic one."""
    free = max(axis for axis, size in enumerate(declared) if size is None)
    others = math.prod(size for axis, size in enumerate(found) if axis != free)
    exact = others and math.prod(source) % others == 0
    return tuple(math.prod(source) // others if exact and axis == free else size for axis, size in enumerate(found))


def spatial_sizes(class_name: str, config: Mapping[str, Any], source: Sizes) -> dict[int, int]:
    """By axis, what a convolution, pooling, padding, cropping or upsampling layer makes of the sizes of its input.

    The formulas are those of `keras.src.ops.operation_utils.compute_conv_output_shape` and its siblings.
    """
    rank = len(source) - 2
    first = 2 if config.get("data_format") == "channels_first" else 1
    return {
        first + place: size
        for place in range(rank)
        if (size := _spatial_size(class_name, config, source[first + place], place)) is not None
    }


def _spatial_size(class_name: str, config: Mapping[str, Any], size: int, place: int) -> int | None:
    if "Conv" in class_name or class_name.startswith(("MaxPooling", "AveragePooling")):
        window = _setting(config, "kernel_size" if "Conv" in class_name else "pool_size", place, 1)
        step = _setting(config, "strides", place, 1)
        if class_name.endswith("Transpose"):
            return size * step + (max(window - step, 0) if config.get("padding") == "valid" else 0)
        if config.get("padding") in ("same", "causal"):
            return -(-size // step)
        return max(0, (size - _setting(config, "dilation_rate", place, 1) * (window - 1) - 1) // step + 1)
    if class_name.startswith("UpSampling"):
        return size * _setting(config, "size", place, 1)
    if class_name.startswith("ZeroPadding"):
        return size + _both_ends(config.get("padding"), place)
    if class_name.startswith("Cropping"):
        return max(0, size - _both_ends(config.get("cropping"), place))
    return None


def _setting(config: Mapping[str, Any], name: str, place: int, default: int) -> int:
    value = config.get(name, default)
    return int(value[min(place, len(value) - 1)] if isinstance(value, list) else value or default)


def _both_ends(ends: Any, place: int) -> int:
    """Keras writes `[2, 2]` for one dimension and `[[2, 2], [1, 1]]` for several."""
    pair = ends[place] if isinstance(ends, list) and isinstance(ends[0], list) else ends
    return sum(pair) if isinstance(pair, list) else 2 * int(pair or 0)
