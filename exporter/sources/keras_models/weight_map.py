"""Sharded weights: `model.weights.json` says in which HDF5 files beside it the weights of each layer are.

Keras writes this layout for `model.save_weights(path, max_shard_size=…)`; a layer that a shard had no room for is in
several. Nothing here imports TensorFlow or Keras.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporter.errors import SourceError
from exporter.sources.file_names import is_plain_name
from exporter.sources.json_file import read_json

SUFFIX, MAP_KEY = ".json", "weight_map"
COPY_HINT = "copy the .weights.json again, with all the .weights.h5 files that Keras wrote beside it"


def is_sharded(weights: str) -> bool:
    """By the name, which Keras insists on."""
    return weights.endswith(SUFFIX)


def weights_files(weights: str) -> list[str]:
    """The weights file, and its shards if it has any. Raises SourceError."""
    return [weights, *map(str, shard_paths(weights))] if is_sharded(weights) else [weights]


def shard_paths(path: str) -> list[Path]:
    """The shards of a map, each once, in the order of their names. Raises SourceError."""
    names = {first_shard(path), *(name for names in read_weight_map(path).values() for name in names)}
    return [Path(path).with_name(name) for name in sorted(names)]


def named_weights(path: str) -> list[str]:
    """The names of the shards, whether they are there or not. Raises SourceError."""
    names = (name for names in _parsed(path).values() for name in _shard_names(names, path))
    return sorted({first_shard(path), *names})


def first_shard(path: str) -> str:
    """The shard that Keras opens before it looks into the map, under this name whatever the map says."""
    return f"{Path(path).stem.replace('.weights', '')}_00000.weights.h5"


def read_weight_map(path: str) -> dict[str, tuple[str, ...]]:
    """Path of a layer's group of variables → names of the shards that it is in, all of which exist.

    Raises SourceError for a file that is no such map, and for a shard that is missing or in another folder.
    """
    found = {group: _shard_names(names, path) for group, names in _parsed(path).items()}
    for name in sorted({first_shard(path), *(name for names in found.values() for name in names)}):
        if not Path(path).with_name(name).is_file():
            why = f"the shard {name} is not in its folder"
            raise SourceError("is not complete", where=path, why=why, hint=f"{COPY_HINT}, under the names they had")
    return found


def _parsed(path: str) -> dict[str, Any]:
    content = read_json(path, COPY_HINT)
    shards = content.get(MAP_KEY) if isinstance(content, dict) else None
    if not isinstance(shards, dict):
        hint = "give the .weights.json that Keras wrote for max_shard_size, or a .weights.h5 file"
        raise SourceError("holds no weights", where=path, why=f"the JSON has no {MAP_KEY}", hint=hint)
    return shards


def _shard_names(names: Any, path: str) -> tuple[str, ...]:
    """Keras writes a list, or a bare name; the shards are beside the map."""
    listed = [names] if isinstance(names, str) else names
    if not isinstance(listed, list) or not listed or not all(isinstance(name, str) for name in listed):
        raise SourceError("is corrupt", where=path, why=f"{names!r} is no list of shards"[:200], hint=COPY_HINT)
    for name in listed:
        if not is_plain_name(name):
            why = f"the shard {name[:80]!r} is not in its folder"
            raise SourceError(
                "leads out of its folder", where=path, why=why, hint="is it from a source that you trust?"
            )
    return tuple(listed)


def folder_weights(folder: str) -> Path | None:
    """The weights file of an unpacked Keras archive; where there are two, the one that Keras would load."""
    names = ("model.weights.h5", "model.weights.json")
    return next((path for name in names if (path := Path(folder) / name).is_file()), None)
