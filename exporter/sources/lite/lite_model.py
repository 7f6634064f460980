"""A `.tflite` file as plain records: its graphs, their tensors and operators; the bytes of weights stay in the file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from exporter.records import Shape
from exporter.sources.lite.operator_options import FUNCTION_OPTIONS
from exporter.sources.lite.sparse_tensors import Sparsity

# The number of a tensor that is left out.
OPTIONAL = -1


@dataclass(frozen=True, slots=True)
class Quantization:
    """real = scale × (stored − zero point), along `axis` where there are several scales."""

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int

    def setting(self) -> dict[str, Any]:
        """For the catalogue: of many scales their range."""
        if len(self.scale) == 1:
            return {"scale": float(self.scale[0]), "zero_point": int(self.zero_point[0])}
        ends = [float(self.scale.min()), float(self.scale.max())]
        return {"axis": self.axis, "channels": len(self.scale), "scale_range": ends}


@dataclass(frozen=True, slots=True)
class LiteTensor:
    """`extent` is where the bytes of a constant are: offset in the file and length; None for what is computed."""

    name: str
    shape: Shape | None
    dtype: str | None
    bits: int
    buffer: int
    extent: tuple[int, int] | None
    is_variable: bool
    sparsity: Sparsity | None
    is_elsewhere: bool
    quantization: Quantization | None

    @property
    def is_sparse(self) -> bool:
        return self.sparsity is not None

    @property
    def is_constant(self) -> bool:
        return self.extent is not None or self.is_elsewhere

    @property
    def is_whole(self) -> bool:
        """Whether the file has each element of this constant, so that they can be read one after the other."""
        needed = math.prod(size or 0 for size in self.shape or ()) * self.bits
        return self.extent is not None and self.bits > 0 and not self.is_sparse and 8 * self.extent[1] >= needed


@dataclass(frozen=True, slots=True)
class LiteOperator:
    """`op` is the builtin's name, or the custom op's own; tensors are numbers, `OPTIONAL` for one that is left out."""

    op: str
    is_custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any]
    custom_options: bytes = b""

    @property
    def graphs(self) -> dict[str, int]:
        """The graphs that it runs, by what they are to it."""
        return {key: self.options[key] for key in FUNCTION_OPTIONS if isinstance(self.options.get(key), int)}


@dataclass(frozen=True, slots=True)
class LiteGraph:
    name: str
    tensors: tuple[LiteTensor, ...]
    operators: tuple[LiteOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """A way to call the model: names for the inputs and outputs of one of its graphs."""

    key: str
    graph: int
    inputs: dict[int, str]
    outputs: dict[int, str]


@dataclass(frozen=True, slots=True)
class LiteModel:
    graphs: tuple[LiteGraph, ...]
    signatures: tuple[Signature, ...]
