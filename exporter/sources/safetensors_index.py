"""`model.safetensors.index.json`: which of the files beside it has each tensor.

Nothing here imports TensorFlow or Keras.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from exporter.errors import SourceError
from exporter.sources.file_names import is_plain_name
from exporter.sources.json_file import read_json
from exporter.sources.keras_models.weight_map import MAP_KEY

SUFFIX = ".safetensors"
# The limit of the safetensors library.
LARGEST_HEADER = 100_000_000
COPY_HINT = "copy the index again, with all the .safetensors files beside it"


def is_index(path: str) -> bool:
    """By the first character, which a length never is: it would be a header of more than the limit."""
    with open(path, "rb") as stream:
        return not is_header(stream.read(9), os.fstat(stream.fileno()).st_size)


def is_header(head: bytes, nbytes: int) -> bool:
    """Whether a file starts as a safetensors file does: the length of a header that fits, and its first character."""
    length = int.from_bytes(head[:8], "little")
    return len(head) >= 9 and head[8:9] == b"{" and length <= min(LARGEST_HEADER, nbytes - 8)


def is_shard_map(content: Any) -> bool:
    """Whether the JSON lists safetensors files, as opposed to Keras's shards."""
    names = content.get(MAP_KEY) if isinstance(content, dict) else None
    return isinstance(names, dict) and any(isinstance(name, str) and name.endswith(SUFFIX) for name in names.values())


def shard_files(path: str) -> dict[Path, set[str]]:
    """The files of an index in the order of their names, with the tensors that each must have. Raises SourceError."""
    found: dict[Path, set[str]] = {}
    for tensor, name in sorted(_parsed(path).items(), key=lambda item: str(item[1])):
        found.setdefault(_shard(name, path), set()).add(tensor)
    return found


def named_shards(path: str) -> list[str]:
    """The names in an index, whether they are there or not. Raises SourceError."""
    return sorted({name for name in _parsed(path).values() if isinstance(name, str)})


def index_files(path: str) -> list[str]:
    """The file itself and, of an index, its shards. Raises SourceError."""
    return [path, *map(str, shard_files(path))] if is_index(path) else [path]


def _parsed(path: str) -> dict[str, Any]:
    content = read_json(path, COPY_HINT)
    if not is_shard_map(content):
        why = f"the JSON has no {MAP_KEY} of {SUFFIX} files"
        raise SourceError("holds no weights", where=path, why=why, hint="give the index that lies beside the shards")
    names: dict[str, Any] = content[MAP_KEY]
    return names


def _shard(name: Any, path: str) -> Path:
    if not is_plain_name(name):
        why = f"the shard {str(name)[:80]!r} is not in its folder"
        raise SourceError("leads out of its folder", where=path, why=why, hint="is it from a source that you trust?")
    shard = Path(path).with_name(name)
    if not shard.is_file():
        raise SourceError("is not complete", where=path, why=f"the shard {name} is not in its folder", hint=COPY_HINT)
    return shard
