"""The layers that Keras's own layers have inside: those that stand in their settings, and those that they make.

What they make, with which names and settings, is that of each class's `build` in Keras 3.15; a test compares all of it
with Keras.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from exporter.readers import Unexplained
from exporter.readers.keras_attention import ATTENTION, built_shapes
from exporter.readers.keras_augmenting import AUGMENTING, augmenting_layers
from exporter.readers.keras_names import stored_name
from exporter.readers.keras_reading import MODELS, Config, Inner, Reading, made_entry

# The modules of what would be rows of their own inside of another layer's settings.
INNER_LAYERS = ("keras.layers", "keras.models", "keras.src.layers", "keras.src.models")
# The settings that hold layers, and where a weights file keeps those.
IN_SETTINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "Bidirectional": (("layer", "forward_layer"), ("backward_layer", "backward_layer")),
    "RNN": (("cell", "cell"),),
    "SpectralNormalization": (("layer", "layer"),),
    "TimeDistributed": (("layer", "layer"),),
}
# Layers that may stand where the name of a function would do.
ACTIVATIONS = ("activation", "recurrent_activation")
IN_LISTS = {"Pipeline": "layers", "StackedRNNCells": "cells"}
CELLS = {"GRU": "GRUCell", "LSTM": "LSTMCell", "SimpleRNN": "SimpleRNNCell"}
CELLS |= dict.fromkeys(("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), "ConvLSTMCell")
CELL_NAMES = {
    "ConvLSTMCell": "conv_lstm_cell",
    "GRUCell": "gru_cell",
    "LSTMCell": "lstm_cell",
    "SimpleRNNCell": "simple_rnn_cell",
}
# What a recurrent layer has beyond the settings of its cell.
AROUND_CELL = (
    *("return_sequences", "return_state", "go_backwards", "stateful", "unroll", "zero_output_for_mask"),
    "activity_regularizer",
)


VOCABULARY = (
    *("max_tokens", "output_mode", "sparse", "pad_to_max_tokens", "idf_weights", "vocabulary", "vocabulary_size"),
    "encoding",
)


def inner_layers(class_name: str, config: Config, build: Any, reading: Reading) -> list[Inner]:
    """The layers right inside, in the order of Keras's rows. Raises Unexplained."""
    if class_name in IN_SETTINGS:
        return [_in_setting(class_name, config, *place) for place in IN_SETTINGS[class_name]]
    if class_name == "StackedRNNCells":
        return list(_listed(config["cells"], "cells"))
    if class_name == "Pipeline":
        return list(_listed(config["layers"], "layers"))
    if class_name in CELLS:
        return [Inner("cell", _cell(class_name, config), is_made=True)]
    if class_name == "TextVectorization":
        return [_vocabulary(config, reading)]
    if class_name in ATTENTION:
        return list(ATTENTION[class_name](config, built_shapes(build), reading))
    if class_name in AUGMENTING:
        return augmenting_layers(class_name, config, reading)
    return [Inner(name, config[name], is_made=False) for name in ACTIVATIONS if _is_plain_layer(config.get(name))]


def without_layers(class_name: str, config: Config) -> dict[str, Any]:
    """The settings but for those whose layers `inner_layers` gives."""
    known = {*ACTIVATIONS, IN_LISTS.get(class_name, ""), *(name for name, _ in IN_SETTINGS.get(class_name, ()))}
    return {name: value for name, value in config.items() if name not in known}


def is_layer(value: Any) -> bool:
    """Whether a setting is the entry of a layer or a model, or of what is inside of one."""
    if not isinstance(value, dict):
        return False
    return str(value.get("module")).startswith(INNER_LAYERS) or value.get("class_name") in MODELS


def _is_plain_layer(value: Any) -> bool:
    if is_layer(value) and value.get("class_name") in MODELS:
        raise Unexplained("a model as an activation")
    return is_layer(value)


def _in_setting(class_name: str, config: Config, setting: str, stored: str) -> Inner:
    entry = config.get(setting)
    if not isinstance(entry, dict) or not isinstance(entry.get("config"), dict):
        raise Unexplained(f"a {class_name} without its {setting}")
    if class_name != "Bidirectional":
        return Inner(stored, entry, is_made=False)
    # Keras makes the forward layer anew, under a name of this form.
    name = str(entry["config"].get("name"))
    if setting == "layer" and not name.startswith("forward_"):
        raise Unexplained(f"a Bidirectional with a layer {name}")
    return Inner(stored, entry, is_made=False)


def _vocabulary(config: Config, reading: Reading) -> Inner:
    """The table of a layer of text, which is always one of the default dtype."""
    given = {name: config.get(name) for name in VOCABULARY}
    dtype = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None}
    fixed = {"name": reading.name("string_lookup"), "dtype": dtype, "invert": False, "mask_token": "", "salt": None}
    fixed |= {"num_oov_indices": 1, "oov_token": "[UNK]", "oov_method": "floormod"}
    return Inner("_lookup_layer", made_entry("StringLookup", {**given, **fixed}), is_made=True)


def _listed(entries: Any, group: str) -> Iterator[Inner]:
    """Layers in a list, whose groups in the file are named by class, as those of a model's layers are."""
    used: dict[str, int] = {}
    for entry in entries:
        yield Inner(f"{group}/{stored_name(str(entry['class_name']), used)}", entry, is_made=False)


def _cell(class_name: str, config: Config) -> dict[str, Any]:
    kind = CELLS[class_name]
    settings = {key: value for key, value in config.items() if key not in AROUND_CELL}
    settings |= {"name": CELL_NAMES[kind], "seed": config.get("seed")}
    # A convolutional layer does not hand on that it is frozen.
    settings |= {"trainable": True} if kind == "ConvLSTMCell" else {}
    return made_entry(kind, settings)
