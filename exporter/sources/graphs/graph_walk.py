"""Walks over the nodes of a TensorFlow graph, or of a function in it, of any depth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any


def node_name(tensor: str) -> str:
    """`^a`, `a`, `a:1` and `a:output:0` come from node `a`."""
    return tensor.removeprefix("^").partition(":")[0]


def tensor_name(name: str) -> str:
    """`a:0` for `a`; TensorFlow leaves the first output's number out in a graph."""
    return name if ":" in name else f"{name}:0"


def followed(tensor: str, step: Callable[[str], str | None]) -> str:
    """The tensor at the end of the steps, the first of which has no next; that of a circle is anywhere in it."""
    seen = set()
    while tensor not in seen and (after := step(tensor)) is not None:
        seen.add(tensor)
        tensor = after
    return tensor


def ordered(nodes: Iterable[Any]) -> list[Any]:
    """Producers before consumers; in a cycle, which loops of TensorFlow 1 are, the order is that of the file."""
    by_name = {node.name: node for node in nodes}
    order: list[Any] = []
    entered: set[str] = set()
    left: set[str] = set()
    for root in by_name:
        stack = [root]
        while stack:
            name = stack[-1]
            if name in entered:
                stack.pop()
                if name not in left:
                    left.add(name)
                    order.append(by_name[name])
                continue
            entered.add(name)
            producers = [node_name(tensor) for tensor in by_name[name].input]
            stack.extend(each for each in reversed(producers) if each in by_name and each not in entered)
    return order


def reachable(nodes: Mapping[str, Any], roots: Iterable[str], *, with_control: bool = True) -> set[str]:
    """The names of the nodes that the roots depend on, themselves included."""
    stack, found = [name for name in roots if name in nodes], set()
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            inputs = nodes[name].input
            stack.extend(
                producer
                for tensor in inputs
                if (with_control or not tensor.startswith("^")) and (producer := node_name(tensor)) in nodes
            )
    return found
