"""The ONNX file: weights are made one at a time, written in pieces, and dropped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, numpy_helper

from exporter import __version__
from exporter.errors import UnsupportedError
from exporter.files import new_file, require_space
from exporter.formats import single_file
from exporter.formats.external_data import Place, arrange, is_external
from exporter.formats.tensor_stream import TensorStream
from exporter.lazy import LazyArray
from exporter.records import Job, StoredTensor
from exporter.structure import OnnxStructure

MODEL = "model.onnx"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class WrittenOnnx:
    """The SHA-256 of each file that was written, those that others refer to first, and where each weight is."""

    digests: Mapping[str, str]
    stored: tuple[StoredTensor, ...]


def write_model(
    structure: OnnxStructure, job: Job, folder: Path, about: Mapping[str, str], progress: Progress
) -> WrittenOnnx:
    """Write `model.onnx`, and data files beside it when the weights are large or `job` asks for it; check the result.

    `about` goes into the model's metadata. `progress` is told the bytes done and the bytes in all. In memory at once:
    the model without weights and what `TensorStream` holds. Raises OutputError and UnsupportedError.
    """
    model = structure.model
    model.producer_name, model.producer_version = "export-model", __version__
    for key, value in about.items():
        model.metadata_props.add(key=key, value=value)
    total = sum(array.nbytes for array in structure.weights.values())
    require_space(folder, total + model.ByteSize())
    with TensorStream(lambda done: progress(done, total)) as stream:
        write = _write_external if is_external(job.external_data, total) else _write_single
        digests, places = write(structure, job, folder, stream)
    _check(folder / MODEL)
    return WrittenOnnx(digests, _stored(structure, places))


def _write_single(
    structure: OnnxStructure, job: Job, folder: Path, stream: TensorStream
) -> tuple[dict[str, str], dict[str, Place]]:
    nbytes, items = single_file.items(structure.model, structure.weights)
    if nbytes > single_file.LARGEST_NBYTES:
        raise UnsupportedError(
            "does not fit into one file",
            where=f"{job.name}, --external-data never",
            why=f"an ONNX file ends at 2 GiB, this one would have {nbytes} bytes",
            hint="--external-data auto",
        )
    with new_file(folder / MODEL) as file:
        return {MODEL: stream.write(items, file)}, {}


def _write_external(
    structure: OnnxStructure, job: Job, folder: Path, stream: TensorStream
) -> tuple[dict[str, str], dict[str, Place]]:
    protos = [proto for proto in structure.model.graph.initializer if proto.name in structure.weights]
    data_files, places = arrange(
        ((proto.name, structure.weights[proto.name]) for proto in protos), job.shard_size_bytes
    )
    digests = {}
    for data_file in data_files:
        with new_file(folder / data_file.name) as file:
            digests[data_file.name] = stream.write(data_file.items(), file)
    for proto in protos:
        _refer(proto, structure.weights[proto.name], places.get(proto.name))
    with new_file(folder / MODEL) as file:
        digests[MODEL] = stream.write([structure.model.SerializeToString(deterministic=True)], file)
    return digests, places


def _refer(proto: TensorProto, array: LazyArray, place: Place | None) -> None:
    """Give the initializer its bytes' place, or the bytes themselves where it has none."""
    if place is None:
        proto.CopyFrom(numpy_helper.from_array(array.real(), proto.name))
        return
    proto.data_location = TensorProto.EXTERNAL
    for key, value in (("location", place.file), ("offset", place.offset), ("length", array.nbytes)):
        proto.external_data.add(key=key, value=str(value))


def _stored(structure: OnnxStructure, places: Mapping[str, Place]) -> tuple[StoredTensor, ...]:
    rows = []
    for name, array in structure.weights.items():
        place = places.get(name)
        file, offset = (place.file, place.offset) if place else (None, None)
        rows += [
            StoredTensor(weight, name, array.transform, array.dtype.name, file, offset, array.nbytes)
            for weight in sorted(array.origins)
        ]
    return tuple(rows)


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
