"""The ONNX file: weights are made one at a time, written, and dropped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, numpy_helper

from exporter import __version__
from exporter.errors import UnsupportedError
from exporter.files import new_file
from exporter.lazy import LazyArray, OnnxStructure
from exporter.records import StoredTensor

MODEL, DATA = "model.onnx", "model.onnx.data"

# A model of at most this many bytes of weights is one file: serialising it needs twice its size in memory.
SINGLE_FILE_NBYTES = 32 * 2**20
# Smaller tensors stay in the model file, where shape inference and viewers see their values.
EXTERNAL_NBYTES = 1024
# Large tensors start on a page, so that runtimes can map them; the ONNX specification recommends it.
PAGE_BYTES, LARGE_NBYTES, ALIGNMENT_BYTES = 4096, 2**20, 64

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class WrittenOnnx:
    """The names of the files that were written, and where each weight is in them."""

    names: tuple[str, ...]
    stored: tuple[StoredTensor, ...]


def write_model(structure: OnnxStructure, folder: Path, about: Mapping[str, str], progress: Progress) -> WrittenOnnx:
    """Write `model.onnx`, and `model.onnx.data` beside it when the weights are large, and check the result.

    `about` goes into the model's metadata. `progress` is told the bytes done and the bytes in all. In memory at once:
    the model without weights, one weight, and what making it takes. Raises OutputError and UnsupportedError.
    """
    model = structure.model
    model.producer_name, model.producer_version = "export-model", __version__
    for key, value in about.items():
        model.metadata_props.add(key=key, value=value)
    total = sum(array.nbytes for array in structure.weights.values())
    writer = _Writer(structure.weights, progress, total)
    names: tuple[str, ...] = (MODEL,)
    if total <= SINGLE_FILE_NBYTES:
        for proto in _unfilled(model, structure.weights):
            writer.embed(proto)
    else:
        names = (MODEL, DATA)
        with new_file(folder / DATA) as stream:
            for proto in _unfilled(model, structure.weights):
                writer.place(proto, stream)
    with new_file(folder / MODEL) as stream:
        stream.write(model.SerializeToString(deterministic=True))
    _check(folder / MODEL)
    return WrittenOnnx(names, tuple(writer.stored))


def _unfilled(model: ModelProto, weights: Mapping[str, LazyArray]) -> list[TensorProto]:
    return [proto for proto in model.graph.initializer if proto.name in weights]


class _Writer:
    """Puts weights where they belong, in the order of the model's initializers."""

    def __init__(self, weights: Mapping[str, LazyArray], progress: Progress, total_bytes: int) -> None:
        self._weights, self._progress, self._total_bytes = weights, progress, total_bytes
        self._done_bytes = self._offset = 0
        self.stored: list[StoredTensor] = []

    def embed(self, proto: TensorProto) -> None:
        array = self._weights[proto.name]
        proto.CopyFrom(numpy_helper.from_array(array.real(), proto.name))
        self._note(proto.name, array, None)

    def place(self, proto: TensorProto, stream: BinaryIO) -> None:
        """Write the bytes at an aligned offset and refer to them; small ones are embedded."""
        array = self._weights[proto.name]
        if array.nbytes < EXTERNAL_NBYTES:
            self.embed(proto)
            return
        alignment = PAGE_BYTES if array.nbytes >= LARGE_NBYTES else ALIGNMENT_BYTES
        padding = -self._offset % alignment
        stream.write(b"\0" * padding)
        offset = self._offset + padding
        stream.write(_little_endian(array.real()))
        self._offset = offset + array.nbytes
        proto.data_location = TensorProto.EXTERNAL
        for key, value in (("location", DATA), ("offset", offset), ("length", array.nbytes)):
            proto.external_data.add(key=key, value=str(value))
        self._note(proto.name, array, offset)

    def _note(self, initializer: str, array: LazyArray, offset: int | None) -> None:
        self._done_bytes += array.nbytes
        self._progress(self._done_bytes, self._total_bytes)
        file = None if offset is None else DATA
        for weight in sorted(array.origins):
            self.stored.append(StoredTensor(weight, initializer, array.transform, file, offset, array.nbytes))


def _little_endian(array: np.ndarray) -> memoryview:
    """The array's bytes in C order without a copy, where it is stored so already."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _check(path: Path) -> None:
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise UnsupportedError(
            "the converted model breaks a rule of ONNX",
            where=path.name,
            why=str(error).splitlines()[0],
            hint="please report it with the source; another --opset may help",
        ) from error
