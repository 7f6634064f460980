"""Every layer of Keras is read without Keras, as Keras describes it, or is known to be left to Keras."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import keras
import pytest
from exporting import job_for
from reader_layers import LAYERS, made
from test_keras_reader import by_itself, by_keras, saved

from exporter.readers import Unexplained
from exporter.readers.keras_archive import read
from exporter.readers.keras_classes import RENAMED, WEIGHTS
from exporter.readers.keras_unloadable import LOADABLE
from exporter.sources.keras_models.describe import describe

# Classes for others to inherit from, and layers whose content is code or in other files.
LEFT_TO_KERAS = {"FlaxLayer", "JaxLayer", "Lambda", "Layer", "TFSMLayer", "TorchModuleWrapper", "Wrapper"}
FAST = ("activation_of_dense", "spectral_dense", "mixed_up")


@pytest.fixture(autouse=True)
def _fresh_names() -> Iterator[None]:
    keras.utils.clear_session(free_memory=False)
    yield
    keras.utils.clear_session(free_memory=False)


def test_all_layers_of_keras_are_known() -> None:
    found = (value for value in vars(keras.layers).values() if inspect.isclass(value))
    classes = {value.__name__ for value in found if issubclass(value, keras.Layer)}
    assert classes - WEIGHTS.keys() - set(RENAMED.values()) == LEFT_TO_KERAS


def test_nothing_that_keras_looks_for_in_legacy_files_is_refused() -> None:
    found = {name for name, value in vars(keras.src.layers).items() if inspect.isclass(value)}
    assert {name for name in found if issubclass(getattr(keras.src.layers, name), keras.Layer)} <= LOADABLE


@pytest.mark.parametrize("policy", ["gptq/4/128_from_float32", "awq/4/128_from_float32"])
def test_what_keras_writes_incompletely_is_described_by_what_is_there(policy: str, tmp_path: Path) -> None:
    """Keras 3.15 leaves the zero points out, and cannot load it; all else is as in the model that was saved."""
    x = keras.Input((16,))
    y = keras.layers.EinsumDense("ab,bc->ac", output_shape=4, dtype=policy)(keras.layers.Dense(8, dtype=policy)(x))
    model = keras.Model(x, y)
    path = saved(model, tmp_path)
    found = read(job_for(path, tmp_path, formats=("parquet",)), str(tmp_path))
    expected = describe(model, "m")
    is_zero = {weight.name: weight.name.endswith(("kernel_zero", "zero_point")) for weight in expected.weights}
    assert found.graph.weights == tuple(weight for weight in expected.weights if not is_zero[weight.name])
    assert found.graph.outputs == expected.outputs
    assert sum(is_zero.values()) == 2
    assert "zero points" in found.notes[0]


@pytest.mark.parametrize("name", FAST)
def test_layers_are_described_as_by_keras(name: str, tmp_path: Path) -> None:
    path = saved(made(LAYERS[name]), tmp_path)
    assert by_itself(path) == by_keras(path)


@pytest.mark.slow
def test_both_ways_agree_on_each_layer(tmp_path: Path) -> None:
    differ = []
    for name, case in LAYERS.items():
        keras.utils.clear_session(free_memory=False)
        path = saved(made(case), tmp_path)
        try:
            same = by_itself(path) == by_keras(path)
        except Unexplained as error:
            same, name = False, f"{name}: {error}"
        if not same:
            differ.append(name)
    assert differ == []
