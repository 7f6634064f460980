"""Reading whole-model `.h5` files without Keras: the description that Keras gives, or none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from exporting import export_here, job_for
from inner_models import INNER
from keras import layers
from keras.src.backend.common import global_state
from models import MODELS
from reader_models import READ
from sampling import sampled

from exporter import opening
from exporter.errors import SourceError
from exporter.readers import Unexplained
from exporter.readers.keras_2_settings import SETTINGS, as_in_keras_3
from exporter.readers.keras_h5 import read
from exporter.records import ModelGraph
from exporter.sources.keras_models import keras_h5
from exporter.sources.keras_models.describe import describe
from exporter.sources.keras_models.hollow import HollowScope

# Models of the suite that Keras itself cannot save, or cannot load again from HDF5.
NOT_LOADED = {
    *("embedding_tied", "activation_threshold", "activation_gelu_tanh", "attention_dot", "branch", "constant_output"),
    *("conv_and_constants", "embedding_masked", "loop", "lstm_masked", "operations", "operators", "pad_reflect"),
    *("transformer_block", "masked", "layer_norm_two_axes"),
}
# Every third of the plain models will do: the readers of archives are compared on all, and share what follows.
COMPARED = sorted(INNER) + sorted(MODELS.keys() - NOT_LOADED)[::3]
# At least so many are made of layers that are known.
EXPLAINED = 90
FAST = ("residual", "nested_models", "attentions")


@pytest.fixture(autouse=True)
def _fresh_names() -> Iterator[None]:
    keras.utils.clear_session(free_memory=False)
    yield
    keras.utils.clear_session(free_memory=False)


def saved(model: Any, folder: Path) -> Path:
    path = folder / "m.h5"
    model.save(path)
    return path


def by_itself(path: Path, *, lenient: bool = False) -> ModelGraph:
    """Trusted, so that what Keras would refuse to load is left to it."""
    job = job_for(path, path.parent, formats=("parquet",), trust_code=True)
    return read(job, str(path.parent), lenient=lenient).graph


def by_keras(path: Path) -> ModelGraph:
    keras.utils.clear_session(free_memory=False)
    job = job_for(path, path.parent, formats=("parquet",), trust_code=True)
    try:
        with HollowScope() as scope:
            return describe(keras_h5.with_weights(job, scope, str(path.parent))[0], job.name)
    finally:
        global_state.set_global_attribute("stateless_scope", None)


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(FAST, every=14))
def test_both_ways_agree(name: str, tmp_path: Path) -> None:
    path = saved((MODELS | INNER)[name](), tmp_path)
    assert by_itself(path) == by_keras(path)


def test_both_ways_agree_on_models_that_are_outputs(tmp_path: Path) -> None:
    path = saved(READ["models_as_outputs"](), tmp_path)
    assert by_itself(path) == by_keras(path)


@pytest.mark.slow
def test_both_ways_agree_on_models_of_the_suite(tmp_path: Path) -> None:
    explained, differ = 0, []
    for name in COMPARED:
        if name in NOT_LOADED:
            continue
        keras.utils.clear_session(free_memory=False)
        path = saved((MODELS | INNER)[name](), tmp_path)
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
def test_tables_are_those_of_keras_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics included: each weight has its own values, whatever order the file has them in."""
    path = saved(MODELS["residual"](), tmp_path)
    itself = export_here(path, tmp_path / "itself", formats=("parquet",), stats=True)
    monkeypatch.setattr(opening, "READERS", {})
    ours = export_here(path, tmp_path / "keras", formats=("parquet",), stats=True)
    assert [stage.name for stage in itself.stages][:1] == ["read"]
    assert [stage.name for stage in ours.stages][:1] == ["import"]
    assert {file.name: file.sha256 for file in itself.files} == {file.name: file.sha256 for file in ours.files}


# What Keras 2 wrote: the same models with their configs in its words. ------------------------------------------------


def rewritten(path: Path, change: Callable[[Any], Any]) -> Path:
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = json.dumps(change(json.loads(file.attrs["model_config"])))
    return path


def in_the_words_of_keras_2(config: Any) -> Any:
    """Lists of calls, shapes of inputs, names of dtypes and classes as TensorFlow 1.15 to 2.15 wrote them."""
    if isinstance(config, list):
        return [in_the_words_of_keras_2(item) for item in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return config["config"]["name"]
    found = {key: in_the_words_of_keras_2(value) for key, value in config.items()}
    if found.get("class_name") == "InputLayer":
        found["config"]["batch_input_shape"] = found["config"].pop("batch_shape")
        found["config"].pop("optional", None)
    if "inbound_nodes" in found:
        found["inbound_nodes"] = [histories(node) for node in config["inbound_nodes"]]
    for key in ("input_layers", "output_layers"):
        if isinstance(found.get(key), list) and isinstance(found[key][0], str):
            found[key] = [found[key]]
    return found


def histories(value: Any) -> list[list[Any]]:
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        return [[*value["config"]["keras_history"], {}]]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [found for item in items for found in histories(item)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    sampled(
        ["residual", "shared_conv", "several_inputs_and_outputs", "merging_known", "same_layer_twice", "reshape"],
        every=6,
    ),
)
def test_what_keras_2_wrote(name: str, tmp_path: Path) -> None:
    builders = MODELS | {"merging_known": merging}
    path = rewritten(saved(builders[name](), tmp_path), in_the_words_of_keras_2)
    graph = by_itself(path)
    assert graph == by_keras(path)
    assert all(layer.outputs and layer.outputs[0].shape is not None for layer in graph.layers)


# No file of Keras 2 has these; what is not certain stays as the file has it.
ACTIVATIONS_OF_KERAS_3 = ("activation_celu", "activation_sparse_plus")


@pytest.mark.slow
def test_settings_of_keras_2_are_those_of_keras_3(tmp_path: Path) -> None:
    """Of layers that neither are inside of others nor have others inside: those stay as the file has them."""
    compared, differ = set(), []
    for name in sorted({*COMPARED} - {*ACTIVATIONS_OF_KERAS_3}):
        keras.utils.clear_session(free_memory=False)
        path = rewritten(saved((MODELS | INNER)[name](), tmp_path), in_the_words_of_keras_2)
        try:
            ours, theirs = by_itself(path).layers, by_keras(path).layers
        except (Unexplained, SourceError):
            continue
        for layer, other in zip(ours, theirs, strict=True):
            if layer.class_name in SETTINGS and layer.depth == 0:
                compared.add(layer.class_name)
                differ += [name] if layer.config != other.config else []
    assert differ == []
    assert len(compared) >= 17


@pytest.mark.parametrize(
    "config",
    [
        {"name": "d", "rate": 0.1, "unheard_of": 1},
        {"name": "d"},
        {"name": "d", "rate": {"class_name": "__ndarray__"}, "noise_shape": None},
        {"name": "d", "rate": 0.1, "noise_shape": None, "dtype": {"class_name": "Foreign", "config": {}}},
    ],
)
def test_what_is_not_certain_stays_in_the_words_of_the_file(config: dict[str, Any]) -> None:
    assert as_in_keras_3("Dropout", config) == config


def merging() -> Any:
    a, b = keras.Input((4, 6), name="a"), keras.Input((1, 6), name="b")
    joined = [kind()([a, b]) for kind in (layers.Add, layers.Multiply, layers.Maximum)]
    return keras.Model([a, b], layers.Concatenate(axis=1)(joined))


def without_dtypes(config: Any) -> Any:
    """As before Keras 2.1, but for inputs."""
    if isinstance(config, list):
        return [without_dtypes(item) for item in config]
    if not isinstance(config, dict):
        return config
    found = {key: without_dtypes(value) for key, value in config.items()}
    if found.get("class_name") not in (None, "InputLayer") and isinstance(found.get("config"), dict):
        found["config"].pop("dtype", None)
    return found


@pytest.mark.slow
def test_what_the_first_keras_2_wrote(tmp_path: Path) -> None:
    path = saved(MODELS["residual"](), tmp_path)
    rewritten(path, lambda config: without_dtypes(in_the_words_of_keras_2(config)))
    assert by_itself(path) == by_keras(path)


def test_a_sequential_of_keras_2_without_an_input_layer(tmp_path: Path) -> None:
    """As Keras 1 and 2 wrote it: the first layer knows the shape."""
    stack = [keras.Input((8, 8, 3), name="input_layer"), layers.Conv2D(4, 3, name="conv"), layers.Flatten(name="flat")]
    path = saved(keras.Sequential([*stack, layers.Dense(2, name="head")], name="m"), tmp_path)

    def change(config: Any) -> Any:
        config = in_the_words_of_keras_2(config)
        first, *rest = config["config"]["layers"]
        rest[0]["config"]["batch_input_shape"] = first["config"]["batch_input_shape"]
        return {"class_name": "Sequential", "config": rest}

    graph = by_itself(rewritten(path, change))
    assert [layer.name for layer in graph.layers] == ["input_layer", "conv", "flat", "head"]
    assert graph.outputs[0].shape == (None, 2)
    assert graph.layers[2].outputs == graph.layers[3].inputs
    assert [weight.shape for weight in graph.weights] == [(3, 3, 3, 4), (4,), (144, 2), (2,)]


# Where Keras cannot load the file. -----------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("elsewhere")
class Scaled(layers.Layer):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.dense = layers.Dense(3, name="mixed")

    def build(self, shape: Any) -> None:
        self.dense.build(shape)
        self.scale = self.add_weight(shape=(shape[-1],), name="scale")

    def call(self, x: Any) -> Any:
        return self.dense(x * self.scale)


def strange() -> Any:
    x = keras.Input((4,), name="x")
    y = layers.Lambda(lambda value: value * 2, name="doubled")(Scaled(name="scaled")(layers.Dense(4, name="first")(x)))
    return keras.Model(x, layers.Dense(2, name="last")(y))


@pytest.mark.parametrize("suffix", ["h5", "keras"])
@pytest.mark.slow
def test_what_keras_cannot_load_is_described_by_the_file(suffix: str, tmp_path: Path) -> None:
    model = strange()
    model.save(tmp_path / f"m.{suffix}")
    outcome = export_here(tmp_path / f"m.{suffix}", tmp_path / "out", formats=("parquet", "dot"), stats=True)
    assert (outcome.status, outcome.error) == ("done", None)
    assert [stage.name for stage in outcome.stages][:2] == ["read", "stats"], "without TensorFlow"
    assert "Keras cannot load it" in outcome.notes[0]
    assert "Lambda" in outcome.notes[0]
    graph = graph_of(tmp_path / f"m.{suffix}")
    rows = {layer.name: layer for layer in graph.layers}
    assert [layer.class_name for layer in graph.layers] == ["InputLayer", "Dense", "Scaled", "Lambda", "Dense"]
    assert [layer.connected_to for layer in graph.layers][1:] == [("x",), ("first",), ("scaled",), ("doubled",)]
    assert rows["scaled"].params == model.get_layer("scaled").count_params()
    assert rows["doubled"].inputs == rows["scaled"].outputs
    assert sum(layer.params for layer in graph.layers) == model.count_params()


def graph_of(path: Path) -> ModelGraph:
    from exporter.readers import keras_archive

    module = {".h5": read, ".keras": keras_archive.read}[path.suffix]
    return module(job_for(path, path.parent, formats=("parquet",)), str(path.parent), lenient=True).graph


@pytest.mark.slow
def test_a_model_of_a_class_of_its_own_has_rows_from_its_weights(tmp_path: Path) -> None:
    class Own(keras.Model):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.first, self.rest = layers.Dense(3, name="one"), [layers.Dense(2, name="two")]

        def call(self, x: Any) -> Any:
            return self.rest[0](self.first(x))

    model = Own()
    model(np.zeros((1, 4), np.float32))
    model.save(tmp_path / "m.keras")
    outcome = export_here(tmp_path / "m.keras", tmp_path / "out", formats=("parquet",))
    assert (outcome.status, outcome.error) == ("done", None)
    graph = graph_of(tmp_path / "m.keras")
    assert graph.level == "tensor"
    assert {"one", "two"} <= {layer.name for layer in graph.layers}
    assert sum(layer.params for layer in graph.layers) == model.count_params()


@pytest.mark.slow
def test_it_is_still_not_converted(tmp_path: Path) -> None:
    strange().save(tmp_path / "m.h5")
    outcome = export_here(tmp_path / "m.h5", tmp_path / "out", formats=("onnx", "parquet"))
    assert outcome.status == "failed"
    assert "doubled" in str(outcome.error)


@pytest.mark.slow
def test_where_the_legacy_loader_fails_the_file_is_read(tmp_path: Path) -> None:
    """Operations have no class in a legacy config that Keras would find."""
    x = keras.Input((4,), name="x")
    y = keras.ops.erf(layers.Dense(4, name="first")(x))
    path = saved(keras.Model(x, layers.Dense(2, name="last")(y)), tmp_path)
    outcome = export_here(path, tmp_path / "out", formats=("parquet",))
    assert (outcome.status, outcome.error) == ("done", None)
    assert "custom class 'Erf'" in outcome.notes[0]
    assert [layer.class_name for layer in by_itself(path, lenient=True).layers][2] == "Erf"


# Bad files. ----------------------------------------------------------------------------------------------------------


def edited(path: Path, change: Callable[[h5py.File], Any]) -> Path:
    with h5py.File(path, "a") as file:
        change(file)
    return path


def link(name: str) -> Callable[[h5py.File], Any]:
    def change(file: h5py.File) -> None:
        target = str(Path(file.filename).with_name("other.h5"))
        with h5py.File(target, "w") as other:
            file.copy(name, other, "x")
        del file[name]
        file[name] = h5py.ExternalLink(target, "/x")

    return change


def circular(config: Any) -> Any:
    config = in_the_words_of_keras_2(config)
    first = config["config"]["layers"][1]
    first["inbound_nodes"] = [[[first["config"]["name"], 0, 0, {}]]]
    return config


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        link("model_weights"),
        link("model_weights/first"),
        link("model_weights/first/first/kernel"),
        lambda file: file.pop("model_weights/first/first/kernel"),
        lambda file: file.attrs.update(model_config="{"),
        lambda file: file.attrs.update(model_config='{"class_name": "Functional", "config": {"layers": [[]]}}'),
        lambda file: file.attrs.update(model_config=json.dumps(circular(json.loads(file.attrs["model_config"])))),
    ],
)
def test_a_bad_file_is_never_half_a_catalogue(
    change: Callable[[h5py.File], Any], lenient: bool, tmp_path: Path
) -> None:
    x = keras.Input((4,), name="x")
    path = edited(saved(keras.Model(x, layers.Dense(2, name="first")(x)), tmp_path), change)
    with pytest.raises((SourceError, Unexplained)):
        by_itself(path, lenient=lenient)
