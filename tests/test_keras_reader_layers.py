"""Every layer of Keras is read without Keras, as Keras describes it, or is known to be left to Keras."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import keras
import pytest
from reader_layers import LAYERS, made
from test_keras_reader import by_itself, by_keras, saved

from exporter.readers import Unexplained
from exporter.readers.keras_classes import RENAMED, WEIGHTS

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
