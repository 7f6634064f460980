"""What a `.tflite` file says of its model: a row for each operator, under the scopes that the tensors' names tell.

A graph that an operator runs, such as the body of a loop, is inside of that operator's row; one that several run is
inside of the first. What only unpacks a constant is part of the operators that take it.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from exporter.errors import UsageError
from exporter.records import Job, ModelGraph, TensorSpec
from exporter.sources.graphs.operation_graph import INPUT, Constant, Description, Operation, operation_names
from exporter.sources.lite.lite_model import OPTIONAL, LiteGraph, LiteModel, LiteOperator, LiteTensor, Signature
from exporter.unique_names import Names

SUBGRAPH = "Subgraph"
# What a graph is to the operator that runs it.
ROLES = {"subgraph": "body"}
# The inputs that are kernels.
KERNEL_PLACES = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "CONV_3D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}
# From sparse to dense, from half precision or whole numbers to float32.
UNPACKING = ("DENSIFY", "DEQUANTIZE")


@dataclass
class LiteLayers:
    """`tensors` has the constants by the weight's name; `rows` the row of each operator, by graph and place in it."""

    graph: ModelGraph
    number: int
    tensors: dict[str, LiteTensor]
    names: dict[int, str]
    rows: dict[tuple[int, int], str]
    notes: tuple[str, ...] = ()


def describe(model: LiteModel, job: Job) -> LiteLayers:
    """Raises UsageError for a signature that is not there."""
    signature = signature_of(model, job)
    number = signature.graph if signature else 0
    found = _Describer(model, number, signature)
    return found.described(job.name)


def signature_of(model: LiteModel, job: Job) -> Signature | None:
    wanted = job.reading.signature
    keys = [each.key for each in model.signatures]
    if not wanted:
        return next((each for each in model.signatures if each.graph == 0), None)
    for each in model.signatures:
        if each.key == wanted:
            return each
    why = f"its signatures are {', '.join(keys)}" if keys else "it has no signatures"
    raise UsageError(
        "has no such signature", where=f"{job.source}, --signature {wanted}", why=why,
        hint=f"--signature {keys[0]}" if keys else "leave --signature out",
    )  # fmt: skip


@dataclass
class _Describer:
    model: LiteModel
    number: int
    signature: Signature | None
    specs: dict[str, TensorSpec] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)
    scopes: dict[str, str] = field(default_factory=dict)
    rows: dict[tuple[int, int], str] = field(default_factory=dict)
    tensors: dict[str, LiteTensor] = field(default_factory=dict)
    weights: dict[int, str] = field(default_factory=dict)
    # The constant behind a tensor that is one, unpacked.
    behind: dict[str, str] = field(default_factory=dict)

    def described(self, name: str) -> LiteLayers:
        main, self.weight_names = self.model.graphs[self.number], Names()
        operations = list(self._operations())
        sides = (main.inputs, main.outputs)
        inputs, outputs = ([self.specs[_key(self.number, each)] for each in side] for side in sides)
        taken = [_key(self.number, each) for each in main.outputs]
        description = Description(self.specs, self.constants, self.scopes)
        graph = description.graph(name, operations, inputs, self._unique(inputs, outputs), taken)
        return LiteLayers(graph, self.number, self.tensors, self.weights, self.rows, tuple(self._notes()))

    def _unique(self, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> list[TensorSpec]:
        names = Names(spec.name for spec in inputs)
        return [TensorSpec(names.unique(spec.name), spec.shape, spec.dtype) for spec in outputs]

    def _notes(self) -> Iterator[str]:
        if len(self.model.signatures) > 1:
            key = self.signature.key if self.signature else ""
            others = ", ".join(each.key for each in self.model.signatures if each is not self.signature)
            yield f"signature {key} of several; --signature chooses another: {others}"
        if any(tensor.is_elsewhere for tensor in self.tensors.values()):
            yield "weights in other files than this are not read"

    def _operations(self) -> Iterator[Operation]:
        """Those of the main graph, then of the graphs that they run, each graph once."""
        left, seen = deque([(self.number, "")]), {self.number}
        while left:
            number, prefix = left.popleft()
            graph = self.model.graphs[number]
            self._take_tensors(number, graph)
            operators = [(place, each) for place, each in enumerate(graph.operators) if not self._unpacks(number, each)]
            names = [self.specs[_key(number, each)].name for each in graph.inputs]
            names += [self._operator_name(number, each) for _, each in operators]
            keys = [prefix + name for name in operation_names(names)]
            for tensor, namespace in zip(graph.inputs, keys, strict=False):
                yield Operation(namespace, INPUT, (), (_key(number, tensor),))
            for (place, each), namespace in zip(operators, keys[len(graph.inputs) :], strict=True):
                self.rows[number, place] = namespace
                yield self._operation(number, graph, each, namespace)
                for option, inner in each.graphs.items():
                    if inner not in seen:
                        seen.add(inner)
                        role = ROLES.get(option, option.split("_")[0])
                        self.scopes[f"{namespace}/{role}"] = SUBGRAPH
                        left.append((inner, f"{namespace}/{role}/"))

    def _unpacks(self, number: int, operator: LiteOperator) -> bool:
        """Whether it has no row of its own, because it unpacks a constant for others."""
        graph = self.model.graphs[number]
        if operator.op not in UNPACKING or len(operator.inputs) != 1 or len(operator.outputs) != 1:
            return False
        source, target = _key(number, operator.inputs[0]), _key(number, operator.outputs[0])
        constant = self.behind.get(source, source)
        if constant not in self.constants or operator.outputs[0] in graph.outputs:
            return False
        self.behind[target] = constant
        return True

    def _operator_name(self, number: int, operator: LiteOperator) -> str:
        """That of its kernel, where that has a scope; otherwise that of its first output.

        The converter moves what comes behind a layer into it, and then names the output after that.
        """
        graph = self.model.graphs[number]
        place = KERNEL_PLACES.get(operator.op, OPTIONAL)
        if place in range(len(operator.inputs)):
            key = _key(number, operator.inputs[place])
            kernel = self.constants.get(self.behind.get(key, key))
            if kernel is not None and "/" in kernel.name:
                return kernel.name
        output = next((each for each in operator.outputs if each != OPTIONAL), None)
        return (_plain_name(graph.tensors[output].name) if output is not None else "") or operator.op

    def _take_tensors(self, number: int, graph: LiteGraph) -> None:
        called: Mapping[int, str] = {}
        if self.signature and number == self.number:
            called = {**self.signature.outputs, **self.signature.inputs}
        names = Names()
        for place, tensor in enumerate(graph.tensors):
            name = called.get(place) or _plain_name(tensor.name)
            key = _key(number, place)
            self.specs[key] = TensorSpec(names.unique(name), tensor.shape, tensor.dtype)
            if tensor.is_constant:
                self.constants[key] = self._constant(tensor)

    def _constant(self, tensor: LiteTensor) -> Constant:
        """Tensors in one buffer are one weight, under the first one's name."""
        if tensor.buffer not in self.weights or tensor.is_elsewhere:
            name = self.weight_names.unique(_plain_name(tensor.name))
            self.weights[tensor.buffer] = name
            self.tensors[name] = tensor
        name = self.weights[tensor.buffer]
        content: object = name if tensor.is_elsewhere else tensor.buffer
        shape = tuple(size or 0 for size in tensor.shape or ())
        nbytes = tensor.extent[1] if tensor.extent else math.ceil(math.prod(shape) * tensor.bits / 8)
        if tensor.is_whole:
            nbytes = math.ceil(math.prod(shape) * tensor.bits / 8)
        dtype = tensor.dtype if tensor.dtype not in (None, "string") else "object"
        return Constant(name, shape, dtype or "object", nbytes, content)

    def _operation(self, number: int, graph: LiteGraph, operator: LiteOperator, namespace: str) -> Operation:
        config: dict[str, Any] = {key: _finite(value) for key, value in operator.options.items()}
        config |= {key: self.model.graphs[inner].name for key, inner in operator.graphs.items()}
        constants, scales = {}, {}
        keys = [self.behind.get(key, key) for key in (_key(number, each) for each in operator.inputs)]
        for place, key in enumerate(keys):
            if key in self.constants:
                constant = self.constants[key]
                constants[str(place)] = {"name": constant.name, "shape": constant.shape, "dtype": constant.dtype}
        for index in (*operator.inputs, *operator.outputs):
            quantization = graph.tensors[index].quantization if index != OPTIONAL else None
            if quantization is not None:
                scales[graph.tensors[index].name] = quantization.setting()
        config |= {"custom": True} if operator.is_custom else {}
        config |= {"constants": constants} if constants else {}
        config |= {"quantization": scales} if scales else {}
        return Operation(
            namespace=namespace,
            class_name=operator.op,
            inputs=tuple(key for key, each in zip(keys, operator.inputs, strict=True) if each != OPTIONAL),
            outputs=tuple(_key(number, each) for each in operator.outputs if each != OPTIONAL),
            config=json.dumps(config, sort_keys=True, separators=(",", ":")),
        )


def _key(graph: int, tensor: int) -> str:
    return f"{graph}:{tensor}"


def _plain_name(name: str) -> str:
    """The first of the names of what does the work of several, without the place that TensorFlow puts behind it."""
    return name.split(";")[0].removesuffix(":0")


def _finite(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
