"""A graph as TensorBoard takes it: the nodes of a `GraphDef`, or the JSON of a Keras model for the conceptual graph.

Names say where a node is in the hierarchy, as in TensorFlow. All texts are cut to a length, so that the size of the
result is bounded by the number of nodes and links. Weights are in neither.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping

from tensorboard.compat.proto.attr_value_pb2 import AttrValue
from tensorboard.compat.proto.node_def_pb2 import NodeDef

from exporter.formats.board_nodes import BoardNode, Fact, facts
from exporter.formats.scopes import Scope
from exporter.protobuf import field_start
from exporter.records import TensorSpec
from exporter.unique_names import Names

# Bytes of a part of a name, and parts of one; scopes further in are left out.
LONGEST_PART, MOST_PARTS = 60, 8
LONGEST_TEXT = 100
MOST_OUTPUTS, MOST_DIMENSIONS = 4, 8
# TensorBoard takes `:1` at the end of an input for an output's number, `^` for a control edge, and `"` and `\` for the
# end of a text or an escape.
UNSAFE = re.compile(r"[^\w.\-]+")
NODE = 1
TO_JSON = json.JSONEncoder(separators=(",", ":")).encode
# As the backend of TensorBoard reads it (`keras_util.keras_model_to_graph_def`): nested models are not needed, because
# names may be paths.
MODEL_HEAD, MODEL_TAIL = b'{"class_name":"Functional","config":{"name":"","layers":[', b"]}}"


class EventNames:
    """The names of a graph's nodes in TensorBoard, by key: unique, of characters that its pages understand."""

    def __init__(self, nodes: Iterable[BoardNode]) -> None:
        self._taken = Names()
        self._paths: dict[Scope, str] = {(): ""}
        self._names = {node.key: self._taken.unique(self._path(node.scope) + part(node.name)) for node in nodes}

    def __getitem__(self, key: str) -> str:
        return self._names[key]

    def __contains__(self, key: str) -> bool:
        return key in self._names

    def _path(self, scope: Scope) -> str:
        """The beginning of all names in a scope; scopes that differ stay apart when their names are cleaned."""
        scope = scope[: MOST_PARTS - 1]
        if scope not in self._paths:
            self._paths[scope] = self._taken.unique(self._path(scope[:-1]) + part(scope[-1])) + "/"
        return self._paths[scope]


def part(name: str) -> str:
    """A name of one node or scope. Letters of all languages stay, spaces and signs become `_`."""
    return clipped(UNSAFE.sub("_", name), LONGEST_PART).strip("_") or "_"


def clipped(text: str, nbytes: int) -> str:
    """Valid Unicode of at most so many bytes in UTF-8, the middle left out."""
    data = text.encode("utf-8", "replace")
    if len(data) <= nbytes:
        return data.decode()
    half = (nbytes - 2) // 2
    return f"{data[:half].decode('utf-8', 'ignore')}..{data[-half:].decode('utf-8', 'ignore')}"


def graph_pieces(nodes: Iterable[BoardNode], names: EventNames) -> Iterator[bytes]:
    """A serialized `GraphDef`, node by node."""
    for node in nodes:
        data = node_def(node, names).SerializeToString(deterministic=True)
        yield field_start(NODE, len(data)) + data


def node_def(node: BoardNode, names: EventNames) -> NodeDef:
    found = NodeDef(name=names[node.key], op=part(node.op))
    for link in node.links:
        if link.source in names:
            found.input.append(f"{names[link.source]}:{link.output}" if link.output else names[link.source])
    for key, value in shown(facts(node)).items():
        found.attr[key].CopyFrom(AttrValue(i=value) if isinstance(value, int) else AttrValue(s=value.encode()))
    if node.outputs:
        found.attr["dtype"].s = clipped(node.outputs[0].dtype or "unknown", LONGEST_TEXT).encode()
        for spec in node.outputs[:MOST_OUTPUTS]:
            add_shape(found.attr["_output_shapes"], spec)
    return found


def shown(known: Mapping[str, Fact]) -> dict[str, Fact]:
    """The facts as they go into the file, which takes numbers of 64 bits."""
    return {
        key: value if isinstance(value, int) and value.bit_length() < 64 else clipped(str(value), LONGEST_TEXT)
        for key, value in known.items()
    }


def add_shape(attribute: AttrValue, spec: TensorSpec) -> None:
    shape = attribute.list.shape.add(unknown_rank=spec.shape is None)
    for size in (spec.shape or ())[:MOST_DIMENSIONS]:
        shape.dim.add(size=-1 if size is None else size)


def model_pieces(nodes: Iterable[BoardNode], names: EventNames) -> Iterator[bytes]:
    """The JSON of a Keras model, layer by layer."""
    yield MODEL_HEAD
    for place, node in enumerate(nodes):
        yield ("," if place else "").encode() + TO_JSON(layer_json(node, names)).encode()
    yield MODEL_TAIL


def layer_json(node: BoardNode, names: EventNames) -> dict[str, object]:
    sources = [names[link.source] for link in node.links if link.source in names]
    histories = [{"config": {"keras_history": [source, 0, 0]}} for source in sources]
    dtype = clipped(node.outputs[0].dtype or "", LONGEST_TEXT) if node.outputs else ""
    return {
        # TensorBoard wants ASCII here.
        "class_name": part(node.op).encode("ascii", "replace").decode(),
        "config": {"name": names[node.key]} | ({"dtype": dtype} if dtype else {}),
        "inbound_nodes": [{"args": [histories]}] if histories else [],
    }
