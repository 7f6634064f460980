"""Models of TensorFlow.js: a JSON file with a topology, and the folder that it is in."""

from __future__ import annotations

import mmap
from pathlib import Path

from exporter.sources.detection.kinds import TFJS_GRAPH, TFJS_LAYERS, Seen
from exporter.sources.web.model_json import TOPOLOGY, parsed, weight_files

MODEL_FILE = "model.json"


def file_kind(seen: Seen) -> str | None:
    """Raises SourceError for JSON that is damaged."""
    if not seen.head.lstrip().startswith(b"{") or not _has_topology(seen.path):
        return None
    return TFJS_GRAPH if isinstance(parsed(str(seen.path))[TOPOLOGY].get("node"), list) else TFJS_LAYERS


def files(source: str) -> list[str]:
    """The model and its weights. Raises SourceError."""
    return [source, *weight_files(source)]


def _has_topology(path: Path) -> bool:
    """Whether the word is in the file: other JSON, which may be large, is not parsed."""
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(f'"{TOPOLOGY}"'.encode()) >= 0
