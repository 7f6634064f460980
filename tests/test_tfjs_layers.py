"""Layers models of TensorFlow.js, as its converter makes them of Keras's files and as it saves them itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import onnxruntime
import pytest
import web_files
from exporting import export_here, job_for
from keras.src.backend.common import global_state
from models import MODELS
from web_files import normal

from exporter.errors import SourceError
from exporter.readers.tfjs_layers import read
from exporter.sources.detection import detect
from exporter.sources.keras_models.describe import describe
from exporter.sources.keras_models.hollow import HollowScope
from exporter.sources.web import tfjs_layers
from exporter.sources.web.layer_weights import weights_by_layer
from exporter.sources.web.model_json import read_model_json

INITIALIZER = {"class_name": "VarianceScaling", "config": {"scale": 1, "mode": "fan_avg", "distribution": "uniform"}}


def dense(name: str, units: int, **settings: Any) -> dict[str, Any]:
    config = {"name": name, "trainable": True, "units": units, "activation": "relu", "use_bias": True}
    return {"class_name": "Dense", "config": {**config, "kernel_initializer": INITIALIZER, **settings}}


def sequential() -> dict[str, Any]:
    """What TensorFlow.js saves of `tf.sequential()`: without an input layer, in the words of Keras 2."""
    layers = [dense("dense_Dense1", 5, batch_input_shape=[None, 4]), dense("dense_Dense2", 3, activation="softmax")]
    return {
        "class_name": "Sequential",
        "config": {"name": "sequential_1", "layers": layers},
        "keras_version": "tfjs-layers 4.22.0",
        "backend": "tensor_flow.js",
    }


def functional() -> dict[str, Any]:
    """As the Python converter has it of a model that Keras 2 saved."""
    entry = {"class_name": "InputLayer", "name": "x", "inbound_nodes": []}
    entry["config"] = {"batch_input_shape": [None, 4], "dtype": "float32", "sparse": False, "name": "x"}
    layers = [entry]
    for before, name, units in (("x", "dense_Dense1", 5), ("dense_Dense1", "dense_Dense2", 3)):
        layers.append({**dense(name, units), "name": name, "inbound_nodes": [[[before, 0, 0, {}]]]})
    ends = {"input_layers": [["x", 0, 0]], "output_layers": [["dense_Dense2", 0, 0]]}
    config = {"class_name": "Functional", "config": {"name": "net", "layers": layers, **ends}}
    return {"keras_version": "2.9.0", "backend": "tensorflow", "model_config": config}


QUANTISED = {"dense_Dense1/kernel": "uint8", "dense_Dense2/kernel": "float16"}


def weights(*, seed: int = 0) -> dict[str, np.ndarray]:
    shapes = {"dense_Dense1": (4, 5), "dense_Dense2": (5, 3)}
    found = {}
    for number, (name, shape) in enumerate(shapes.items()):
        found[f"{name}/kernel"] = normal(*shape, seed=seed + number)
        found[f"{name}/bias"] = normal(shape[1], seed=seed + number + 10)
    return found


def computed(path: Path, folder: Path, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What ONNX Runtime makes of the export."""
    outcome = export_here(path, folder, formats=("onnx", "parquet"))
    assert outcome.error is None
    assert outcome.verification is not None
    assert outcome.verification.status == "passed"
    session = onnxruntime.InferenceSession(str(folder / outcome.name / "model.onnx"))
    found: list[np.ndarray] = session.run(None, dict(inputs))
    return found


@pytest.mark.slow
def test_what_javascript_saved_computes_the_same(tmp_path: Path) -> None:
    path = web_files.write(tmp_path / "m", sequential(), weights(), "layers-model", shard_nbytes=50)
    assert detect(str(path)).kind == "tfjs_layers"
    assert detect(str(path)).name == "m"
    x, (kernel, bias, head, last) = normal(2, 4, seed=7), weights().values()
    scores = np.maximum(x @ kernel + bias, 0) @ head + last
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    (found,) = computed(path, tmp_path / "out", {"input_layer": x})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def converted(model: Any, folder: Path, **options: Any) -> Path:
    """As `tensorflowjs_converter --input_format keras` does: the config, and the weights in the order of the file."""
    folder.mkdir()
    model.save(folder / "m.h5")
    found = {}
    with h5py.File(folder / "m.h5") as file:
        config = json.loads(file.attrs["model_config"])
        root = file["model_weights"]
        for layer in root.attrs["layer_names"]:
            for name in root[layer].attrs["weight_names"]:
                found[name.decode() if isinstance(name, bytes) else name] = root[layer][name][()]
    (folder / "m.h5").unlink()
    topology = {"keras_version": "3.0.0", "backend": "tensorflow", "model_config": config}
    return web_files.write(folder, topology, found, "layers-model", **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["residual", "nested_models", "lstm_bidirectional"])
def test_what_the_converter_made_computes_what_keras_computes(name: str, tmp_path: Path) -> None:
    keras.utils.clear_session()
    keras.utils.set_random_seed(3)
    model = MODELS[name]()
    x = {each.name: normal(2, *each.shape[1:], seed=1) for each in model.inputs}
    expected = keras.ops.convert_to_numpy(model(next(iter(x.values())), training=False))
    path = converted(model, tmp_path / "m", shard_nbytes=500)
    (found,) = computed(path, tmp_path / "out", x)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("make", [sequential, functional])
def test_both_ways_of_reading_give_the_same(make: Any, tmp_path: Path) -> None:
    """But for the settings of layers: the file has those of Keras 2."""
    path = web_files.write(tmp_path / "m", make(), weights(), "layers-model", shard_nbytes=50)
    job = job_for(path, tmp_path / "out", formats=("parquet",), stats=True)
    found = read(job, "")
    keras.utils.clear_session()
    try:
        with HollowScope() as scope:
            expected = describe(tfjs_layers.with_weights(job, scope, "")[0], job.name)
    finally:
        global_state.set_global_attribute("stateless_scope", None)
    layers = [dataclasses.replace(layer, config="") for layer in expected.layers]
    assert [dataclasses.replace(layer, config="") for layer in found.graph.layers] == layers
    assert dataclasses.replace(found.graph, layers=()) == dataclasses.replace(expected, layers=())
    for weight, value in zip(found.graph.weights, weights().values(), strict=True):
        np.testing.assert_array_equal(found.values[weight.name].real(), value)


@pytest.mark.slow
def test_tables_need_no_tensorflow(tmp_path: Path) -> None:
    path = web_files.write(tmp_path / "m", functional(), weights(), "layers-model", quantised=QUANTISED)
    outcome = export_here(path, tmp_path / "out", formats=("parquet", "dot"), stats=True)
    assert outcome.error is None
    assert "read" in [stage.name for stage in outcome.stages]
    assert "import" not in [stage.name for stage in outcome.stages]


def test_weights_belong_to_the_outermost_layer(tmp_path: Path) -> None:
    inner = {"class_name": "Sequential", "config": {"name": "inner", "layers": [dense("deep", 2)]}}
    topology = {"class_name": "Sequential", "config": {"name": "outer", "layers": [inner, dense("last", 1)]}}
    values = {"deep/kernel": normal(3, 2), "last/kernel": normal(2, 1), "inner/deep/bias": normal(2)}
    model = read_model_json(str(web_files.write(tmp_path / "m", topology, values, "layers-model")))
    found = {layer: [each.name for each in held] for layer, held in weights_by_layer(model, topology).items()}
    assert found == {"inner": ["deep/kernel", "inner/deep/bias"], "last": ["last/kernel"]}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda values: values.pop("dense_Dense1/bias"), "has weights of the shapes"),
        (lambda values: values.update({"dense_Dense1/bias": normal(4)}), "has weights of the shapes"),
        (lambda values: values.update({"other/bias": normal(4)}), "no layer has the name"),
    ],
)
def test_weights_that_do_not_fit_are_named(change: Any, why: str, tmp_path: Path) -> None:
    values = weights()
    change(values)
    path = web_files.write(tmp_path / "m", sequential(), values, "layers-model")
    outcome = export_here(path, tmp_path / "out", formats=("onnx",))
    assert outcome.error is not None
    assert outcome.error["type"] == SourceError.__name__
    assert why in outcome.error["why"]


@pytest.mark.slow
def test_code_is_refused(tmp_path: Path) -> None:
    topology = sequential()
    lambda_layer = {"class_name": "Lambda", "config": {"name": "code", "function": ["4wEAAAA=", None, None]}}
    topology["config"]["layers"].append(lambda_layer)
    path = web_files.write(tmp_path / "m", topology, weights(), "layers-model")
    outcome = export_here(path, tmp_path / "out", formats=("onnx",))
    assert outcome.error is not None
    assert outcome.error["type"] == "TrustError"
