"""Lookup tables of a graph: what the part of the graph that fills them puts in, read from constants and text files.

A table is filled once, before the first run. Only such tables have a form in ONNX; nothing here runs the graph.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from exporter.errors import SourceError, UnsupportedError
from exporter.sources.graphs.graph_parts import maker, part_of, source_of
from exporter.sources.graphs.graph_walk import node_name
from exporter.sources.graphs.hollow_graph import HOLLOW_OP
from exporter.sources.graphs.lookup_table import LookupTable, MakeTable, table_of
from exporter.sources.h5_values import COPY_AGAIN

STATIC = ("HashTableV2",)
FROM_TENSORS = ("InitializeTableV2", "LookupTableImportV2")
FROM_TEXT = ("InitializeTableFromTextFileV2",)
FILLING = "the graph that fills the lookup tables"
# Names of collections, in the order in which TensorFlow came to write them.
ROOT_COLLECTIONS = ("table_initializer", "legacy_init_op", "saved_model_main_op")
ROOT_SIGNATURE, ASSETS, ASSET_COLLECTION = "__saved_model_init_op", "assets", "saved_model_assets"
# Columns that a text file is said to have (tensorflow/core/ops/lookup_ops.cc).
WHOLE_LINE, LINE_NUMBER = -2, -1
# Keys and values become attributes of an ONNX node, which no file may have 2 GB of.
LARGEST_TEXT_BYTES = 2**28


def lookup_tables(
    meta_graph: meta_graph_pb2.MetaGraphDef, folder: Path, value: Callable[[str], np.ndarray]
) -> dict[str, MakeTable]:
    """The tables that are filled before the first run, by their nodes, unread; `value` has large constants by key.

    `folder` is that of the SavedModel. Raises SourceError for a text file that is missing or leads out of it.
    """
    if not any(node.op in STATIC for node in meta_graph.graph_def.node):
        return {}
    part = part_of(meta_graph.graph_def, list(_roots(meta_graph)), FILLING)
    if part is None:
        return {}
    filling = _Filling({node.name: node for node in part.node}, folder, dict(_assets(meta_graph)), value)
    return dict(filling.tables())


def _roots(meta_graph: meta_graph_pb2.MetaGraphDef) -> Iterator[str]:
    for name in ROOT_COLLECTIONS:
        yield from meta_graph.collection_def[name].node_list.value if name in meta_graph.collection_def else ()
    if ROOT_SIGNATURE in meta_graph.signature_def:
        yield from (info.name for info in meta_graph.signature_def[ROOT_SIGNATURE].outputs.values())


def _assets(meta_graph: meta_graph_pb2.MetaGraphDef) -> Iterator[tuple[str, str]]:
    """Names of files by the node that stands for their paths."""
    packed = meta_graph.collection_def[ASSET_COLLECTION].any_list.value
    old = [meta_graph_pb2.AssetFileDef.FromString(each.value) for each in packed]
    for asset in (*meta_graph.asset_file_def, *old):
        yield node_name(asset.tensor_info.name), asset.filename


@dataclass(frozen=True)
class _Filling:
    nodes: Mapping[str, Any]
    folder: Path
    assets: Mapping[str, str]
    value: Callable[[str], np.ndarray]

    def tables(self) -> Iterator[tuple[str, MakeTable]]:
        assigned = {
            node_name(source_of(self.nodes, node.input[0])): node.input[1]
            for node in self.nodes.values()
            if node.op == "AssignVariableOp" and len(node.input) > 1
        }
        for node in self.nodes.values():
            table = maker(self.nodes, node.input[0]) if node.op in (*FROM_TENSORS, *FROM_TEXT) and node.input else None
            if table is None or table.op not in STATIC:
                continue
            if node.op in FROM_TENSORS:
                yield table.name, functools.partial(self._from_tensors, list(node.input[1:3]), table)
            elif (path := self._path(node.input[1], assigned)) is not None:
                yield table.name, functools.partial(_from_text, path, node, table)

    def _from_tensors(self, tensors: list[str], table: Any) -> LookupTable:
        return table_of(*(self._constant(tensor, table.name) for tensor in tensors))

    def _constant(self, tensor: str, table: str) -> np.ndarray:
        node = maker(self.nodes, tensor)
        if node is not None and node.op == "Const":
            return np.asarray(tf.make_ndarray(node.attr["value"].tensor))
        if node is not None and node.op == HOLLOW_OP:
            return self.value(node.attr["memory_region_name"].s.decode())
        why = f"what is put into {table} is computed by {node.op if node is not None else 'nothing'}"
        raise UnsupportedError("cannot be converted", where=FILLING, why=why)

    def _path(self, tensor: str, assigned: Mapping[str, str]) -> Path | None:
        """Of the text file that a tensor names: a constant, or a variable that a constant is assigned to.

        None for one that does not belong to the model.
        """
        node = maker(self.nodes, tensor)
        if node is not None and node.op == "ReadVariableOp":
            node = maker(self.nodes, assigned.get(node_name(source_of(self.nodes, node.input[0])), ""))
        name = self.assets.get(node.name if node is not None else "")
        if name is None:
            return None
        pure = PurePosixPath(name.replace("\\", "/"))
        if pure.is_absolute() or ".." in pure.parts:
            why = f"the file {name!r} of a lookup table leads out of the folder"
            raise SourceError("is not valid", where=str(self.folder), why=why, hint=COPY_AGAIN)
        path = self.folder / ASSETS / pure
        if not path.is_file():
            why = f"the file {ASSETS}/{name} of a lookup table is missing"
            raise SourceError("is not complete", where=str(self.folder), why=why, hint=COPY_AGAIN)
        return path


def _from_text(path: Path, node: Any, table: Any) -> LookupTable:
    """What TensorFlow's kernel reads: no carriage returns, no empty lines; columns are split by the delimiter."""
    if path.stat().st_size > LARGEST_TEXT_BYTES:
        why = f"it has more than {LARGEST_TEXT_BYTES:,} bytes, which no node in ONNX can hold"
        raise UnsupportedError("cannot be converted", where=str(path), why=why)
    try:
        lines = path.read_bytes().replace(b"\r", b"").removesuffix(b"\n").split(b"\n")
    except OSError as error:
        raise SourceError("cannot be read", where=str(path), why=error.strerror or str(error)) from error
    attributes = node.attr
    limit = attributes["vocab_size"].i if "vocab_size" in attributes else -1
    delimiter = attributes["delimiter"].s or b"\t"
    key_dtype, value_dtype = (tf.dtypes.as_dtype(table.attr[name].type).name for name in ("key_dtype", "value_dtype"))
    content: dict[Any, Any] = {}
    for number, line in enumerate(lines[: limit if limit >= 0 else None]):
        cells = line.split(delimiter)
        place = number + attributes["offset"].i
        try:
            if not line:
                raise ValueError("it is empty")
            key = _cell(attributes["key_index"].i, line, cells, place, key_dtype)
            content[key] = _cell(attributes["value_index"].i, line, cells, place, value_dtype)
        except (ValueError, IndexError) as error:
            why = f"line {number + 1} is none of a lookup table: {error}"
            raise SourceError("is truncated or corrupt", where=str(path), why=why, hint=COPY_AGAIN) from error
    return LookupTable(content, key_dtype, value_dtype)


def _cell(column: int, line: bytes, cells: list[bytes], number: int, dtype: str) -> Any:
    if column == LINE_NUMBER:
        return number
    text = line if column == WHOLE_LINE else cells[column]
    if dtype == "string":
        return text
    return int(text) if "int" in dtype else float(text)
