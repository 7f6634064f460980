"""What the names of TensorFlow's operations say: which scope, or which layer, an operation is in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from exporter.sources.graphs.name_scopes import layers_of, node_names

# What inlining leaves in names: the calls that were taken apart. Grappler's own prefixes say who made an operation.
CALLS = re.compile(r"(Stateful)?PartitionedCall(_\d+)?")
READS = re.compile(r"(/ReadVariableOp(_\d+)?)?(/resource|/read)?$")
PREFIXES = ("Func", "ConstantFolding", "ArithmeticOptimizer")


def plain_name(name: str) -> str:
    """The name that the operation had inside of the functions that were inlined, empty if it was a call itself."""
    parts = [part for part in name.split("/") if part and not CALLS.fullmatch(part)]
    while parts and parts[0] in PREFIXES:
        del parts[0]
    return "/".join(parts)


def weight_name(node: str) -> str:
    """A constant is called after what takes it where it was a variable before it was frozen."""
    return READS.sub("", plain_name(node))


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
    renamed = _numbered_again(taken)
    names = [_renamed(name, renamed) for name in names]
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


def _numbered_again(taken: Mapping[str, str]) -> dict[str, str]:
    """Scopes that a second trace has numbered, with their names without: `dense_1` takes weights of `dense`.

    Where that is so for all of the outermost ones that take weights, it is for the others of them too: key "".
    """
    renamed: dict[str, str] = {}
    outermost = set()
    for name, weight in taken.items():
        scopes, layers = name.split("/")[:-1], weight.split("/")[:-1]
        for depth, (scope, layer) in enumerate(zip(scopes, layers, strict=False), 1):
            is_same = re.fullmatch(rf"{re.escape(layer)}_\d+", scope) is not None
            if depth == 1:
                outermost.add(is_same)
            if not is_same:
                break
            renamed["/".join(scopes[:depth])] = layer
    return renamed | {"": ""} if outermost == {True} else {}


def _renamed(name: str, renamed: Mapping[str, str]) -> str:
    if not renamed:
        return name
    parts = name.split("/")
    clean = [renamed.get("/".join(parts[:depth]), part) for depth, part in enumerate(parts[:-1], 1)]
    if clean and clean[0] == parts[0]:
        clean[0] = re.sub(r"_\d+$", "", clean[0])
    return "/".join([*clean, parts[-1]])
