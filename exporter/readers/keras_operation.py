"""A call of an operation of `keras.ops` that stands in a graph of layers: what it is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from exporter.readers import Unexplained
from exporter.readers.keras_calls import TENSOR
from exporter.readers.keras_dtypes import promoted
from exporter.readers.keras_shapes import Spec
from exporter.records import Shape

Config = Mapping[str, Any]
# Arrays that stand in a config with their values.
ARRAYS = ("__numpy__", "__tensor__")


@dataclass(frozen=True)
class Operation:
    """A call: the operation's settings, its arguments with a mark for each tensor, and the tensors."""

    config: Config
    arguments: tuple[Any, ...]
    inputs: tuple[Spec, ...]

    @property
    def shape(self) -> Shape:
        return self.inputs[0][0]

    @property
    def dtype(self) -> str:
        return self.inputs[0][1]

    def axis(self, default: int = -1, setting: str = "axis", extra: int = 0) -> int:
        """One axis as a number from the front. Raises Unexplained."""
        value = self.config.get(setting, default)
        if type(value) is not int:
            raise Unexplained(f"an axis {value}")
        return self._from_front(value, extra)

    def axes(self, setting: str = "axis", extra: int = 0) -> list[int]:
        """As numbers from the front, of a tensor with so many more dimensions; all where none is given."""
        value = self.config.get(setting)
        if value is None:
            return list(range(len(self.shape) + extra))
        return [self._from_front(axis, extra) for axis in (value if isinstance(value, list) else [value])]

    def _from_front(self, axis: int, extra: int) -> int:
        rank = len(self.shape) + extra
        if not -rank <= axis < rank:
            raise Unexplained(f"an axis {axis} of {rank}")
        return axis % rank

    def operands(self, arguments: Any = None) -> list[Spec]:
        """Shape and kind of each argument, numbers and arrays in the config included. Raises Unexplained."""
        given = list(self._operands(self.arguments if arguments is None else arguments, iter(self.inputs)))
        if not given:
            raise Unexplained("arguments that are not known")
        return given

    def _operands(self, arguments: Any, tensors: Iterator[Spec]) -> Iterator[Spec]:
        for value in arguments:
            if value == TENSOR:
                yield next(tensors)
            elif isinstance(value, list):
                yield from self._operands(value, tensors)
            else:
                yield _constant(value)

    def kinds(self) -> str:
        """That of all arguments together. Raises Unexplained."""
        return promoted(*(kind for _, kind in self.operands()))


def _constant(value: Any) -> Spec:
    kind = type(value).__name__
    if kind in ("bool", "int", "float"):
        return (), kind
    if isinstance(value, dict) and value.get("class_name") in ARRAYS:
        return sizes_of(value["config"]["value"]), str(value["config"]["dtype"])
    raise Unexplained("an argument that is not known")


def sizes_of(value: Any) -> Shape:
    """The shape of an array that is written as nested lists, or in the words of a config. Raises Unexplained."""
    if isinstance(value, dict):
        return _constant(value)[0]
    sizes = []
    while isinstance(value, list):
        sizes.append(len(value))
        value = value[0] if value else None
    return tuple(sizes)


def broadcast(one: Shape, other: Shape) -> Shape:
    """Keras's `broadcast_shapes`, in which a known size wins over a dynamic one. Raises Unexplained."""
    rank = max(len(one), len(other))
    sizes: list[int | None] = []
    for a, b in zip((1,) * (rank - len(one)) + one, (1,) * (rank - len(other)) + other, strict=True):
        if a == 1:
            sizes.append(b)
        elif a is None:
            sizes.append(None if b == 1 else b)
        elif b in (1, None, a):
            sizes.append(a)
        else:
            raise Unexplained("shapes that do not fit")
    return tuple(sizes)
