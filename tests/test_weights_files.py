"""Files that hold weights alone are sources, too: their names make the rows, and no TensorFlow is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import ml_dtypes
import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from exporting import export_here, job_for
from keras import layers
from keras.src.legacy.saving import legacy_h5_format

from exporter.errors import SourceError, UnsupportedError, UsageError
from exporter.readers import READERS, keras_weights, safetensors_file
from exporter.readers.described import DescribedModel
from exporter.readers.weight_tree import DEEPEST, described, natural
from exporter.records import Job
from exporter.sources.detection import SourceRef
from exporter.sources.detection.kinds import OWN_WEIGHTS
from exporter.sources.fitting import fitted

TENSORS: dict[str, Any] = {
    "model.embed.weight": np.arange(12, dtype=ml_dtypes.bfloat16).reshape(4, 3),
    **{f"model.layers.{n}.attn.q_proj.weight": np.full((2, 2), n, np.float32) for n in range(11)},
    "model.layers.0.attn.q_proj.bias": np.array([1.5, -2], np.float16),
    "lm_head": np.array([True, False]),
    "scale.e4": np.array([[0.5, 2], [448, -1]], ml_dtypes.float8_e4m3fn),
    "scale.e5": np.array([0.25, -3], ml_dtypes.float8_e5m2),
    "empty.weight": np.zeros((0, 3), np.int64),
    "scalar.weight": np.array(3, np.uint8),
}


def read(path: Path) -> DescribedModel:
    job: Job = job_for(path, path.parent, formats=("parquet",))
    module = {"keras_weights": keras_weights, "safetensors": safetensors_file}[job.kind]
    assert READERS[job.kind] == module.__name__
    return module.read(job, str(path.parent))


@pytest.fixture(scope="module")
def model() -> Any:
    keras.utils.clear_session()
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a"), layers.Dense(2, name="b")], name="inner")
    x = keras.Input((5, 4), name="x")
    y = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    return keras.Model(x, layers.BatchNormalization(name="norm")(inner(layers.LSTM(4, name="lstm")(y))))


def test_a_weights_file_of_keras_3(model: Any, tmp_path: Path) -> None:
    model.save_weights(tmp_path / "m.weights.h5")
    found = read(tmp_path / "m.weights.h5")
    rows = {layer.namespace: layer for layer in found.graph.layers}
    assert set(rows) == {
        *("attention", "attention/query", "attention/key", "attention/value", "attention/attention_output"),
        *("lstm", "lstm/lstm_cell", "inner", "inner/a", "inner/b", "norm"),
    }
    assert rows["attention"].class_name == "Scope"
    assert rows["inner"].params_total == 4 * 3 + 3 + 3 * 2 + 2
    assert sum(layer.params for layer in rows.values()) == model.count_params()
    assert found.graph.level == "tensor"
    (kernel,) = (weight for weight in found.graph.weights if weight.name == "layers/sequential/layers/dense_1/vars/0")
    assert kernel.layer == "inner/b"
    expected = model.get_layer("inner").get_layer("b").kernel
    np.testing.assert_array_equal(found.values[kernel.name].real(), expected)


def test_shards_are_the_same_as_one_file(model: Any, tmp_path: Path) -> None:
    model.save_weights(tmp_path / "m.weights.h5")
    model.save_weights(tmp_path / "m.weights.json", max_shard_size=6e-7)
    whole, shards = read(tmp_path / "m.weights.h5"), read(tmp_path / "m.weights.json")
    assert len(list(tmp_path.glob("m_0*.weights.h5"))) > 1
    assert shards.graph == whole.graph
    for name, value in whole.values.items():
        np.testing.assert_array_equal(shards.values[name].real(), value.real())


def test_legacy_weights_keep_the_models_order_and_names(model: Any, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "legacy.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    found = read(tmp_path / "legacy.h5")
    assert [layer.name for layer in found.graph.layers if layer.depth == 0] == ["attention", "lstm", "inner", "norm"]
    assert {weight.name for weight in found.graph.weights} == {variable.path for variable in model.weights}
    for variable in model.weights:
        np.testing.assert_array_equal(found.values[variable.path].real(), variable)


def test_what_keras_2_wrote(tmp_path: Path) -> None:
    """Names end with `:0`, and long lists of names are in several attributes."""
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["layer_names0"], file.attrs["layer_names1"] = [b"conv"], [b"bn"]
        for layer, names in (("conv", [b"conv/kernel:0"]), ("bn", [b"bn/gamma:0", b"bn/beta:0"])):
            group = file.create_group(layer)
            group.attrs["weight_names"] = names
            for number, name in enumerate(names):
                group[name.decode()] = np.full((2,), number, np.float32)
    found = read(tmp_path / "old.h5")
    assert [weight.name for weight in found.graph.weights] == ["conv/kernel", "bn/gamma", "bn/beta"]
    assert [layer.namespace for layer in found.graph.layers] == ["conv", "bn"]


def test_a_safetensors_file_is_what_its_library_says(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    safetensors.numpy.save_file(TENSORS, path, metadata={"format": "pt"})
    found = read(path)
    assert {weight.name: (weight.shape, weight.dtype) for weight in found.graph.weights} == {
        name: (value.shape, value.dtype.name) for name, value in TENSORS.items()
    }
    for name, stored in safetensors.deserialize(path.read_bytes()):
        assert found.values[name].real().tobytes() == bytes(stored["data"])
        assert b"".join(piece.tobytes() for piece in found.values[name].pieces(8)) == bytes(stored["data"])
    rows = [layer.namespace for layer in found.graph.layers]
    assert rows[0] == ""
    assert rows.index("model/layers/2/attn/q_proj") < rows.index("model/layers/10/attn/q_proj")
    assert {weight.layer for weight in found.graph.weights if "q_proj" in weight.name} <= set(rows)


def test_shards_of_safetensors(tmp_path: Path) -> None:
    names = list(TENSORS)
    safetensors.numpy.save_file({name: TENSORS[name] for name in names[:5]}, tmp_path / "m-1.safetensors")
    safetensors.numpy.save_file({name: TENSORS[name] for name in names[5:]}, tmp_path / "m-2.safetensors")
    places = {name: f"m-{1 if number < 5 else 2}.safetensors" for number, name in enumerate(names)}
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    safetensors.numpy.save_file(TENSORS, tmp_path / "whole.safetensors")
    whole, shards = read(tmp_path / "whole.safetensors"), read(tmp_path / "m.safetensors.index.json")
    assert shards.graph.layers == whole.graph.layers
    assert shards.weights == "from 2 shards"
    assert all(shards.values[name].real().tobytes() == value.tobytes() for name, value in TENSORS.items())


@pytest.mark.slow
def test_tables_pictures_and_statistics(tmp_path: Path) -> None:
    safetensors.numpy.save_file(TENSORS, tmp_path / "m.safetensors")
    formats = ("parquet", "dot", "markdown", "graphml", "netron", "model-explorer")
    outcome = export_here(tmp_path / "m.safetensors", tmp_path / "out", formats=formats, stats=True)
    assert (outcome.status, outcome.error) == ("done", None)
    rows = {row["tensor"]: row for row in pq.read_table(tmp_path / "out/m/tensors.parquet").to_pylist()}
    for name in ("scale.e4", "scale.e5", "model.embed.weight"):
        assert rows[name]["mean"] == TENSORS[name].astype(np.float64).mean()
        assert rows[name]["max"] == TENSORS[name].astype(np.float64).max()
    assert pq.read_table(tmp_path / "out/m/layers.parquet")["level"].unique().to_pylist() == ["tensor"]
    picture = (tmp_path / "out/m/model.dot").read_text()
    assert "lm_head" not in picture
    assert "embed" in picture


def test_there_is_no_onnx_and_there_are_no_other_weights(tmp_path: Path) -> None:
    safetensors.numpy.save_file(TENSORS, tmp_path / "m.safetensors")
    assert job_for(tmp_path / "m.safetensors", tmp_path, formats=None).formats == ("parquet",)
    with pytest.raises(UsageError, match="weights alone"):
        job_for(tmp_path / "m.safetensors", tmp_path, formats=("onnx", "parquet"))
    with pytest.raises(UsageError, match="cannot take --weights random"):
        job_for(tmp_path / "m.safetensors", tmp_path, formats=("parquet",), weights="random")


@pytest.mark.parametrize("kind", OWN_WEIGHTS)
def test_kinds_with_weights_of_their_own_take_no_others(kind: str) -> None:
    """Before anything is opened."""
    job = Job("m", kind, "m", "out", ("parquet",), fingerprint="", source_digest="", weights="random")
    with pytest.raises(UsageError, match="cannot take --weights random"):
        fitted(job, SourceRef(kind, "m", "m"), chosen_formats=True)


@pytest.mark.slow
def test_tensorflow_is_not_imported(model: Any, tmp_path: Path) -> None:
    model.save_weights(tmp_path / "m.weights.h5")
    model.save_weights(tmp_path / "s.weights.json", max_shard_size=6e-7)
    safetensors.numpy.save_file(TENSORS, tmp_path / "t.safetensors")
    paths = [str(tmp_path / name) for name in ("m.weights.h5", "s.weights.json", "t.safetensors")]
    code = f"""
import io, sys
sys.modules.update(dict.fromkeys(("tensorflow", "keras", "tf2onnx", "onnxruntime", "safetensors")))
from exporter import plan, worker
options = plan.ExportOptions(formats=("parquet", "dot", "svg"), output={str(tmp_path / "out")!r}, stats=True)
for job in plan.plan({paths!r}, options):
    print(worker.carry_out(job, worker.Reporter(io.StringIO())).status)
"""
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert answer.stdout.split() == ["done"] * 3, answer.stdout + answer.stderr


# What is wrong with a file. -----------------------------------------------------------------------------------------


def header(entries: Any, nbytes: int = 0, length: int | None = None) -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + bytes(nbytes)


def entry(begin: int, end: int, shape: Any = (1,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


BAD: dict[str, tuple[bytes, str]] = {
    "no bytes": (header({"a": entry(0, 4)}), "4 bytes, and the file has 0"),
    "bytes too many": (header({"a": entry(0, 4)}, 9), "4 bytes, and the file has 9"),
    "a gap": (header({"a": entry(0, 4), "b": entry(8, 12)}, 12), "'b' does not start where"),
    "an overlap": (header({"a": entry(0, 8, (2,)), "b": entry(4, 8)}, 8), "'b' does not start where"),
    "a wrong size": (header({"a": entry(0, 4, (2,))}, 4), "is F32 of shape"),
    "an absurd shape": (header({"a": entry(0, 4, (2**62, 2**62))}, 4), "is F32 of shape"),
    "a negative offset": (header({"a": entry(-4, 0)}, 4), "does not say where it is"),
    "a negative size": (header({"a": entry(0, 4, (-1,))}, 4), "has dtype F32"),
    "an unknown dtype": (header({"a": entry(0, 4, (1,), "F33")}, 4), "has dtype F33"),
    "an offset that is text": (header({"a": entry("0", 4)}, 4), "does not say where it is"),  # type: ignore[arg-type]
    "an entry that is a list": (header({"a": []}, 4), "does not say where it is"),
    "no JSON": (header(b"{]"), "not JSON"),
    "binary": (header(b"{\xff\xfe"), "not JSON"),
    "brackets": (header(b'{"a":' + b"[" * 200_000), "not JSON"),
}


@pytest.mark.parametrize(("data", "fragment"), BAD.values(), ids=BAD)
def test_a_bad_safetensors_file_is_named(data: bytes, fragment: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(SourceError, match="is truncated or corrupt") as caught:
        read(path)
    assert fragment in str(caught.value)
    with pytest.raises(safetensors.SafetensorError):
        safetensors.numpy.load_file(path)


@pytest.mark.parametrize("length", [2**63, 200_000_000, 99])
def test_a_header_that_cannot_be_is_no_safetensors_file(length: int, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(header({}, length=length))
    with pytest.raises(SourceError, match="is not a model"):
        read(path)


def test_numbers_of_less_than_a_byte_are_named(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(header({"a": entry(0, 1, (2,), "F4")}, 1))
    with pytest.raises(UnsupportedError, match="'a' holds F4"):
        read(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("places", "fragment"),
    [
        ({"a": "../m-1.safetensors"}, "is not in its folder"),
        ({"a": "/etc/m.safetensors"}, "is not in its folder"),
        ({"a": "m-2.safetensors"}, "m-2.safetensors is not in its folder"),
        ({"a": "m-1.safetensors", "b": "m-1.safetensors"}, "has no tensor 'b'"),
        ({"a": "m-1.safetensors", "b": 5}, "is not in its folder"),
    ],
)
def test_a_bad_index_is_named(places: Any, fragment: str, tmp_path: Path) -> None:
    (tmp_path / "m-1.safetensors").write_bytes(header({"a": entry(0, 4)}, 4))
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(SourceError) as caught:
        read(tmp_path / "m.safetensors.index.json")
    assert fragment in str(caught.value)


def link_out(file: h5py.File) -> None:
    file["layers/dense/vars/0"] = h5py.ExternalLink("/etc/hostname", "/x")


def link_in_a_circle(file: h5py.File) -> None:
    file["layers/dense/vars/0"] = h5py.SoftLink("/layers/dense/vars/0")


def store_outside(file: h5py.File) -> None:
    file.create_dataset("layers/dense/vars/0", (4, 3), "f4", external=[("/etc/passwd", 0, 48)])


def store_virtually(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4, 3))
    file.create_virtual_dataset("layers/dense/vars/0", layout)


def name_what_is_not_there(file: h5py.File) -> None:
    file.attrs["layer_names"] = ["gone"]


def name_what_is_outside(file: h5py.File) -> None:
    file.attrs["layer_names"] = ["dense"]
    file["dense"] = h5py.ExternalLink("/etc/hostname", "/x")


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (lambda file: file.create_group("layers/dense/vars"), "it has no datasets"),
        (link_out, "it has no datasets"),
        (link_in_a_circle, "it has no datasets"),
        (store_outside, "in other files"),
        (store_virtually, "in other files"),
        (lambda file: file.create_dataset("layers/dense/vars/0", data=b"text"), "no numbers"),
        (name_what_is_not_there, "gone"),
        (name_what_is_outside, "as an HDF5 file"),
    ],
)
def test_a_bad_weights_file_is_named(change: Callable[[h5py.File], Any], fragment: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        change(file)
    with pytest.raises(SourceError) as caught:
        read(tmp_path / "m.weights.h5")
    assert fragment in str(caught.value)


def test_a_truncated_weights_file_is_named(model: Any, tmp_path: Path) -> None:
    model.save_weights(tmp_path / "m.weights.h5")
    data = (tmp_path / "m.weights.h5").read_bytes()
    (tmp_path / "m.weights.h5").write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match="truncated or corrupt"):
        read(tmp_path / "m.weights.h5")


def test_a_missing_shard_is_named(model: Any, tmp_path: Path) -> None:
    model.save_weights(tmp_path / "m.weights.json", max_shard_size=6e-7)
    (tmp_path / "m_00001.weights.h5").unlink()
    with pytest.raises(SourceError, match=r"m_00001\.weights\.h5"):
        read(tmp_path / "m.weights.json")


def test_names_that_nest_without_end_stay_flat(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(header({"a." * 50_000 + "w": entry(0, 4)}, 4))
    assert max(layer.depth for layer in read(tmp_path / "m.safetensors").graph.layers) == DEEPEST - 1


@pytest.mark.slow
def test_many_tensors_are_linear(tmp_path: Path) -> None:
    """Calls of functions stand for time."""
    counts = {}
    for size in (1_000, 4_000):
        entries = {f"layers.{n}.w": entry(4 * n, 4 * n + 4) for n in range(size)}
        (tmp_path / "m.safetensors").write_bytes(header(entries, 4 * size))
        job, calls = job_for(tmp_path / "m.safetensors", tmp_path, formats=("parquet",)), [0]

        def count(*event: Any, calls: list[int] = calls) -> None:
            calls[0] += 1

        sys.setprofile(count)
        try:
            safetensors_file.read(job, ".")
        finally:
            sys.setprofile(None)
        counts[size] = calls[0]
    assert counts[4_000] < 4.4 * counts[1_000]


def test_numbers_in_names_are_numbers() -> None:
    assert sorted(["a10", "a9", "b", "a", "10", "9a"], key=natural) == ["9a", "10", "a", "a9", "a10", "b"]
    assert described("m", [], "").graph.layers == ()
