"""Models of layers with weights of other kinds, of layers of text, and with operations as outputs, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

READ: dict[str, Callable[[], Any]] = {}


SHARED: dict[str, Callable[[], Any]] = {}


def shared(make: Callable[[], Any]) -> Callable[[], Any]:
    SHARED[make.__name__] = make
    return make


def model(make: Callable[[], Any]) -> Callable[[], Any]:
    READ[make.__name__] = make
    return make


def quantised(mode: str) -> Callable[[], Any]:
    def make() -> Any:
        x = keras.Input((7,), dtype="int32")
        y = layers.Embedding(9, 8)(x)
        y = layers.EinsumDense("abc,cd->abd", output_shape=(7, 8), bias_axes="d")(y)
        y = layers.EinsumDense("abc,cde->abde", output_shape=(7, 2, 4))(y)
        y = layers.Dense(6, activation="relu")(layers.Reshape((7, 8))(y))
        y = layers.Dense(6, use_bias=False)(layers.Flatten()(layers.LayerNormalization()(y)))
        found = keras.Model(x, y)
        found.quantize(mode)
        return found

    return make


def of_dtype(policy: str) -> Callable[[], Any]:
    def make() -> Any:
        x = keras.Input((8,))
        return keras.Model(x, layers.Dense(3, use_bias=False, dtype=policy)(layers.Dense(4, dtype=policy)(x)))

    return make


READ |= {f"quantised_{mode}": quantised(mode) for mode in ("int8", "int4", "float8")}
for policy in ("int4_from_float32", "int4/-1_from_mixed_float16", "int8_from_bfloat16", "float8_from_float32"):
    READ[f"of_{policy}"] = of_dtype(policy)


@model
def quantised_in_groups() -> Any:
    x = keras.Input((256,))
    found = keras.Model(x, layers.Dense(6)(x))
    found.quantize("int4")
    return found


@model
def quantised_inside() -> Any:
    x = keras.Input((8,))
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(4), layers.ReLU()], name="inner")
    found = keras.Model(x, layers.Dense(2)(inner(x)))
    found.quantize("int8")
    return found


@model
def quantised_and_frozen() -> Any:
    x = keras.Input((8,))
    first = layers.Dense(4)
    found = keras.Model(x, layers.Dense(3)(first(x)))
    first.trainable = False
    found.quantize("int8")
    return found


@model
def quantised_untied() -> Any:
    x = keras.Input((7,), dtype="int32")
    embedding = layers.ReversibleEmbedding(9, 8, tie_weights=False)
    found = keras.Model(x, layers.Dense(2)(embedding(embedding(x), reverse=True)))
    found.quantize("int8")
    return found


@model
def adapters() -> Any:
    x = keras.Input((7,))
    parts = [
        layers.Embedding(9, 8),
        layers.Dense(6),
        layers.EinsumDense("abc,cd->abd", output_shape=(None, 8)),
        layers.Conv1D(4, 3),
    ]
    y = x
    for part in parts:
        y = part(y)
    found = keras.Model(x, y)
    for part in parts:
        part.enable_lora(2)
    return found


@model
def adapters_of_int8() -> Any:
    x = keras.Input((8,))
    dense = layers.Dense(6)
    found = keras.Model(x, dense(x))
    found.quantize("int8")
    dense.enable_lora(2)
    return found


@model
def adapters_frozen() -> Any:
    x = keras.Input((8,))
    dense = layers.Dense(4)
    found = keras.Model(x, layers.Dense(3)(dense(x)))
    dense.enable_lora(2)
    dense.trainable = False
    return found


@model
def reversible() -> Any:
    x = keras.Input((7,), dtype="int32")
    embedding = layers.ReversibleEmbedding(9, 8, dtype="mixed_bfloat16")
    return keras.Model(x, [embedding(layers.Reshape((7,))(x)), embedding(layers.Dense(8)(embedding(x)), reverse=True)])


def text(*parts: Any, size: int = 4) -> Any:
    x = keras.Input((size,), dtype="string")
    y = x
    for part in parts:
        y = part(y)
    return keras.Model(x, y)


WORDS = ["a", "b", "c"]
READ |= {
    "lookup": lambda: text(layers.StringLookup(vocabulary=WORDS), layers.Embedding(6, 3)),
    "lookup_output": lambda: text(layers.StringLookup(vocabulary=WORDS, num_oov_indices=2)),
    "lookup_multi_hot": lambda: text(layers.StringLookup(vocabulary=WORDS, output_mode="multi_hot")),
    "lookup_one_hot": lambda: text(layers.StringLookup(vocabulary=WORDS, output_mode="one_hot")),
    "hashing": lambda: text(layers.Hashing(5)),
    "hashing_multi_hot": lambda: text(layers.Hashing(5, output_mode="multi_hot")),
    "texts": lambda: text(
        layers.TextVectorization(vocabulary=WORDS, output_sequence_length=5), layers.Embedding(6, 3), size=1
    ),
    "texts_output": lambda: text(layers.TextVectorization(vocabulary=WORDS), size=1),
    "texts_multi_hot": lambda: text(
        layers.TextVectorization(vocabulary=WORDS, output_mode="multi_hot", max_tokens=9, pad_to_max_tokens=True),
        size=1,
    ),
    "texts_unsplit": lambda: text(layers.TextVectorization(vocabulary=WORDS, split=None, output_mode="count"), size=1),
}


@model
def lookup_adapted() -> Any:
    layer = layers.StringLookup(output_mode="tf_idf")
    layer.adapt(np.array([["a", "b"], ["c", "a"]]))
    return text(layer, layers.Dense(2))


@model
def texts_adapted() -> Any:
    first, second = (layers.TextVectorization(max_tokens=20, output_mode="tf_idf") for _ in range(2))
    x = keras.Input((1,), dtype="string")
    for layer in (first, second):
        layer.adapt(np.array(["a b c", "c d"]))
    return keras.Model(x, [layers.Dense(3)(first(x)), second(x)])


@model
def lookup_numbers() -> Any:
    x = keras.Input((4,), dtype="int64")
    first = layers.IntegerLookup(vocabulary=[3, 4], mask_token=0)(x)
    return keras.Model(x, [first, layers.IntegerLookup(vocabulary=[3, 4], output_mode="one_hot")(x[:, 0:1])])


@model
def categories() -> Any:
    x = keras.Input((4,), dtype="int32")
    found = [layers.CategoryEncoding(5, output_mode=mode)(x) for mode in ("multi_hot", "count", "one_hot")]
    return keras.Model(x, [*found, layers.CategoryEncoding(5, output_mode="one_hot")(x[:, 0:1])])


@model
def crossings() -> Any:
    a, b = keras.Input((1,), dtype="string"), keras.Input((1,), dtype="string")
    return keras.Model(
        [a, b], [layers.HashedCrossing(5)((a, b)), layers.HashedCrossing(5, output_mode="one_hot")((a, b))]
    )


@model
def bins() -> Any:
    x = keras.Input((4,))
    adapted = layers.Discretization(num_bins=3)
    adapted.adapt(np.arange(10.0))
    found = [layers.Discretization([0.0, 1.0], output_mode=mode)(x) for mode in ("int", "multi_hot", "count")]
    one_hot = layers.Discretization([0.0, 1.0], output_mode="one_hot")(x[:, 0:1])
    return keras.Model(x, [*found, one_hot, layers.Embedding(5, 2)(adapted(x))])


@model
def products() -> Any:
    a, b, c = keras.Input((4,)), keras.Input((4,)), keras.Input((3, 4))
    found = [layers.Dot(axes=-1, normalize=True)([a, b]), layers.Dot(axes=(1, 2))([a, c])]
    return keras.Model([a, b, c], [*found, layers.Dot(axes=2)([c, layers.Reshape((1, 4))(a)])])


@model
def spectra() -> Any:
    x = keras.Input((4000,))
    y = layers.STFTSpectrogram(window=None, mode="angle", frame_length=64)(layers.Reshape((4000, 1))(x))
    return keras.Model(x, [layers.MelSpectrogram()(x), layers.Flatten()(y)])


@model
def augmentations() -> Any:
    x = keras.Input((8, 8, 3))
    return keras.Model(x, layers.Pipeline([layers.RandomFlip(), layers.RandomRotation(0.1)])(x))


@model
def operation_outputs() -> Any:
    x = keras.Input((4, 6))
    y = layers.Dense(6)(x)
    found = {
        "sum": 1.0 - y,
        "product": y * ops.mean(y, axis=-1, keepdims=True),
        "power": y**2,
        "relu": ops.relu(y),
        "softmax": ops.softmax(y),
        "root": ops.sqrt(ops.maximum(y, 1.0)),
        "mean": ops.mean(y, axis=(1, 2)),
        "total": ops.sum(y),
        "most": ops.argmax(y, axis=1),
        "is_more": y > ops.expand_dims(ops.max(y, axis=1), 1),
        "any": ops.any(y > 0, axis=-1),
        "cast": ops.cast(y, "int32"),
        "wide": ops.expand_dims(y, (0, -1)),
        "narrow": ops.squeeze(ops.expand_dims(y, 1), 1),
        "flat": ops.reshape(y, (-1, 8, 3)),
        "turned": ops.transpose(y),
        "swapped": ops.swapaxes(y, 1, -1),
        "matrix": ops.matmul(y, ops.transpose(y, (0, 2, 1))),
        "joined": ops.concatenate([y, y], axis=1),
        "stacked": ops.stack([y, y, y], axis=-1),
        "item": y[:, 0],
        "slice": y[:, -2:, None, ::2],
    }
    return keras.Model(x, found)


@model
def operations_with_several_outputs() -> Any:
    x = keras.Input((4, 6))
    a, b = ops.split(x, 2, axis=-1)
    c, _, d = ops.split(x, [1, 4], axis=-1)
    values, _ = ops.top_k(x, 2)
    mean, _ = ops.moments(x, axes=[1])
    return keras.Model(x, [layers.Dense(2)(a), b, layers.Dense(1)(c), d, values, mean])


@model
def models_as_outputs() -> Any:
    x, z = keras.Input((4,)), keras.Input((4,))
    inner = keras.Model(x, layers.Dense(4)(x), name="inner")
    row = keras.Sequential([keras.Input((4,)), layers.Dense(4)], name="row")
    return keras.Model(z, [inner(z), inner(inner(z)), row(row(z))])


# Objects that stand in several models. Keras 3.15 saves them and cannot load them.


@shared
def in_two_models() -> Any:
    dense, x, y, z = layers.Dense(4, name="same"), keras.Input((4,)), keras.Input((4,)), keras.Input((4,))
    a = keras.Model(x, dense(x), name="a")
    b = keras.Model(y, layers.ReLU()(dense(y)), name="b")
    return keras.Model(z, layers.Add()([a(z), b(z)]))


@shared
def in_the_model_around() -> Any:
    recurrent, x, z = layers.LSTM(4, name="same"), keras.Input((5, 3)), keras.Input((5, 3))
    a = keras.Model(x, recurrent(x), name="a")
    return keras.Model(z, layers.Add()([a(z), recurrent(z)]))


@shared
def before_the_model_inside() -> Any:
    dense, x, z = layers.Dense(4, name="same"), keras.Input((4,)), keras.Input((4,))
    a = keras.Model(x, dense(x), name="a")
    return keras.Model(z, a(dense(z)))


@shared
def a_model_in_two() -> Any:
    x, y, z = keras.Input((4,)), keras.Input((4,)), keras.Input((4,))
    inner = keras.Model(x, layers.Dense(4)(x), name="inner")
    around = keras.Model(y, inner(y), name="around")
    return keras.Model(z, [inner(z), around(z)])


@shared
def features_of_another() -> Any:
    """Two models over one graph."""
    x, z = keras.Input((4,)), keras.Input((4,))
    y = layers.Dense(4, name="one")(x)
    whole = keras.Model(x, layers.Dense(3, name="two")(y), name="whole")
    return keras.Model(z, [whole(z), keras.Model(x, y, name="part")(z)])
