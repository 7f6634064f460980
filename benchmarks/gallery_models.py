"""Models of the gallery that keras.applications does not have, built of Keras's own layers, as JSON for the command.

Their structure is that of well-known models; sizes are those of the smaller published ones, weights are never made.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
from keras import layers, ops


def u_net(size: int = 256, widths: tuple[int, ...] = (64, 128, 256, 512)) -> keras.Model:
    """Ronneberger et al. 2015, with padding: four levels, each encoder level joined to its decoder level."""

    def double(x: Any, width: int, name: str) -> Any:
        for number in (1, 2):
            x = layers.Conv2D(width, 3, padding="same", name=f"{name}_conv{number}")(x)
            x = layers.BatchNormalization(name=f"{name}_bn{number}")(x)
            x = layers.ReLU(name=f"{name}_relu{number}")(x)
        return x

    image = x = keras.Input((size, size, 3), name="image")
    skips = []
    for level, width in enumerate(widths, 1):
        x = double(x, width, f"down{level}")
        skips.append(x)
        x = layers.MaxPooling2D(name=f"down{level}_pool")(x)
    x = double(x, 2 * widths[-1], "bottom")
    for level, width in reversed(list(enumerate(widths, 1))):
        x = layers.Conv2DTranspose(width, 2, strides=2, name=f"up{level}_upsample")(x)
        x = layers.Concatenate(name=f"up{level}_concat")([skips[level - 1], x])
        x = double(x, width, f"up{level}")
    return keras.Model(image, layers.Conv2D(2, 1, activation="softmax", name="mask")(x), name="u_net")


def attended(x: Any, memory: Any, mask: Any, name: str, heads: int, width: int, *, causal: bool = False) -> Any:
    """Attention with its sum and normalisation, normalised after as in BERT."""
    attention = layers.MultiHeadAttention(heads, width // heads, name=f"{name}_attention")
    out = attention(x, memory, attention_mask=mask, use_causal_mask=causal)
    out = layers.Dropout(0.1, name=f"{name}_dropout")(out)
    return layers.LayerNormalization(epsilon=1e-12, name=f"{name}_norm")(layers.Add(name=f"{name}_add")([x, out]))


def fed_forward(x: Any, name: str, width: int) -> Any:
    out = layers.Dense(4 * width, activation="gelu", name=f"{name}_intermediate")(x)
    out = layers.Dropout(0.1, name=f"{name}_dropout")(layers.Dense(width, name=f"{name}_output")(out))
    return layers.LayerNormalization(epsilon=1e-12, name=f"{name}_norm")(layers.Add(name=f"{name}_add")([x, out]))


def bert(length: int = 512, width: int = 768, depth: int = 12, vocabulary: int = 30522) -> keras.Model:
    """Devlin et al. 2018, base: the mask and the token types are inputs, the mask is read by every layer."""
    tokens = keras.Input((length,), dtype="int32", name="token_ids")
    types = keras.Input((length,), dtype="int32", name="segment_ids")
    places = keras.Input((length,), dtype="int32", name="position_ids")
    mask = keras.Input((1, length), dtype="bool", name="padding_mask")
    x = layers.Add(name="embeddings")(
        [
            layers.Embedding(vocabulary, width, name="word_embedding")(tokens),
            layers.Embedding(2, width, name="segment_embedding")(types),
            layers.Embedding(length, width, name="position_embedding")(places),
        ]
    )
    x = layers.Dropout(0.1, name="embeddings_dropout")(layers.LayerNormalization(name="embeddings_norm")(x))
    for number in range(depth):
        x = attended(x, x, mask, f"layer_{number}_self", 12, width)
        x = fed_forward(x, f"layer_{number}_feedforward", width)
    pooled = layers.Dense(width, activation="tanh", name="pooled_output")(x[:, 0])
    return keras.Model([tokens, types, places, mask], [x, pooled], name="bert_base")


def whisper(frames: int = 3000, width: int = 512, depth: int = 6, vocabulary: int = 51865) -> keras.Model:
    """Radford et al. 2022, base: convolutions and an encoder over a spectrogram, a decoder that attends to it."""
    sound = keras.Input((frames, 80), name="mel_spectrogram")
    x = layers.Conv1D(width, 3, padding="same", activation="gelu", name="encoder_conv1")(sound)
    x = layers.Conv1D(width, 3, strides=2, padding="same", activation="gelu", name="encoder_conv2")(x)
    x = layers.Dropout(0.1, name="encoder_dropout")(x)
    for number in range(depth):
        x = before(x, x, f"encoder_layer_{number}_self", width)
        x = thought(x, f"encoder_layer_{number}_feedforward", width)
    memory = layers.LayerNormalization(name="encoder_norm")(x)
    tokens = keras.Input((448,), dtype="int32", name="token_ids")
    x = layers.Embedding(vocabulary, width, name="decoder_embedding")(tokens)
    for number in range(depth):
        x = before(x, x, f"decoder_layer_{number}_self", width, causal=True)
        x = before(x, memory, f"decoder_layer_{number}_cross", width)
        x = thought(x, f"decoder_layer_{number}_feedforward", width)
    x = layers.LayerNormalization(name="decoder_norm")(x)
    return keras.Model([sound, tokens], layers.Dense(vocabulary, name="logits")(x), name="whisper_base")


def before(x: Any, memory: Any, name: str, width: int, *, causal: bool = False) -> Any:
    """Attention that is normalised first; a decoder's own looks back only."""
    normed = layers.LayerNormalization(name=f"{name}_norm")(x)
    other = normed if memory is x else memory
    attention = layers.MultiHeadAttention(8, width // 8, name=f"{name}_attention")
    return layers.Add(name=f"{name}_add")([x, attention(normed, other, use_causal_mask=causal)])


def thought(x: Any, name: str, width: int) -> Any:
    out = layers.LayerNormalization(name=f"{name}_norm")(x)
    out = layers.Dense(4 * width, activation="gelu", name=f"{name}_intermediate")(out)
    return layers.Add(name=f"{name}_add")([x, layers.Dense(width, name=f"{name}_output")(out)])


def siamese() -> keras.Model:
    """Two towers: one shared encoder sees both images, a small head compares what it makes of them."""
    image = x = keras.Input((105, 105, 1), name="image")
    for number, (width, size) in enumerate(((64, 10), (128, 7), (128, 4), (256, 4)), 1):
        x = layers.Conv2D(width, size, activation="relu", name=f"conv{number}")(x)
        x = layers.MaxPooling2D(name=f"pool{number}")(x) if number < 4 else x
    x = layers.Dense(4096, activation="sigmoid", name="embedding")(layers.Flatten(name="flatten")(x))
    encoder = keras.Model(image, x, name="encoder")
    left, right = (keras.Input((105, 105, 1), name=name) for name in ("left", "right"))
    difference = ops.absolute(layers.Subtract(name="difference")([encoder(left), encoder(right)]))
    same = layers.Dense(1, activation="sigmoid", name="same")(difference)
    return keras.Model([left, right], same, name="siamese")


def deep_transformer(depth: int = 400, width: int = 128, length: int = 256) -> keras.Model:
    """A decoder of 400 layers, all of which read one mask."""
    tokens = keras.Input((length,), dtype="int32", name="token_ids")
    mask = keras.Input((length, length), dtype="bool", name="attention_mask")
    x = layers.Embedding(32000, width, name="embedding")(tokens)
    for number in range(depth):
        normed = layers.RMSNormalization(name=f"block_{number}_norm1")(x)
        attention = layers.MultiHeadAttention(4, width // 4, name=f"block_{number}_attention")
        x = layers.Add(name=f"block_{number}_add1")([x, attention(normed, normed, attention_mask=mask)])
        normed = layers.RMSNormalization(name=f"block_{number}_norm2")(x)
        up = layers.Dense(4 * width, activation="silu", name=f"block_{number}_up")(normed)
        x = layers.Add(name=f"block_{number}_add2")([x, layers.Dense(width, name=f"block_{number}_down")(up)])
    x = layers.RMSNormalization(name="final_norm")(x)
    return keras.Model([tokens, mask], layers.Dense(32000, name="logits")(x), name="transformer_400")


BUILDERS: dict[str, Callable[[], keras.Model]] = {
    "u_net": u_net,
    "bert_base": bert,
    "whisper_base": whisper,
    "siamese": siamese,
    "transformer_400": deep_transformer,
}
APPLICATIONS = ("ResNet101", "EfficientNetB0", "InceptionV3", "NASNetLarge", "MobileNetV3Large", "ConvNeXtTiny")


def hollow() -> None:
    """From here on, variables have shapes and no bytes."""
    keras.StatelessScope(initialize_variables=False).__enter__()


def saved(name: str, folder: Path) -> str:
    """What to give to the command: the name of an application, or a file with the model's architecture."""
    if name not in BUILDERS:
        return name
    path = folder / f"{name}.json"
    path.write_text(BUILDERS[name]().to_json(), encoding="utf-8")
    return str(path)
