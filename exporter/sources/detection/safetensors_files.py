"""safetensors files, which start with the length of a JSON header; `keras_files` knows their index."""

from __future__ import annotations

from exporter.sources.detection.kinds import SAFETENSORS, Seen
from exporter.sources.safetensors_index import is_header


def file_kind(seen: Seen) -> str | None:
    return SAFETENSORS if is_header(seen.head, seen.nbytes) else None
