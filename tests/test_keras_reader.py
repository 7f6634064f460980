"""Reading `.keras` archives without Keras: the same description that Keras gives, or none."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from exporting import export_here, job_for, manifest
from inner_models import INNER
from keras import layers
from keras.src.backend.common import global_state
from layer_chain import write
from models import MODELS
from reader_models import READ, SHARED
from sampling import sampled

from exporter import opening
from exporter.errors import SourceError
from exporter.readers import Unexplained
from exporter.readers.json_cursor import JsonCursor
from exporter.readers.keras_archive import read
from exporter.records import ModelGraph
from exporter.sources.keras_models import keras_archive
from exporter.sources.keras_models.describe import describe
from exporter.sources.keras_models.hollow import HollowScope

# Models of the suite that Keras itself cannot save or load again.
NOT_SAVED = {"embedding_tied", "activation_threshold"}
# At least so many of the suite's models are made of layers that are known.
EXPLAINED = 205
FAST = ("residual", "lstm_bidirectional", "attentions", "each_stack")
FAST_READ = ("quantised_in_groups", "models_as_outputs", "adapters", "texts_adapted", "operation_outputs")


@pytest.fixture(autouse=True)
def _fresh_names() -> Iterator[None]:
    keras.utils.clear_session(free_memory=False)
    yield
    keras.utils.clear_session(free_memory=False)


def saved(model: Any, folder: Path) -> Path:
    path = folder / "m.keras"
    model.save(path)
    return path


def by_itself(path: Path) -> ModelGraph:
    """Trusted, so that what Keras would refuse to load is left to it."""
    return read(job_for(path, path.parent, formats=("parquet",), trust_code=True), str(path.parent)).graph


def by_keras(path: Path) -> ModelGraph:
    """As the worker has it when a model is converted."""
    keras.utils.clear_session(free_memory=False)
    job = job_for(path, path.parent, formats=("parquet",), trust_code=True)
    try:
        with HollowScope() as scope:
            return describe(keras_archive.with_weights(job, scope, str(path.parent))[0], job.name)
    finally:
        global_state.set_global_attribute("stateless_scope", None)


def nested() -> Any:
    """Models in models, frozen ones, equal names inside, a layer called twice, and an operation."""
    encoder = keras.Sequential(
        [keras.Input((8,)), layers.Dense(3, name="a"), layers.ReLU(), layers.BatchNormalization(name="bn")], name="enc"
    )
    encoder.get_layer("a").trainable = False
    x = keras.Input((8,), name="x")
    inner_input = keras.Input((3,), name="given")
    inner = keras.Model(inner_input, layers.Dense(3, name="a")(inner_input), name="inner")
    inner.trainable = False
    y = inner(encoder(x)) + 1.0
    twice = layers.Dense(3, name="twice", dtype="mixed_float16")
    y = twice(twice(y))
    return keras.Model(x, {"flat": layers.Flatten(name="flat")(y), "sum": layers.Add(name="sum")([y, y])})


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(FAST, every=16))
def test_both_ways_agree(name: str, tmp_path: Path) -> None:
    path = saved((MODELS | INNER)[name](), tmp_path)
    assert by_itself(path) == by_keras(path)


def assert_both_ways_agree(name: str, folder: Path) -> None:
    path = saved(READ[name](), folder)
    found, theirs = by_itself(path), by_keras(path)
    assert found.outputs == theirs.outputs
    assert found.weights == theirs.weights
    assert found == theirs


@pytest.mark.slow
@pytest.mark.parametrize("name", FAST_READ)
def test_weights_of_other_kinds_text_and_operations(name: str, tmp_path: Path) -> None:
    assert_both_ways_agree(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(READ.keys() - set(FAST_READ)))
def test_weights_of_other_kinds_text_and_operations_in_all(name: str, tmp_path: Path) -> None:
    assert_both_ways_agree(name, tmp_path)


@pytest.mark.parametrize("name", sampled(sorted(SHARED), every=5))
def test_what_stands_in_several_models_has_one_row(name: str, tmp_path: Path) -> None:
    made = SHARED[name]()
    expected = describe(made, "m")
    assert by_itself(saved(made, tmp_path)) == expected
    assert sum(layer.params for layer in expected.layers) == made.count_params()


@pytest.mark.slow
def test_a_layer_that_keeps_its_state_is_read(tmp_path: Path) -> None:
    """Keras cannot make one without making its states."""
    x = keras.Input(batch_shape=(2, 5, 3), name="x")
    y = layers.Bidirectional(layers.LSTM(4, stateful=True, return_sequences=True))(x)
    path = saved(keras.Model(x, layers.RNN(layers.GRUCell(3), stateful=True)(y)), tmp_path)
    keras.utils.clear_session(free_memory=False)
    assert by_itself(path) == describe(keras.models.load_model(path), "m")


@pytest.mark.slow
def test_both_ways_agree_on_models_in_models(tmp_path: Path) -> None:
    path = saved(nested(), tmp_path)
    graph = by_itself(path)
    assert graph == by_keras(path)
    assert {layer.namespace for layer in graph.layers} > {"enc", "enc/a", "inner/a", "inner/given", "twice"}
    assert sum(layer.params for layer in graph.layers) == keras.models.load_model(path).count_params()


@pytest.mark.slow
def test_both_ways_agree_on_every_model_of_the_suite(tmp_path: Path) -> None:
    explained, differ = 0, []
    models = MODELS | INNER
    for name in sorted(models.keys() - NOT_SAVED):
        keras.utils.clear_session(free_memory=False)
        path = saved(models[name](), tmp_path)
        try:
            graph = by_itself(path)
        except Unexplained:
            continue
        explained += 1
        if graph != by_keras(path):
            differ.append(name)
    assert differ == []
    assert explained >= EXPLAINED


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet50", "Xception", "MobileNetV3Small", "DenseNet121", "NASNetMobile"])
def test_both_ways_agree_on_applications(name: str, tmp_path: Path) -> None:
    path = saved(getattr(keras.applications, name)(weights=None), tmp_path)
    assert by_itself(path) == by_keras(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    sampled(
        [
            lambda: layers.Dense(3, activation=layers.PReLU()),
            lambda: layers.Dense(3, activation=keras.Sequential([keras.Input((3,)), layers.ReLU()])),
        ],
        every=3,
    ),
)
def test_what_is_not_exactly_known_is_left_to_keras(make: Callable[[], Any], tmp_path: Path) -> None:
    x = keras.Input(batch_shape=(2, 4, 6), name="x")
    path = saved(keras.Model(x, make()(x)), tmp_path)
    with pytest.raises(Unexplained):
        by_itself(path)
    outcome = export_here(path, tmp_path / "out", formats=("parquet",))
    assert outcome.status == "done"
    assert "import" in {stage.name for stage in outcome.stages}


@pytest.mark.slow
def test_neither_tensorflow_nor_keras_is_imported(tmp_path: Path) -> None:
    """Tables, pictures and statistics, where an import of either fails."""
    path = saved(nested(), tmp_path)
    code = f"""
import io, sys
sys.modules.update(dict.fromkeys(("tensorflow", "keras", "tf2onnx", "onnxruntime")))
from exporter import plan, worker
options = plan.ExportOptions(formats=("parquet", "dot", "svg"), output={str(tmp_path / "out")!r}, stats=True)
(job,) = plan.plan([{str(path)!r}], options)
outcome = worker.carry_out(job, worker.Reporter(io.StringIO()))
print(outcome.status, outcome.error)
"""
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert answer.stdout.split() == ["done", "None"], answer.stdout + answer.stderr
    assert {file["name"] for file in manifest(tmp_path / "out" / "m")["files"]} >= {"model.svg", "tensors.parquet"}


@pytest.mark.slow
def test_tables_are_those_of_keras_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(nested(), tmp_path)
    itself = export_here(path, tmp_path / "itself", formats=("parquet",), stats=True)
    monkeypatch.setattr(opening, "READERS", {})
    ours = export_here(path, tmp_path / "keras", formats=("parquet",), stats=True)
    assert [stage.name for stage in itself.stages][:1] == ["read"]
    assert [stage.name for stage in ours.stages][:1] == ["import"]
    assert {file.name: file.sha256 for file in itself.files} == {file.name: file.sha256 for file in ours.files}


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = saved(nested(), tmp_path)
    data = bytearray(path.read_bytes())
    place = data.index(b"\x89HDF") + 2000
    data[place] ^= 255
    path.write_bytes(data)
    with pytest.raises(SourceError, match="CRC-32"):
        by_itself(path)


def test_a_link_out_of_the_archive_is_not_followed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.ones((4, 3), np.float32)
    x = keras.Input((4,), name="x")
    path = saved(keras.Model(x, layers.Dense(3, name="dense")(x)), tmp_path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (tmp_path / "w.h5").write_bytes(members["model.weights.h5"])
    with h5py.File(tmp_path / "w.h5", "a") as file:
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/secret")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (members | {"model.weights.h5": (tmp_path / "w.h5").read_bytes()}).items():
            archive.writestr(name, data)
    with pytest.raises((SourceError, Unexplained)):
        by_itself(path)


@pytest.mark.slow
def test_many_layers_take_little_memory_and_linear_time(tmp_path: Path) -> None:
    """The limit: the graph itself (2 kB per layer) and 300 MB; calls of functions stand for time."""
    code = """
import json, sys
from exporter import memory, plan
from exporter.readers.keras_archive import read
calls = 0
def count(*event):
    global calls
    calls += 1
(job,) = plan.plan([sys.argv[1]], plan.ExportOptions(formats=("parquet",)))
if sys.argv[2] == "calls":
    sys.setprofile(count)
found = read(job, ".")
sys.setprofile(None)
print(json.dumps([len(found.graph.layers), calls, memory.peak_rss_bytes()]))
"""
    found = {}
    for count, way in ((1_000, "calls"), (4_000, "calls"), (20_000, "memory")):
        path = tmp_path / f"chain{count}.keras"
        write(path, "transformer", count, weights=True)
        command = [sys.executable, "-c", code, str(path), way]
        found[count] = json.loads(subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.PIPE).stdout)
    small, large = found[1_000], found[4_000]
    assert large[1] / large[0] < 1.1 * small[1] / small[0]
    assert found[20_000][2] < 300 * 2**20


def members(text: str) -> dict[str, Any]:
    cursor = JsonCursor(text)
    return {key: list(cursor.elements()) for key in cursor.members()}


@pytest.mark.parametrize("text", ["", "{", '{"a" 1}', '{"a": [1 2]}', "[]", '{"a": [1, ]}', '{"a": []'])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        members(text)


def test_json_is_read_piece_by_piece() -> None:
    cursor = JsonCursor(' {"a" : [ 1, {"b": [2]} ], "c": {}, "d": []} ')
    found: dict[str, Any] = {}
    for key in cursor.members():
        found[key] = list(cursor.elements()) if key in "ad" else cursor.value()
    assert found == {"a": [1, {"b": [2]}], "c": {}, "d": []}
