"""Lazy arrays against NumPy: the same shapes, dtypes and values, and nothing made before `real()`."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from exporter.lazy import CAST, FOLDED, LAYOUT, NONE, LazyArray, realised, stack

DTYPES = [np.dtype(name) for name in ("float32", "float16", "float64", "int32", "int64", "uint8", "bool")]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


class Source:
    """An array behind a counter of how often it was made."""

    def __init__(self, array: np.ndarray, origin: str = "w") -> None:
        self.array, self.made = array, 0
        self.lazy = LazyArray(array.shape, array.dtype, self.make).named(origin)

    def make(self) -> np.ndarray:
        self.made += 1
        return self.array.copy()


def numbers(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Small and different, positive and negative; whole, so that sums and products are exact."""
    return (np.arange(np.prod(shape, dtype=int)).reshape(shape) % 13 - 5).astype(dtype)


def unreadable(shape: tuple[int, ...], dtype: Any = np.float32) -> LazyArray:
    def make() -> np.ndarray:
        raise AssertionError("read")

    return LazyArray(shape, dtype, make, frozenset(["w"]))


def same(found: Any, expected: Any) -> None:
    """Shape and dtype are told in advance, and the value is NumPy's."""
    expected = np.asarray(expected)
    if isinstance(found, LazyArray):
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        assert (found.ndim, found.size, found.nbytes) == (expected.ndim, expected.size, expected.nbytes)
        found = found.real()
    assert isinstance(found, (np.ndarray, np.generic))
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(found, expected)


def agree(do: Callable[[Any], Any], array: np.ndarray) -> Source:
    """`do` gives the same on the lazy array as on the real one, or raises the same kind of error on both."""
    source = Source(array)
    try:
        expected = do(array)
    except (ValueError, IndexError) as error:
        with pytest.raises(type(error).__mro__[1:3] if isinstance(error, np.exceptions.AxisError) else type(error)):
            realised(do(source.lazy))
        return source
    found = do(source.lazy)
    assert source.made == 0, "read too early"
    for one, other in zip(found, expected, strict=True) if isinstance(expected, list) else [(found, expected)]:
        same(one, other)
    return source


@given(st.data(), SHAPES, st.sampled_from(DTYPES))
def test_transpose(data: st.DataObject, shape: tuple[int, ...], dtype: np.dtype) -> None:
    array = numbers(shape, dtype)
    order = data.draw(st.permutations(range(len(shape))))
    agree(lambda x: x.transpose(order), array)
    agree(lambda x: np.transpose(x, [axis - len(shape) for axis in order]), array)
    agree(lambda x: x.T, array)
    agree(np.transpose, array)


@given(st.data(), SHAPES)
def test_reshape(data: st.DataObject, shape: tuple[int, ...]) -> None:
    array = numbers(shape)
    wanted = list(data.draw(st.permutations([*shape, 1])))
    agree(lambda x: x.reshape(wanted), array)
    agree(lambda x: np.reshape(x, tuple(wanted)), array)
    agree(lambda x: x.reshape(*wanted), array)
    agree(lambda x: x.flatten(), array)
    if array.size:
        wanted[data.draw(st.integers(0, len(wanted) - 1))] = -1
        agree(lambda x: x.reshape(np.array(wanted)), array)


@given(st.data(), hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=2))
def test_squeeze_and_expand(data: st.DataObject, shape: tuple[int, ...]) -> None:
    array = numbers(shape)
    axis = data.draw(st.integers(-5, 5))
    agree(lambda x: x.squeeze(), array)
    agree(lambda x: np.squeeze(x, axis), array)
    agree(lambda x: np.squeeze(x, (axis,)), array)
    agree(lambda x: np.expand_dims(x, axis), array)
    agree(lambda x: np.expand_dims(x, (0, axis)), array)


@given(st.data(), hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
def test_concatenate_and_split(data: st.DataObject, shape: tuple[int, ...]) -> None:
    array = numbers(shape)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    agree(lambda x: np.concatenate([x, array, x], axis), array)
    agree(lambda x: np.concatenate((array.astype("float64"), x), axis=axis), array)
    agree(lambda x: stack([x, x]), array)
    agree(lambda x: np.split(x, [1, 3], axis), array)
    agree(lambda x: np.split(x, [-1], axis=axis), array)
    agree(lambda x: np.split(x, 2, axis), array)


@pytest.mark.slow
@given(hnp.basic_indices((3, 4, 2), allow_newaxis=True))
def test_parts(key: Any) -> None:
    source = Source(numbers((3, 4, 2)))
    found, expected = source.lazy[key], source.array[key]
    assert source.made == (0 if expected.ndim else 1)
    same(found, expected)


UFUNCS = (np.add, np.subtract, np.multiply, np.maximum, np.less, np.equal)


@given(st.sampled_from(UFUNCS), hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3), st.data())
@settings(deadline=None)
def test_ufuncs_broadcast(ufunc: np.ufunc, shapes: Any, data: st.DataObject) -> None:
    a, b = (numbers(shape, data.draw(st.sampled_from(DTYPES[:6]))) for shape in shapes.input_shapes)
    agree(lambda x: ufunc(x, b), a)
    agree(lambda x: ufunc(a, x), b)
    first, second = Source(a, "a"), Source(b, "b")
    both = ufunc(first.lazy, second.lazy)
    assert (both.origins, both.transform) == ({"a", "b"}, FOLDED)
    assert first.made + second.made == 0
    same(both, ufunc(a, b))


@st.composite
def operations(draw: st.DrawFn) -> Callable[[Any], Any]:
    """One thing done to an array; on the same shape it does the same."""
    seed, axis = draw(st.integers(0, 23)), draw(st.integers(0, 3))

    def moved(x: Any) -> Any:
        by = seed % max(x.ndim, 1)
        return x.transpose([*range(by, x.ndim), *range(by)])

    def divided(x: Any) -> Any:
        return np.split(x, [1], axis % x.ndim)[seed % 2] if x.ndim else x

    return draw(
        st.sampled_from(
            [
                moved,
                divided,
                lambda x: x.reshape(-1),
                lambda x: x.reshape(x.shape[::-1]),
                lambda x: np.expand_dims(x, axis % (x.ndim + 1)),
                lambda x: np.squeeze(x),
                lambda x: x[::-1] if x.ndim else x,
                lambda x: x[..., seed % 2 :] if x.ndim else x,
                lambda x: np.concatenate([x, x], axis % x.ndim) if x.ndim else x,
                lambda x: stack([x, x]) if x.ndim < 5 else x,
                lambda x: x * numbers(x.shape[-1:]) - 1,
                lambda x: np.maximum(2, x) + numbers((1,) * x.ndim),
                lambda x: x.astype("float64"),
                lambda x: x.astype("int32"),
            ]
        )
    )


@given(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3), st.lists(operations(), max_size=8))
@settings(deadline=None)
def test_operations_in_a_row(shape: tuple[int, ...], row: list[Callable[[Any], Any]]) -> None:
    """Compositions: a transposed part of a scaled join of reshaped halves is NumPy's, however it is read."""

    def all_of(x: Any) -> Any:
        for operation in row:
            x = operation(x)
        return x

    lazy = agree(all_of, numbers(shape)).lazy
    found, expected = all_of(lazy), all_of(numbers(shape))
    assert isinstance(found, LazyArray)
    assert found.origins == {"w"}
    for nbytes in (1, 24, 10**6):
        pieces = list(found.pieces(nbytes))
        assert all(piece.ndim == 1 and piece.nbytes <= max(nbytes, found.dtype.itemsize) for piece in pieces)
        np.testing.assert_array_equal(np.concatenate([np.empty(0, found.dtype), *pieces]), expected.reshape(-1))


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", ml_dtypes.bfloat16, "int32"])
def test_scalars_keep_the_dtype_that_numpy_gives(dtype: Any) -> None:
    array = numbers((3,), dtype)
    for scalar in (2, 0.5, np.float32(0.5), np.ones((), array.dtype)):
        for do in (operator.add, operator.mul, operator.truediv, operator.sub):
            agree(lambda x, do=do, scalar=scalar: do(x, scalar), array)
            agree(lambda x, do=do, scalar=scalar: do(scalar, x), array + np.ones((), array.dtype) * 7)
    agree(operator.neg, array)
    agree(lambda x: np.sqrt(np.abs(x)), array)


@given(st.sampled_from(DTYPES), st.sampled_from(DTYPES))
def test_astype(start: np.dtype, end: np.dtype) -> None:
    lazy = agree(lambda x: x.astype(end), np.abs(numbers((2, 3), "float32")).astype(start)).lazy
    assert (lazy.astype(end) is lazy) == (start == end)


def test_numbers_without_axes() -> None:
    agree(lambda x: np.sqrt(x) * 2, np.array(4.0, np.float32))
    source = Source(np.array(3.0, np.float32))
    assert (int(source.lazy), float(source.lazy), bool(source.lazy), source.lazy.item()) == (3, 3.0, True, 3.0)
    assert len(LazyArray.of(np.zeros((4, 2)))) == 4
    with pytest.raises(TypeError):
        len(source.lazy)


def test_truth_is_that_of_the_value() -> None:
    assert not LazyArray.of(np.zeros(1))
    assert LazyArray.of(np.ones((1, 1)))
    with pytest.raises(ValueError, match="ambiguous"):
        bool(LazyArray.of(np.ones(2)))


def test_iteration_reads_once() -> None:
    source = Source(numbers((5, 2)))
    assert [list(row) for row in source.lazy] == source.array.tolist()
    assert source.lazy.tolist() == source.array.tolist()
    assert source.made == 2


@pytest.mark.parametrize(
    "do",
    [
        lambda x: np.sum(x, axis=0),
        lambda x: np.add.reduce(x),
        lambda x: np.reshape(x, (2, 6), order="F"),
        lambda x: np.concatenate([x, x], axis=0, dtype="float64"),
        lambda x: np.array_equal(x, numbers((3, 4))),
        lambda x: np.matmul(x, x.T),
        lambda x: np.where(np.asarray(x) > 0, x, 0),
        lambda x: np.zeros_like(x),
        lambda x: x[[0, 2]],
        lambda x: np.add(x, 1, dtype="float64"),
        lambda x: np.split(x, [2, 1])[1],
        lambda x: np.asarray(x, dtype="float64"),
    ],
)
def test_what_is_not_lazy_is_real(do: Callable[[Any], Any]) -> None:
    source = Source(numbers((3, 4)))
    found = do(source.lazy)
    assert not isinstance(found, LazyArray) or found.size == 0
    np.testing.assert_array_equal(realised(found), do(source.array))


def test_size_is_free() -> None:
    """A shape beyond any memory: nothing of its size is ever made."""
    huge = unreadable((2**20, 2**12, 2**8))
    assert (huge.ndim, huge.size, huge.nbytes) == (3, 2**40, 2**42)
    assert np.shape(huge) == huge.shape
    assert (np.ndim(huge), np.size(huge)) == (3, 2**40)
    assert huge.transpose(2, 0, 1).shape == (2**8, 2**20, 2**12)
    assert np.expand_dims(huge.reshape(-1), 0).squeeze().shape == (2**40,)
    assert (huge * np.ones((1, 2**12, 1), np.float32) + huge).shape == huge.shape
    assert np.concatenate([huge, huge], -1).shape == (2**20, 2**12, 2**9)
    assert [part.shape for part in np.split(huge, 4)] == [(2**18, 2**12, 2**8)] * 4
    assert stack([huge, huge]).shape == (2, *huge.shape)
    assert "LazyArray float32" in repr(huge)


def test_each_value_is_made_anew() -> None:
    source = Source(numbers((3,)))
    lazy = source.lazy + 1
    lazy.real()[:] = 0
    np.testing.assert_array_equal(lazy.real(), source.array + 1)
    assert source.made == 2


def test_parts_do_not_hold_the_whole() -> None:
    part = LazyArray.of(numbers((100, 100)))[:1]
    assert part.real().base is None


def test_origins_and_transforms() -> None:
    weight = unreadable((3, 4))
    assert (weight.named("v").origins, weight.transform) == ({"v"}, NONE)
    turned = weight.T.reshape(2, 6)
    assert (turned.origins, turned.transform) == ({"w"}, LAYOUT)
    assert np.expand_dims(turned, 0).squeeze(0).transform == LAYOUT
    scaled = weight * unreadable((4,)).named("gamma")
    assert (scaled.origins, scaled.transform) == ({"w", "gamma"}, FOLDED)
    assert (scaled.T.transform, scaled.reshape(-1).transform) == (FOLDED, FOLDED)
    assert (weight.astype("float16").transform, weight.astype("float32").transform) == (CAST, NONE)
    assert (weight[:, :2].transform, np.split(weight, 3)[0].origins) == (FOLDED, {"w"})
    assert np.concatenate([weight, np.ones((3, 4))]).origins == {"w"}
    assert LazyArray.of(np.ones(2)).origins == frozenset()


def test_a_maker_that_breaks_its_word() -> None:
    wrong = LazyArray((2, 3), np.float32, lambda: np.zeros((3, 2), np.float32), frozenset(["conv/kernel"]))
    with pytest.raises(ValueError, match=r"float32\[2, 3\] was made as float32\[3, 2\] \(from conv/kernel\)"):
        wrong.real()
    with pytest.raises(ValueError, match=r"float64.*from no weight"):
        LazyArray((1,), np.float32, lambda: np.zeros(1)).T.real()


@pytest.mark.parametrize(
    "do",
    [
        lambda x: x.reshape(5),
        lambda x: x.reshape(-1, 5),
        lambda x: x.reshape(-1, -1),
        lambda x: x.reshape(-2, -6),
        lambda x: x.transpose(0, 0),
        lambda x: x.transpose(0, 1, 2),
        lambda x: np.squeeze(x, 0),
        lambda x: np.concatenate([x, np.ones((3, 3))], 1),
        lambda x: np.concatenate([x, np.ones(3)]),
        lambda x: np.concatenate([x, x], 2),
        lambda x: np.split(x, 2, 1),
        lambda x: x + np.ones(5),
        lambda x: x[3],
    ],
)
def test_impossible_shapes_are_refused_at_once(do: Callable[[Any], Any]) -> None:
    """Before anything is read, and as NumPy does."""
    with pytest.raises((ValueError, IndexError)):
        do(np.zeros((2, 3)))
    with pytest.raises((ValueError, IndexError)):
        do(unreadable((2, 3)))


def test_reshape_in_another_order_is_not_lazy() -> None:
    with pytest.raises(NotImplementedError):
        unreadable((2, 3)).reshape(6, order="F")


def test_realised_looks_into_lists() -> None:
    lazy = LazyArray.of(np.arange(3))
    found = realised(["a", (lazy, 1), lazy])
    np.testing.assert_array_equal(found[1][0], np.arange(3))
    assert found[0] == "a"
    assert isinstance(found[2], np.ndarray)
