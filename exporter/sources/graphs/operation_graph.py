"""The description of a graph of operations: a row for each, the scopes around them, edges and weights.

Linear in operations and tensors. Between operations of different scopes an edge runs at the level that both share.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from exporter.records import Edge, Layer, ModelGraph, TensorSpec, Weight
from exporter.sources.graphs.name_scopes import below, outer_scopes, scoped
from exporter.unique_names import Names

ROOT, SCOPE, INPUT = "", "Scope", "InputLayer"


def operation_names(names: Sequence[str]) -> list[str]:
    """A unique key for each operation that has a row of its own, none of them that of a scope around another.

    An operation that is alone in a scope gets the scope's name, which is that of the layer that it was made by.
    """
    clean = Names()
    unique = [clean.unique(scoped(name)) for name in names]
    inside = Counter(outer for name in unique for outer in outer_scopes(name))
    alone = [next((outer for outer in outer_scopes(name)[1:] if inside[outer] == 1), name) for name in unique]
    enclosing = {outer for name in alone for outer in outer_scopes(name)}
    found = Names(enclosing)
    return [found.unique(f"{name}/op" if name in enclosing else name) for name in alone]


@dataclass(frozen=True, slots=True)
class Operation:
    """One row. Tensors, constants among them, are named by keys that are unique in the model; `config` is JSON."""

    namespace: str
    class_name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    config: str = "{}"


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor that the file holds. Two of the same `content` are one weight."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    content: object


@dataclass(slots=True)
class Row:
    """A row under way: the tensors at its border, each with where it stands there."""

    namespace: str
    class_name: str
    config: str = "{}"
    takes: dict[str, int] = field(default_factory=dict)
    gives: dict[str, int] = field(default_factory=dict)
    sources: dict[str, None] = field(default_factory=dict)
    weights: list[Weight] = field(default_factory=list)


class Description:
    """`scopes` has the classes of rows that only enclose others, where they are more than a name."""

    def __init__(
        self,
        specs: Mapping[str, TensorSpec],
        constants: Mapping[str, Constant],
        scopes: Mapping[str, str] | None = None,
    ) -> None:
        self._specs, self._constants, self._scopes = specs, constants, scopes or {}
        self._rows: dict[str, Row] = {}
        self._makers: dict[str, str] = {}
        self._edges: dict[tuple[str, str, str], Edge] = {}
        self._weights: set[object] = set()
        self._taken: set[str] = set()

    def graph(
        self,
        name: str,
        operations: Iterable[Operation],
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        taken_outside: Iterable[str],
    ) -> ModelGraph:
        """`taken_outside` are the keys of the tensors that the model gives."""
        for operation in operations:
            self._add(operation)
        for key in taken_outside:
            if key in self._makers:
                self._give(self._makers[key], key)
        for key in [key for key in self._constants if key not in self._taken]:
            self._weight(key, ROOT)
        return ModelGraph(
            name=name,
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            layers=tuple(self._layers()),
            edges=tuple(self._edges.values()),
            weights=tuple(weight for row in self._rows.values() for weight in row.weights),
            level="operation",
        )

    def _row(self, namespace: str, class_name: str = SCOPE, config: str = "{}") -> Row:
        """The row of that key, with the scopes around it before it."""
        for outer in outer_scopes(namespace):
            if outer not in self._rows:
                self._rows[outer] = Row(outer, self._scopes.get(outer, SCOPE))
        if namespace not in self._rows:
            self._rows[namespace] = Row(namespace, class_name, config)
        return self._rows[namespace]

    def _add(self, operation: Operation) -> None:
        namespace = operation.namespace
        row = self._row(namespace, operation.class_name, operation.config)
        for key in operation.inputs:
            if key in self._constants:
                self._weight(key, namespace)
            elif key in self._makers:
                self._connect(self._makers[key], namespace, key)
            else:
                # Made by a later operation, as in a loop, or by nobody.
                row.takes.setdefault(key, len(row.takes))
        for key in operation.outputs:
            self._makers[key] = namespace
            row.gives.setdefault(key, len(row.gives))

    def _weight(self, key: str, namespace: str) -> None:
        """It belongs to the first that takes it; what nobody takes belongs to the model itself."""
        constant = self._constants[key]
        self._taken.add(key)
        if constant.content not in self._weights:
            weight = Weight(constant.name, namespace, constant.shape, constant.dtype, constant.nbytes, False)
            self._weights.add(constant.content)
            row = self._row(namespace) if namespace else self._rows.setdefault(ROOT, Row(ROOT, SCOPE))
            row.weights.append(weight)

    def _connect(self, source: str, target: str, key: str) -> None:
        """An edge between two rows, or between the outermost scopes around them that are not around both."""
        self._give(source, key, *below(source, target))
        for name in (target, *below(target, source)):
            takes = self._rows[name].takes
            takes.setdefault(key, len(takes))
        source, target = ([*below(one, other), one][0] for one, other in ((source, target), (target, source)))
        if (source, target, key) in self._edges:
            return
        before, after = self._rows[source], self._rows[target]
        after.sources[source] = None
        spec = self._specs[key]
        self._edges[source, target, key] = Edge(
            source, 0, before.gives[key], target, 0, after.takes[key], spec.shape, spec.dtype
        )

    def _give(self, source: str, key: str, *around: str) -> None:
        for name in (source, *around):
            gives = self._rows[name].gives
            gives.setdefault(key, len(gives))

    def _layers(self) -> Iterator[Layer]:
        totals = {name: _elements(row) for name, row in self._rows.items()}
        for name, size in list(totals.items()):
            for outer in outer_scopes(name):
                totals[outer] += size
        for index, row in enumerate(self._depth_first()):
            yield self._layer(index, row, totals[row.namespace])

    def _depth_first(self) -> list[Row]:
        """Rows with what is inside right behind each, children in the order in which they were met."""
        children: dict[str, list[Row]] = {}
        for name, row in self._rows.items():
            children.setdefault(name.rpartition("/")[0] if name != ROOT else ROOT, []).append(row)
        found, stack = [], list(reversed(children.get(ROOT, [])))
        while stack:
            row = stack.pop()
            found.append(row)
            if row.namespace != ROOT:
                stack.extend(reversed(children.get(row.namespace, [])))
        return found

    def _layer(self, index: int, row: Row, total: int) -> Layer:
        parent, _, name = row.namespace.rpartition("/")
        return Layer(
            index=index,
            name=name,
            class_name=row.class_name,
            namespace=row.namespace,
            depth=row.namespace.count("/"),
            parent=parent or None,
            trainable=False,
            inputs=tuple(self._specs[key] for key in row.takes),
            outputs=tuple(self._specs[key] for key in row.gives),
            params=_elements(row),
            params_trainable=0,
            params_total=total,
            weight_bytes=sum(weight.nbytes for weight in row.weights),
            calls=1,
            connected_to=tuple(row.sources),
            config=row.config,
        )


def _elements(row: Row) -> int:
    return sum(math.prod(weight.shape) for weight in row.weights)
