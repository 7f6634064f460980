"""What an ONNX file looks up in its tables, so that a comparison can ask for it: texts cannot be made up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

TABLE_DOMAIN, TABLE = "ai.onnx.ml", "LabelEncoder"
KEYS = ("keys_strings", "keys_int64s")
# Ops that hand on what they are given, one by one.
PASSING = ("Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose")
# More do not make a comparison better.
MOST_KEYS = 1000
# What such a table gives for what is not in it is often refused by what comes next, and by Keras.
NO_INDEX = -1
UNKNOWN_TEXT = "[not in any table]"


def table_keys(onnx_path: Path) -> dict[str, list[Any]]:
    """Keys of the tables that take an input of the model, by the input's name, and one that is in none of them.

    Empty for what is no ONNX file.
    """
    try:
        graph = onnx.load(str(onnx_path), load_external_data=False).graph
    except (OSError, DecodeError):
        return {}
    makers = {output: node for node in graph.node for output in node.output}
    tables: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        if node.op_type == TABLE and node.domain == TABLE_DOMAIN:
            tables.setdefault(_origin(makers, node.input[0]), []).append(node)
    inputs = {value.name for value in graph.input}
    return {name: list(_keys(nodes)) for name, nodes in tables.items() if name in inputs}


def _origin(makers: dict[str, onnx.NodeProto], value: str) -> str:
    while (node := makers.get(value)) is not None and node.op_type in PASSING:
        value = node.input[0]
    return value


def _keys(tables: Sequence[onnx.NodeProto]) -> Iterator[Any]:
    found: dict[Any, None] = {}
    is_open = True
    for table in tables:
        for attribute in table.attribute:
            if attribute.name in KEYS:
                texts = (text.decode("utf-8", "replace") for text in attribute.strings[:MOST_KEYS])
                found.update(dict.fromkeys((*texts, *attribute.ints[:MOST_KEYS])))
            if attribute.name == "default_int64" and attribute.i == NO_INDEX:
                is_open = False
    yield from found
    if is_open and found:
        numbers = [key for key in found if isinstance(key, int)]
        yield max(numbers) + 1 if numbers else UNKNOWN_TEXT
