"""Tiny models of layers that have layers inside, by name: `INNER[name]()` builds one.

They are apart from `models.MODELS`, because a reader has more to tell apart there than a conversion has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

INNER: dict[str, Callable[[], Any]] = {}
SERIES, CLIP, VOLUMES = (7, 6), (3, 4, 4, 2), (3, 4, 4, 4, 2)


def model(build: Callable[[], Any]) -> Callable[[], Any]:
    INNER[build.__name__] = build
    return build


def one_layer(name: str, shape: tuple[int, ...], make: Callable[[], Any]) -> None:
    def build() -> Any:
        x = keras.Input(shape, name="x")
        return keras.Model(x, make()(x))

    INNER[name] = build


def self_attention(**settings: Any) -> Callable[[Any], Any]:
    return lambda x: layers.MultiHeadAttention(2, 3, **settings)(x, x)


def block() -> Any:
    x = keras.Input((6,))
    return keras.Model(x, layers.Add()([layers.Dense(6)(x), x]), name="block")


def stack() -> Any:
    return keras.Sequential([keras.Input((4, 4, 2)), layers.Conv2D(3, 2), layers.Flatten()], name="stack")


for name, shape, make in (
    ("attention_half", SERIES, lambda: self_attention(dtype="mixed_float16", kernel_regularizer="l2")),
    ("attention_frozen", SERIES, lambda: self_attention(trainable=False)),
    ("lstm_frozen", SERIES, lambda: layers.LSTM(3, trainable=False)),
    (
        "lstm_states",
        SERIES,
        lambda: layers.LSTM(3, return_state=True, return_sequences=True, dropout=0.2, recurrent_dropout=0.1, seed=3),
    ),
    ("gru_states", SERIES, lambda: layers.GRU(3, return_state=True)),
    ("simple_states", SERIES, lambda: layers.SimpleRNN(3, return_state=True)),
    ("conv_lstm_3d", VOLUMES, lambda: layers.ConvLSTM3D(3, 2, return_state=True, strides=2)),
    ("conv_lstm_frozen", CLIP, lambda: layers.ConvLSTM2D(3, 2, trainable=False)),
    ("cell", SERIES, lambda: layers.RNN(layers.LSTMCell(3), return_state=True)),
    (
        "cells",
        SERIES,
        lambda: layers.RNN(
            [layers.LSTMCell(3), layers.LSTMCell(4), layers.SimpleRNNCell(2)], return_state=True, return_sequences=True
        ),
    ),
    ("both_ways_apart", SERIES, lambda: layers.Bidirectional(layers.LSTM(3, return_state=True), merge_mode=None)),
    ("both_ways_states", SERIES, lambda: layers.Bidirectional(layers.GRU(3, return_state=True, return_sequences=True))),
    (
        "both_ways_different",
        SERIES,
        lambda: layers.Bidirectional(
            layers.GRU(3, name="there"), backward_layer=layers.LSTM(3, go_backwards=True, name="back")
        ),
    ),
    ("both_ways_cell", SERIES, lambda: layers.Bidirectional(layers.RNN(layers.GRUCell(3)))),
    ("both_ways_conv", CLIP, lambda: layers.Bidirectional(layers.ConvLSTM2D(3, 2))),
    ("each_norm", SERIES, lambda: layers.TimeDistributed(layers.BatchNormalization())),
    ("each_each", (3, 7, 6), lambda: layers.TimeDistributed(layers.TimeDistributed(layers.Dense(2)))),
    ("each_lstm", (3, 7, 6), lambda: layers.TimeDistributed(layers.LSTM(2))),
    ("each_both_ways", (3, 7, 6), lambda: layers.TimeDistributed(layers.Bidirectional(layers.LSTM(2)))),
    ("each_pool", CLIP, lambda: layers.TimeDistributed(layers.GlobalAveragePooling2D())),
    ("each_stack", CLIP, lambda: layers.TimeDistributed(stack())),
    ("each_block", (3, 6), lambda: layers.TimeDistributed(block())),
    ("norm_inverted", (4,), lambda: layers.Normalization(mean=[1.0, 2, 3, 4], variance=[4.0, 3, 2, 1], invert=True)),
):
    one_layer(name, shape, make)


@model
def attentions() -> Any:
    """Keras makes up the names of what is inside of them, one after the other."""
    x = keras.Input(SERIES)
    y = layers.MultiHeadAttention(2, 3, dropout=0.1, name="a")(x, x)
    y = layers.MultiHeadAttention(2, 3, name="b")(y, y)
    y = layers.GroupQueryAttention(4, 4, 2, name="c", dropout=0.2)(y, y)
    return keras.Model(x, layers.Dense(2)(y))


@model
def attention_by_name() -> Any:
    q, v, k = keras.Input((7, 6)), keras.Input((5, 4)), keras.Input((5, 3))
    layer = layers.MultiHeadAttention(2, 3, value_dim=5, output_shape=9, use_gate=True, use_bias=False)
    return keras.Model([q, v, k], layer(query=q, value=v, key=k))


@model
def attention_over_two_axes() -> Any:
    x = keras.Input((7, 8, 6))
    layer = layers.MultiHeadAttention(2, 3, attention_axes=(1, 2))
    return keras.Model(x, layer(x, x, return_attention_scores=True))


@model
def attention_shared() -> Any:
    a, b = keras.Input((7, 6)), keras.Input((9, 6))
    layer = layers.MultiHeadAttention(2, 3)
    return keras.Model([a, b], [layers.Dense(1)(layer(a, a)), layers.Dense(2)(layer(b, b))])


@model
def attention_groups_with_scores() -> Any:
    x = keras.Input((7, 8))
    return keras.Model(x, layers.GroupQueryAttention(4, 4, 2, use_gate=True)(x, x, return_attention_scores=True))


@model
def attention_scores_scaled() -> Any:
    q, k = keras.Input((7, 6)), keras.Input((5, 6))
    layer = layers.Attention(use_scale=True, score_mode="concat")
    return keras.Model([q, k], layer([q, k], return_attention_scores=True))


@model
def sequence_labels() -> Any:
    both = layers.Bidirectional(layers.LSTM(3, return_sequences=True))
    return keras.Sequential([keras.Input((7,)), layers.Embedding(9, 4), both, layers.LSTM(4), layers.Dense(2)])


@model
def inside_a_model() -> Any:
    x = keras.Input(SERIES)
    inner = keras.Model(x, layers.LSTM(3)(layers.MultiHeadAttention(2, 3)(x, x)), name="inner")
    y = keras.Input(SERIES)
    return keras.Model(y, layers.Dense(1)(inner(y)))


@model
def inside_a_frozen_model() -> Any:
    found = inside_a_model()
    found.get_layer("inner").trainable = False
    return found


@model
def inside_all_frozen() -> Any:
    found = inside_a_model()
    found.trainable = False
    return found


@model
def masked() -> Any:
    x = keras.Input((7,))
    y = layers.Embedding(9, 4, mask_zero=True)(x)
    y = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(y)
    return keras.Model(x, layers.LSTM(2)(layers.MultiHeadAttention(2, 2)(y, y)))


@model
def translation() -> Any:
    given, wanted = keras.Input((None, 5)), keras.Input((None, 4))
    _, *states = layers.LSTM(3, return_state=True)(given)
    y, _, _ = layers.LSTM(3, return_sequences=True, return_state=True)(wanted, initial_state=states)
    return keras.Model([given, wanted], layers.Dense(4, activation="softmax")(y))


@model
def models_in_a_sequence() -> Any:
    first = keras.Sequential([keras.Input((6,)), layers.Dense(6, name="q"), layers.ReLU()], name="first")
    base = block()
    base.trainable = False
    return keras.Sequential([keras.Input((6,)), first, base, layers.Dense(2)], name="outer")


@model
def partly_frozen() -> Any:
    x = keras.Input((7,))
    y = layers.BatchNormalization()(layers.Dense(4, trainable=False)(x))
    base = keras.Model(x, layers.Dense(3)(y), name="base")
    z = keras.Input((7,))
    return keras.Model(z, layers.Dense(2)(base(z)))
