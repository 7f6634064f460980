"""Weights in shards, architectures without weights, and unpacked archives, all of them written by Keras itself."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from exporting import export_here, initializers, job_for, manifest
from keras import layers
from keras.src.backend.common import global_state
from keras.src.saving import saving_lib

from exporter.errors import SourceError
from exporter.records import Outcome
from exporter.sources.keras_models import sharded_store
from exporter.sources.keras_models.hollow import HollowScope
from exporter.sources.keras_models.loading import bind_weights_file, load_weights_file
from exporter.sources.keras_models.weight_map import read_weight_map, shard_paths

# Small enough for a shard per variable or two: layers are cut apart.
SHARD_GIB = 320 / 2**30
KERAS_2_JSON = {
    "class_name": "Sequential",
    "config": {
        "name": "old",
        "layers": [
            {
                "class_name": "InputLayer",
                "config": {"batch_input_shape": [None, 3], "dtype": "float32", "sparse": False, "name": "x"},
            },
            {"class_name": "Dense", "config": {"name": "out", "trainable": True, "units": 2, "activation": "linear"}},
        ],
    },
    "keras_version": "2.15.0",
    "backend": "tensorflow",
}


def network() -> keras.Model:
    """Layers inside layers, and one with variables of its own kind (moving averages)."""
    core = keras.Sequential([layers.Dense(6, name="dense"), layers.BatchNormalization(name="bn")], name="core")
    words = keras.Input((5,), dtype="int32", name="words")
    x = layers.Embedding(13, 6, name="table")(words)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = core(x)
    return keras.Model(words, layers.Dense(4, name="head")(x), name="network")


def filled(model: keras.Model) -> keras.Model:
    generator = np.random.default_rng(0)
    model.set_weights([generator.uniform(0.5, 1.5, weight.shape).astype(weight.dtype) for weight in model.weights])
    return model


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.clear_session()
    return filled(network())


@pytest.fixture(scope="module")
def saved(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the architecture and the shards, as Keras writes them."""
    folder = tmp_path_factory.mktemp("saved")
    model.save_weights(folder / "m.weights.json", max_shard_size=SHARD_GIB)
    (folder / "architecture.json").write_text(model.to_json())
    saving_lib.save_model(model, folder / "unpacked", zipped=False)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def check(folder: Path, outcome: Outcome, model: keras.Model) -> None:
    """The verification passed, and the table, which no conversion changes, has the model's own values."""
    assert outcome.error is None, outcome.error
    assert outcome.verification is not None
    assert (outcome.status, outcome.verification.status) == ("done", "passed"), outcome.verification
    table = model.get_layer("table").get_weights()[0]
    assert any(np.array_equal(table, array) for array in initializers(folder).values())


def test_keras_cuts_this_model_into_many_shards(saved: Path) -> None:
    shards = read_weight_map(str(saved / "m.weights.json"))
    assert len(shard_paths(str(saved / "m.weights.json"))) > 3
    assert max(map(len, shards.values())) > 1


@pytest.mark.parametrize("most_open", [1, 64])
def test_every_value_is_bound_and_none_is_read(
    saved: Path, model: keras.Model, most_open: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against Keras's own loading; with one open shard at a time, most of them are opened again to be read."""
    monkeypatch.setattr(sharded_store, "MAX_OPEN_SHARDS", most_open)
    path = str(saved / "m.weights.json")
    real = keras.models.clone_model(model)
    real.load_weights(path)
    reads: list[str] = []
    with monkeypatch.context() as patch, HollowScope() as scope:
        patch.setattr(h5py.Dataset, "__getitem__", lambda self, key: reads.append(self.name))
        hollow = network()
        bind_weights_file(hollow, path, scope)
    assert reads == []
    for variable, wanted in zip(hollow.weights, real.weights, strict=True):
        np.testing.assert_array_equal(scope.bound[id(variable)].real(), wanted.numpy())


def test_the_reference_is_filled_by_keras(saved: Path, model: keras.Model) -> None:
    twin = keras.models.clone_model(model)
    load_weights_file(twin, str(saved / "m.weights.json"))
    for ours, wanted in zip(twin.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, wanted)


SOURCES: dict[str, Callable[[keras.Model, Path], Path]] = {
    "architecture": lambda model, folder: folder / "architecture.json",
    "config of an unpacked archive": lambda model, folder: folder / "unpacked" / "config.json",
    "archive with other weights": lambda model, folder: other(model, folder / "other.keras"),
    "whole model in HDF5": lambda model, folder: other(model, folder / "other.h5"),
}


def other(model: keras.Model, path: Path) -> Path:
    twin = keras.models.clone_model(model)
    twin.set_weights([np.ones_like(value) for value in model.get_weights()])
    twin.save(path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", SOURCES)
def test_an_export_with_sharded_weights(kind: str, model: keras.Model, copied: Path, tmp_path: Path) -> None:
    weights = str(copied / "m.weights.json")
    outcome = export_here(SOURCES[kind](model, copied), tmp_path, weights=weights)
    check(Path(outcome.output_path), outcome, model)
    assert outcome.weights == "from m.weights.json"


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True])
def test_an_unpacked_archive(sharded: bool, model: keras.Model, copied: Path, tmp_path: Path) -> None:
    folder = copied / "unpacked"
    if sharded:
        (folder / "model.weights.h5").unlink()
        model.save_weights(folder / "model.weights.json", max_shard_size=SHARD_GIB)
    outcome = export_here(f"{folder}/", tmp_path)
    check(tmp_path / "unpacked", outcome, model)
    assert manifest(tmp_path / "unpacked")["source"] == "unpacked"
    assert outcome.weights == f"from model.weights.{'json' if sharded else 'h5'} in the folder"


@pytest.mark.slow
def test_an_unpacked_archive_keeps_its_vocabulary(tmp_path: Path) -> None:
    """Such a layer cannot be converted, but it is described: Keras does not load it without its assets."""
    words, lookup = keras.Input((1,), dtype="string"), layers.StringLookup()
    lookup.adapt(np.array(["a", "b"]))
    source = keras.Model(words, lookup(words), name="lookup")
    saving_lib.save_model(source, tmp_path / "unpacked", zipped=False)
    assert list((tmp_path / "unpacked" / "assets").rglob("vocabulary.txt"))
    outcome = export_here(tmp_path / "unpacked", tmp_path / "out", formats=("parquet",))
    assert outcome.error is None, outcome.error


@pytest.mark.slow
def test_the_architecture_of_keras_2(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(KERAS_2_JSON))
    outcome = export_here(path, tmp_path, weights="random")
    assert outcome.error is None, outcome.error
    assert (outcome.weights, manifest(tmp_path / "old")["params"]) == ("random (seed 0)", 8)


def test_an_architecture_needs_weights(saved: Path, tmp_path: Path) -> None:
    outcome = export_here(saved / "architecture.json", tmp_path)
    assert outcome.error is not None
    assert outcome.error["what"] == "has no weights"
    assert "--weights FILE" in outcome.error["hint"]
    assert "--weights random" in outcome.error["hint"]


def edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """A damage: the weight map after a change."""

    def edit(folder: Path) -> None:
        path = folder / "m.weights.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return edit


def without_group(folder: Path) -> None:
    with h5py.File(folder / "m_00002.weights.h5", "a") as file:
        del file["layers"]


HEAD = "/layers/dense/vars"
DAMAGES: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "a shard is missing": (lambda f: (f / "m_00002.weights.h5").unlink(), ["is not complete", "m_00002.weights.h5"]),
    "a shard is cut": (lambda f: os.truncate(f / "m_00002.weights.h5", 900), ["cannot be read", "m_00002.weights.h5"]),
    "a shard lacks a layer": (without_group, ["m_00002.weights.h5", "it is not there"]),
    "the map is cut": (lambda f: os.truncate(f / "m.weights.json", 99), ["is corrupt", "not JSON"]),
    "the map is no map": (lambda f: (f / "m.weights.json").write_text("[]"), ["holds no weights", "weight_map"]),
    "the map was renamed": (lambda f: (f / "m.weights.json").rename(f / "n.weights.json"), ["n_00000.weights.h5"]),
    "a list of numbers": (edited(lambda c: c["weight_map"].update({HEAD: [1]})), ["is corrupt", "[1]"]),
    "a shard elsewhere": (
        edited(lambda c: c["weight_map"].update({HEAD: "../m_00000.weights.h5"})),
        ["leads out of its folder", "../m_00000.weights.h5"],
    ),
    "an absolute name": (
        edited(lambda c: c["weight_map"].update({HEAD: ["/etc/passwd"]})),
        ["leads out", "/etc/passwd"],
    ),
    "a layer is not in the map": (edited(lambda c: c["weight_map"].pop(HEAD)), ["does not fit the model", "head"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_shards(damage: str, copied: Path, tmp_path: Path) -> None:
    break_it, fragments = DAMAGES[damage]
    break_it(copied)
    (path,) = copied.glob("*.weights.json")
    global_state.set_global_attribute("stateless_scope", None)
    with pytest.raises(SourceError) as caught, HollowScope() as scope:
        bind_weights_file(network(), str(path), scope)
    for fragment in fragments:
        assert fragment in str(caught.value)
    assert path.name in caught.value.where or "m_00002" in caught.value.where


def test_a_plan_knows_the_shards(copied: Path, tmp_path: Path) -> None:
    """A changed shard is another job, although the map is the same; so is a changed file of an unpacked archive."""
    source, weights = copied / "architecture.json", copied / "m.weights.json"

    def fingerprints() -> tuple[str, str]:
        return job_for(source, tmp_path, weights=str(weights)).fingerprint, job_for(
            copied / "unpacked", tmp_path
        ).fingerprint

    before = fingerprints()
    assert fingerprints() == before
    for path in (copied / "m_00001.weights.h5", copied / "unpacked" / "model.weights.h5"):
        path.write_bytes(path.read_bytes() + b" ")
    assert all(one != other for one, other in zip(before, fingerprints(), strict=True))
    (copied / "m_00001.weights.h5").unlink()
    with pytest.raises(SourceError, match="m_00001"):
        fingerprints()


@pytest.mark.parametrize(
    ("text", "what", "fragment"),
    [
        ('{"a": 1}', "is not a model", "describes no Keras model"),
        ('{"class_name": "Functional", ', "is truncated or corrupt", "as JSON"),
        ("[1, 2]", "is not a model", "text file"),
    ],
)
def test_json_that_is_no_architecture(text: str, what: str, fragment: str, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(SourceError, match=what) as caught:
        job_for(tmp_path / "m.json", tmp_path)
    assert fragment in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(("text", "what"), [("[]", "describes no Keras model"), ("{", "as JSON"), ("{}", "no Keras")])
def test_a_folder_whose_config_is_of_something_else(text: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(SourceError, match=what) as caught:
        job_for(tmp_path, tmp_path / "out")
    assert caught.value.where.endswith("config.json")


def test_an_unpacked_archive_without_weights(copied: Path, tmp_path: Path) -> None:
    (copied / "unpacked" / "model.weights.h5").unlink()
    outcome = export_here(copied / "unpacked", tmp_path)
    assert outcome.error is not None
    assert (outcome.error["what"], outcome.status) == ("is not complete", "failed")


def test_an_architecture_with_code_is_refused(tmp_path: Path) -> None:
    words = keras.Input((2,))
    source = keras.Model(words, layers.Lambda(lambda x: x + 1, output_shape=(2,))(words))
    (tmp_path / "m.json").write_text(source.to_json())
    outcome = export_here(tmp_path / "m.json", tmp_path, weights="random")
    assert outcome.error is not None
    assert outcome.error["what"] == "contains Python code"
