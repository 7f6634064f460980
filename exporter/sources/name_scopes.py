"""What the names of operations tell: those who write graphs join scopes by `/`.

A scope without scopes inside is a layer, with all of its nodes. Other scopes are what encloses layers, as a nested
model does; a node right in such a scope, or in none, is a layer of its own. Where each operation has a row of its own,
all scopes enclose.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Sequence

from exporter.unique_names import Names


def node_names(nodes: Iterable[tuple[str, str]]) -> list[str]:
    """Unique names for nodes given as name and op type; the empty parts that some exporters write are left out."""
    names = Names()
    return [names.unique("/".join(part for part in name.split("/") if part) or op_type) for name, op_type in nodes]


def layers_of(names: Iterable[str]) -> list[str]:
    """The layer of each node, by the nodes' unique names."""
    names = list(names)
    scopes = {name.rpartition("/")[0] for name in names} - {""}
    enclosing = {outer for scope in scopes for outer in outer_scopes(scope)}
    return [_layer(name, enclosing) for name in names]


def operation_names(names: Sequence[str]) -> list[str]:
    """A unique key for each operation that has a row of its own, none of them that of a scope around another.

    An operation that is alone in a scope gets the scope's name, which is that of the layer that it was made by.
    """
    clean = Names()
    unique = [clean.unique("/".join(part for part in name.split("/") if part)) for name in names]
    inside = Counter(outer for name in unique for outer in outer_scopes(name))
    alone = [next((outer for outer in outer_scopes(name)[1:] if inside[outer] == 1), name) for name in unique]
    enclosing = {outer for name in alone for outer in outer_scopes(name)}
    found = Names(enclosing)
    return [found.unique(f"{name}/op" if name in enclosing else name) for name in alone]


def _layer(name: str, enclosing: set[str]) -> str:
    scope = name.rpartition("/")[0]
    if scope and scope not in enclosing:
        return scope
    if name in enclosing:
        return f"{name}/node"
    return name


@functools.lru_cache(maxsize=4096)
def outer_scopes(name: str) -> tuple[str, ...]:
    """`a/b/c` → `a`, `a/b`: from the outside in."""
    parts = name.split("/")
    return tuple("/".join(parts[:count]) for count in range(1, len(parts)))


def below(name: str, other: str) -> tuple[str, ...]:
    """The scopes around `name` that are not around `other`, from the outside in."""
    ours = outer_scopes(name)
    if name.rpartition("/")[0] == other.rpartition("/")[0]:
        return ()
    around = {*outer_scopes(other), other}
    return tuple(outer for outer in ours if outer not in around)
