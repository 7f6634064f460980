"""Checkpoints read without TensorFlow: what TensorFlow's own reader gives, and what is wrong is found."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tensorflow_models
from exporting import job_for
from google_crc32c import extend

from exporter import worker
from exporter.errors import SourceError, UsageError
from exporter.protobuf import encoded
from exporter.readers.checkpoint import read
from exporter.readers.described import DescribedModel
from exporter.sources.detection import detect
from exporter.sources.graphs.slice_keys import parse_slice, slice_key
from exporter.sources.graphs.sorted_table import MAGIC, MASK_DELTA
from exporter.sources.graphs.tensor_bundle import OBJECT_GRAPH, read_bundle

SHARD = "data-00000-of-00001"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("checkpoints")
    for name, make in (
        ("one", tensorflow_models.tf1_checkpoint),
        ("two", tensorflow_models.tf2_checkpoint),
        ("trained", tensorflow_models.training_checkpoint),
    ):
        (made / name).mkdir()
        make(made / name)
    return made


def described(source: Path, **options: Any) -> DescribedModel:
    return read(job_for(source, source.parent / "out", formats=("parquet",), **options), "")


@pytest.mark.parametrize("prefix", ["one/m.ckpt", "two/ck-1", "trained/m.ckpt-7"])
def test_every_tensor_is_what_tensorflow_reads(folder: Path, prefix: str) -> None:
    import tensorflow as tf

    bundle = read_bundle(str(folder / prefix))
    theirs = tf.train.load_checkpoint(str(folder / prefix))
    assert set(bundle.entries) == set(theirs.get_variable_to_shape_map())
    for key in set(bundle.entries) - {OBJECT_GRAPH}:
        value = bundle.value(key)
        np.testing.assert_array_equal(value.real(), theirs.get_tensor(key))
        pieces = np.concatenate(list(value.pieces(64)))
        np.testing.assert_array_equal(pieces.reshape(value.shape), theirs.get_tensor(key))


def test_names_that_variables_had_in_the_program_are_known(folder: Path) -> None:
    names = read_bundle(str(folder / "two/ck-1")).object_names
    assert names["net/weight/.ATTRIBUTES/VARIABLE_VALUE"] == "weight"


def test_parts_of_a_tensor_are_found_by_their_keys(folder: Path) -> None:
    """Those that TensorFlow wrote, with numbers of one, two and three bytes."""
    bundle = read_bundle(str(folder / "one/m.ckpt"))
    parts = [((start, 5000), (0, 3)) for start in (0, 5000, 10_000, 15_000)]
    assert set(bundle.parts) == {slice_key("dense/parts", part) for part in parts}
    whole = bundle.value("dense/parts").real()
    np.testing.assert_array_equal(bundle.value("dense/parts", parts[1]).real(), whole[5000:10_000])
    np.testing.assert_array_equal(bundle.value("dense/parts", ((10, 5), (1, -1))).real(), whole[10:15, 1:])


def test_keys_of_parts_sort_as_their_numbers() -> None:
    """That is what the encoding is for; around its changes of length, by sign and size."""
    numbers = [-(2**40), -8193, -8192, -65, -64, -1, 0, 1, 63, 64, 8191, 8192, 2**20, 2**33, 2**62]
    keys = [slice_key("name", ((number, 1),)) for number in numbers]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


def test_a_part_is_parsed_as_restoring_ops_write_it() -> None:
    assert parse_slice("") is None
    assert parse_slice("70 3 35,35:-") == ((35, 35), (0, -1))


def test_the_catalogue_of_a_checkpoint_alone(folder: Path) -> None:
    found = described(folder / "two", stats=True)
    graph = found.graph
    assert graph.level == "tensor"
    assert {"net/weight", "net/bias", "net/table", "save_counter"} < {weight.name for weight in graph.weights}
    layers = {layer.namespace: layer for layer in graph.layers}
    assert layers["net"].params == 4 * 5 + 5 + 7 * 4
    assert sum(layer.params for layer in graph.layers) == sum(np.prod(w.shape, dtype=int) for w in graph.weights)
    assert all(layer.parent is None or layer.parent in layers for layer in graph.layers)
    assert not graph.edges
    assert set(found.values) == {weight.name for weight in graph.weights}
    assert any("of the optimizer" in note for note in found.notes)


def test_a_checkpoint_is_told_by_its_content_and_by_its_common_name(folder: Path, tmp_path: Path) -> None:
    kinds = {
        "two": "checkpoint",
        "two/ck-1": "checkpoint",
        "two/ck-1.index": "checkpoint",
        f"two/ck-1.{SHARD}": "checkpoint",
        "one": "meta_graph",
        "one/m.ckpt": "meta_graph",
        "one/m.ckpt.meta": "meta_graph",
        "one/m.ckpt.index": "checkpoint",
    }
    assert {name: detect(str(folder / name)).kind for name in kinds} == kinds
    renamed = tmp_path / "no suffix"
    renamed.write_bytes((folder / "two/ck-1.index").read_bytes())
    assert detect(str(renamed)).kind == "checkpoint"


def test_onnx_is_refused_when_asked_for_and_left_out_otherwise(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a checkpoint alone holds tensors"):
        job_for(folder / "two", tmp_path, formats=("onnx", "parquet"))
    assert "onnx" not in job_for(folder / "two", tmp_path, formats=None).formats


@pytest.mark.slow
def test_what_belongs_to_the_model_itself_is_shown_beside_its_layers(folder: Path, tmp_path: Path) -> None:
    """`save_counter` has no layer: its row has an empty key, which is nobody's parent."""
    job = job_for(folder / "two", tmp_path, formats=("netron", "html"))
    outcome = worker.carry_out(job, worker.Reporter(io.StringIO()))
    assert outcome.error is None
    shown = onnx.load(tmp_path / "two" / "model.view.onnx").graph
    assert {node.name for node in shown.node} >= {"net", "optimizer/_variables"}


@pytest.mark.slow
def test_a_checkpoint_needs_no_tensorflow(folder: Path) -> None:
    lines = (
        "import sys; sys.path.insert(0, sys.argv[1])",
        "from exporter import plan; from exporter.readers.checkpoint import read",
        "(job,) = plan.plan([sys.argv[2]], plan.ExportOptions(formats=('parquet',)))",
        "assert read(job, '').graph.weights",
        "assert not {'tensorflow', 'keras', 'h5py'} & set(sys.modules) - {'h5py'}",
    )
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-c", "; ".join(lines), str(root), str(folder / "two")]
    subprocess.run(command, check=True, timeout=300)


# What is wrong: each spoils a copy of the checkpoint `ck-1`. ----------------------------------------------------------


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    for name in ("ck-1.index", f"ck-1.{SHARD}", "checkpoint"):
        (tmp_path / name).write_bytes((folder / "two" / name).read_bytes())
    return tmp_path


def cut(path: Path, nbytes: int) -> None:
    path.write_bytes(path.read_bytes()[:-nbytes])


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x40
    path.write_bytes(data)


def masked(data: bytes) -> bytes:
    checksum = extend(0, data)
    return struct.pack("<I", ((checksum >> 15 | checksum << 17) + MASK_DELTA) & 0xFFFFFFFF)


def table(entries: dict[bytes, bytes]) -> bytes:
    """A sorted table of one block, with its checksums right."""

    def block(pairs: dict[bytes, bytes]) -> bytes:
        rows = (b"\0" + encoded(len(key)) + encoded(len(value)) + key + value for key, value in pairs.items())
        data = b"".join(rows) + struct.pack("<II", 0, 1) + b"\0"
        return data + masked(data)

    first, empty = block(entries), block({})
    index = block({b"\xff": encoded(0) + encoded(len(first) - 5)})
    places = (len(first), len(empty)), (len(first) + len(empty), len(index))
    footer = b"".join(encoded(start) + encoded(nbytes - 5) for start, nbytes in places)
    return first + empty + index + footer.ljust(40, b"\0") + MAGIC


def entry(*sizes: int, nbytes: int, offset: int = 0) -> bytes:
    """float32, in the first data file."""
    dims = b"".join(b"\x12" + encoded(len(dim)) + dim for dim in (b"\x08" + encoded(size) for size in sizes))
    shape = b"\x12" + encoded(len(dims)) + dims
    return b"\x08\x01" + shape + b"\x20" + encoded(offset) + b"\x28" + encoded(nbytes)


HEADER = b"\x08\x01"
FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "index cut off": (lambda at: cut(at / "ck-1.index", 60), "end of a table"),
    "index empty": (lambda at: (at / "ck-1.index").write_bytes(b""), "end of a table"),
    "index garbage": (lambda at: (at / "ck-1.index").write_bytes(bytes(range(256)) + MAGIC), "as a checkpoint's index"),
    "index damaged": (lambda at: flip(at / "ck-1.index", 40), "checksum"),
    "no index": (lambda at: (at / "ck-1.index").unlink(), "No such file"),
    "no data file": (lambda at: (at / f"ck-1.{SHARD}").unlink(), "No such file"),
    "data cut off": (lambda at: cut(at / f"ck-1.{SHARD}", 8), "ends before"),
    "no header": (lambda at: (at / "ck-1.index").write_bytes(table({b"a": entry(1, nbytes=4)})), "no header"),
    "absurd shape": (
        lambda at: (at / "ck-1.index").write_bytes(table({b"": HEADER, b"a": entry(2**40, 2**40, nbytes=4)})),
        "not what",
    ),
    "absurd size": (
        lambda at: (at / "ck-1.index").write_bytes(table({b"": HEADER, b"a": entry(2**50, nbytes=2**52)})),
        "ends before",
    ),
    "negative size": (
        lambda at: (at / "ck-1.index").write_bytes(table({b"": HEADER, b"a": entry(2**64 - 1, nbytes=4)})),
        "negative",
    ),
    "name that is no text": (
        lambda at: (at / "ck-1.index").write_bytes(table({b"": HEADER, b"\xff\xfe": entry(1, nbytes=4)})),
        "utf-8",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_an_error_with_a_reason(copy: Path, fault: str) -> None:
    spoil, why = FAULTS[fault]
    job = job_for(copy, copy / "out", formats=("parquet",))
    spoil(copy)
    with pytest.raises(SourceError) as caught:
        read(job, "")
    assert why in f"{caught.value.what} {caught.value.why}"


def test_a_sound_table_of_our_own_is_read(copy: Path) -> None:
    """Otherwise the faults above might be those of the table."""
    (copy / "ck-1.index").write_bytes(table({b"": HEADER, b"a/b": entry(2, nbytes=8)}))
    assert [weight.name for weight in described(copy).graph.weights] == ["a/b"]


def test_damage_in_the_data_is_found_when_it_is_read(copy: Path) -> None:
    bundle = read_bundle(str(copy / "ck-1"))
    flip(copy / f"ck-1.{SHARD}", bundle.entries["net/weight/.ATTRIBUTES/VARIABLE_VALUE"].offset)
    values = described(copy, stats=True).values
    values["net/bias"].real()
    with pytest.raises(SourceError, match="checksum"):
        values["net/weight"].real()
    with pytest.raises(SourceError, match="checksum"):
        list(values["net/weight"].pieces(16))


@pytest.mark.parametrize("path", ["../elsewhere/ck-1", "/elsewhere/ck-1"])
def test_a_state_file_does_not_lead_out_of_its_folder(copy: Path, path: str) -> None:
    (copy / "checkpoint").write_text(f'model_checkpoint_path: "{path}"\n')
    assert {weight.name for weight in described(copy).graph.weights} >= {"net/weight"}


@pytest.mark.parametrize("text", ["", "all_model_checkpoint_paths: 'ck-1'", "\0\xff"])
def test_a_state_file_that_names_nothing_is_an_error(copy: Path, text: str) -> None:
    (copy / "checkpoint").write_text(text)
    with pytest.raises(SourceError, match="names no checkpoint"):
        detect(str(copy))
