"""The shapes that operations of `keras.ops` give, as each class's `compute_output_spec` in Keras 3.15 has them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from exporter.readers import Unexplained
from exporter.readers.keras_calls import TENSOR
from exporter.readers.keras_operation import Operation, broadcast, sizes_of
from exporter.records import Shape

Size = int | None
ShapeOf = Callable[[Operation], Shape]


def same(call: Operation) -> Shape:
    return call.shape


def scalar(call: Operation) -> Shape:
    return ()


def all_broadcast(call: Operation) -> Shape:
    shapes = [shape for shape, _ in call.operands()]
    found = shapes[0]
    for shape in shapes[1:]:
        found = broadcast(found, shape)
    return found


def count_of(sizes: Iterable[Size]) -> Size:
    """The product, None where a size is not known."""
    known = list(sizes)
    return None if None in known else math.prod(size for size in known if size is not None)


def flat(call: Operation) -> Shape:
    return (count_of(call.shape),)


def flat_without_axis(call: Operation, default: int | None = -1) -> Shape:
    """Of what runs along an axis, or through all elements where it is None."""
    return flat(call) if call.config.get("axis", default) is None else call.shape


def cumulated(call: Operation) -> Shape:
    return flat_without_axis(call, None)


def reduced(call: Operation) -> Shape:
    axes = call.axes()
    if call.config.get("keepdims"):
        return tuple(1 if place in axes else size for place, size in enumerate(call.shape))
    return tuple(size for place, size in enumerate(call.shape) if place not in axes)


def expanded(call: Operation) -> Shape:
    value = call.config["axis"]
    count = len(value) if isinstance(value, list) else 1
    axes, sizes = call.axes(extra=count), iter(call.shape)
    return tuple(1 if place in axes else next(sizes) for place in range(len(call.shape) + count))


def squeezed(call: Operation) -> Shape:
    if call.config.get("axis") is None:
        return tuple(size for size in call.shape if size != 1)
    axes = call.axes()
    return tuple(size for place, size in enumerate(call.shape) if place not in axes)


def reshaped(call: Operation) -> Shape:
    target = call.config["newshape"]
    target = [target] if isinstance(target, int) else list(target)
    known = math.prod(size for size in target if size not in (-1, None))
    if None in target or target.count(-1) > 1 or not known:
        raise Unexplained("a Reshape to several unknown sizes")
    total = count_of(call.shape)
    return tuple(size if size != -1 else None if total is None else total // known for size in target)


def transposed(call: Operation) -> Shape:
    axes = call.axes("axes") if call.config.get("axes") is not None else list(range(len(call.shape)))[::-1]
    return tuple(call.shape[axis] for axis in axes)


def swapped(call: Operation) -> Shape:
    return _exchanged(call, call.axis(setting="axis1"), call.axis(setting="axis2"))


def turned(call: Operation) -> Shape:
    """By a right angle, whatever the number of turns."""
    one, other = call.axes("axes") if call.config.get("axes") else (0, 1)
    return _exchanged(call, one, other)


def _exchanged(call: Operation, one: int, other: int) -> Shape:
    sizes = list(call.shape)
    sizes[one], sizes[other] = sizes[other], sizes[one]
    return tuple(sizes)


def moved(call: Operation) -> Shape:
    sources, targets = call.axes("source"), call.axes("destination")
    left = iter(size for axis, size in enumerate(call.shape) if axis not in sources)
    placed = {target: call.shape[source] for source, target in zip(sources, targets, strict=True)}
    return tuple(placed[axis] if axis in placed else next(left) for axis in range(len(call.shape)))


def concatenated(call: Operation) -> Shape:
    return joined_along(call, call.axis(default=0))


def joined_along(call: Operation, axis: int) -> Shape:
    shapes = [shape for shape, _ in call.operands()]
    sizes = list(shapes[0])
    parts = [shape[axis] for shape in shapes]
    sizes[axis] = None if None in parts else sum(size for size in parts if size is not None)
    return tuple(sizes)


def stacked(call: Operation) -> Shape:
    sizes = list(call.operands()[0][0])
    sizes.insert(call.axis(default=0, extra=1), len(call.operands()))
    return tuple(sizes)


def product(call: Operation) -> Shape:
    """Of matrices, behind broadcast leading dimensions; a vector stands for a row or a column."""
    (one, _), (other, _) = call.operands()
    if not one or not other:
        raise Unexplained("a product with a number")
    rows, columns = one if len(one) > 1 else (1, *one), other if len(other) > 1 else (*other, 1)
    ends = (*((rows[-2],) if len(one) > 1 else ()), *((columns[-1],) if len(other) > 1 else ()))
    return (*broadcast(rows[:-2], columns[:-2]), *ends)


def outer(call: Operation) -> Shape:
    return tuple(count_of(shape or (1,)) for shape, _ in call.operands())


def einsum(call: Operation) -> Shape:
    """Of an equation that names all axes, those of the output too."""
    inputs, arrow, output = str(call.config["subscripts"]).replace(" ", "").partition("->")
    if not arrow or "." in inputs:
        raise Unexplained("an Einsum with axes that are not named")
    sizes: dict[str, Size] = {}
    for letters, (shape, _) in zip(inputs.split(","), call.operands(), strict=True):
        for letter, size in zip(letters, shape, strict=True):
            (sizes[letter],) = broadcast((sizes.get(letter, 1),), (size,))
    return tuple(sizes[letter] for letter in output)


def tiled(call: Operation) -> Shape:
    given = call.config["repeats"]
    repeats = [given] if isinstance(given, int) else list(given)
    rank = max(len(repeats), len(call.shape))
    sizes = (1,) * (rank - len(call.shape)) + call.shape
    counts = [1] * (rank - len(repeats)) + repeats
    return tuple(None if size is None else size * count for size, count in zip(sizes, counts, strict=True))


def repeated(call: Operation) -> Shape:
    given, sizes = call.config["repeats"], list(call.shape)
    whole = call.config.get("axis") is None
    size = count_of(sizes) if whole else sizes[call.axis()]
    counts = [given] if isinstance(given, int) else list(given)
    found = None if size is None else size * counts[0] if len(counts) == 1 else sum(counts)
    if whole:
        return (found,)
    sizes[call.axis()] = found
    return tuple(sizes)


def padded(call: Operation) -> Shape:
    widths = call.config["pad_width"]
    pairs = [[widths, widths]] if isinstance(widths, int) else [widths] if type(widths[0]) is int else list(widths)
    pairs = pairs * len(call.shape) if len(pairs) == 1 else pairs
    return tuple(None if size is None else size + sum(pair) for size, pair in zip(call.shape, pairs, strict=True))


def taken(call: Operation) -> Shape:
    """Rows and the like by their numbers, which are the second argument."""
    if len(call.arguments) != 2 or call.arguments[0] != TENSOR:
        raise Unexplained("rows that are not known")
    places = call.operands()[1][0] if len(call.inputs) > 1 else sizes_of(call.arguments[1])
    if call.config.get("axis") is None:
        return places
    axis = call.axis()
    return (*call.shape[:axis], *places, *call.shape[axis + 1 :])


def taken_along(call: Operation) -> Shape:
    (shape, _), (places, _) = call.operands()
    if call.config.get("axis", -1) is None:
        return broadcast(places, places)
    axis = call.axis()
    return broadcast((*shape[:axis], places[axis], *shape[axis + 1 :]), places)


def one_hot(call: Operation) -> Shape:
    sizes = list(call.shape)
    sizes.insert(call.axis(extra=1), int(call.config["num_classes"]))
    return tuple(sizes)


def halved(call: Operation) -> Shape:
    axis, sizes = call.axis(), list(call.shape)
    size = sizes[axis]
    sizes[axis] = None if size is None else size // 2
    return tuple(sizes)


def differences(call: Operation) -> Shape:
    axis, sizes = call.axis(), list(call.shape)
    size = sizes[axis]
    sizes[axis] = None if size is None else max(size - int(call.config.get("n", 1)), 0)
    return tuple(sizes)


def given_shape(call: Operation) -> Shape:
    return tuple(call.config["shape"])


def square_free(call: Operation) -> Shape:
    """Of matrices, each of which gives one number."""
    return call.shape[:-2]


def item(call: Operation) -> Shape:
    """Numbers, slices, `None` and an ellipsis in brackets; nothing else is in a config."""
    if len(call.arguments) != 2 or call.arguments[0] != TENSOR:
        raise Unexplained("an item that is not known")
    key = call.arguments[1]
    parts = key if isinstance(key, list) else [key]
    left, found = list(call.shape), list[Size]()
    for place, part in enumerate(parts):
        if part is None:
            found.append(1)
        elif is_part(part, "__ellipsis__"):
            needed = sum(each is not None for each in parts[place + 1 :])
            found += left[: len(left) - needed]
            left = left[len(left) - needed :]
        elif is_part(part, "__slice__"):
            found.append(_sliced(left.pop(0), part["config"]))
        elif type(part) is int:
            left.pop(0)
        else:
            raise Unexplained("an item that is not known")
    return (*found, *left)


def is_part(value: Any, class_name: str) -> bool:
    return isinstance(value, dict) and value.get("class_name") == class_name


def sliced(call: Operation) -> Shape:
    """A block of a given size; -1 stands for all that is behind its start."""
    starts = call.arguments[1] if len(call.arguments) > 1 else None
    sizes = list(call.config["shape"])
    for axis, (size, given) in enumerate(zip(call.shape, sizes, strict=True)):
        if given == -1:
            sizes[axis] = size - starts[axis] if size is not None and isinstance(starts, list) else None
    return tuple(sizes)


def _sliced(size: Size, part: Mapping[str, Any]) -> Size:
    bounds = [part[name] for name in ("start", "stop", "step")]
    if not all(value is None or type(value) is int for value in bounds):
        raise Unexplained("a slice that is not known")
    return None if size is None else len(range(*slice(*bounds).indices(size)))
