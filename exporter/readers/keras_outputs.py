"""The shapes and dtypes of what the calls of a model's layers give.

The config of Keras 3 has those of all tensors that go into a call, so that only the outputs of the model have to be
worked out; that of Keras 2 has none, and they are worked out from the inputs on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from exporter.readers import Unexplained
from exporter.readers.keras_calls import Ref, Tensor
from exporter.readers.keras_encodings import BOXES, REVERSIBLE, boxes_specs, reversible_spec
from exporter.readers.keras_model import RawLayer, RawModel
from exporter.readers.keras_operations import operation_specs
from exporter.readers.keras_sequences import output_specs
from exporter.readers.keras_shapes import Spec, input_spec
from exporter.records import Shape

# Shape and dtype of a tensor, each None where it is not known.
Known = tuple[Shape | None, str | None]
UNKNOWN: Known = (None, None)
# What a setting that is not what it should be leads to.
ODD = (Unexplained, LookupError, TypeError, ValueError, ArithmeticError)


class Outputs:
    """The tensors of one model's calls; with `lenient`, what cannot be worked out is unknown."""

    def __init__(self, model: RawModel, *, lenient: bool = False) -> None:
        self.model, self.lenient = model, lenient
        self.layers = {layer.name: layer for layer in model.layers}
        self.known: dict[Tensor, Known] = {}
        self.counts: dict[tuple[str, int], int] = {}
        for layer in model.layers:
            for refs in layer.calls:
                for ref in refs:
                    self._note((ref.layer, ref.call, ref.output), (ref.shape, ref.dtype))
        for _, place in model.outputs:
            self._note(place, None)

    def _note(self, place: Tensor, spec: Known | None) -> None:
        call = place[:2]
        self.counts[call] = max(self.counts.get(call, 0), place[2] + 1)
        if spec is not None and (spec != UNKNOWN or place not in self.known):
            self.known[place] = spec

    def of(self, layer: RawLayer, call: int) -> list[Known]:
        """All outputs of one call. Raises Unexplained."""
        used = self.counts.get((layer.name, call), 0)
        if used > layer.outputs and not self.lenient:
            raise Unexplained(f"{layer.name} gives more tensors than known")
        return [self.spec((layer.name, call, output)) for output in range(max(used, layer.outputs))]

    def spec(self, place: Tensor) -> Known:
        if self.known.get(place, UNKNOWN) == UNKNOWN:
            self._work_out(*place)
        return self.known[place]

    def _work_out(self, name: str, call: int, output: int) -> None:
        """All outputs of the call at once: models inside may take long."""
        found: list[Spec] = []
        try:
            layer = self.layers[name]
            found = call_specs(layer, () if layer.class_name == "InputLayer" else layer.calls[call], call)
            if output >= len(found):
                raise Unexplained(f"{name} gives no tensor number {output}")
        except ODD as error:
            if not self.lenient:
                raise Unexplained(f"what {name} gives: {error}") from error
        for number, spec in enumerate(found):
            if self.known.get((name, call, number), UNKNOWN) == UNKNOWN:
                self.known[name, call, number] = spec
        self.known.setdefault((name, call, output), UNKNOWN)


def call_specs(layer: RawLayer, given: Sequence[Ref], call: int = 0) -> list[Spec]:
    """What that call with those tensors gives. Raises what `ODD` lists."""
    if layer.class_name == "InputLayer":
        return [input_spec(layer.config)]
    inputs = [_certain(ref.shape, ref.dtype) for ref in given]
    if layer.model:
        return _of_model(layer.model, inputs)
    if not layer.is_layer:
        return operation_specs(layer.class_name, layer.config, layer.arguments, inputs)
    if layer.class_name == REVERSIBLE:
        return [reversible_spec(layer.config, inputs, call)]
    if layer.class_name == "TimeDistributed" and layer.inside and layer.inside[0].model:
        return [_each_time(layer.inside[0].model, inputs[0])]
    if layer.class_name == BOXES:
        return boxes_specs(layer.config, inputs, call)
    if layer.class_name == "Pipeline":
        return _one_after_another(layer.inside, inputs)
    return output_specs(layer.class_name, layer.config, inputs, with_scores=layer.with_scores, call=call)


def _certain(shape: Shape | None, dtype: str | None) -> Spec:
    if shape is None or dtype is None:
        raise Unexplained("a tensor of unknown shape")
    return shape, dtype


def _of_model(model: RawModel, inputs: Sequence[Spec]) -> list[Spec]:
    """Called with the shapes that it was made for, it gives the shapes that it was made to give."""
    inner = Outputs(model)
    if list(inputs) != [inner.spec(place) for place in model.inputs]:
        raise Unexplained(f"{model.name} is called with other shapes")
    return [_certain(*inner.spec(place)) for _, place in model.outputs]


def _one_after_another(layers: Iterable[RawLayer], found: list[Spec]) -> list[Spec]:
    for layer in layers:
        found = call_specs(layer, [Ref("", 0, place, *spec) for place, spec in enumerate(found)])
    return found


def _each_time(model: RawModel, given: Spec) -> Spec:
    """What a model gives that is applied to each step of a sequence. Raises Unexplained."""
    shape, dtype = given
    found = _of_model(model, [((shape[0], *shape[2:]), dtype)])
    if len(found) != 1:
        raise Unexplained("a model with several outputs that is applied to each step")
    (batch, *rest), dtype = found[0]
    return (batch, shape[1], *rest), dtype


def resolve(model: RawModel, *, lenient: bool) -> None:
    """Fill in the shapes and dtypes of what goes into the calls, where the config does not say them.

    Raises Unexplained where they cannot be worked out, unless `lenient`.
    """
    for layer in model.layers:
        if layer.model:
            resolve(layer.model, lenient=lenient)
    outputs = Outputs(model, lenient=lenient)
    for name, call in _in_order(model):
        layer = outputs.layers[name]
        layer.calls[call] = tuple(_filled(ref, outputs) for ref in layer.calls[call])


def _filled(ref: Ref, outputs: Outputs) -> Ref:
    if ref.shape is not None:
        return ref
    shape, dtype = outputs.spec((ref.layer, ref.call, ref.output))
    return replace(ref, shape=shape, dtype=dtype)


def _in_order(model: RawModel) -> Iterable[tuple[str, int]]:
    """The calls, each behind those whose tensors it takes. Raises Unexplained for a circle."""
    layers = {layer.name: layer for layer in model.layers}
    state: dict[tuple[str, int], bool] = {}
    for root in ((layer.name, call) for layer in model.layers for call in range(len(layer.calls))):
        stack = [root]
        while stack:
            name, call = stack[-1]
            if (name, call) in state:
                stack.pop()
                if not state[name, call]:
                    state[name, call] = True
                    yield name, call
                continue
            if name not in layers or call >= len(layers[name].calls):
                raise Unexplained(f"a tensor of {name}, which gives none")
            state[name, call] = False
            before = [(ref.layer, ref.call) for ref in layers[name].calls[call]]
            if any(state.get(each) is False for each in before):
                raise Unexplained(f"a circle through {name}")
            stack.extend(each for each in before if each not in state)
