"""Graphs alone, as freezing leaves them: weights are constants, and nothing says what goes in and comes out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.message import DecodeError

from exporter.errors import SourceError, UnsupportedError
from exporter.records import Job
from exporter.sources.graphs.graph_ends import Ends, find_ends
from exporter.sources.graphs.graph_source import GraphParts, GraphValue, OpenedGraph
from exporter.sources.graphs.hollow_graph import GRAPH, HOLLOW_OP, GraphFile, damaged, read_graph_file
from exporter.sources.graphs.inlined_graph import fill_bodies, make_placeholder

# Text takes many times the memory of what it says.
LARGEST_TEXT_BYTES = 256 * 2**20
# Up to here TensorFlow itself parses the graph that an export is compared with.
LARGEST_WHOLE_BYTES = 256 * 2**20


def open_source(job: Job, spool_path: str) -> OpenedGraph:
    """Raises SourceError, and UsageError where inputs or outputs have to be named."""
    file, graph_def = _read(job.source)
    ends = find_ends(graph_def, job)
    parts = GraphParts(
        graph_def=graph_def,
        values={key: GraphValue(array) for key, array in file.constants.items()},
        inputs=ends.inputs,
        outputs=ends.outputs,
        weights="from the graph's constants",
        notes=ends.notes,
    )
    return OpenedGraph(parts, job.name)


def reference_outputs(job: Job, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What TensorFlow computes with the graph."""
    if os.path.getsize(job.source) > LARGEST_WHOLE_BYTES:
        return _run_in_parts(job, inputs)
    data = Path(job.source).read_bytes()
    graph_def = _text(job.source) if _is_text(data[:4096]) else tf.compat.v1.GraphDef.FromString(data)
    return run_graph(graph_def, find_ends(graph_def, job), inputs)


def _run_in_parts(job: Job, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """With large constants as inputs: TensorFlow makes fourteen copies of those that are in a graph."""
    file, graph_def = _read(job.source)
    ends = find_ends(graph_def, job)
    fill_bodies(graph_def, file.constants.__getitem__)
    fed = {}
    for node in graph_def.node:
        if node.op == HOLLOW_OP:
            array = file.constants[node.attr["memory_region_name"].s.decode()]
            make_placeholder(node, array.shape, tf.dtypes.as_dtype(array.dtype).name)
            fed[f"{node.name}:0"] = array.real()
    return run_graph(graph_def, ends, inputs, fed)


def run_graph(
    graph_def: tf.compat.v1.GraphDef,
    ends: Ends,
    inputs: Sequence[np.ndarray],
    fed: Mapping[str, np.ndarray] | None = None,
) -> list[np.ndarray]:
    """`fed` are further values by tensor."""
    for node in graph_def.node:
        node.device = ""
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            feeds = dict(fed or {}) | {tensor: array for (_, tensor), array in zip(ends.inputs, inputs, strict=True)}
            found: list[np.ndarray] = session.run([tensor for _, tensor in ends.outputs], feeds)
            return found


def _read(source: str) -> tuple[GraphFile, tf.compat.v1.GraphDef]:
    with open(source, "rb") as stream:
        is_text = _is_text(stream.read(4096))
    if is_text:
        return GraphFile(b"", {}), _text(source)
    file = read_graph_file(source, GRAPH)
    try:
        return file, tf.compat.v1.GraphDef.FromString(file.content)
    except (DecodeError, ValueError) as error:
        raise damaged(source, error) from error


def _is_text(head: bytes) -> bool:
    return not any(byte < 9 for byte in head)


def _text(source: str) -> tf.compat.v1.GraphDef:
    if os.path.getsize(source) > LARGEST_TEXT_BYTES:
        why, hint = "a graph in text of that size does not fit into memory", "save it in binary form"
        raise UnsupportedError("cannot be read", where=source, why=why, hint=hint)
    try:
        return text_format.Parse(Path(source).read_text("utf-8"), tf.compat.v1.GraphDef())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise damaged(source, error) from error
    except OSError as error:
        raise SourceError("cannot be read", where=source, why=error.strerror or str(error)) from error
