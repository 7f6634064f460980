"""What the ONNX writer puts where: one file or several, offsets, shards, shared bytes; and what it has in memory."""

from __future__ import annotations

import gc
import hashlib
import math
import weakref
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter import files
from exporter.errors import OutputError, UnsupportedError
from exporter.formats import external_data, single_file, tensor_stream
from exporter.formats.external_data import arrange
from exporter.formats.onnx_model import MODEL, WrittenOnnx, write_model
from exporter.formats.tensor_stream import PIECE_BYTES, TensorStream
from exporter.lazy import LazyArray
from exporter.records import Job
from exporter.structure import OnnxStructure


def job(**options: Any) -> Job:
    return Job("m.keras", "keras_archive", "m", "", ("onnx",), "", "", **options)


def lazy(array: np.ndarray, name: str = "w", divisible: bool = True) -> LazyArray:
    part = (lambda start, stop: array.reshape(-1)[start:stop].copy()) if divisible else None
    return LazyArray(array.shape, array.dtype, array.copy, frozenset([name]), part=part)


def sum_of(weights: dict[str, LazyArray]) -> OnnxStructure:
    """The model `y = x + w0 + w1 + …`; all weights have one shape and dtype."""
    first = next(iter(weights.values()))
    kind = onnx.helper.np_dtype_to_tensor_dtype(first.dtype)
    protos = [
        onnx.TensorProto(name=name, data_type=kind, dims=array.shape, data_location=onnx.TensorProto.EXTERNAL)
        for name, array in weights.items()
    ]
    nodes, before = [], "x"
    for index, name in enumerate(weights):
        after = f"s{index}" if index + 1 < len(weights) else "y"
        nodes.append(onnx.helper.make_node("Add", [before, name], [after]))
        before = after
    values = [onnx.helper.make_tensor_value_info(name, kind, first.shape) for name in "xy"]
    graph = onnx.helper.make_graph(nodes, "sum", values[:1], values[1:], protos)
    model = onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 18)])
    return OnnxStructure(model, weights, ())


def write(folder: Path, weights: dict[str, LazyArray], **options: Any) -> WrittenOnnx:
    return write_model(sum_of(weights), job(**options), folder, {"key": "value"}, lambda done, total: None)


def run(folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    session = onnxruntime.InferenceSession(folder / MODEL, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.zeros(shape, np.float32)})[0]


def matrices(count: int, shape: tuple[int, ...] = (64, 65)) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {f"w{index}": generator.standard_normal(shape, np.float32) for index in range(count)}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [MODEL]),
        ({"external_data": "never"}, [MODEL]),
        ({"external_data": "always"}, ["model.onnx.data", MODEL]),
        (
            {"external_data": "always", "shard_size_bytes": 40_000},
            ["model-00001-of-00002.onnx.data", "model-00002-of-00002.onnx.data", MODEL],
        ),
    ],
    ids=str,
)
def test_every_arrangement_gives_the_same_model(options: dict[str, Any], expected: list[str], tmp_path: Path) -> None:
    arrays = matrices(3)
    written = write(tmp_path, {name: lazy(array) for name, array in arrays.items()}, **options)
    assert list(written.digests) == expected, "files that others refer to come first"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(expected)
    for name, digest in written.digests.items():
        assert digest == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    loaded = onnx.load(tmp_path / MODEL)
    for proto in loaded.graph.initializer:
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(proto), arrays[proto.name])
    assert {entry.key: entry.value for entry in loaded.metadata_props} == {"key": "value"}
    np.testing.assert_allclose(run(tmp_path, (64, 65)), sum(arrays.values()), rtol=1e-5, atol=1e-6)


def test_a_model_above_the_limit_gets_a_data_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_data, "SINGLE_FILE_NBYTES", 64 * 65 * 4 * 2)
    assert list(write(tmp_path, {name: lazy(array) for name, array in matrices(2).items()}).digests) == [MODEL]
    files_of_three = write(tmp_path, {name: lazy(array) for name, array in matrices(3).items()}).digests
    assert list(files_of_three) == ["model.onnx.data", MODEL]


def test_what_protobuf_cannot_hold_is_refused(tmp_path: Path) -> None:
    def never() -> np.ndarray:
        raise AssertionError("read")

    huge = {"w": LazyArray((2**29,), np.float32, never)}
    with pytest.raises(UnsupportedError, match="2 GiB"):
        write(tmp_path, huge, external_data="never")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_full_is_found_out_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = files.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: usage._replace(free=10_000))
    with pytest.raises(OutputError, match=r"3\.\d+e-05 GB are needed and 1e-05 GB are free"):
        write(tmp_path, {name: lazy(array) for name, array in matrices(2).items()}, external_data="always")
    assert list(tmp_path.iterdir()) == []


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_places_do_not_overlap_and_can_be_mapped(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 3 * 2**20), max_size=12))
    limit = data.draw(st.none() | st.integers(1, 6 * 2**20))
    arrays = {f"w{index}": LazyArray((size,), np.uint8, lambda: np.zeros(0)) for index, size in enumerate(sizes)}
    data_files, places = arrange(arrays.items(), limit)
    assert set(places) == {name for name, array in arrays.items() if array.nbytes >= external_data.EXTERNAL_NBYTES}
    for file in data_files:
        spans = sorted((places[n].offset, arrays[n].nbytes) for n in places if places[n].file == file.name)
        assert all(start + size <= after for (start, size), (after, _) in pairwise(spans))
        assert sum(len(item) if isinstance(item, bytes) else item.nbytes for item in file.items()) == file.nbytes
        assert all(start % (4096 if size >= 2**20 else 64) == 0 for start, size in spans)
        assert limit is None or len(spans) == 1 or file.nbytes <= limit
    assert limit is not None or len(data_files) <= 1


def test_tied_weights_are_written_once(tmp_path: Path) -> None:
    shared = lazy(matrices(1)["w0"], "embedding")
    written = write(
        tmp_path,
        {"embedding": shared, "tied": shared.named("tied"), "reshaped": shared.reshape(-1).reshape(64, 65)},
        external_data="always",
    )
    assert (tmp_path / "model.onnx.data").stat().st_size == shared.nbytes
    assert {entry.data_offset for entry in written.stored} == {0}
    np.testing.assert_allclose(run(tmp_path, (64, 65)), 3 * shared.real(), rtol=1e-6)


@given(
    st.lists(st.integers(0, 300), max_size=3), st.sampled_from(["float32", "int8", "float64", "bool"]), st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_streamed_protobuf_is_protobuf(sizes: list[int], dtype: str, divisible: bool) -> None:
    """Against onnx's own serialisation, read back; lengths around the steps of a varint are among the examples."""
    arrays = {f"w{index}": np.ones(size, dtype) for index, size in enumerate([*sizes, 127, 128, 16_384])}
    weights = {name: lazy(array, divisible=divisible) for name, array in arrays.items()}
    structure = sum_of(weights)
    structure.model.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(3), "plain"))
    nbytes, items = single_file.items(structure.model, weights)
    content = b"".join(item if isinstance(item, bytes) else item.real().tobytes() for item in items)
    assert len(content) == nbytes
    model = onnx.load_from_string(content)
    found = {proto.name: onnx.numpy_helper.to_array(proto) for proto in model.graph.initializer}
    assert set(found) == {"plain", *arrays}
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


class Watched:
    """Arrays that count how many of them are alive."""

    def __init__(self) -> None:
        self.alive = self.most = 0

    def array(self, nbytes: int) -> np.ndarray:
        array = np.zeros(nbytes, np.uint8)
        self.alive += nbytes
        self.most = max(self.most, self.alive)
        weakref.finalize(array, self._gone, nbytes)
        return array

    def _gone(self, nbytes: int) -> None:
        self.alive -= nbytes


@pytest.mark.slow
def test_one_whole_tensor_at_a_time_and_only_pieces_of_a_divisible_one(tmp_path: Path) -> None:
    gc.collect()
    watched, size = Watched(), 32 * PIECE_BYTES
    whole = [LazyArray((size,), np.uint8, lambda: watched.array(size)) for _ in range(3)]
    parts = [
        LazyArray((size,), np.uint8, lambda: watched.array(size), part=lambda a, b: watched.array(b - a))
        for _ in range(3)
    ]
    done: list[int] = []
    with TensorStream(done.append) as stream, open(tmp_path / "f", "wb") as file:
        stream.write(parts, file)
        most_in_parts, watched.most = watched.most, 0
        stream.write([whole[0], parts[0], *whole[1:]], file)
    assert most_in_parts <= (tensor_stream.PIECES_AHEAD + tensor_stream.PENDING_DIGESTS + 3) * PIECE_BYTES
    assert watched.most <= size
    assert done[-1] == (tmp_path / "f").stat().st_size == 7 * size


@pytest.mark.parametrize("divisible", [True, False])
def test_a_weight_that_cannot_be_read_ends_the_stream(divisible: bool, tmp_path: Path) -> None:
    def fail(*_: int) -> np.ndarray:
        raise RuntimeError("unreadable")

    bad = LazyArray((3 * PIECE_BYTES,), np.uint8, fail, part=fail if divisible else None)
    with (
        pytest.raises(RuntimeError, match="unreadable"),
        TensorStream(lambda done: None) as stream,
        open(tmp_path / "f", "wb") as file,
    ):
        stream.write([lazy(np.zeros(5, np.float32)), bad], file)


@pytest.mark.parametrize("axes", [(1, 0), (2, 0, 1), (0, 3, 1, 2), (3, 2, 0, 1)])
def test_a_transposed_tensor_needs_one_copy(axes: tuple[int, ...], tmp_path: Path) -> None:
    """What is transposed is a view of the one array that was read, put in order piece by piece."""
    shape = (64, 96, 128, 3)[: len(axes)]
    array = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    with TensorStream(lambda done: None) as stream, open(tmp_path / "f", "wb") as file:
        stream.write([lazy(array, divisible=False).transpose(axes)], file)
    assert (tmp_path / "f").read_bytes() == array.transpose(axes).tobytes()


def test_a_job_knows_its_defaults() -> None:
    assert (Job.external_data, Job.shard_size_bytes) == ("auto", None)
