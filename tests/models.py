"""Tiny Keras models, one for each thing that a conversion can get wrong, by name: `MODELS[name]()` builds one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

MODELS: dict[str, Callable[[], Any]] = {}


def model(build: Callable[[], Any]) -> Callable[[], Any]:
    MODELS[build.__name__] = build
    return build


def one_layer(name: str, shape: tuple[int | None, ...], make: Callable[[], Any], dtype: str = "float32") -> None:
    """A model of one layer; `make` is called when the model is built, so that a twin gets a layer of its own."""

    def build() -> Any:
        x = keras.Input(shape, dtype=dtype, name="x")
        return keras.Model(x, make()(x))

    MODELS[name] = build


def batch_norm(name: str | None = None) -> Any:
    return layers.BatchNormalization(name=name)


def chain(*made: Any) -> Callable[[Any], Any]:
    """The layers one after the other."""

    def call(x: Any) -> Any:
        for layer in made:
            x = layer(x)
        return x

    return call


# Convolutions, plain and with a batch norm to fold. Their names start with `conv`, `folded` when the norm must go.

IMAGE, SERIES, VOLUME = (8, 9, 4), (9, 4), (5, 6, 4, 2)

for suffix, norms in {"conv": (), "folded": (batch_norm,)}.items():
    for name, shape, make in (
        ("conv2d", IMAGE, lambda: layers.Conv2D(6, 3, padding="same", strides=2)),
        ("conv2d_no_bias", IMAGE, lambda: layers.Conv2D(6, 3, use_bias=False)),
        ("conv2d_dilated", IMAGE, lambda: layers.Conv2D(6, 3, dilation_rate=2, padding="same")),
        (
            "conv2d_padded_dilated",
            IMAGE,
            lambda: chain(layers.ZeroPadding2D(1), layers.Conv2D(6, 3, dilation_rate=2, padding="same")),
        ),
        ("conv2d_grouped", IMAGE, lambda: layers.Conv2D(6, 3, groups=2)),
        ("conv2d_depthwise_groups", IMAGE, lambda: layers.Conv2D(4, 3, groups=4, use_bias=False)),
        ("conv2d_transpose", IMAGE, lambda: layers.Conv2DTranspose(6, 3, strides=2)),
        ("conv2d_transpose_same", IMAGE, lambda: layers.Conv2DTranspose(6, 4, strides=2, padding="same")),
        ("conv2d_transpose_gaps", IMAGE, lambda: layers.Conv2DTranspose(6, (1, 2), strides=3, padding="same")),
        ("depthwise2d", IMAGE, lambda: layers.DepthwiseConv2D(3, depth_multiplier=2)),
        ("depthwise2d_strided", IMAGE, lambda: layers.DepthwiseConv2D(3, 2, padding="same", use_bias=False)),
        ("separable2d", IMAGE, lambda: layers.SeparableConv2D(6, 3)),
        ("conv1d", SERIES, lambda: layers.Conv1D(6, 3, padding="same")),
        ("conv1d_causal", SERIES, lambda: layers.Conv1D(6, 3, padding="causal", dilation_rate=2)),
        ("conv1d_grouped", SERIES, lambda: layers.Conv1D(6, 3, groups=2)),
        ("conv1d_transpose", SERIES, lambda: layers.Conv1DTranspose(6, 3, strides=2)),
        ("depthwise1d", SERIES, lambda: layers.DepthwiseConv1D(3)),
        ("separable1d", SERIES, lambda: layers.SeparableConv1D(6, 3)),
        ("conv3d", VOLUME, lambda: layers.Conv3D(4, 3, padding="same")),
        ("conv3d_transpose", VOLUME, lambda: layers.Conv3DTranspose(4, 2, strides=2)),
    ):
        one_layer(f"{suffix}_{name}", shape, lambda make=make, norms=norms: chain(make(), *[norm() for norm in norms]))


@model
def folded_twice() -> Any:
    """Two norms in a row, both go."""
    x = keras.Input(IMAGE, name="x")
    return keras.Model(x, chain(layers.Conv2D(6, 3), batch_norm(), batch_norm(), layers.ReLU())(x))


@model
def norm_before_conv() -> Any:
    x = keras.Input(IMAGE, name="x")
    return keras.Model(x, chain(batch_norm(), layers.ReLU(), layers.Conv2D(6, 3, padding="same"))(x))


@model
def norm_after_add() -> Any:
    x = keras.Input(IMAGE, name="x")
    y = layers.Add()([layers.Conv2D(4, 3, padding="same")(x), x])
    return keras.Model(x, batch_norm()(y))


def shared_conv(use_bias: bool) -> Any:
    a, b = keras.Input(IMAGE, name="a"), keras.Input(IMAGE, name="b")
    conv = layers.Conv2D(6, 3, use_bias=use_bias, name="shared")
    return keras.Model([a, b], [batch_norm("left")(conv(a)), batch_norm("right")(conv(b))])


MODELS["shared_conv"] = lambda: shared_conv(use_bias=True)
MODELS["shared_conv_no_bias"] = lambda: shared_conv(use_bias=False)


@model
def shared_conv_one_norm() -> Any:
    """One use is followed by a norm, the other is not."""
    x = keras.Input(IMAGE, name="x")
    conv = layers.Conv2D(4, 3, padding="same", use_bias=False, name="shared")
    return keras.Model(x, conv(batch_norm()(conv(x))))


@model
def conv_output_used_twice() -> Any:
    x = keras.Input(IMAGE, name="x")
    y = layers.Conv2D(6, 3)(x)
    return keras.Model(x, layers.Add()([batch_norm()(y), layers.ReLU()(y)]))


@model
def conv_output_is_output() -> Any:
    x = keras.Input(IMAGE, name="x")
    y = layers.Conv2D(6, 3, name="conv")(x)
    return keras.Model(x, [y, batch_norm("norm")(y)])


@model
def conv_and_constants() -> Any:
    """Scalars, and a vector along the wrong axis, which must not be taken for channels."""
    x = keras.Input((4, 6, 4), name="x")
    y = layers.Conv2D(6, 3, padding="same")(x) * 2.0 - 1.0
    y = layers.Conv2D(6, 3, padding="same")(3.0 - y)
    return keras.Model(x, y * ops.reshape(ops.arange(4, dtype="float32"), (4, 1, 1)))


@model
def residual() -> Any:
    x = keras.Input(IMAGE, name="x")
    y = x
    for _ in range(3):
        inner = chain(layers.Conv2D(4, 3, padding="same"), batch_norm(), layers.ReLU(), layers.Conv2D(4, 1))(y)
        y = layers.ReLU()(layers.Add()([y, batch_norm()(inner)]))
    return keras.Model(x, chain(layers.GlobalAveragePooling2D(), layers.Dense(3, activation="softmax"))(y))


# Norms, dense layers, attention.

for name, shape, make in (
    ("layer_norm", (7, 6), lambda: layers.LayerNormalization()),
    ("layer_norm_two_axes", (7, 6), lambda: layers.LayerNormalization(axis=(1, 2))),
    ("layer_norm_rms", (7, 6), lambda: layers.RMSNormalization()),
    ("group_norm", IMAGE, lambda: layers.GroupNormalization(2)),
    ("unit_norm", (7, 6), lambda: layers.UnitNormalization()),
    ("batch_norm_dense", (6,), lambda: chain(layers.Dense(5), batch_norm())),
    ("batch_norm_axis_1", (4, 6, 5), lambda: layers.BatchNormalization(axis=1)),
    ("batch_norm_bare", (6,), lambda: layers.BatchNormalization(center=False, scale=False)),
    ("spectral_norm", IMAGE, lambda: layers.SpectralNormalization(layers.Conv2D(6, 3))),
    ("dense_of_one_unit_scaled", (6,), lambda: chain(layers.Dense(1), layers.Rescaling(2.0, offset=-1.0))),
    ("dense_rank_2", (6,), lambda: layers.Dense(5, activation="relu")),
    ("dense_rank_3", (7, 6), lambda: layers.Dense(5)),
    ("dense_rank_4", IMAGE, lambda: layers.Dense(5, use_bias=False)),
    ("einsum_dense", (7, 6), lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de")),
    ("einsum_dense_heads", (7, 2, 3), lambda: layers.EinsumDense("abcd,cde->abe", (None, 5), bias_axes="e")),
    ("masking", (7, 6), lambda: layers.Masking()),
    ("dropouts", IMAGE, lambda: chain(layers.Dropout(0.5), layers.SpatialDropout2D(0.5), layers.GaussianNoise(1.0))),
):
    one_layer(name, shape, make)


@model
def attention() -> Any:
    x = keras.Input((7, 6), name="x")
    y = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    return keras.Model(x, layers.LayerNormalization()(layers.Add()([x, y])))


@model
def attention_causal_masked() -> Any:
    x, mask = keras.Input((7, 6), name="x"), keras.Input((7, 7), dtype="bool", name="mask")
    y = layers.MultiHeadAttention(2, 3)(x, x, attention_mask=mask, use_causal_mask=True)
    return keras.Model([x, mask], y)


@model
def attention_with_scores() -> Any:
    x = keras.Input((7, 6), name="x")
    return keras.Model(x, layers.MultiHeadAttention(2, 3)(x, x, return_attention_scores=True))


@model
def attention_group_query() -> Any:
    x = keras.Input((7, 8), name="x")
    return keras.Model(x, layers.GroupQueryAttention(4, 4, 2)(x, x))


@model
def attention_dot() -> Any:
    q, k = keras.Input((7, 6), name="q"), keras.Input((5, 6), name="k")
    return keras.Model([q, k], [layers.Attention()([q, k]), layers.AdditiveAttention()([q, k])])


@model
def embedding() -> Any:
    x = keras.Input((7,), dtype="int32", name="x")
    return keras.Model(x, layers.Embedding(11, 6)(x))


@model
def embedding_masked() -> Any:
    x = keras.Input((7,), dtype="int32", name="x")
    return keras.Model(x, chain(layers.Embedding(11, 6, mask_zero=True), layers.GlobalAveragePooling1D())(x))


class TiedHead(layers.Layer):
    """Scores against the table of an embedding that another layer owns."""

    def __init__(self, table: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = table

    def call(self, x: Any) -> Any:
        return ops.matmul(x, ops.transpose(self.table.embeddings))


@model
def embedding_tied() -> Any:
    x = keras.Input((7,), dtype="int32", name="x")
    table = layers.Embedding(11, 6, name="table")
    return keras.Model(x, TiedHead(table, name="head")(layers.Dense(6, activation="tanh")(table(x))))


@model
def embedding_reversible() -> Any:
    x = keras.Input((7,), dtype="int32", name="x")
    table = layers.ReversibleEmbedding(11, 6, name="table")
    return keras.Model(x, table(layers.Dense(6)(table(x)), reverse=True))


@model
def transformer_block() -> Any:
    x = keras.Input((7,), dtype="int32", name="tokens")
    y = layers.Embedding(11, 8, name="table")(x)
    y = y + layers.Embedding(7, 8, name="positions")(ops.cumsum(ops.ones_like(x), axis=1) - 1)
    y = layers.LayerNormalization()(layers.Add()([y, layers.MultiHeadAttention(2, 4)(y, y, use_causal_mask=True)]))
    hidden = layers.Dense(8)(layers.Dense(16, activation="gelu")(y))
    return keras.Model(x, layers.Dense(11, name="logits")(layers.LayerNormalization()(y + hidden)))


# Recurrent layers.

for name, shape, make in (
    ("lstm", (7, 6), lambda: layers.LSTM(5)),
    ("lstm_sequences", (7, 6), lambda: layers.LSTM(5, return_sequences=True)),
    ("lstm_state", (7, 6), lambda: layers.LSTM(5, return_state=True)),
    ("lstm_backwards", (7, 6), lambda: layers.LSTM(5, go_backwards=True, return_sequences=True)),
    ("lstm_any_length", (None, 6), lambda: layers.LSTM(5, return_sequences=True)),
    ("lstm_no_bias", (7, 6), lambda: layers.LSTM(5, use_bias=False)),
    ("lstm_bidirectional", (7, 6), lambda: layers.Bidirectional(layers.LSTM(5, return_sequences=True))),
    ("lstm_stacked", (7, 6), lambda: chain(layers.LSTM(5, return_sequences=True), layers.LSTM(4))),
    ("lstm_masked", (7, 6), lambda: chain(layers.Masking(), layers.LSTM(5))),
    ("lstm_unrolled", (3, 6), lambda: layers.LSTM(5, unroll=True)),
    ("gru", (7, 6), lambda: layers.GRU(5)),
    ("gru_reset_before", (7, 6), lambda: layers.GRU(5, reset_after=False)),
    ("gru_bidirectional", (7, 6), lambda: layers.Bidirectional(layers.GRU(5), merge_mode="sum")),
    ("simple_rnn", (7, 6), lambda: layers.SimpleRNN(5)),
    ("rnn_stacked_cells", (7, 6), lambda: layers.RNN([layers.LSTMCell(5), layers.GRUCell(4)])),
    ("time_distributed", (7, 8, 8, 2), lambda: layers.TimeDistributed(layers.Conv2D(3, 3))),
    ("time_distributed_dense", (7, 6), lambda: layers.TimeDistributed(layers.Dense(5))),
    # In a graph, Keras 3.15 itself takes as many steps as there are samples.
    ("time_distributed_any_length", (None, 6), lambda: layers.TimeDistributed(layers.Dense(5, activation="relu"))),
    ("conv_lstm", (4, 6, 6, 2), lambda: layers.ConvLSTM2D(3, 3, padding="same")),
    ("conv_lstm_1d", (4, 6, 2), lambda: layers.ConvLSTM1D(3, 3, return_sequences=True)),
):
    one_layer(name, shape, make)


# Activations, by layer and by function.

ACTIVATIONS = """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear log_sigmoid
    log_softmax mish relu relu6 selu sigmoid silu softmax softplus soft_shrink softsign sparse_plus sparsemax
    squareplus tanh tanh_shrink threshold
"""
for name in ACTIVATIONS.split():
    activation = {"threshold": lambda x: keras.activations.threshold(x, 0.5, 1.0)}.get(name, name)
    one_layer(f"activation_{name}", (7, 6), lambda activation=activation: layers.Activation(activation))
one_layer("activation_gelu_tanh", (7, 6), lambda: layers.Lambda(lambda x: keras.activations.gelu(x, approximate=True)))
one_layer("activation_prelu", IMAGE, lambda: layers.PReLU())
one_layer("activation_prelu_shared", IMAGE, lambda: layers.PReLU(shared_axes=(1, 2)))
one_layer("activation_relu_settings", (6,), lambda: layers.ReLU(3.0, negative_slope=0.1, threshold=0.5))
one_layer("activation_softmax_axes", IMAGE, lambda: layers.Softmax(axis=(1, 2)))


# Pooling, padding, resizing.

for name, shape, make in (
    ("pool_max", IMAGE, lambda: layers.MaxPooling2D(2)),
    ("pool_max_same", IMAGE, lambda: layers.MaxPooling2D(3, 2, padding="same")),
    ("pool_average_same", IMAGE, lambda: layers.AveragePooling2D(3, 2, padding="same")),
    ("pool_max_1d", SERIES, lambda: layers.MaxPooling1D(2)),
    ("pool_average_1d", SERIES, lambda: layers.AveragePooling1D(2)),
    ("pool_max_3d", VOLUME, lambda: layers.MaxPooling3D(2)),
    ("pool_average_3d", VOLUME, lambda: layers.AveragePooling3D(2)),
    ("pool_global_max", IMAGE, lambda: layers.GlobalMaxPooling2D()),
    ("pool_global_average", IMAGE, lambda: layers.GlobalAveragePooling2D(keepdims=True)),
    ("pool_global_max_1d", SERIES, lambda: layers.GlobalMaxPooling1D()),
    ("pool_global_average_3d", VOLUME, lambda: layers.GlobalAveragePooling3D()),
    ("pool_adaptive_average", (8, 8, 4), lambda: layers.AdaptiveAveragePooling2D(4)),
    ("pool_adaptive_max", (8, 8, 4), lambda: layers.AdaptiveMaxPooling2D(4)),
    ("pad_zero", IMAGE, lambda: layers.ZeroPadding2D(((1, 2), (0, 3)))),
    ("pad_zero_1d", SERIES, lambda: layers.ZeroPadding1D(2)),
    ("pad_zero_3d", VOLUME, lambda: layers.ZeroPadding3D(1)),
    ("pad_reflect", IMAGE, lambda: layers.Lambda(lambda x: ops.pad(x, [[0, 0], [1, 1], [2, 2], [0, 0]], "reflect"))),
    ("crop", IMAGE, lambda: layers.Cropping2D(((1, 2), (0, 3)))),
    ("crop_1d", SERIES, lambda: layers.Cropping1D(2)),
    ("crop_3d", VOLUME, lambda: layers.Cropping3D(1)),
    ("crop_centre", IMAGE, lambda: layers.CenterCrop(4, 4)),
    ("upsample_nearest", IMAGE, lambda: layers.UpSampling2D(2)),
    ("upsample_bilinear", IMAGE, lambda: layers.UpSampling2D((2, 3), interpolation="bilinear")),
    ("upsample_1d", SERIES, lambda: layers.UpSampling1D(2)),
    ("upsample_3d", VOLUME, lambda: layers.UpSampling3D(2)),
    ("resize_nearest", IMAGE, lambda: layers.Resizing(5, 13, interpolation="nearest")),
    ("resize_bilinear", IMAGE, lambda: layers.Resizing(5, 13)),
    ("resize_antialias", IMAGE, lambda: layers.Resizing(5, 5, antialias=True)),
    ("resize_bicubic", IMAGE, lambda: layers.Resizing(5, 13, interpolation="bicubic")),
    ("resize_area", IMAGE, lambda: layers.Resizing(5, 13, interpolation="area")),
    ("discretization", IMAGE, lambda: layers.Discretization([0.0, 1.0])),
    ("reshape", (4, 6), lambda: chain(layers.Reshape((3, -1)), layers.Permute((2, 1)), layers.Flatten())),
    ("repeat", (6,), lambda: layers.RepeatVector(3)),
    ("rescaling", IMAGE, lambda: layers.Rescaling(1 / 127.5, offset=-1)),
    ("rescaling_per_channel", IMAGE, lambda: layers.Rescaling([1.0, 2.0, 3.0, 4.0], offset=[1.0, 0.0, 0.0, 2.0])),
    ("normalization_constants", (4,), lambda: layers.Normalization(mean=[1.0, 2, 3, 4], variance=[4.0, 3, 2, 1])),
    ("normalization_adapted", (4,), lambda: layers.Normalization()),
    ("random_augmentation", IMAGE, lambda: chain(layers.RandomFlip(), layers.RandomRotation(0.1))),
):
    one_layer(name, shape, make)

one_layer("spectrogram", (256, 1), lambda: layers.STFTSpectrogram(frame_length=32, frame_step=16, window=None))
one_layer("category_encoding", (3,), lambda: layers.CategoryEncoding(6, output_mode="multi_hot"), "int32")
one_layer("category_one_hot", (1,), lambda: layers.CategoryEncoding(6, output_mode="one_hot"), "int32")


# Merging, and plain operations on tensors.


@model
def merging() -> Any:
    a, b = keras.Input((4, 6), name="a"), keras.Input((4, 6), name="b")
    kinds = (layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum)
    joined = layers.Concatenate(axis=1)([kind()([a, b]) for kind in kinds])
    return keras.Model([a, b], [joined, layers.Dot(axes=2)([a, b]), layers.Dot(axes=1, normalize=True)([a, b])])


@model
def operators() -> Any:
    a, b = keras.Input((4, 6), name="a"), keras.Input((4, 6), name="b")
    y = (a + b) * 2.0 - a / (ops.abs(b) + 1.0)
    y = ops.matmul(y, ops.transpose(b, (0, 2, 1)))
    y = ops.where(y > 0, y, ops.exp(y)) ** 2
    return keras.Model([a, b], [ops.reshape(y, (-1, 2, 8)), y[:, 1:3, ::2], y[:, -1], ops.mean(y, axis=(1, 2))])


@model
def operations() -> Any:
    x = keras.Input((4, 6), name="x")
    outputs = [
        ops.concatenate([x, x[:, :2]], axis=1),
        ops.stack([x, -x], axis=1),
        ops.split(x, 3, axis=2)[1],
        ops.cumsum(x, axis=1),
        ops.argmax(x, axis=-1),
        ops.clip(x, -0.5, 0.5),
        ops.logsumexp(x, axis=-1),
        ops.var(x, axis=1),
        ops.einsum("abc,adc->abd", x, x),
        ops.one_hot(ops.argmax(x, axis=-1), 6),
        ops.take(x, [0, 2], axis=1),
        ops.tile(x, [1, 2, 1]),
        ops.sign(x) * ops.floor(x) + ops.sqrt(ops.square(x)),
        ops.top_k(x, 2)[0],
        ops.erf(x),
        ops.flip(x, axis=1),
        ops.cast(ops.expand_dims(x, 1) > 0, "int32"),
    ]
    return keras.Model(x, outputs)


# Inputs and outputs.


@model
def several_inputs_and_outputs() -> Any:
    a, b = keras.Input((6,), name="zeta"), keras.Input((4,), name="alpha")
    both = layers.Concatenate()([a, b])
    return keras.Model([a, b], [layers.Dense(2, name="late")(both), layers.Dense(3, name="early")(both)])


@model
def dictionaries() -> Any:
    inputs = {"zeta": keras.Input((6,), name="zeta"), "alpha": keras.Input((4,), name="alpha")}
    both = layers.Concatenate()([inputs["zeta"], inputs["alpha"]])
    return keras.Model(inputs, {"second": layers.Dense(2)(both), "first": layers.Dense(3)(inputs["alpha"])})


@model
def nested_structure() -> Any:
    inputs = [keras.Input((6,), name="a"), {"b": keras.Input((4,), name="b"), "c": keras.Input((4,), name="c")}]
    both = layers.Concatenate()([inputs[0], inputs[1]["b"]])
    return keras.Model(inputs, {"x": [layers.Dense(2)(both)], "y": layers.Subtract()([inputs[1]["b"], inputs[1]["c"]])})


@model
def nested_models() -> Any:
    inner_input = keras.Input(IMAGE, name="pixels")
    inner = keras.Model(inner_input, chain(layers.Conv2D(6, 3), batch_norm())(inner_input), name="inner")
    middle_input = keras.Input(IMAGE, name="pixels")
    pooled = layers.GlobalAveragePooling2D()(inner(middle_input))
    middle = keras.Model(middle_input, layers.Dense(3, name="head")(pooled), name="middle")
    x = keras.Input(IMAGE, name="x")
    return keras.Model(x, keras.Sequential([layers.Dense(4), layers.ReLU()], name="tail")(middle(x)))


@model
def siamese() -> Any:
    left, right = keras.Input(IMAGE, name="left"), keras.Input(IMAGE, name="right")
    inner_input = keras.Input(IMAGE, name="pixels")
    stem = chain(layers.Conv2D(6, 3, use_bias=False), batch_norm(), layers.ReLU(), layers.GlobalMaxPooling2D())
    tower = keras.Model(inner_input, stem(inner_input), name="tower")
    return keras.Model([left, right], layers.Dense(1)(layers.Subtract()([tower(left), tower(right)])))


@model
def sequential() -> Any:
    return keras.Sequential([keras.Input((6,), name="x"), layers.Dense(5, activation="tanh"), layers.Dense(2)])


@model
def duplicated_output() -> Any:
    x = keras.Input((6,), name="x")
    y = layers.Dense(3, name="head")(x)
    return keras.Model(x, [y, y])


@model
def same_layer_twice() -> Any:
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    head = layers.Dense(3, name="head")
    return keras.Model([a, b], [head(a), head(b)])


@model
def output_is_input() -> Any:
    x = keras.Input((6,), name="x")
    return keras.Model(x, [x, layers.Dense(3, name="head")(x)])


@model
def output_named_like_input() -> Any:
    x = keras.Input((6,), name="x")
    return keras.Model({"x": x}, {"x": layers.Dense(3, name="head")(x)})


@model
def output_in_the_middle() -> Any:
    x = keras.Input((6,), name="x")
    y = layers.Dense(5, name="hidden", activation="relu")(x)
    return keras.Model(x, [layers.Dense(3, name="head")(y), y])


@model
def unused_input() -> Any:
    a, b = keras.Input((6,), name="a"), keras.Input((4,), name="unused")
    return keras.Model([a, b], layers.Dense(3)(a))


@model
def any_image_size() -> Any:
    x = keras.Input((None, None, 3), name="x")
    stem = chain(layers.Conv2D(4, 3, strides=2, padding="same"), batch_norm(), layers.UpSampling2D(2))
    return keras.Model(x, layers.GlobalAveragePooling2D()(layers.MaxPooling2D(2, padding="same")(stem(x))))


@model
def half_precision() -> Any:
    policy = keras.dtype_policies.DTypePolicy("mixed_float16")
    x = keras.Input(IMAGE, name="x")
    conv = layers.Conv2D(6, 3, dtype=policy)
    norm, head = layers.BatchNormalization(dtype=policy), layers.Dense(3, dtype=policy)
    return keras.Model(x, chain(conv, norm, layers.GlobalAveragePooling2D(dtype=policy), head)(x))


@model
def constant_output() -> Any:
    """An output that no input reaches: only a weight."""
    x = keras.Input((6,), name="x")
    return keras.Model(x, [layers.Dense(3)(x), WeightItself(name="table")(x)])


class WeightItself(layers.Layer):
    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=(20, 3), name="table")

    def call(self, x: Any) -> Any:
        return ops.convert_to_tensor(self.table)


@keras.saving.register_keras_serializable("tests")
class Compiled(layers.Layer):
    """Foreign TensorFlow code in functions of its own, one of them compiled, with a weight used inside."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), name="scale", initializer="ones")

    @tf.function
    def call(self, x: Any) -> Any:
        return self.inner(x) - 1.0

    @tf.function(jit_compile=True)
    def inner(self, x: Any) -> Any:
        return tf.nn.relu(x) * self.scale


one_layer("compiled_function", (6,), lambda: chain(layers.Dense(4), Compiled()))


class Looped(layers.Layer):
    """A loop of TensorFlow's own around a weight; tf2onnx makes an ONNX `Loop` of it."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), name="kernel")

    def call(self, x: Any) -> Any:
        kernel = ops.convert_to_tensor(self.kernel)
        return ops.fori_loop(0, 3, lambda i, value: ops.tanh(ops.matmul(value, kernel)), x)


one_layer("loop", (12,), lambda: chain(layers.Dense(12), Looped()))


class Branched(layers.Layer):
    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), name="kernel")

    def call(self, x: Any) -> Any:
        kernel = ops.convert_to_tensor(self.kernel)
        return ops.cond(ops.sum(x) > 0, lambda: ops.matmul(x, kernel), lambda: ops.matmul(x, kernel) * 2)


one_layer("branch", (12,), lambda: Branched())


# Beyond ONNX or tf2onnx: the export must say so.


class Stranger(layers.Layer):
    """Computes with a variable that Keras does not know to be the layer's."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        hidden = keras.Variable("ones", shape=(6,), dtype="float32", name="hidden")
        self.read = lambda: hidden

    def call(self, x: Any) -> Any:
        return x * self.read()


class Untraceable(layers.Layer):
    """Needs the values of its input."""

    def call(self, x: Any) -> Any:
        return x if float(x[0, 0]) > 0 else -x

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, x.dtype)


BEYOND: dict[str, Callable[[], Any]] = {}


def beyond(name: str, shape: tuple[int | None, ...], make: Callable[[], Any], dtype: str = "float32") -> None:
    one_layer(name, shape, make, dtype)
    BEYOND[name] = MODELS.pop(name)


beyond("mel", (256,), lambda: layers.MelSpectrogram(fft_length=64, num_mel_bins=8, name="fourier"))
beyond("strings", (3,), lambda: layers.StringLookup(vocabulary=["a"], num_oov_indices=2, name="words"), "string")
beyond("hashing", (3,), lambda: layers.Hashing(7, name="hash"), "int32")
beyond("text", (), lambda: layers.TextVectorization(vocabulary=["a", "b"], name="text"), "string")
beyond("stranger", (6,), lambda: Stranger(name="stranger"))
beyond("untraceable", (6,), lambda: Untraceable(name="untraceable"))
beyond("determinant", (3, 3), lambda: layers.Lambda(ops.slogdet, name="det"))
beyond("fft", (8,), lambda: layers.Lambda(lambda x: ops.rfft(x)[0], name="fourier"))
beyond("cholesky", (3, 3), lambda: layers.Lambda(ops.cholesky, name="root"))
