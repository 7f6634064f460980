"""The layers that Keras's own layers have inside: those that stand in their settings, and those that they make.

What they make, with which names and settings, is that of each class's `build` in Keras 3.15; a test compares all of it
with Keras.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from exporter.readers import Unexplained
from exporter.readers.keras_calls import shape_of
from exporter.readers.keras_model import RawLayer
from exporter.readers.keras_names import stored_name
from exporter.records import Shape

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Inner:
    """A layer inside of another: its entry as a config has it, and where the file keeps it below its owner.

    `is_made` is true when its owner makes it, so that the paths of its weights start with the owner's.
    """

    stored: str
    entry: dict[str, Any]
    is_made: bool


@dataclass
class Reading:
    """What the layers of one file have in common, in the order in which Keras would make them.

    In legacy files no layer says how it was built, and Keras builds those inside of others `in_place`. With `lenient`,
    what is not known is taken as the file has it.
    """

    lenient: bool = False
    in_place: bool = False
    shared: set[Any] = field(default_factory=set)
    made: Counter[str] = field(default_factory=Counter)
    objects: dict[Any, RawLayer] = field(default_factory=dict)
    unnumbered: dict[tuple[str, str], list[RawLayer]] = field(default_factory=dict)

    def known(self, entry: Any) -> RawLayer | None:
        """The first entry of the object which this one stands for, if there was one.

        Of an object that was first met in a model inside, Keras writes the number behind that only. Raises Unexplained.
        """
        key = entry.get("shared_object_id") if isinstance(entry, dict) else None
        if key is None or key in self.objects:
            return self.objects.get(key)
        candidates = self._unnumbered(entry)
        if len(candidates) > 1 or key in self.shared:
            raise Unexplained("a layer that may be one of several that are shared")
        if candidates:
            self.objects[key] = candidates[0]
        return candidates[0] if candidates else None

    def _unnumbered(self, entry: Mapping[str, Any]) -> list[RawLayer]:
        name = entry.get("name") or entry["config"].get("name")
        return self.unnumbered.get((str(entry.get("class_name")), str(name)), [])

    def remember(self, entry: Any, layer: RawLayer) -> None:
        key = entry.get("shared_object_id")
        if key is not None:
            self.objects[key] = layer
        else:
            self.unnumbered.setdefault((str(entry.get("class_name")), layer.name), []).append(layer)

    def is_new(self, entry: Any) -> bool:
        """Whether a layer inside of another has not been seen; one that stands in two places is a single one."""
        key = entry.get("shared_object_id") if isinstance(entry, dict) else None
        if key is None:
            return True
        known = key in self.shared or key in self.objects or self._unnumbered(entry)
        self.shared.add(key)
        return not known

    def name(self, prefix: str) -> str:
        """The name that Keras makes up for a layer without one: `softmax`, `softmax_1` and so on."""
        number, self.made[prefix] = self.made[prefix], self.made[prefix] + 1
        return f"{prefix}_{number}" if number else prefix


# The settings that hold layers, and where a weights file keeps those.
IN_SETTINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "Bidirectional": (("layer", "forward_layer"), ("backward_layer", "backward_layer")),
    "RNN": (("cell", "cell"),),
    "TimeDistributed": (("layer", "layer"),),
}
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
PROJECTION = (
    *("dtype", "kernel_initializer", "bias_initializer", "kernel_regularizer", "bias_regularizer"),
    *("activity_regularizer", "kernel_constraint", "bias_constraint"),
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
        return list(_stacked(config))
    if class_name == "Pipeline":
        return [Inner("", entry, is_made=False) for entry in config["layers"]]
    if class_name in CELLS:
        return [Inner("cell", _cell(class_name, config), is_made=True)]
    if class_name == "TextVectorization":
        return [_vocabulary(config, reading)]
    if class_name in ATTENTION:
        return list(ATTENTION[class_name](config, built_shapes(build), reading))
    return []


def without_layers(class_name: str, config: Config) -> dict[str, Any]:
    """The settings but for those whose layers `inner_layers` gives."""
    known = {IN_LISTS.get(class_name, ""), *(name for name, _ in IN_SETTINGS.get(class_name, ()))}
    return {name: value for name, value in config.items() if name not in known}


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
    return Inner("_lookup_layer", _entry("StringLookup", {**given, **fixed}), is_made=True)


def _stacked(config: Config) -> Iterator[Inner]:
    """Cells in a list, whose groups in the file are named by class, as those of a model's layers are."""
    used: dict[str, int] = {}
    for entry in config["cells"]:
        yield Inner(f"cells/{stored_name(str(entry['class_name']), used)}", entry, is_made=False)


def _cell(class_name: str, config: Config) -> dict[str, Any]:
    kind = CELLS[class_name]
    settings = {key: value for key, value in config.items() if key not in AROUND_CELL}
    settings |= {"name": CELL_NAMES[kind], "seed": config.get("seed")}
    # A convolutional layer does not hand on that it is frozen.
    settings |= {"trainable": True} if kind == "ConvLSTMCell" else {}
    return _entry(kind, settings)


def _entry(class_name: str, config: Config) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": class_name, "config": {"trainable": True, **config}}


def built_shapes(build: Any) -> dict[str, Shape]:
    """Those of an attention layer, by name. Raises Unexplained."""
    shapes = build.get("shapes_dict") if isinstance(build, dict) else None
    if not isinstance(shapes, dict) or not {"query_shape", "value_shape"} <= shapes.keys():
        raise Unexplained("an attention layer that does not say how it was built")
    return {name: shape_of(shape) for name, shape in shapes.items()}


def _multi_head(config: Config, shapes: Mapping[str, Shape], reading: Reading) -> Iterator[Inner]:
    query, value = shapes["query_shape"], shapes["value_shape"]
    heads, key_size, value_size = config["num_heads"], config["key_dim"], config["value_dim"] or config["key_dim"]
    key = shapes.get("key_shape", value)
    yield _projection("query", config, *_equation(len(query) - 1, 1, [heads, key_size]))
    yield _projection("key", config, *_equation(len(key) - 1, 1, [heads, key_size]))
    if config.get("use_gate"):
        yield _projection(
            "gate", config, *_equation(len(query) - 1, 1, [heads, value_size]), *("sigmoid", "_gate_dense")
        )
    yield _projection("value", config, *_equation(len(value) - 1, 1, [heads, value_size]))
    # Keras sets this setting to the axes that it chose, so that a built layer has it.
    axes = config.get("attention_axes")
    if not isinstance(axes, list):
        raise Unexplained("an attention layer without axes")
    # Of the scores, the last axes are those of the keys (`_build_attention_equation`).
    yield from _softmax(config, reading, [len(value) + number for number in range(len(axes))])
    given = config.get("output_shape") or [query[-1]]
    last = [given] if isinstance(given, int) else list(given)
    yield _projection("attention_output", config, *_equation(len(query) - 1, 2, last), stored="output_dense")


def _grouped_query(config: Config, shapes: Mapping[str, Shape], reading: Reading) -> Iterator[Inner]:
    queries = [None, config["num_query_heads"], config["head_dim"]]
    keys = [None, config["num_key_value_heads"], config["head_dim"]]
    yield _projection("query", config, "bqm,muh->bquh", "uh", queries, stored="_query_dense")
    yield _projection("key", config, "bkm,mvh->bkvh", "vh", keys, stored="_key_dense")
    if config.get("use_gate"):
        of_gate = ("bqm,muh->bquh", "uh", queries, "sigmoid", "_gate_dense")
        yield _projection("gate", config, *of_gate)
    yield _projection("value", config, "bkm,mvh->bkvh", "vh", keys, stored="_value_dense")
    yield from _softmax(config, reading, -1)
    output = [None, shapes["query_shape"][-1]]
    yield _projection("attention_output", config, "bquh,uhm->bqm", "m", output, stored="_output_dense")


ATTENTION: dict[str, Callable[[Config, Mapping[str, Shape], Reading], Iterator[Inner]]] = {
    "GroupQueryAttention": _grouped_query,
    "MultiHeadAttention": _multi_head,
}


def _projection(
    name: str,
    config: Config,
    equation: str,
    bias_axes: str,
    output: list[int | None],
    activation: str = "linear",
    stored: str = "",
) -> Inner:
    settings = {
        **{key: config.get(key) for key in PROJECTION},
        "name": name,
        "equation": equation,
        "output_shape": output,
        "activation": activation,
        "bias_axes": bias_axes if config.get("use_bias", True) else None,
        "quantization_config": None,
    }
    return Inner(stored or f"{name}_dense", _entry("EinsumDense", settings), is_made=True)


def _softmax(config: Config, reading: Reading, axis: Any) -> Iterator[Inner]:
    softmax = {"name": reading.name("softmax"), "dtype": config.get("dtype"), "axis": axis}
    yield Inner("", _entry("Softmax", softmax), is_made=True)
    name, seed = reading.name("dropout"), config.get("seed")
    dropout = {"name": name, "dtype": config.get("dtype"), "rate": config["dropout"], "seed": seed, "noise_shape": None}
    yield Inner("", _entry("Dropout", dropout), is_made=True)


def _equation(free: int, bound: int, last: list[int]) -> tuple[str, str, list[int | None]]:
    """Equation, axes of the bias and output shape of a projection: Keras's `_build_proj_equation`."""
    letters = string.ascii_lowercase
    kept, summed = letters[:free], letters[free : free + bound]
    made = letters[free + bound : free + bound + len(last)]
    shape = [None] * (free - 1) + [int(size) for size in last]
    return f"{kept}{summed},{summed}{made}->{kept}{made}", made, shape
