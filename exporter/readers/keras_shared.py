"""Layers that stand in several models of one file: one row each, whose calls are counted through all the models.

Two models may also have one and the same call in common, as a model and an extractor of its features do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from exporter.readers.keras_model import RawLayer, RawModel
from exporter.readers.keras_names import stored_name

# A tensor by the object that makes it, the number of the call, and the output.
Source = tuple[int, int, int]


def is_shared(model: RawModel) -> bool:
    return any(layer.same is not None for layer in all_layers(model))


def all_layers(model: RawModel) -> Iterator[RawLayer]:
    """Of the model and of models inside, each time that they are listed."""
    stack = [iter(model.layers)]
    while stack:
        layer = next(stack[-1], None)
        if layer is None:
            stack.pop()
            continue
        yield layer
        if layer.model and layer.same is None:
            stack.append(iter(layer.model.layers))


def stored_places(model: RawModel) -> dict[int, str]:
    """Where the file has the weights of each object: where it is listed first, the models inside in their places."""
    found: dict[int, str] = {}

    def visit(inner: RawModel, before: str) -> None:
        used: dict[str, int] = {}
        for layer in inner.layers:
            group = f"{before}layers/{stored_name(layer.class_name, used)}/" if layer.is_layer else ""
            if layer.key not in found:
                found[layer.key] = group
                if layer.model:
                    visit(layer.model, group)

    visit(model, "")
    return found


class CallNumbers:
    """The number that a call of a layer in a model has among all calls of that layer.

    The models are given in the order of their rows, the outermost first.
    """

    def __init__(self, models: Iterable[RawModel]) -> None:
        self.counts: defaultdict[int, int] = defaultdict(int)
        self._numbers: dict[tuple[int, str, int], int] = {}
        self._known: defaultdict[int, dict[tuple[Source, ...], int]] = defaultdict(dict)
        self._new: set[tuple[int, str, int]] = set()
        for model in models:
            self._count(model)

    def number(self, model: RawModel, name: str, call: int) -> int:
        return self._numbers.get((id(model), name, call), call)

    def is_new(self, model: RawModel, name: str, call: int) -> bool:
        """Whether no model before has the same call."""
        return (id(model), name, call) in self._new

    def _count(self, model: RawModel) -> None:
        """In the order of the config, in which a layer comes behind those whose tensors it takes first."""
        layers = {layer.name: layer for layer in model.layers}
        here: list[tuple[int, tuple[Source, ...], int]] = []
        for layer in model.layers:
            for call, refs in enumerate(layer.calls):
                sources = tuple(
                    (layers[ref.layer].key, self.number(model, ref.layer, ref.call), ref.output)
                    for ref in refs
                    if ref.layer in layers
                )
                number = self._known[layer.key].get(sources)
                if number is None:
                    number = self.counts[layer.key]
                    self.counts[layer.key] += 1
                    self._new.add((id(model), layer.name, call))
                    here.append((layer.key, sources, number))
                self._numbers[id(model), layer.name, call] = number
        for key, sources, number in here:
            self._known[key].setdefault(sources, number)
