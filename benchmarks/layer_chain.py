"""Keras archives with any number of layers, made without building them: one block, written again and again."""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from keras import layers
from keras.src.utils.naming import to_snake_case

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


def write(path: Path, kind: str, count: int, *, weights: bool = False) -> None:
    """An archive that `--weights random` can be used with, or one with weights, which takes a millisecond each."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": keras.__version__}))
        archive.writestr("config.json", json.dumps(config(kind, count)))
        if weights:
            stored = path.with_suffix(".weights.h5")
            write_weights(stored, kind, count)
            archive.write(stored, "model.weights.h5")
            stored.unlink()


def write_weights(path: Path, kind: str, count: int) -> None:
    """Zeros in Keras's layout: a group for each layer, named after its class and the number of those before."""
    made = keras.models.model_from_json(json.dumps(config(kind, 2 * len(BLOCKS))))
    shapes = {layer.name.rpartition("_")[0]: [weight.shape for weight in layer.weights] for layer in made.layers}
    numbers: Counter[str] = Counter()
    with h5py.File(path, "w", libver="latest") as file:
        for layer in config(kind, count)["config"]["layers"]:
            name = to_snake_case(layer["class_name"])
            group = file.create_group(f"layers/{name}_{numbers[name]}/vars" if numbers[name] else f"layers/{name}/vars")
            numbers[name] += 1
            for number, shape in enumerate(shapes[layer["name"].rpartition("_")[0]]):
                group.create_dataset(str(number), data=np.zeros(shape, np.float32), track_times=False)
