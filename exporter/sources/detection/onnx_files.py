"""ONNX files, which have no signature: they are told by their fields."""

from __future__ import annotations

import mmap
from itertools import islice

from exporter.protobuf import fields
from exporter.sources.detection.kinds import ONNX_FILE, Seen

# Fields of ModelProto in onnx.proto.
ONNX_IR_VERSION, ONNX_GRAPH, ONNX_LAST_FIELD = 1, 7, 26
# Opsets, functions and pieces of metadata are fields each; more than this many are no model.
ONNX_MOST_FIELDS = 100_000


def file_kind(seen: Seen) -> str | None:
    """Whether the file is one protocol-buffer message with the fields of an ONNX model, the graph among them."""
    if not seen.nbytes:
        return None
    with open(seen.path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            found = [each.number for each in islice(fields(data, 0, seen.nbytes), ONNX_MOST_FIELDS)]
        except ValueError:
            return None
    is_model = found.count(ONNX_GRAPH) == 1 and ONNX_IR_VERSION in found and max(found) <= ONNX_LAST_FIELD
    return ONNX_FILE if is_model else None
