"""Small models, each of a kind of layer that a reader has to know about, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

# What goes in, and what is called with it.
Case = tuple[Callable[[], Any], Callable[[Any], Any]]


def made(case: Case) -> Any:
    given, call = case
    x = given()
    return keras.Model(x, call(x))


def vector() -> Any:
    return keras.Input((8,))


def sequence() -> Any:
    return keras.Input((6, 8))


def image() -> Any:
    return keras.Input((16, 16, 3))


def whole() -> Any:
    return keras.Input((6,), dtype="int32")


def waves() -> Any:
    return keras.Input((4000, 2))


def labelled() -> Any:
    return {"images": image(), "labels": keras.Input((10,))}


def boxed() -> Any:
    return {"images": image(), "bounding_boxes": {"boxes": keras.Input((5, 4)), "labels": keras.Input((5,))}}


def sequences() -> Any:
    return [sequence(), keras.Input((4, 8))]


def with_states(*sizes: int) -> Callable[[], Any]:
    return lambda: [vector(), *(keras.Input((size,)) for size in sizes)]


def adapted(layer: Any, x: Any) -> Any:
    y = layer(x)
    layer.enable_lora(2, lora_alpha=4)
    return y


def spectral(layer: Any, x: Any, *, trainable: bool = True) -> Any:
    y = layers.SpectralNormalization(layer)(x)
    layer.trainable = trainable
    return y


def shared_activation(x: Any) -> Any:
    activation = layers.LeakyReLU()
    for units in (4, 3, 2):
        x = layers.Dense(units, activation=activation)(x)
    return x


def shared_attention(x: Any) -> Any:
    attention = layers.MultiHeadAttention(2, 4)
    return [attention(x[0], x[0]), attention(x[1], key=x[0], value=x[0])]


def twice_an_output(x: Any) -> Any:
    y = layers.Dense(3)(x)
    return {"a": y, "b": y, "c": {"d": y, "e": layers.ReLU()(y)}}


def colours(**factors: Any) -> Any:
    return layers.RandomColorJitter(**factors)


LAYERS: dict[str, Case] = {
    "activation_of_dense": (vector, lambda x: layers.Dense(3, activation=layers.LeakyReLU(0.1))(x)),
    "activation_of_activation": (vector, lambda x: layers.Activation(layers.ReLU(max_value=6))(x)),
    "activation_of_convolution": (image, lambda x: layers.SeparableConv2D(3, 3, activation=layers.Softmax())(x)),
    "activation_in_time": (sequence, lambda x: layers.TimeDistributed(layers.Dense(8, activation=layers.ELU()))(x)),
    "activation_of_cell": (sequence, lambda x: layers.RNN(layers.GRUCell(3, activation=layers.ReLU()))(x)),
    "activations_of_recurrent": (
        sequence,
        lambda x: layers.Bidirectional(
            layers.LSTM(3, activation=layers.ReLU(), recurrent_activation=layers.LeakyReLU())
        )(x),
    ),
    "activation_shared": (vector, shared_activation),
    "spectral_dense": (vector, lambda x: spectral(layers.Dense(4, activation=layers.ReLU()), x)),
    "spectral_frozen": (vector, lambda x: spectral(layers.Dense(4), x, trainable=False)),
    "spectral_convolution": (image, lambda x: layers.Flatten()(spectral(layers.Conv2D(4, 3, use_bias=False), x))),
    "spectral_embedding": (whole, lambda x: spectral(layers.Embedding(9, 4), x)),
    "spectral_in_time": (
        sequence,
        lambda x: layers.TimeDistributed(layers.SpectralNormalization(layers.Dense(4)))(x),
    ),
    "rand_augment": (image, lambda x: layers.RandAugment(factor=0.7, seed=3)(x)),
    "aug_mix": (image, lambda x: layers.AugMix((0, 1))(x)),
    "aug_mix_of_some": (image, lambda x: layers.Flatten()(layers.AugMix(all_ops=False, dtype="mixed_float16")(x))),
    "color_jitter": (image, lambda x: colours(brightness_factor=0.1, hue_factor=0.2, contrast_factor=0)(x)),
    "color_jitters": (
        image,
        lambda x: colours(saturation_factor=0.3)(colours(contrast_factor=(0.5, 0.2), saturation_factor=0.5)(x)),
    ),
    "augmented_with_labels": (labelled, lambda x: layers.RandomFlip()(layers.RandomBrightness(0.1)(x))),
    "mixed_up": (labelled, lambda x: layers.MixUp()(layers.CutMix()(x))),
    "boxes_filled_up": (boxed, lambda x: layers.MaxNumBoundingBoxes(3, bounding_box_format="xyxy")(x)),
    "same_structure": (labelled, lambda x: layers.Identity()(x)),
    "pipeline_of_weights": (
        image,
        lambda x: layers.Pipeline([layers.Rescaling(1 / 255), layers.Resizing(8, 8), layers.Conv2D(3, 3)])(x),
    ),
    "renormalised": (image, lambda x: layers.BatchNormalization(renorm=True)(x)),
    "cell_of_lstm": (with_states(4, 4), lambda x: layers.LSTMCell(4)(x[0], x[1:])),
    "cell_of_gru": (with_states(4), lambda x: layers.GRUCell(4)(x[0], x[1])),
    "cell_of_rnn": (with_states(4), lambda x: layers.SimpleRNNCell(4)(x[0], x[1])),
    "cells": (
        with_states(4, 3),
        lambda x: layers.StackedRNNCells([layers.GRUCell(4), layers.GRUCell(3)])(x[0], x[1:]),
    ),
    "attention_shared": (sequences, shared_attention),
    "ellipsis_before": (sequence, lambda x: layers.EinsumDense("...x,xy->...y", output_shape=4, bias_axes="y")(x)),
    "ellipsis_behind": (sequence, lambda x: layers.EinsumDense("ab...,bc->ac...", output_shape=4)(x)),
    "adapters_of_dense": (vector, lambda x: adapted(layers.Dense(4), x)),
    "adapters_of_embedding": (whole, lambda x: adapted(layers.Embedding(9, 4), x)),
    "adapters_of_convolution": (sequence, lambda x: adapted(layers.Conv1D(4, 3), x)),
    "twice_an_output": (vector, twice_an_output),
}
LAYERS |= {
    f"transposed_{name}": (image, lambda x, settings=settings: layers.Conv2DTranspose(3, 3, **settings)(x))
    for name, settings in {
        "valid": {"strides": 2, "output_padding": 1},
        "same": {"strides": 2, "output_padding": 1, "padding": "same"},
        "dilated": {"dilation_rate": 2},
        "wide": {"strides": 4, "padding": "valid"},
    }.items()
}
SPECTRA: dict[str, dict[str, Any]] = {
    "spectrum": {"expand_dims": True, "frame_length": 60},
    "spectrum_stft": {"mode": "stft", "padding": "same", "frame_step": 50},
    "spectrum_real": {"mode": "real", "fft_length": 300},
}
LAYERS |= {
    name: (waves, lambda x, settings=settings: layers.STFTSpectrogram(window=None, **settings)(x))
    for name, settings in SPECTRA.items()
}
# What integers become.
LAYERS |= {
    f"{type(layer).__name__}_of_whole": (whole, lambda x, layer=layer: layer(x))
    for layer in (
        *(layers.Flatten(), layers.Reshape((2, 3)), layers.RepeatVector(2), layers.Dropout(0.1)),
        *(layers.Activation("relu"), layers.Dense(3), layers.Rescaling(0.5), layers.Identity()),
    )
}
LAYERS |= {
    f"{kind.__name__}_of_whole": (lambda: [whole(), whole()], lambda x, kind=kind: kind()(x))
    for kind in (layers.Add, layers.Concatenate)
}
LAYERS["product_of_whole"] = (lambda: [whole(), whole()], lambda x: layers.Dot(1)(x))
