"""Arrays with a shape and a dtype whose bytes are made on demand, each time anew.

`shape`, `dtype` and `nbytes` are free; `real()` is paid for. NumPy's protocols (`__array_ufunc__`,
`__array_function__`) compose functions instead of moving bytes, so that code written for arrays can transpose, scale
and join weights that are not in memory. What is not known to stay lazy falls back to the real array.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index
from numpy.lib.mixins import NDArrayOperatorsMixin

# How an array came to be, from plain to transformed; `records.StoredTensor.transform` uses the same words.
TRANSFORMS = NONE, LAYOUT, CAST, FOLDED = "none", "layout", "cast", "folded"

Part = Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class Transposed:
    """The `LazyArray.content` of an array with that content and `shape` whose axes have been put into another order."""

    content: object
    shape: tuple[int, ...]
    axes: tuple[int, ...]


class LazyArray(NDArrayOperatorsMixin):
    """`make` returns an array of exactly `shape` and `dtype`; it may be called more than once.

    `part(start, stop)`, where there is one, makes the elements from `start` to `stop` in C order, flat, without the
    rest. `origins` names the weights that the value depends on, `transform` how (one of `TRANSFORMS`). Arrays of the
    same `content` have the same bytes.
    """

    def __init__(
        self,
        shape: Iterable[int],
        dtype: Any,
        make: Callable[[], np.ndarray],
        origins: frozenset[str] = frozenset(),
        transform: str = NONE,
        part: Part | None = None,
        content: object = None,
    ) -> None:
        self.shape = tuple(int(size) for size in shape)
        self.dtype = np.dtype(dtype)
        self.origins, self.transform = origins, transform
        self._make, self._part = make, part
        self.content = object() if content is None else content

    @classmethod
    def of(cls, array: np.ndarray) -> LazyArray:
        """For a small array that is in memory already."""
        return cls(array.shape, array.dtype, lambda: array)

    def named(self, origin: str) -> LazyArray:
        """The same value, as the weight of that name."""
        return LazyArray(self.shape, self.dtype, self._make, frozenset([origin]), NONE, self._part, self.content)

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

    @property
    def is_divisible(self) -> bool:
        """Whether `pieces` never needs the whole array at once."""
        return self._part is not None

    @property
    def outline(self) -> np.ndarray:
        """An array of this shape that is one element in memory: NumPy says on it what shape an operation gives."""
        return np.broadcast_to(np.zeros((), self.dtype), self.shape)

    def real(self) -> np.ndarray:
        """Make the bytes. Raises ValueError when the maker breaks its word about shape or dtype."""
        array = self._make()
        if array.shape != self.shape or array.dtype != self.dtype:
            raise ValueError(
                f"a lazy array of {self.dtype}{list(self.shape)} was made as {array.dtype}{list(array.shape)}"
                f" (from {', '.join(sorted(self.origins)) or 'no weight'})"
            )
        return array

    def pieces(self, nbytes: int) -> Iterator[np.ndarray]:
        """The elements in C order, as flat arrays of at most `nbytes` bytes (or one element) each.

        In memory at once is one piece where the array `is_divisible`, otherwise the whole array and one piece.
        """
        step = max(1, nbytes // self.dtype.itemsize)
        if self._part is None:
            yield from _flat_pieces(self.real(), step)
            return
        for start in range(0, self.size, step):
            stop = min(start + step, self.size)
            piece = self._part(start, stop)
            if piece.shape != (stop - start,) or piece.dtype != self.dtype:
                raise ValueError(f"elements {start} to {stop} of {self!r} were made as {piece.dtype}{piece.shape}")
            yield piece

    def _then(
        self,
        shape: Iterable[int],
        dtype: Any,
        change: Callable[[np.ndarray], np.ndarray],
        how: str,
        part: Part | None = None,
        content: object = None,
    ) -> LazyArray:
        transform = max(self.transform, how, key=TRANSFORMS.index)
        return LazyArray(shape, dtype, lambda: change(self.real()), self.origins, transform, part, content)

    def transpose(self, *axes: Any) -> LazyArray:
        # A view: whoever writes it puts the elements in order piece by piece.
        shape = self.outline.transpose(*axes).shape
        wanted = axes[0] if len(axes) == 1 and not isinstance(axes[0], (int, np.integer)) else axes or None
        order = range(self.ndim)[::-1] if wanted is None else [int(axis) % self.ndim for axis in wanted]
        content = Transposed(self.content, self.shape, tuple(order))
        return self._then(shape, self.dtype, lambda array: array.transpose(*axes), LAYOUT, content=content)

    def reshape(self, *shape: Any, order: str = "C") -> LazyArray:
        if order != "C":
            raise NotImplementedError(f"reshape with order={order!r} is not lazy")
        wanted = shape[0] if len(shape) == 1 and not isinstance(shape[0], (int, np.integer)) else shape
        sizes = [int(size) for size in np.atleast_1d(wanted)]
        if sizes.count(-1) == 1:
            known = math.prod(size for size in sizes if size != -1)
            sizes[sizes.index(-1)] = self.size // known if known else 0
        if math.prod(sizes) != self.size or min(sizes, default=0) < 0:
            raise ValueError(f"cannot reshape {list(self.shape)} into {list(np.atleast_1d(wanted))}")
        return self._then(sizes, self.dtype, lambda array: array.reshape(sizes), LAYOUT, self._part, self.content)

    def squeeze(self, axis: int | tuple[int, ...] | None = None) -> LazyArray:
        return self.reshape(self.outline.squeeze(axis).shape)

    def astype(self, dtype: Any, **_: Any) -> LazyArray:
        if np.dtype(dtype) == self.dtype:
            return self
        part = self._part
        cast = None if part is None else lambda start, stop: part(start, stop).astype(dtype)
        return self._then(self.shape, dtype, lambda array: array.astype(dtype), CAST, cast)

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
        return len(self.outline)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.real())

    def __bool__(self) -> bool:
        return bool(self.real())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __getitem__(self, key: Any) -> Any:
        """Lazy for a part that slices give; a single element, or what arrays of indices pick, is read."""
        parts = key if isinstance(key, tuple) else (key,)
        if not all(part is None or part is Ellipsis or isinstance(part, (slice, int, np.integer)) for part in parts):
            return self.real()[key]
        shape = self.outline[key].shape
        if not shape:
            return self.real()[key]
        # A copy, because a view would keep the whole array in memory.
        return self._then(shape, self.dtype, lambda array: array[key].copy(), FOLDED)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.real()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"<LazyArray {self.dtype}{list(self.shape)} {self.transform} of {sorted(self.origins)}>"

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__" or kwargs or ufunc.nout != 1 or ufunc.signature is not None:
            return getattr(ufunc, method)(*map(realised, inputs), **kwargs)
        shape = np.broadcast_shapes(*[np.shape(value) for value in inputs])
        # NumPy makes a bare number of an array without axes.
        return LazyArray(
            shape,
            _result_dtype(ufunc, inputs),
            lambda: np.asarray(ufunc(*map(realised, inputs))),
            _origins(inputs),
            FOLDED,
        )

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        lazily = LAZY_FUNCTIONS.get(function)
        if lazily is not None and kwargs.keys() <= inspect.signature(lazily).parameters.keys():
            return lazily(*args, **kwargs)
        return function(*realised(args), **{key: realised(value) for key, value in kwargs.items()})


def _flat_pieces(array: np.ndarray, step: int) -> Iterator[np.ndarray]:
    """`step` elements at a time in C order, without a copy of the whole where they lie in another order."""
    if array.size <= step or array.flags.c_contiguous:
        flat = array.reshape(-1)
        yield from (flat[start : start + step] for start in range(0, array.size, step))
        return
    row = array.size // len(array)
    if row > step:
        for inner in array:
            yield from _flat_pieces(inner, step)
        return
    for start in range(0, len(array), step // row):
        yield array[start : start + step // row].reshape(-1)


def realised(value: Any) -> Any:
    """The value with every lazy array in it (also in lists and tuples) replaced by the real one."""
    if isinstance(value, LazyArray):
        return value.real()
    if isinstance(value, (list, tuple)):
        return type(value)(realised(item) for item in value)
    return value


def stack(arrays: Sequence[Any]) -> Any:
    """What `np.array` makes of arrays of one shape; NumPy has no way to leave that to us."""
    return np.concatenate([np.expand_dims(array, 0) for array in arrays])


def _origins(values: Iterable[Any]) -> frozenset[str]:
    return frozenset().union(*(value.origins for value in values if isinstance(value, LazyArray)))


def _result_dtype(ufunc: np.ufunc, inputs: Sequence[Any]) -> np.dtype:
    """The dtype that NumPy gives, found out on one element: this also holds for ml_dtypes' types."""
    samples = [np.ones(1, value.dtype) if hasattr(value, "dtype") else value for value in inputs]
    return ufunc(*samples).dtype


def _outline(value: Any) -> np.ndarray:
    return value.outline if isinstance(value, LazyArray) else np.asarray(value)


def _expand_dims(array: LazyArray, axis: int | tuple[int, ...]) -> LazyArray:
    return array.reshape(np.expand_dims(array.outline, axis).shape)


def _concatenate(arrays: Sequence[Any], axis: int = 0) -> LazyArray:
    outlines = [_outline(array) for array in arrays]
    axis = normalize_axis_index(axis, outlines[0].ndim)
    # The joined axis is left out of the trial, in which nothing may be as large as the result.
    sizes = [outline.shape[axis] for outline in outlines]
    rest = {(*outline.shape[:axis], *outline.shape[axis + 1 :]) for outline in outlines}
    if len(rest) != 1:
        raise ValueError(f"cannot join arrays of shapes {[list(outline.shape) for outline in outlines]} at {axis}")
    shape = [*outlines[0].shape[:axis], sum(sizes), *outlines[0].shape[axis + 1 :]]
    dtype = np.result_type(*[outline.dtype for outline in outlines])
    return LazyArray(shape, dtype, lambda: np.concatenate(realised(list(arrays)), axis), _origins(arrays), FOLDED)


def _split(array: LazyArray, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    parts = [part.shape for part in np.split(array.outline, realised(indices_or_sections), axis)]
    axis = normalize_axis_index(axis, array.ndim)
    if sum(shape[axis] for shape in parts) != array.shape[axis]:
        return np.split(array.real(), realised(indices_or_sections), axis)
    ends = list(accumulate((shape[axis] for shape in parts), initial=0))
    return [array[(slice(None),) * axis + (slice(*ends_of_part),)] for ends_of_part in pairwise(ends)]


LAZY_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.transpose: lambda a, axes=None: a.transpose(axes),
    np.reshape: lambda a, shape: a.reshape(shape),
    np.squeeze: lambda a, axis=None: a.squeeze(axis),
    np.expand_dims: _expand_dims,
    np.concatenate: _concatenate,
    np.split: _split,
    np.shape: lambda a: a.shape,
    np.ndim: lambda a: a.ndim,
    np.size: lambda a: a.size,
}
