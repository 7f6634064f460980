"""Graphs of TensorFlow 1 with their checkpoint: a `.meta` file beside `.index` and `.data` files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import meta_graph_pb2

from exporter.records import Job
from exporter.sources.detection.tensorflow_files import checkpoint_prefix
from exporter.sources.graphs.graph_ends import Ends, find_ends
from exporter.sources.graphs.graph_source import GraphParts, GraphValue, OpenedGraph
from exporter.sources.graphs.graph_weights import trainable_names, variable_values
from exporter.sources.graphs.hollow_graph import META_GRAPH, damaged, read_graph_file
from exporter.sources.graphs.table_filling import lookup_tables
from exporter.sources.graphs.tensor_bundle import read_bundle


def open_source(job: Job, spool_path: str) -> OpenedGraph:
    """Raises SourceError, and UsageError where outputs have to be named."""
    prefix = checkpoint_prefix(job.source)
    path = f"{prefix}.meta"
    file = read_graph_file(path, META_GRAPH)
    try:
        meta_graph = meta_graph_pb2.MetaGraphDef.FromString(file.content)
    except (DecodeError, ValueError) as error:
        raise damaged(path, error) from error
    bundle = read_bundle(prefix)
    bundle.check_files()
    ends = _ends(meta_graph, job)
    constants = {key: GraphValue(array) for key, array in file.constants.items()}
    parts = GraphParts(
        graph_def=meta_graph.graph_def,
        values=constants | variable_values(meta_graph, bundle, trainable_names(meta_graph)),
        inputs=ends.inputs,
        outputs=ends.outputs,
        weights="from the checkpoint",
        notes=ends.notes,
        tables=lookup_tables(meta_graph, Path(path).parent, lambda key: constants[key].array.real()),
    )
    return OpenedGraph(parts, job.name)


def reference_outputs(job: Job, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What TensorFlow computes in a session, with the variables restored."""
    prefix = checkpoint_prefix(job.source)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.import_meta_graph(f"{prefix}.meta", clear_devices=True)
        saver.restore(session, prefix)
        session.run(tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.TABLE_INITIALIZERS))
        ends = _ends(tf.compat.v1.train.export_meta_graph(), job)
        feeds = {tensor: array for (_, tensor), array in zip(ends.inputs, inputs, strict=True)}
        found: list[np.ndarray] = session.run([tensor for _, tensor in ends.outputs], feeds)
        return found


def _ends(meta_graph: meta_graph_pb2.MetaGraphDef, job: Job) -> Ends:
    return find_ends(meta_graph.graph_def, job, most_outputs=1)
