"""TensorFlow Lite files, which say so in bytes 4 to 8."""

from __future__ import annotations

from exporter.sources.detection.kinds import TFLITE_FILE, Seen

IDENTIFIER = b"TFL3"


def file_kind(seen: Seen) -> str | None:
    return TFLITE_FILE if seen.head[4:8] == IDENTIFIER else None
