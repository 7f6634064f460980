"""Numbers that a model cannot have: what is beyond them comes from a damaged file, and no table holds it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from numbers import Integral

from exporter.errors import SourceError
from exporter.records import LayerCosts, ModelGraph, OnnxNode, Shape, TensorSpec

# Of the tables' columns: whole numbers of 64 bits.
LARGEST = 2**63 - 1
# What NumPy has, and more than any framework.
MOST_AXES = 64
# Bytes of an element of the largest type.
WIDEST = 16
SAVE_AGAIN = "copy or download it again, or save the model again"
# Characters; names that are longer than a path may be are none, and comparing the parts of such takes quadratic time.
LONGEST_NAME = 4096


def check_shape(shape: Sequence[int], itemsize: int, what: str) -> None:
    """Raises ValueError for a shape of no array, also of one that is empty."""
    if len(shape) > MOST_AXES:
        raise ValueError(f"{what} has {len(shape):,} axes")
    if min(shape, default=0) < 0:
        raise ValueError(f"{what} has the shape {list(shape)}"[:300])
    if math.prod(max(size, 1) for size in shape) * itemsize > LARGEST:
        raise ValueError(f"{what} has the shape {list(shape)}, which is larger than any memory"[:300])


def check_graph(graph: ModelGraph, source: str) -> None:
    """What every description must be, whoever made it, before anything is computed from it. Raises SourceError."""
    try:
        for name in _names(graph):
            _check_name(name)
        _check_tensors(graph)
        total = sum(weight.nbytes for weight in graph.weights)
        if total > LARGEST:
            raise ValueError(f"its weights would have {total:.3g} bytes")
    except (TypeError, ValueError) as error:
        raise SourceError("is corrupt", where=source, why=str(error)[:300], hint=SAVE_AGAIN) from error


def check_costs(costs: LayerCosts, nodes: Sequence[OnnxNode], source: str) -> None:
    """Raises SourceError for a model of more work than can be counted."""
    counted = [*costs.layers.items(), *((node.name, node.cost) for node in nodes if node.cost)]
    amounts = [(name, max(cost.flops or 0, cost.macs or 0, cost.activation_bytes or 0)) for name, cost in counted]
    amounts.append(("all together", max(costs.flops or 0, costs.macs or 0, costs.peak_activation_bytes or 0)))
    name, most = max(amounts, key=lambda each: each[1])
    if most > LARGEST:
        why = f"its layers ({name[:60]}) would take {most:.3g} operations or bytes"
        raise SourceError("is corrupt", where=source, why=why, hint=SAVE_AGAIN)


def _check_name(name: str) -> None:
    if len(name) > LONGEST_NAME:
        raise ValueError(f"a name has {len(name):,} characters: {name[:60]}…")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        # JSON can have halves of characters, which no file of ours can.
        raise ValueError(f"the name {name[:60]!a} is no text") from error


def _check_tensors(graph: ModelGraph) -> None:
    seen: set[Shape] = set()
    for spec, owner in _tensors(graph):
        if not isinstance(spec.dtype, (str, type(None))):
            raise TypeError(f"a tensor of {owner} has the type {spec.dtype!r}"[:200])
        if spec.shape is None:
            continue
        known = [size for size in spec.shape if size is not None]
        if not all(isinstance(size, Integral) and not isinstance(size, bool) for size in known):
            raise TypeError(f"a tensor of {owner} has the shape {list(spec.shape)!r}"[:200])
        if spec.shape not in seen:
            check_shape(known, WIDEST, f"a tensor of {owner}")
            seen.add(spec.shape)


def _names(graph: ModelGraph) -> Iterator[str]:
    for layer in graph.layers:
        yield layer.namespace
        yield layer.class_name
    yield from (weight.name for weight in graph.weights)
    yield from (spec.name for spec in (*graph.inputs, *graph.outputs))


def _tensors(graph: ModelGraph) -> Iterator[tuple[TensorSpec, str]]:
    """Each with what it belongs to."""
    yield from ((spec, "the model") for spec in (*graph.inputs, *graph.outputs))
    for layer in graph.layers:
        for spec in (*(layer.inputs or ()), *(layer.outputs or ())):
            yield spec, f"the layer {layer.namespace}"
    for weight in graph.weights:
        yield TensorSpec(weight.name, weight.shape, weight.dtype), f"the weight {weight.name}"
