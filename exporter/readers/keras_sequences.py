"""The shapes of what recurrent layers, attention and wrappers give, which may be several tensors.

The formulas are those of each class's `compute_output_shape` in Keras 3.15; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from exporter.readers import Unexplained
from exporter.readers.keras_encodings import ENCODINGS, encoding_spec
from exporter.readers.keras_shapes import PASSING, SHAPES, Called, Spec, output_dtype, output_spec
from exporter.records import Shape

Config = Mapping[str, Any]
# What a recurrent layer gives at each step, and its states, without the batch.
Step = tuple[Shape, list[Shape]]

STATES = {"GRU": 1, "LSTM": 2, "SimpleRNN": 1}
RECURRENT = (*STATES, "RNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "Bidirectional")
ATTENTION = ("AdditiveAttention", "Attention", "GroupQueryAttention", "GroupedQueryAttention", "MultiHeadAttention")
WRAPPERS = ("SpectralNormalization", "TimeDistributed")
CELLS = (*(f"{name}Cell" for name in STATES), "StackedRNNCells")
# Where the settings of an attention layer have the arguments for which each call gives its tensors, in their order.
ROLES, ROLE_NAMES = "roles", ("query", "value", "key", "query_mask", "value_mask", "key_mask", "attention_mask")
BUILT = "shapes_dict"
BUILT_WITH_SHAPES = ("GroupQueryAttention", "GroupedQueryAttention", "MultiHeadAttention")


def output_count(class_name: str, config: Config, *, with_scores: bool) -> int:
    """How many tensors a call gives. Raises Unexplained."""
    if class_name in ATTENTION:
        return 2 if with_scores else 1
    if class_name == "Bidirectional":
        inner = output_count(*_inner(config, "layer"), with_scores=False)
        return (2 if config.get("merge_mode") is None else 1) + 2 * (inner - 1)
    if class_name in CELLS:
        return 1 + len(_states(class_name, config))
    if class_name in RECURRENT and config.get("return_state"):
        return 1 + (2 if class_name.startswith("Conv") else len(_states(class_name, config)))
    return 1


def output_specs(
    class_name: str, config: Config, inputs: Sequence[Spec], *, with_scores: bool, call: int = 0
) -> list[Spec]:
    """All outputs of a call. Raises Unexplained."""
    if class_name in ATTENTION:
        shapes = _attended(class_name, config, inputs, call)[: 2 if with_scores else 1]
    elif class_name in (*RECURRENT, *WRAPPERS, *CELLS):
        shapes = _shapes(class_name, config, inputs[0][0])
    elif class_name in ENCODINGS:
        return [encoding_spec(class_name, config, inputs)]
    elif class_name in PASSING:
        return [(shape, output_dtype(class_name, config, dtype)) for shape, dtype in inputs]
    else:
        return [output_spec(class_name, config, inputs)]
    dtype = output_dtype(class_name, config, inputs[0][1])
    return [(shape, dtype) for shape in shapes]


def _shapes(class_name: str, config: Config, given: Shape) -> list[Shape]:
    if class_name == "Bidirectional":
        return _bidirectional(config, _shapes(*_inner(config, "layer"), given))
    if class_name == "TimeDistributed":
        inner, settings = _inner(config, "layer")
        first, *rest = _one(inner, settings, (given[0], *given[2:]))
        return [(first, given[1], *rest)]
    if class_name == "SpectralNormalization":
        return [_one(*_inner(config, "layer"), given)]
    if class_name in CELLS:
        return [(given[0], size) for size in (_units(class_name, config), *_states(class_name, config))]
    if class_name not in RECURRENT:
        return [_one(class_name, config, given)]
    step, states = _convolved(config, given) if class_name.startswith("Conv") else _recurrent(class_name, config)
    output = (*given[: 2 if config.get("return_sequences") else 1], *step)
    return [output, *((given[0], *state) for state in states)] if config.get("return_state") else [output]


def _one(class_name: str, config: Config, given: Shape) -> Shape:
    if class_name in (*RECURRENT, *WRAPPERS):
        (shape,) = _shapes(class_name, config, given)
        return shape
    if class_name not in SHAPES:
        raise Unexplained(f"the output of {class_name}")
    return SHAPES[class_name](Called(config, (given,)))


def _bidirectional(config: Config, forward: Sequence[Shape]) -> list[Shape]:
    output, states, mode = forward[0], list(forward[1:]), config.get("merge_mode")
    if mode is None:
        return [output, output, *states, *states]
    if mode == "concat":
        output = (*output[:-1], output[-1] and 2 * output[-1])
    return [output, *states, *states]


def _recurrent(class_name: str, config: Config) -> Step:
    states = _states(class_name, config)
    last = _units(*_inner(config, "cell")) if class_name == "RNN" else int(config["units"])
    return (last,), [(size,) for size in states]


def _states(class_name: str, config: Config) -> list[int]:
    """The sizes of a recurrent layer's or a cell's states."""
    if class_name == "RNN":
        return _states(*_inner(config, "cell"))
    if class_name == "StackedRNNCells":
        return [size for cell in config["cells"] for size in _states(cell["class_name"], cell["config"])]
    count = STATES.get(class_name.removesuffix("Cell"))
    if count is None:
        raise Unexplained(f"the states of {class_name}")
    return [int(config["units"])] * count


def _units(class_name: str, config: Config) -> int:
    if class_name == "StackedRNNCells":
        last = config["cells"][-1]
        return _units(last["class_name"], last["config"])
    return _states(class_name, config)[0]


def _convolved(config: Config, given: Shape) -> Step:
    size = len(given) - 3
    step = SHAPES[f"Conv{size}D"](Called(config, ((given[0], *given[2:]),)))[1:]
    return step, [step, step]


def _inner(config: Config, setting: str) -> tuple[str, Config]:
    return str(config[setting]["class_name"]), config[setting]["config"]


def _attended(class_name: str, config: Config, inputs: Sequence[Spec], call: int) -> list[Shape]:
    """The output of an attention layer, then its scores."""
    if class_name in ("AdditiveAttention", "Attention"):
        query, value, key = inputs[0][0], inputs[1][0], inputs[min(2, len(inputs) - 1)][0]
        return [(*query[:-1], value[-1]), (*query[:-1], key[-2])]
    given = {name: shape for name, (shape, _) in zip(config[ROLES][call], inputs, strict=True)}
    query, key = given["query"], given.get("key", given["value"])
    if class_name != "MultiHeadAttention":
        return [query, (query[0], int(config["num_query_heads"]), query[1], key[1])]
    sizes = config.get("output_shape") or [query[-1]]
    last = [sizes] if isinstance(sizes, int) else sizes
    return [(*query[:-1], *last), (query[0], int(config["num_heads"]), query[1], query[1])]
