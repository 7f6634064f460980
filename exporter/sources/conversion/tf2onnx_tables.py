"""Lookup tables in ONNX, and what stands around them in models of text: handlers and a rewriter for tf2onnx.

tf2onnx's own make `CategoryMapper`, which has no numbers for keys and values at once, and find a table by a name that
several may share. `LabelEncoder` of ai.onnx.ml has all combinations of text, int64 and float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper
from tf2onnx import constants, handler, utils
from tf2onnx.graph import Graph, Node

from exporter.sources.graphs.lookup_table import LookupTable, MakeTable

# By TensorFlow's name: the type that LabelEncoder takes or gives, and the ending of its attributes.
KINDS = {
    "string": (TensorProto.STRING, "string"),
    "int64": (TensorProto.INT64, "int64"),
    "int32": (TensorProto.INT64, "int64"),
    "float32": (TensorProto.FLOAT, "float"),
}


def _maker(node: Node | None) -> Node | None:
    """What makes the value that this node hands on."""
    while node is not None and node.type == "Identity":
        node = node.inputs[0]
    return node


def _constant(node: Node | None) -> Any:
    """The one value of a constant, text as bytes; None for anything else."""
    node = _maker(node)
    values = np.asarray(node.get_tensor_value(as_list=False)) if node is not None and node.is_const() else None
    if values is None or values.size != 1:
        return None
    value = values.reshape(-1)[0]
    return value.encode() if isinstance(value, str) else value


def _table(node: Node, tables: Mapping[str, MakeTable]) -> LookupTable:
    """That of a node whose first input it is. Raises ValueError, which tf2onnx reports with the node's name."""
    maker = _maker(node.inputs[0])
    if maker is None or maker.name not in tables:
        what = "a table that is given to a loop or branch" if maker is None else f"{maker.type} {maker.name}"
        raise ValueError(f"nothing says what {what} holds before the first run; ONNX has tables that never change")
    return tables[maker.name]()


@handler.tf_op("LookupTableFindV2")
class LookupTableFind:
    """A `LabelEncoder` of ai.onnx.ml."""

    @classmethod
    def version_8(cls, graph: Graph, node: Node, initialized_tables: Mapping[str, MakeTable], **kwargs: Any) -> None:
        table = _table(node, initialized_tables)
        default = _constant(node.inputs[2])
        if default is None:
            raise ValueError("its default value is computed, and ONNX wants a constant one")
        if not table.content:
            raise ValueError("the table is empty")
        name, keys, output, dtypes = node.name, node.input[1], node.output[0], node.output_dtypes
        graph.remove_node(name)
        is_other = dtypes != [KINDS.get(table.value_dtype, (dtypes[0],))[0]]
        found = encoder(graph, name, keys, table, default, None if is_other else output)
        if is_other:
            cast(graph, name, found, dtypes[0], output)


def encoder(graph: Graph, name: str, keys: str, table: LookupTable, default: Any, output: str | None = None) -> str:
    """The output of a `LabelEncoder`, in the type that it has for the table's values."""
    unknown = sorted({table.key_dtype, table.value_dtype} - KINDS.keys())
    if unknown:
        raise ValueError(f"ONNX's LabelEncoder has no {' and no '.join(unknown)}")
    (key_kind, key_name), (value_kind, value_name) = KINDS[table.key_dtype], KINDS[table.value_dtype]
    if graph.get_dtype(keys) != key_kind:
        keys = cast(graph, name, keys, key_kind)
    node = graph.make_node(
        "LabelEncoder",
        [keys],
        name=name,
        outputs=[output or f"{utils.make_name(name)}:0"],
        domain=constants.AI_ONNX_ML_DOMAIN,
        attr={
            f"keys_{key_name}s": list(table.content),
            f"values_{value_name}s": list(table.content.values()),
            f"default_{value_name}": default,
        },
        shapes=[graph.get_shape(keys)],
        dtypes=[value_kind],
    )
    return str(node.output[0])


def cast(graph: Graph, name: str, value: str, kind: int, output: str | None = None) -> str:
    """`name` is that of the node which it belongs to."""
    node = graph.make_node(
        "Cast",
        [value],
        name=utils.make_name(name),
        outputs=[output or f"{utils.make_name(name)}:0"],
        attr={"to": kind},
        shapes=[graph.get_shape(value)],
        dtypes=[kind],
    )
    return str(node.output[0])


@handler.tf_op("MutableHashTableV2")
class Table:
    """Nothing: who looks up in it has what it holds."""

    @classmethod
    def version_8(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        pass


@handler.tf_op("LookupTableSizeV2")
class LookupTableSize:
    """A number that is known."""

    @classmethod
    def version_1(cls, graph: Graph, node: Node, initialized_tables: Mapping[str, MakeTable], **kwargs: Any) -> None:
        size = len(_table(node, initialized_tables).content)
        graph.remove_node(node.name)
        graph.make_const(node.output[0], np.array(size, np.int64))


def rewrite_one_bucket(graph: Graph, ops: list[Node]) -> list[Node]:
    """A hash of text into one bucket, as for the one index of unknown words, is zeros; ONNX has no such hash."""
    for node in ops:
        if node.type != "StringToHashBucketFast" or node.get_attr_value("num_buckets") != 1:
            continue
        name, shapes, text, outputs = node.name, node.output_shapes, node.input[0], node.output
        graph.remove_node(name)
        sizes = graph.make_node("Shape", [text], name=utils.make_name(name), dtypes=[TensorProto.INT64])
        zero = numpy_helper.from_array(np.zeros(1, np.int64))
        graph.make_node(
            "ConstantOfShape",
            [sizes.output[0]],
            name=name,
            outputs=outputs,
            attr={"value": zero},
            shapes=shapes,
            dtypes=[TensorProto.INT64],
        )
    return graph.get_nodes()


def rewrite_equal_text(graph: Graph, ops: list[Node]) -> list[Node]:
    """`text == constant` (a mask), which ONNX has from opset 19 on only, is a table with one key."""
    for node in ops:
        if node.type not in ("Equal", "NotEqual") or graph.get_dtype(node.input[0]) != TensorProto.STRING:
            continue
        constants_at = [(place, key) for place in (0, 1) if (key := _constant(node.inputs[place])) is not None]
        if len(constants_at) == 1:
            ((place, key),) = constants_at
            is_equal = int(node.type == "Equal")
            table = LookupTable({key: is_equal}, "string", "int64")
            name, text, output = node.name, node.input[1 - place], node.output[0]
            graph.remove_node(name)
            found = encoder(graph, name, text, table, 1 - is_equal)
            cast(graph, name, found, TensorProto.BOOL, output)
    return graph.get_nodes()
