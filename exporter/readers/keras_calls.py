"""The calls of a Keras model's layers as its config lists them: which tensors of which other calls go in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.readers import Unexplained
from exporter.records import Shape

# A tensor of a graph: the layer, which call of it, which output of that call.
Tensor = tuple[str, int, int]
# Stands for a tensor among the arguments of a call.
TENSOR = "__tensor__"


@dataclass(frozen=True, slots=True)
class Ref:
    """A tensor that goes into a call: which output of which call of which layer of the same model.

    Shape and dtype are None where the config does not say them.
    """

    layer: str
    call: int
    output: int
    shape: Shape | None
    dtype: str | None


def calls_of(nodes: Any, class_name: str) -> list[tuple[Ref, ...]]:
    """The tensors of each call; an input layer has one call, which takes none. Raises Unexplained."""
    if class_name == "InputLayer":
        return [()]
    calls = [tuple(_refs(node)) for node in nodes or ()]
    if not all(calls):
        raise Unexplained("a call without tensors")
    return calls


def returns_scores(nodes: Any) -> bool:
    """Whether the calls of an attention layer give its scores, too. Raises Unexplained where they differ."""
    found = {bool(node["kwargs"].get("return_attention_scores")) for node in nodes or ()}
    if len(found) > 1:
        raise Unexplained("calls with and without attention scores")
    return found == {True}


def argument_names(node: Any, names: Sequence[str]) -> list[str]:
    """What the tensors of a call are given for, in their order; `names` are those of the arguments by position."""
    placed = [name for name, value in zip(names, node["args"], strict=False) if _is_tensor(value)]
    return [*placed, *(name for name, value in sorted(node["kwargs"].items()) if _is_tensor(value))]


def arguments_of(nodes: Any) -> tuple[Any, ...]:
    """The arguments of the only call, with a mark for each tensor; none where there are several calls, or names."""
    if not isinstance(nodes, list) or len(nodes) != 1 or nodes[0]["kwargs"]:
        return ()
    return tuple(_marked(value) for value in nodes[0]["args"])


def _marked(value: Any) -> Any:
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return [_marked(item) for item in value]
    return TENSOR if _is_tensor(value) else value


def _is_tensor(value: Any) -> bool:
    return isinstance(value, dict) and value.get("class_name") == "__keras_tensor__"


def tensors_of(value: Any) -> Iterator[tuple[str, Tensor]]:
    """Every `[layer, call, output]` in the structure; of a dictionary with the keys of its own. Raises Unexplained."""
    if isinstance(value, dict):
        for name, inner in sorted(value.items()):
            yield from ((name if _is_place(inner) else "", place) for place in _places_in(inner))
    else:
        yield from (("", place) for place in _places_in(value))


def _places_in(value: Any) -> Iterator[Tensor]:
    if _is_place(value):
        yield value[0], int(value[1]), int(value[2])
    elif isinstance(value, dict):
        for _, inner in sorted(value.items()):
            yield from _places_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _places_in(inner)
    else:
        raise Unexplained("inputs or outputs in another layout")


def _is_place(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and isinstance(value[0], str)


def shape_of(sizes: Any) -> Shape:
    return tuple(None if size is None else int(size) for size in sizes)


def _refs(node: Any) -> Iterator[Ref]:
    """In the order in which Keras flattens arguments: positions first, then keywords by name."""
    if not isinstance(node, dict) or not {"args", "kwargs"} <= node.keys():
        raise Unexplained("calls of an older layout")
    stack = [node["kwargs"], node["args"]]
    while stack:
        item = stack.pop()
        if _is_tensor(item):
            tensor = item["config"]
            layer, call, output = tensor["keras_history"]
            if tensor["shape"] is None:
                yield Ref(str(layer), int(call), int(output), None, None)
            else:
                yield Ref(str(layer), int(call), int(output), shape_of(tensor["shape"]), str(tensor["dtype"]))
        elif isinstance(item, dict):
            stack.extend(value for _, value in sorted(item.items(), reverse=True))
        elif isinstance(item, list):
            stack.extend(reversed(item))
