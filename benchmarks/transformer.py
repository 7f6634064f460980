"""A Keras transformer of any size, written piece by piece: in memory are its architecture and 64 MB of values.

Keras decides where each variable belongs in the file (`saving_lib._save_state` walks over the model), and its own
functions read the files back; what is not Keras's is only that the values are made while they are written.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from keras import layers
from keras.src.saving import saving_lib
from keras.src.utils import naming

PIECE_BYTES = 64 * 2**20
ITEM_BYTES = 4  # float32
ARCHIVE, MAP, ARCHITECTURE = "transformer.keras", "model.weights.json", "architecture.json"


@dataclass(frozen=True)
class Shape:
    """`width` is that of the residual stream; the layers between are four times as wide, the heads 128."""

    width: int
    vocabulary: int
    blocks: int

    @property
    def heads(self) -> int:
        return max(1, self.width // 128)


@dataclass(frozen=True)
class Variable:
    """One variable and its place: `group` is an HDF5 group (`/layers/dense/vars`), `key` the name in it."""

    group: str
    key: str
    path: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES


def shape_of(weight_bytes: float, width: int, vocabulary: int) -> Shape:
    """With as many blocks as it takes to have `weight_bytes` of weights or more."""
    ends = 2 * vocabulary * width + vocabulary + 2 * width  # embedding, norm, dense
    block = 12 * width**2 + 13 * width  # attention 4w² + 4w, dense layers 8w² + 5w, two norms 4w
    return Shape(width, vocabulary, max(1, math.ceil((weight_bytes / ITEM_BYTES - ends) / block)))


def hollow_transformer(shape: Shape) -> keras.Model:
    """The model without values: pre-norm blocks of attention and a gelu MLP, token ids in, logits out."""
    with keras.StatelessScope(initialize_variables=False):
        ids = keras.Input((None,), dtype="int32", name="ids")
        x = layers.Embedding(shape.vocabulary, shape.width, name="embedding")(ids)
        for index in range(shape.blocks):
            name = f"block{index}"
            y = layers.LayerNormalization(name=f"{name}_attention_norm")(x)
            attention = layers.MultiHeadAttention(shape.heads, shape.width // shape.heads, name=f"{name}_attention")
            x = layers.Add(name=f"{name}_attention_add")([x, attention(y, y, use_causal_mask=True)])
            y = layers.LayerNormalization(name=f"{name}_mlp_norm")(x)
            y = layers.Dense(4 * shape.width, "gelu", name=f"{name}_up")(y)
            x = layers.Add(name=f"{name}_mlp_add")([x, layers.Dense(shape.width, name=f"{name}_down")(y)])
        logits = layers.Dense(shape.vocabulary, name="logits")(layers.LayerNormalization(name="norm")(x))
        return keras.Model(ids, logits, name="transformer")


class _Recorder(saving_lib.H5IOStore):
    """Takes the place of a file while Keras saves: notes where a variable would go and what it is."""

    def __init__(self) -> None:
        self.variables: list[Variable] = []

    def __bool__(self) -> bool:
        return True

    def make(self, path: str, metadata: Any = None) -> _Recorder:
        self._group = f"/{path}/vars" if path else "/vars"
        return self

    def __setitem__(self, key: str, variable: Any) -> None:
        self.variables.append(Variable(self._group, key, variable.path, tuple(variable.shape)))


def variables_of(model: keras.Model) -> list[Variable]:
    """In the order in which Keras saves them."""
    recorder = _Recorder()
    with keras.StatelessScope(initialize_variables=False):
        saving_lib._save_state(model, recorder, None, "", visited_saveables=set())
    return recorder.variables


def values(variable: Variable, seed: int = 0) -> Iterator[np.ndarray]:
    """Rows of at most `PIECE_BYTES`; of a size at which signals neither die nor explode, from the seed and the name."""
    generator = np.random.default_rng([seed, zlib.crc32(variable.path.encode())])
    offset, scale = (1.0, 0.2) if variable.path.endswith("gamma") else (0.0, 0.02)
    if variable.path.endswith(("kernel", "embeddings")):
        scale = math.prod(variable.shape) ** -0.25  # 1/√n for an n × n matrix
    row = math.prod(variable.shape[1:])
    step = max(1, PIECE_BYTES // (row * ITEM_BYTES))
    for start in range(0, variable.shape[0], step):
        shape = (min(step, variable.shape[0] - start), *variable.shape[1:])
        piece = generator.standard_normal(shape, np.float32)
        piece *= np.float32(scale)
        piece += np.float32(offset)
        yield piece


def write_hdf5(path: Path, variables: Sequence[Variable]) -> None:
    with h5py.File(path, "w") as file:
        for variable in variables:
            dataset = file.require_group(variable.group).create_dataset(variable.key, variable.shape, np.float32)
            start = 0
            for piece in values(variable):
                dataset[start : start + len(piece)] = piece
                start += len(piece)


def write_archive(folder: Path, model: keras.Model) -> Path:
    """A `.keras` file. The weights are written to a file of their own first, since a zip is written front to back."""
    config, metadata = saving_lib._serialize_model_as_json(model)
    weights = folder / "model.weights.h5"
    write_hdf5(weights, variables_of(model))
    with zipfile.ZipFile(folder / ARCHIVE, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("metadata.json", metadata)
        archive.writestr("config.json", config)
        archive.write(weights, "model.weights.h5")
    weights.unlink()
    return folder / ARCHIVE


def write_shards(folder: Path, model: keras.Model, shard_bytes: int) -> tuple[Path, Path]:
    """`architecture.json`, and `model.weights.json` with its shards: each as full as it gets, like Keras's."""
    (folder / ARCHITECTURE).write_text(model.to_json())
    shards: list[list[Variable]] = [[]]
    for variable in variables_of(model):
        if shards[-1] and sum(one.nbytes for one in shards[-1]) + variable.nbytes > shard_bytes:
            shards.append([])
        shards[-1].append(variable)
    places: dict[str, dict[str, None]] = {}
    for number, variables in enumerate(shards):
        name = f"model_{number:05}.weights.h5"
        write_hdf5(folder / name, variables)
        for variable in variables:
            places.setdefault(variable.group, {})[name] = None
    total = sum(variable.nbytes for variables in shards for variable in variables)
    content = {"metadata": {"total_size": total}, "weight_map": {group: list(names) for group, names in places.items()}}
    (folder / MAP).write_text(json.dumps(content, indent=4))
    return folder / ARCHITECTURE, folder / MAP


class _Generated(saving_lib.H5IOStore):
    """Takes the place of a file while Keras loads: makes the values of one layer again."""

    def __init__(self, variables: Sequence[Variable]) -> None:
        self._groups: dict[str, list[Variable]] = {}
        for variable in variables:
            self._groups.setdefault(variable.group, []).append(variable)

    def __bool__(self) -> bool:
        return True

    def get(self, path: str) -> dict[str, np.ndarray]:
        return {one.key: np.concatenate(list(values(one))) for one in self._groups.get(f"/{path}/vars", ())}

    def has_path(self, path: str) -> bool:
        return any(group.startswith(f"/{path}/") for group in self._groups)


def run_layer_by_layer(model: keras.Model, ids: np.ndarray) -> np.ndarray:
    """What the hollow `model` with the values of `values` gives for token ids of shape (batch, sequence).

    Keras's own layers compute it; one of them has its weights in memory at a time, and no file is read.
    """
    store = _Generated(variables_of(model))
    names: dict[str, int] = {}
    places = {
        id(layer): saving_lib._get_unique_name(naming.to_snake_case(type(layer).__name__), names)
        for layer in model.layers
    }

    def filled(layer: Any) -> Any:
        """A real copy of a hollow layer, for one call."""
        copy = type(layer).from_config(layer.get_config())
        copy.build_from_config(layer.get_build_config())
        saving_lib._load_state(copy, store, None, f"layers/{places[id(layer)]}", visited_saveables=set())
        return copy

    return np.asarray(model._run_through_graph([ids], filled))
