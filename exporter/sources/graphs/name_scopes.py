"""Which layer an operation belongs to, from the names of the operations: exporters write scopes, joined by `/`.

A scope without scopes inside is a layer, with all of its nodes. Other scopes are what encloses layers, as a nested
model does; a node right in such a scope, or in none, is a layer of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from exporter.unique_names import Names

# Names with more parts than this keep the rest in one: models nest a dozen deep, and every part becomes a row.
DEEPEST = 64


def scoped(name: str) -> str:
    """The name without empty parts, which some exporters write, and not too deep."""
    parts = [part for part in name.split("/") if part]
    return "/".join(parts if len(parts) <= DEEPEST else [*parts[: DEEPEST - 1], ".".join(parts[DEEPEST - 1 :])])


def node_names(nodes: Iterable[tuple[str, str]]) -> list[str]:
    """Unique names for nodes given as name and op type."""
    names = Names()
    return [names.unique(scoped(name) or op_type) for name, op_type in nodes]


def layers_of(names: Iterable[str]) -> list[str]:
    """The layer of each node, by the nodes' unique names."""
    names = list(names)
    scopes = {name.rpartition("/")[0] for name in names} - {""}
    enclosing = {outer for scope in scopes for outer in outer_scopes(scope)}
    return [_layer(name, enclosing) for name in names]


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
