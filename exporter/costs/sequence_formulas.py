"""What attention and recurrent layers of Keras cost: formulas that take several products."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporter.costs.counting import SOFTMAX, Operations, Sizes, count, product
from exporter.costs.layer_formulas import Formula, LayerCall, activation


def _query_value_key(call: LayerCall) -> tuple[Sizes, Sizes, Sizes]:
    """The key is what has the shape of the value but for its features, if it is given; masks are no floats."""
    query, value, *more = call.inputs
    dtypes = call.input_dtypes[2:] or (None,) * len(more)
    floats = (sizes for sizes, dtype in zip(more, dtypes, strict=True) if "float" in (dtype or "float"))
    return query, value, next((sizes for sizes in floats if sizes[:-1] == value[:-1]), value)


def _attended(
    query: int, source: int, heads: int, key_dim: int, value_dim: int, scales_query: bool = False
) -> Operations:
    """Scaled dot-product attention of `query` positions in all to `source` positions each; masks are not counted.

    The scores are scaled, or the query before them.
    """
    scores = (query, heads, source)
    scaled = query * heads * key_dim if scales_query else count(scores)
    others = Operations(other=scaled + SOFTMAX * count(scores))
    return product(scores, key_dim) + others + product((query, heads, value_dim), source)


def _projected(positions: int, features: int, outputs: int, bias: bool) -> Operations:
    return product((positions, outputs), features) + Operations(other=bias * positions * outputs)


def _multi_head_attention(call: LayerCall) -> Operations:
    config = call.config
    heads, key_dim = int(config["num_heads"]), int(config["key_dim"])
    value_dim = int(config.get("value_dim") or key_dim)
    query, value, _ = _query_value_key(call)
    axes = config.get("attention_axes") or list(range(1, len(query) - 1))
    source = count(tuple(value[axis] for axis in axes))
    return _with_projections(call, source, (heads, heads), key_dim, value_dim)


def _grouped_query_attention(call: LayerCall) -> Operations:
    heads, head_dim = (
        (int(call.config["num_query_heads"]), int(call.config["num_key_value_heads"])),
        call.config["head_dim"],
    )
    return _with_projections(call, call.inputs[1][1], heads, int(head_dim), int(head_dim))


def _with_projections(call: LayerCall, source: int, heads: tuple[int, int], key_dim: int, value_dim: int) -> Operations:
    """`heads` are those of the query and those of key and value, which are repeated (copied) to match."""
    query, value, key = _query_value_key(call)
    bias, positions = bool(call.config.get("use_bias", True)), count(query[:-1])
    features = count(call.outputs[0]) // positions
    # Keras's own kernel for sequences has no dropout.
    scales_query = len(query) != 3 or float(call.config.get("dropout", 0)) > 0
    gated = _projected(positions, query[-1], heads[0] * value_dim, bias) + Operations(
        other=2 * positions * heads[0] * value_dim
    )
    return (
        _projected(positions, query[-1], heads[0] * key_dim, bias)
        + _projected(count(key[:-1]), key[-1], heads[1] * key_dim, bias)
        + _projected(count(value[:-1]), value[-1], heads[1] * value_dim, bias)
        + _attended(positions, source, heads[0], key_dim, value_dim, scales_query)
        + gated * bool(call.config.get("use_gate"))
        + _projected(positions, heads[0] * value_dim, features, bias)
    )


def _attention(call: LayerCall) -> Operations:
    """`Attention` (Luong) and `AdditiveAttention` (Bahdanau), which adds and squashes instead of multiplying."""
    query, value, _ = _query_value_key(call)
    scores, features = (*query[:-1], value[-2]), query[-1]
    after = Operations(other=SOFTMAX * count(scores)) + product((*query[:-1], value[-1]), value[-2])
    scaled = bool(call.config.get("use_scale", call.class_name == "AdditiveAttention"))
    if call.class_name == "AdditiveAttention" or call.config.get("score_mode") == "concat":
        # +, tanh, sum over the features; the scale is one more.
        concat = call.class_name == "Attention"
        return Operations(other=(3 + scaled) * features * count(scores) + concat * count(scores)) + after
    return product(scores, features) + Operations(other=scaled * count(scores)) + after


def _dot_product_attention(call: LayerCall) -> Operations:
    """`keras.ops.dot_product_attention`: query, key and value of shape (batch, positions, heads, features)."""
    query, key, value = call.inputs[:3]
    return _attended(query[0] * query[1], key[1], query[2], query[3], value[3])


def _step(cell: str, config: Mapping[str, Any], rows: int, features: int) -> Operations:
    """One time step of a cell on `rows` sequences."""
    units = int(config["units"])
    bias, state = bool(config.get("use_bias", True)), rows * units
    gates, biases, gate_activations, activations, others = CELLS[cell]
    if cell == "GRU" and not config.get("reset_after", True):
        biases = 3
    products = product((rows, gates * units), features + units)
    gate = (
        activation(config.get("recurrent_activation"), gate_activations * state) if gate_activations else Operations()
    )
    # The products of the input and of the state are added.
    added = Operations(other=state * (gates + bias * biases + others))
    return products + added + gate + activation(config.get("activation"), activations * state)


# Products with the kernels, vectors of bias, gate activations, other activations, other operations on the state.
CELLS = {"LSTM": (4, 4, 3, 2, 4), "GRU": (3, 6, 2, 1, 5), "SimpleRNN": (1, 1, 0, 1, 0)}


def _recurrent(call: LayerCall) -> Operations:
    rows, steps, features = call.inputs[0]
    return _step(call.class_name, call.config, rows, features) * steps


def _cells(call: LayerCall) -> Operations | None:
    """`RNN` with a cell of Keras's, or several on top of each other."""
    cell = call.config["cell"]
    stacked = cell["config"]["cells"] if cell["class_name"] == "StackedRNNCells" else [cell]
    rows, steps, features = call.inputs[0]
    total = Operations()
    for inner in stacked:
        total += _step(str(inner["class_name"]).removesuffix("Cell"), inner["config"], rows, features)
        features = int(inner["config"]["units"])
    return total * steps


def _convolutional_lstm(call: LayerCall) -> Operations:
    """The kernels of an LSTM as convolutions; the recurrent one has stride 1 on the output's positions."""
    config, filters = call.config, int(call.config["filters"])
    first = config.get("data_format") == "channels_first"
    rows, steps = call.inputs[0][:2]
    features = call.inputs[0][2 if first else -1]
    without_time = (rows, *call.outputs[0][2:]) if config.get("return_sequences") else call.outputs[0]
    positions = count(without_time) // filters
    window = count(tuple(config["kernel_size"]))
    gates, biases, gate_activations, activations, others = CELLS["LSTM"]
    state = positions * filters
    return (
        product((positions, gates * filters), window * (features + filters))
        + Operations(other=state * (gates + bool(config.get("use_bias", True)) * biases + others))
        + activation(config.get("recurrent_activation"), gate_activations * state)
        + activation(config.get("activation"), activations * state)
    ) * steps


SEQUENCES: dict[str, Formula] = {
    "MultiHeadAttention": _multi_head_attention,
    "GroupedQueryAttention": _grouped_query_attention,
    "GroupQueryAttention": _grouped_query_attention,
    "Attention": _attention,
    "AdditiveAttention": _attention,
    "DotProductAttention": _dot_product_attention,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "SimpleRNN": _recurrent,
    "RNN": _cells,
    **{f"ConvLSTM{rank}D": _convolutional_lstm for rank in (1, 2, 3)},
}
