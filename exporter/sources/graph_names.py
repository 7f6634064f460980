"""What the names of TensorFlow's operations say: which scope, or which layer, an operation is in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from exporter.sources.name_scopes import layers_of, node_names, outer_scopes

# What inlining leaves in names: the calls that were taken apart. Grappler's own prefixes say who made an operation.
CALLS = re.compile(r"(Stateful)?PartitionedCall(_\d+)?")
PREFIXES = ("Func", "ConstantFolding", "ArithmeticOptimizer")


def plain_name(name: str) -> str:
    """The name that the operation had inside of the functions that were inlined, empty if it was a call itself."""
    parts = [part for part in name.split("/") if part and not CALLS.fullmatch(part)]
    while parts and parts[0] in PREFIXES:
        del parts[0]
    return "/".join(parts)


def namespaces(operations: Sequence[tuple[str, str]], known: Iterable[str], holders: Mapping[str, str]) -> list[str]:
    """The row of each operation, given as name and op type.

    `known` are names of layers, where the source has them: an operation is in the innermost that its name tells.
    `holders` are names of weights by that of an operation that takes one.
    """
    names = [plain_name(name) for name, _ in operations]
    prefix = _shared_scope(names)
    names = [name.removeprefix(prefix) for name in names]
    if layers := set(known):
        return layers_of_known(names, layers, [op for _, op in operations])
    taken = {plain_name(name).removeprefix(prefix): weight for name, weight in holders.items()}
    if _are_numbered_again(taken):
        names = [_without_number(name) for name in names]
    return layers_of(node_names(zip(names, (op for _, op in operations), strict=True)))


def _shared_scope(names: Iterable[str]) -> str:
    """`model/` where all operations are in that scope and it has scopes inside: a model's own name says nothing."""
    scoped = [name for name in names if name]
    first = {name.partition("/")[0] if "/" in name else "" for name in scoped}
    inner = {name.split("/")[1] for name in scoped if name.count("/") > 1}
    return f"{first.pop()}/" if len(first) == 1 and "" not in first and inner else ""


def layers_of_known(names: Sequence[str], layers: set[str], ops: Sequence[str]) -> list[str]:
    """The innermost scope with the name of a layer, with those around it that have one; otherwise a row of its own."""
    found = []
    for name in names:
        parts = name.split("/")[:-1] if "/" in name else [name]
        found.append("/".join(part for part in parts if part in layers))
    alone = [place for place, layer in enumerate(found) if not layer]
    own = node_names((names[place].replace("/", "."), ops[place]) for place in alone)
    for place, name in zip(alone, own, strict=True):
        found[place] = name if name not in layers else f"{name} (operation)"
    return found


def _are_numbered_again(taken: Mapping[str, str]) -> bool:
    """Whether scopes are called after layers that a second trace has numbered: `dense_1` takes weights of `dense`."""
    pairs = [(name.partition("/")[0], weight.partition("/")[0]) for name, weight in taken.items() if "/" in weight]
    return bool(pairs) and all(re.fullmatch(rf"{re.escape(weight)}_\d+", scope) for scope, weight in pairs)


def _without_number(name: str) -> str:
    scope, slash, rest = name.partition("/")
    return re.sub(r"_\d+$", "", scope) + slash + rest if slash else name


def scopes_around(namespace: str) -> tuple[str, ...]:
    return outer_scopes(namespace)
