"""Writes small `.tflite` files, table by table, sound ones and others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import tflite

TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int8": 9, "int4": 17}


@dataclass
class Sparse:
    """`dimensions` are sizes of dense ones, or segments and indices."""

    order: Sequence[int]
    blocks: Sequence[int]
    dimensions: Sequence[int | tuple[Sequence[int], Sequence[int]]]


@dataclass
class Tensor:
    """`data` makes it a constant; `scale`, with `axis` for several, makes it quantised."""

    name: str
    shape: Sequence[int]
    dtype: str = "float32"
    data: np.ndarray | bytes | None = None
    scale: Sequence[float] = ()
    zero_point: Sequence[int] = ()
    axis: int = 0
    signature: Sequence[int] | None = None
    sparse: Sparse | None = None


@dataclass
class Operator:
    """`options` are the name of the options' table and the values of its fields."""

    op: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: tuple[str, Mapping[str, int]] | None = None


@dataclass
class Graph:
    tensors: Sequence[Tensor]
    operators: Sequence[Operator]
    inputs: Sequence[int]
    outputs: Sequence[int]
    name: str = "main"


# Key, number of the graph, names of its inputs and of its outputs with their tensors.
Signature = tuple[str, int, dict[str, int], dict[str, int]]


@dataclass
class Writer:
    """One file. Strings and vectors come before the tables that they are in, as the builder wants it."""

    builder: Any = field(default_factory=lambda: flatbuffers.Builder(1024))
    buffers: list[bytes] = field(default_factory=lambda: [b""])
    codes: list[str] = field(default_factory=list)

    def file(self, graphs: Sequence[Graph], signatures: Sequence[Signature] = ()) -> bytes:
        made = [self.graph(each) for each in graphs]
        signed = self.vector([self.signature(*each) for each in signatures])
        codes = self.vector([self.code(each) for each in self.codes])
        buffers = self.vector([self.buffer(each) for each in self.buffers])
        subgraphs = self.vector(made)
        root = self.table(
            "Model", Version=3, OperatorCodes=codes, Subgraphs=subgraphs, Buffers=buffers, SignatureDefs=signed
        )
        self.builder.Finish(root, b"TFL3")
        return bytes(self.builder.Output())

    def table(self, kind: str, **values: Any) -> int:
        module = __import__(f"tflite.{kind}", fromlist=[kind])
        getattr(module, f"{kind}Start")(self.builder)
        for name, value in values.items():
            if value is not None:
                getattr(module, f"{kind}Add{name}")(self.builder, value)
        return int(getattr(module, f"{kind}End")(self.builder))

    def vector(self, offsets: Sequence[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def numbers(self, values: Sequence[Any], dtype: str) -> int | None:
        return int(self.builder.CreateNumpyVector(np.array(values, dtype)))

    def graph(self, graph: Graph) -> int:
        tensors = self.vector([self.tensor(each) for each in graph.tensors])
        operators = self.vector([self.operator(each) for each in graph.operators])
        sides = [self.numbers(side, "int32") for side in (graph.inputs, graph.outputs)]
        name = self.builder.CreateString(graph.name)
        return self.table(
            "SubGraph", Tensors=tensors, Inputs=sides[0], Outputs=sides[1], Operators=operators, Name=name
        )

    def tensor(self, tensor: Tensor) -> int:
        place = 0
        if tensor.data is not None:
            place = len(self.buffers)
            self.buffers.append(tensor.data if isinstance(tensor.data, bytes) else tensor.data.tobytes())
        quantisation = None
        if tensor.scale:
            scale, zero = self.numbers(tensor.scale, "float32"), self.numbers(tensor.zero_point, "int64")
            quantisation = self.table(
                "QuantizationParameters", Scale=scale, ZeroPoint=zero, QuantizedDimension=tensor.axis
            )
        sparsity = None if tensor.sparse is None else self.sparsity(tensor.sparse)
        shape = self.numbers(tensor.shape, "int32")
        signature = None if tensor.signature is None else self.numbers(tensor.signature, "int32")
        name = self.builder.CreateString(tensor.name)
        return self.table(
            "Tensor", Shape=shape, Type=TYPES[tensor.dtype], Buffer=place, Name=name, Quantization=quantisation,
            ShapeSignature=signature, Sparsity=sparsity,
        )  # fmt: skip

    def sparsity(self, sparse: Sparse) -> int:
        dimensions = self.vector([self.dimension(each) for each in sparse.dimensions])
        order, blocks = (self.numbers(each, "int32") for each in (sparse.order, sparse.blocks))
        return self.table("SparsityParameters", TraversalOrder=order, BlockMap=blocks, DimMetadata=dimensions)

    def dimension(self, dimension: int | tuple[Sequence[int], Sequence[int]]) -> int:
        if isinstance(dimension, int):
            return self.table("DimensionMetadata", Format=0, DenseSize=dimension)
        vectors = [self.table("Int32Vector", Values=self.numbers(each, "int32")) for each in dimension]
        return self.table(
            "DimensionMetadata", Format=1, ArraySegmentsType=1, ArraySegments=vectors[0], ArrayIndicesType=1,
            ArrayIndices=vectors[1],
        )  # fmt: skip

    def operator(self, operator: Operator) -> int:
        if operator.op not in self.codes:
            self.codes.append(operator.op)
        kind, options = 0, None
        if operator.options is not None:
            kind = getattr(tflite.BuiltinOptions, operator.options[0])
            options = self.table(operator.options[0], **operator.options[1])
        inputs, outputs = (self.numbers(side, "int32") for side in (operator.inputs, operator.outputs))
        return self.table(
            "Operator", OpcodeIndex=self.codes.index(operator.op), Inputs=inputs, Outputs=outputs,
            BuiltinOptionsType=kind, BuiltinOptions=options,
        )  # fmt: skip

    def code(self, op: str) -> int:
        number = getattr(tflite.BuiltinOperator, op, None)
        if number is None:
            name = self.builder.CreateString(op)
            return self.table("OperatorCode", DeprecatedBuiltinCode=32, CustomCode=name, BuiltinCode=32, Version=1)
        return self.table("OperatorCode", DeprecatedBuiltinCode=min(number, 127), BuiltinCode=number, Version=1)

    def buffer(self, data: bytes) -> int:
        content = self.builder.CreateByteVector(data) if data else None
        return self.table("Buffer", Data=content)

    def signature(self, key: str, graph: int, inputs: dict[str, int], outputs: dict[str, int]) -> int:
        sides = [self.vector([self.named(*each) for each in side.items()]) for side in (inputs, outputs)]
        name = self.builder.CreateString(key)
        return self.table("SignatureDef", Inputs=sides[0], Outputs=sides[1], SignatureKey=name, SubgraphIndex=graph)

    def named(self, name: str, tensor: int) -> int:
        return self.table("TensorMap", Name=self.builder.CreateString(name), TensorIndex=tensor)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


CONV = (
    "Conv2DOptions",
    {"StrideW": 1, "StrideH": 1, "DilationWFactor": 1, "DilationHFactor": 1, "FusedActivationFunction": 1},
)
DENSE = ("FullyConnectedOptions", {"KeepNumDims": 0})


def network() -> bytes:
    """An image through a convolution with a half-precision kernel, a mean and a dense layer that is quantised."""
    tensors = [
        Tensor("serving_default_x:0", [1, 6, 6, 3], signature=[-1, 6, 6, 3]),
        Tensor("net/conv/Conv2D", [4, 3, 3, 3], "float16", normal(4, 3, 3, 3).astype(np.float16)),
        Tensor("net/conv/Conv2D_dequantize", [4, 3, 3, 3]),
        Tensor("net/conv/bias", [4], data=normal(4, seed=1)),
        Tensor("net/conv/Relu;net/conv/BiasAdd", [1, 6, 6, 4], signature=[-1, 6, 6, 4]),
        Tensor("net/pool/axes", [2], "int32", np.array([1, 2], np.int32)),
        Tensor("net/pool/Mean", [1, 4], signature=[-1, 4]),
        Tensor("net/head/MatMul", [2, 4], "int8", np.arange(-4, 4, dtype=np.int8), [0.5], [0]),
        Tensor("net/head/MatMul_dequantize", [2, 4]),
        Tensor("StatefulPartitionedCall:0", [1, 2], signature=[-1, 2]),
    ]
    operators = [
        Operator("DEQUANTIZE", [1], [2]),
        Operator("CONV_2D", [0, 2, 3], [4], CONV),
        Operator("MEAN", [4, 5], [6], ("ReducerOptions", {"KeepDims": 0})),
        Operator("DEQUANTIZE", [7], [8]),
        Operator("FULLY_CONNECTED", [6, 8, -1], [9], DENSE),
    ]
    graph = Graph(tensors, operators, [0], [9])
    return Writer().file([graph], [("serving_default", 0, {"x": 0}, {"scores": 9})])


def loop() -> bytes:
    """A number that is doubled until it is above 100."""
    main = Graph(
        [Tensor("x", []), Tensor("y", [])],
        [Operator("WHILE", [0], [1], ("WhileOptions", {"CondSubgraphIndex": 1, "BodySubgraphIndex": 2}))],
        [0],
        [1],
    )
    limit = Tensor("limit", [], data=np.array(100, np.float32))
    cond = Graph(
        [Tensor("a", []), limit, Tensor("less", [], "bool")], [Operator("LESS", [0, 1], [2])], [0], [2], "cond"
    )
    body = Graph(
        [Tensor("a", []), Tensor("sum", [])], [Operator("ADD", [0, 0], [1], ("AddOptions", {}))], [0], [1], "body"
    )
    return Writer().file([main, cond, body])


def sparse(*, segments: Sequence[int] = (0, 1, 3)) -> bytes:
    """A dense layer whose kernel, 4 × 4, is stored as three blocks of 2 × 2, one of them in the first row."""
    layout = Sparse((0, 1, 2, 3), (0, 1), (2, (segments, (1, 0, 1)), 2, 2))
    tensors = [
        Tensor("x", [1, 4]),
        Tensor("net/kernel", [4, 4], data=np.arange(1, 13, dtype=np.float32), sparse=layout),
        Tensor("net/kernel_dense", [4, 4]),
        Tensor("y", [1, 4]),
    ]
    operators = [
        Operator("DENSIFY", [1], [2], ("DensifyOptions", {})),
        Operator("FULLY_CONNECTED", [0, 2, -1], [3], DENSE),
    ]
    return Writer().file([Graph(tensors, operators, [0], [3])])


def custom() -> bytes:
    tensors = [Tensor("x", [1, 4]), Tensor("net/y", [1, 4])]
    return Writer().file([Graph(tensors, [Operator("MyOwnOp", [0], [1])], [0], [1])])


def written(path: Path, make: Callable[[], bytes]) -> Path:
    path.write_bytes(make())
    return path
