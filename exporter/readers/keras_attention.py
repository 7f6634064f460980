"""The layers that Keras's attention layers make inside: their projections, a softmax and a dropout.

Names and settings are those of each class's `build` in Keras 3.15; a test compares all of it with Keras.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from exporter.readers import Unexplained
from exporter.readers.keras_calls import shape_of
from exporter.readers.keras_reading import Config, Inner, Reading, made_entry
from exporter.records import Shape

PROJECTION = (
    *("dtype", "kernel_initializer", "bias_initializer", "kernel_regularizer", "bias_regularizer"),
    *("activity_regularizer", "kernel_constraint", "bias_constraint"),
)


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
    return Inner(stored or f"{name}_dense", made_entry("EinsumDense", settings), is_made=True)


def _softmax(config: Config, reading: Reading, axis: Any) -> Iterator[Inner]:
    softmax = {"name": reading.name("softmax"), "dtype": config.get("dtype"), "axis": axis}
    yield Inner("", made_entry("Softmax", softmax), is_made=True)
    name, seed = reading.name("dropout"), config.get("seed")
    dropout = {"name": name, "dtype": config.get("dtype"), "rate": config["dropout"], "seed": seed, "noise_shape": None}
    yield Inner("", made_entry("Dropout", dropout), is_made=True)


def _equation(free: int, bound: int, last: list[int]) -> tuple[str, str, list[int | None]]:
    """Equation, axes of the bias and output shape of a projection: Keras's `_build_proj_equation`."""
    letters = string.ascii_lowercase
    kept, summed = letters[:free], letters[free : free + bound]
    made = letters[free + bound : free + bound + len(last)]
    shape = [None] * (free - 1) + [int(size) for size in last]
    return f"{kept}{summed},{summed}{made}->{kept}{made}", made, shape
