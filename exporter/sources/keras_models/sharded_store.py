"""Keras's store of sharded weights for lazy reading: shards stay open, because their datasets are read later."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
from keras.src.saving import saving_lib

from exporter.errors import SourceError
from exporter.sources.h5_values import COPY_AGAIN
from exporter.sources.keras_models.weight_map import read_weight_map

# Below what systems allow a process (macOS: 256 files). A dataset whose shard was closed opens it again to be read.
MAX_OPEN_SHARDS = 64


class ShardedStore(saving_lib.H5IOStore):
    """What Keras's layers load from. Its own `ShardedH5IOStore` closes one shard to open the next.

    Raises SourceError that names the shard which cannot be read.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._shards = read_weight_map(path)
        self._known = {str(parent) for group in self._shards for parent in (*PurePosixPath(group).parents, group)}
        self._files: OrderedDict[str, h5py.File] = OrderedDict()
        self._groups: list[h5py.Group] = []

    def __bool__(self) -> bool:
        return True

    def get(self, path: str) -> ShardedStore:
        """The variables of the layer at `path`, from every shard that has some; empty for a layer without any."""
        group = f"/{path}/vars" if path else "/vars"
        while len(self._files) >= MAX_OPEN_SHARDS:
            self._files.popitem(last=False)[1].close()
        self._groups = [self._group(shard, group) for shard in self._shards.get(group, ())]
        return self

    def has_path(self, path: str) -> bool:
        return f"/{path}" in self._known

    def keys(self) -> list[str]:
        return [key for group in self._groups for key in group]

    def __len__(self) -> int:
        return len(self.keys())

    def __contains__(self, key: object) -> bool:
        return any(key in group for group in self._groups)

    def __getitem__(self, key: str) -> Any:
        # Where Keras's method, or what listens in its place, looks the key up.
        self._h5_entry_group: Any = next((group for group in self._groups if key in group), {})
        return super().__getitem__(key)

    def _group(self, shard: str, group: str) -> h5py.Group:
        try:
            return saving_lib.safe_get_h5_group(self._file(shard), group.removeprefix("/"))
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            where = f"{self._path.with_name(shard)}, group {group}"
            why = "it is not there" if isinstance(error, KeyError) else str(error)
            raise SourceError("cannot be read", where=where, why=why, hint=COPY_AGAIN) from error

    def _file(self, shard: str) -> h5py.File:
        if shard not in self._files:
            self._files[shard] = h5py.File(self._path.with_name(shard), "r", locking=False)
        self._files.move_to_end(shard)
        return self._files[shard]
