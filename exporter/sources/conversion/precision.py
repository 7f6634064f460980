"""Which dtype a weight has in the file, and which the arithmetic has; what the one loses on the way to the other.

`keep` stores every weight as the source does. The arithmetic is the source's too, but for bfloat16: ONNX Runtime's CPU
provider has hardly any kernels for it, so that such models compute in float32 behind one `Cast` per weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from ml_dtypes import bfloat16
from onnx import ModelProto, NodeProto, helper
from tensorflow.core.framework import types_pb2

from exporter.lazy import CAST, TRANSFORMS, LazyArray
from exporter.records import ModelGraph
from exporter.sources.rewriting.onnx_graph import replace, stub

KEEP, FLOAT32, FLOAT16 = "keep", "float32", "float16"
# Dtypes of weights that stand for others: `model.quantize` makes int8, and packs two int4 in one.
QUANTISED = ("int8", "uint8")

# What the arithmetic of a graph becomes before it is converted; `float16` is rounded last, after everything is folded.
COMPUTED_IN_FLOAT32: dict[str, tuple[int, ...]] = {
    KEEP: (types_pb2.DT_BFLOAT16,),
    FLOAT32: (types_pb2.DT_BFLOAT16, types_pb2.DT_HALF, types_pb2.DT_DOUBLE),
    FLOAT16: (types_pb2.DT_BFLOAT16, types_pb2.DT_HALF, types_pb2.DT_DOUBLE),
}
# Layers whose variances overflow float16; Keras too computes them in float32 under a float16 policy.
SQUARING = ("GroupNormalization", "LayerNormalization", "RMSNormalization", "UnitNormalization")
# Up to here fewer nodes are worth more than fewer bytes: the vectors of a bfloat16 batch norm become float32 ones.
VECTOR_NBYTES = 16 * 1024


class StoredArray(LazyArray):
    """A weight as the file holds it, `stored`, and the casts that the graph does before it computes with it.

    Folding a cast would change the weight's dtype, and folding that of an int8 kernel would make it four times as
    large. So casts are noted, transposes and slices happen to what is stored, and `store` writes the casts as nodes.
    """

    def __init__(self, stored: LazyArray, casts: Sequence[Any] = ()) -> None:
        value = stored
        for dtype in casts:
            value = value.astype(dtype)
        super().__init__(stored.shape, value.dtype, value.real, stored.origins, stored.transform, value._part)
        self.stored, self.casts = stored, tuple(map(np.dtype, casts))

    def named(self, origin: str) -> StoredArray:
        return StoredArray(self.stored.named(origin), self.casts)

    def astype(self, dtype: Any, **_: Any) -> LazyArray:
        return self if np.dtype(dtype) == self.dtype else StoredArray(self.stored, self._casts_to(np.dtype(dtype)))

    def _casts_to(self, dtype: np.dtype) -> tuple[np.dtype, ...]:
        """The casts that end in `dtype`; one that loses nothing need not be done before another."""
        kept: list[np.dtype] = []
        before = self.stored.dtype
        for step in self.casts:
            if not np.can_cast(before, step, "safe"):
                kept.append(step)
                before = step
        return tuple(kept) if before == dtype else (*kept, dtype)

    def transpose(self, *axes: Any) -> LazyArray:
        return StoredArray(self.stored.transpose(*axes), self.casts)

    def reshape(self, *shape: Any, order: str = "C") -> LazyArray:
        return StoredArray(self.stored.reshape(*shape, order=order), self.casts)

    def __getitem__(self, key: Any) -> Any:
        part = self.stored[key]
        if isinstance(part, LazyArray):
            return StoredArray(part, self.casts)
        for dtype in self.casts:
            part = part.astype(dtype)
        return part

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function is np.concatenate and (joined := _concatenated(*args, **kwargs)) is not None:
            return joined
        return super().__array_function__(function, types, args, kwargs)


def _concatenated(arrays: Sequence[Any], axis: int = 0) -> StoredArray | None:
    """Joined as they are stored, where all are stored and cast alike (the gates of an LSTM)."""
    first = arrays[0]
    alike = all(
        isinstance(array, StoredArray) and (array.stored.dtype, array.casts) == (first.stored.dtype, first.casts)
        for array in arrays
    )
    if not alike:
        return None
    joined: Any = np.concatenate([array.stored for array in arrays], axis)
    return StoredArray(joined, first.casts)


def stored_nbytes(value: LazyArray | np.ndarray) -> int:
    """What the value takes in the file."""
    return value.stored.nbytes if isinstance(value, StoredArray) else value.nbytes


def value_grows(value: LazyArray | np.ndarray, operands: Iterable[LazyArray | np.ndarray | None]) -> bool:
    """Whether the file would hold more for `value` than for what it is folded from; then it must not be folded.

    Integers must not even in a small vector, because they are quantised weights.
    """
    known = [operand for operand in operands if operand is not None]
    quantised = any(isinstance(operand, StoredArray) and operand.stored.dtype.kind in "iu" for operand in known)
    limit = max(0 if quantised else VECTOR_NBYTES, *map(stored_nbytes, known))
    return stored_nbytes(value) > limit


def is_cast(value: Any) -> bool:
    """Whether folding arithmetic into the value would change the dtype in which it is stored."""
    return isinstance(value, StoredArray) and bool(value.casts)


def float32_layers(graph: ModelGraph) -> set[str]:
    """The layers that compute in float32 also where a model is converted to float16: their numbers go beyond 65504."""
    quantised = {weight.layer for weight in graph.weights if weight.dtype in QUANTISED}
    return quantised | {layer.namespace for layer in graph.layers if layer.class_name in SQUARING}


def computed_weights(weights: Mapping[str, LazyArray], dtype: str) -> dict[str, LazyArray]:
    """Each weight as the retyped graph computes with it: cast behind what is stored, or for good."""
    retyped = tuple(tf.as_dtype(kind).as_numpy_dtype for kind in COMPUTED_IN_FLOAT32[dtype])
    values: dict[str, LazyArray] = {}
    for name, weight in weights.items():
        is_float = weight.dtype.kind == "f" or weight.dtype == bfloat16
        value = StoredArray(weight) if dtype == KEEP or not is_float else weight
        values[name] = value.astype(np.float32) if weight.dtype in retyped else value
    return values


def store(model: ModelProto, weights: Mapping[str, LazyArray]) -> dict[str, LazyArray]:
    """Turn initializers that are stored in another dtype into that, and a chain of `Cast` nodes; in place.

    The last `Cast` has the name that the initializer had, so that nothing that uses it changes, loops included.
    Returns the lazy initializers by name.
    """
    graph = model.graph
    cast = {name: array for name, array in weights.items() if isinstance(array, StoredArray) and array.casts}
    plain = {name: getattr(array, "stored", array) for name, array in weights.items() if name not in cast}
    place_of = {id(array): name for name, array in plain.items()}
    casts: list[NodeProto] = []
    for name, array in cast.items():
        place = place_of.setdefault(id(array.stored), f"{name}/stored")
        plain[place] = array.stored
        casts += _cast_nodes(place, name, array.casts)
    kept = [proto for proto in graph.initializer if proto.name not in cast]
    known = {proto.name for proto in kept}
    nodes = list(graph.node)
    replace(graph.initializer, [*kept, *(stub(name, plain[name]) for name in plain if name not in known)])
    replace(graph.node, [*casts, *nodes])
    return plain


def _cast_nodes(value: str, result: str, dtypes: Sequence[np.dtype]) -> Iterator[NodeProto]:
    for dtype in dtypes[:-1]:
        yield helper.make_node("Cast", [value], [f"{result}/{dtype}"], to=helper.np_dtype_to_tensor_dtype(dtype))
        value = f"{result}/{dtype}"
    yield helper.make_node("Cast", [value], [result], to=helper.np_dtype_to_tensor_dtype(dtypes[-1]))


class Losses:
    """Counts, while weights are written in float16, the values that do not survive it."""

    def __init__(self) -> None:
        # By weight and place, because a tensor may be made more than once.
        self._lost: dict[str, dict[int, tuple[int, int]]] = {}

    def narrowed(self, array: LazyArray, name: str) -> LazyArray:
        """The array in float16, under IEEE 754's rounding: beyond ±65504 infinite, below 6e-8 zero."""
        lost = self._lost.setdefault(name, {})

        def rounded(values: np.ndarray, start: int) -> np.ndarray:
            with np.errstate(over="ignore", under="ignore"):
                narrow = values.astype(np.float16)
            infinite = np.count_nonzero(np.isinf(narrow)) - np.count_nonzero(np.isinf(values))
            lost[start] = int(infinite), int(np.count_nonzero(values) - np.count_nonzero(narrow))
            return narrow

        part: Callable[[int, int], np.ndarray] | None = None
        if (whole := array._part) is not None:
            part = lambda start, stop: rounded(whole(start, stop), start)  # noqa: E731
        transform = max(array.transform, CAST, key=TRANSFORMS.index)
        return LazyArray(array.shape, np.float16, lambda: rounded(array.real(), 0), array.origins, transform, part)

    def notes(self) -> tuple[str, ...]:
        """One sentence for each kind of loss, when the weights have been made."""
        found = []
        for place, words in enumerate(("are above 65504 and became infinite", "are below 6e-8 and became 0")):
            counts = {name: sum(lost[place] for lost in parts.values()) for name, parts in self._lost.items()}
            worst = sorted((name for name, count in counts.items() if count), key=lambda name: -counts[name])
            if worst:
                listed = ", ".join(f"{counts[name]} of {name}" for name in worst[:3])
                more = f" and others in {len(worst) - 3} more weights" if len(worst) > 3 else ""
                found.append(f"float16: {listed}{more} {words}")
        return tuple(found)


def dtype_notes(weights: Sequence[LazyArray], dtype: str) -> tuple[str, ...]:
    """What the choice of a dtype means for these weights, in words."""
    kinds = {weight.dtype for weight in weights}
    if dtype == KEEP and np.dtype(bfloat16) in kinds:
        return ("bfloat16 weights are stored as they are and computed with in float32: nothing is lost",)
    if dtype == FLOAT32 and np.dtype(np.float64) in kinds:
        return ("float64 → float32 keeps 24 of 53 bits",)
    wider = sorted(str(kind) for kind in kinds if kind in (np.float32, np.float64))
    if dtype == FLOAT16 and wider:
        bits = {"float32": 24, "float64": 53}
        return tuple(f"{kind} → float16 keeps 11 of {bits[kind]} bits" for kind in wider)
    if dtype == FLOAT16 and np.dtype(bfloat16) in kinds:
        return ("bfloat16 → float16 keeps all bits of a value between 6e-5 and 65504",)
    return ()
