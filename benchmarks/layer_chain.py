"""Keras archives with any number of layers, without weights, made in no time: one block, written again and again."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
from keras import layers

WIDTH = 8


def transformer_block(x: Any, number: int) -> Any:
    """Five layers: a residual branch with a norm, as in the dense half of a transformer's block."""
    y = layers.LayerNormalization(name=f"norm_{number}")(x)
    y = layers.Dense(WIDTH, name=f"wide_{number}")(y)
    y = layers.Activation("gelu", name=f"act_{number}")(y)
    y = layers.Dense(WIDTH, name=f"narrow_{number}")(y)
    return layers.Add(name=f"add_{number}")([x, y])


def convolutional_block(x: Any, number: int) -> Any:
    """Four layers: a residual branch as in a ResNet."""
    y = layers.Conv2D(WIDTH, 3, padding="same", use_bias=False, name=f"conv_{number}")(x)
    y = layers.BatchNormalization(name=f"norm_{number}")(y)
    y = layers.ReLU(name=f"act_{number}")(y)
    return layers.Add(name=f"add_{number}")([x, y])


def deep_block(x: Any, number: int) -> Any:
    """One layer: as deep as the model is large."""
    return layers.ReLU(name=f"act_{number}")(x)


# The shape of the input and what makes a block from a tensor of that shape.
BLOCKS: dict[str, tuple[tuple[int, ...], Callable[[Any, int], Any]]] = {
    "transformer": ((WIDTH,), transformer_block),
    "convolutional": ((WIDTH, WIDTH, WIDTH), convolutional_block),
    "deep": ((WIDTH,), deep_block),
}
# Those that are like networks.
CHAINS = ("transformer", "convolutional")


def config(kind: str, count: int) -> dict[str, Any]:
    """The config of a model of about `count` layers: Keras's own for two blocks, the second of them repeated.

    A block refers to the tensors of the block before it only, by the names of their layers.
    """
    shape, block = BLOCKS[kind]
    inputs = x = keras.Input(shape, name="start")
    for number in range(2):
        x = block(x, number)
    model = json.loads(keras.Model(inputs, x, name="chain").to_json())
    inner = model["config"]
    first = [layer for layer in inner["layers"] if not layer["name"].endswith("_1")]
    second = json.dumps([layer for layer in inner["layers"] if layer["name"].endswith("_1")])
    blocks = (count - 1) // (len(first) - 1)
    inner["layers"] = first
    for number in range(1, blocks):
        inner["layers"] += json.loads(_moved(second, number - 1))
    inner["output_layers"] = json.loads(_moved(json.dumps(inner["output_layers"]), blocks - 2))
    return model


def _moved(text: str, by: int) -> str:
    """The blocks 0 and 1 that the JSON refers to become `by` and `by + 1`."""
    return re.sub(r'_([01])"', lambda match: f'_{int(match[1]) + by}"', text)


def write(path: Path, kind: str, count: int) -> None:
    """An archive that `--weights random` can be used with."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": keras.__version__}))
        archive.writestr("config.json", json.dumps(config(kind, count)))
