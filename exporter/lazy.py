"""Arrays with a shape and a dtype whose bytes are made on demand, each time anew.

`shape`, `dtype` and `nbytes` are free; `real()` is paid for. NumPy's protocols (`__array_ufunc__`,
`__array_function__`) compose functions instead of moving bytes, so that code written for arrays can transpose, scale
and join weights that are not in memory. What is not known to stay lazy falls back to the real array.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from exporter.records import OnnxNode

if TYPE_CHECKING:
    from onnx import ModelProto

# How an array came to be, from plain to transformed; `records.StoredTensor.transform` uses the same words.
NONE, LAYOUT, FOLDED = "none", "layout", "folded"


class LazyArray(NDArrayOperatorsMixin):
    """`make` returns an array of exactly `shape` and `dtype`; it may be called more than once.

    `origins` names the weights that the value depends on, `transform` how (`none`, `layout`, `folded`).
    """

    def __init__(
        self,
        shape: Iterable[int],
        dtype: Any,
        make: Callable[[], np.ndarray],
        origins: frozenset[str] = frozenset(),
        transform: str = NONE,
    ) -> None:
        self.shape = tuple(int(size) for size in shape)
        self.dtype = np.dtype(dtype)
        self.origins, self.transform = origins, transform
        self._make = make

    @classmethod
    def of(cls, array: np.ndarray) -> LazyArray:
        """For a small array that is in memory already."""
        return cls(array.shape, array.dtype, lambda: array)

    def named(self, origin: str) -> LazyArray:
        """The same value, as the weight of that name."""
        return LazyArray(self.shape, self.dtype, self._make, frozenset([origin]))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def T(self) -> LazyArray:  # noqa: N802 (NumPy's name)
        return self.transpose()

    def real(self) -> np.ndarray:
        """Make the bytes. Raises ValueError when the maker breaks its word about shape or dtype."""
        array = self._make()
        if array.shape != self.shape or array.dtype != self.dtype:
            raise ValueError(
                f"a lazy array of {self.dtype}{list(self.shape)} was made as {array.dtype}{list(array.shape)}"
                f" (from {', '.join(sorted(self.origins)) or 'no weight'})"
            )
        return array

    def _then(
        self, shape: Iterable[int], dtype: Any, change: Callable[[np.ndarray], np.ndarray], how: str
    ) -> LazyArray:
        transform = FOLDED if FOLDED in (self.transform, how) else how
        return LazyArray(shape, dtype, lambda: change(self.real()), self.origins, transform)

    def transpose(self, *axes: Any) -> LazyArray:
        order = axes[0] if len(axes) == 1 and not isinstance(axes[0], (int, np.integer)) else axes
        order = tuple(int(axis) % self.ndim for axis in order) if order else tuple(reversed(range(self.ndim)))
        shape = [self.shape[axis] for axis in order]
        return self._then(shape, self.dtype, lambda array: np.ascontiguousarray(array.transpose(order)), LAYOUT)

    def reshape(self, *shape: Any, order: str = "C") -> LazyArray:
        if order != "C":
            raise NotImplementedError(f"reshape with order={order!r} is not lazy")
        wanted = shape[0] if len(shape) == 1 and not isinstance(shape[0], (int, np.integer)) else shape
        sizes = [int(size) for size in wanted]
        if sizes.count(-1) == 1:
            known = math.prod(size for size in sizes if size != -1)
            sizes[sizes.index(-1)] = self.size // known if known else 0
        if math.prod(sizes) != self.size:
            raise ValueError(f"cannot reshape {list(self.shape)} into {sizes}")
        return self._then(sizes, self.dtype, lambda array: array.reshape(sizes), LAYOUT)

    def squeeze(self, axis: int | Sequence[int] | None = None) -> LazyArray:
        axes = range(self.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
        gone = {a % self.ndim for a in axes if axis is not None or self.shape[a] == 1}
        return self.reshape([size for a, size in enumerate(self.shape) if a not in gone])

    def astype(self, dtype: Any, **_: Any) -> LazyArray:
        if np.dtype(dtype) == self.dtype:
            return self
        return self._then(self.shape, dtype, lambda array: array.astype(dtype), FOLDED)

    def flatten(self) -> LazyArray:
        return self.reshape(-1)

    ravel = flatten

    def copy(self) -> LazyArray:
        return self

    def item(self) -> Any:
        return self.real().item()

    def tolist(self) -> Any:
        return self.real().tolist()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        return self.real()[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.real()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"<LazyArray {self.dtype}{list(self.shape)} {self.transform} of {sorted(self.origins)}>"

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__" or kwargs or ufunc.nout != 1 or ufunc.signature is not None:
            return getattr(ufunc, method)(*map(realised, inputs), **kwargs)
        shape = np.broadcast_shapes(*[np.shape(value) for value in inputs])
        return LazyArray(
            shape, _result_dtype(ufunc, inputs), lambda: ufunc(*map(realised, inputs)), _origins(inputs), FOLDED
        )

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function in LAZY_FUNCTIONS:
            return LAZY_FUNCTIONS[function](*args, **kwargs)
        return function(*realised(args), **{key: realised(value) for key, value in kwargs.items()})


def realised(value: Any) -> Any:
    """The value with every lazy array in it (also in lists and tuples) replaced by the real one."""
    if isinstance(value, LazyArray):
        return value.real()
    if isinstance(value, (list, tuple)):
        return type(value)(realised(item) for item in value)
    return value


def _origins(values: Iterable[Any]) -> frozenset[str]:
    return frozenset().union(*(value.origins for value in values if isinstance(value, LazyArray)))


def _result_dtype(ufunc: np.ufunc, inputs: Sequence[Any]) -> np.dtype:
    """The dtype that NumPy gives, found out on one element: this also holds for ml_dtypes' types."""
    samples = [np.ones(1, value.dtype) if hasattr(value, "dtype") else value for value in inputs]
    return ufunc(*samples).dtype


def _expand_dims(array: LazyArray, axis: int | Sequence[int]) -> LazyArray:
    axes = [axis] if isinstance(axis, int) else list(axis)
    ndim = array.ndim + len(axes)
    new, sizes = {a % ndim for a in axes}, iter(array.shape)
    return array.reshape([1 if a in new else next(sizes) for a in range(ndim)])


def _concatenate(arrays: Sequence[Any], axis: int = 0) -> LazyArray:
    shape = list(np.shape(arrays[0]))
    shape[axis] = sum(np.shape(array)[axis] for array in arrays)
    dtype = np.result_type(*[array.dtype for array in arrays])
    return LazyArray(shape, dtype, lambda: np.concatenate(realised(list(arrays)), axis), _origins(arrays), FOLDED)


LAZY_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.transpose: lambda array, axes=None: array.transpose(*([axes] if axes is not None else [])),
    np.reshape: lambda array, shape: array.reshape(shape),
    np.squeeze: lambda array, axis=None: array.squeeze(axis),
    np.expand_dims: _expand_dims,
    np.concatenate: _concatenate,
    np.shape: lambda array: array.shape,
    np.ndim: lambda array: array.ndim,
    np.size: lambda array: array.size,
}


@dataclass(frozen=True)
class OnnxStructure:
    """An ONNX model in which weights are named, not filled.

    `model` is a `ModelProto`; an initializer whose name is in `weights` has dims and a data type and no bytes, all
    others hold theirs. `nodes` describes the graph's nodes, in the graph's order.
    """

    model: ModelProto
    weights: Mapping[str, LazyArray]
    nodes: tuple[OnnxNode, ...]
