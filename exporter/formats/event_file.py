"""`model.tfevents` for TensorBoard: the op graph, the conceptual graph, and a histogram of each weight.

TensorBoard reads every file with `tfevents` in its name below its `--logdir`, and shows each folder as a run: the
folder of all exports is a good `--logdir`. Nothing in the file says when it was made: two exports of one model are
equal, and the times on the pages mean nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_DOUBLE, DT_STRING
from tensorboard.plugins.histogram.metadata import create_summary_metadata

from exporter.files import new_file
from exporter.formats.board_nodes import BoardNode, LayerBoard, NodeBoard
from exporter.formats.event_graph import EventNames, clipped, graph_pieces, model_pieces
from exporter.formats.event_records import RecordStream
from exporter.formats.scopes import Scopes
from exporter.records import Material, TensorStatistics
from exporter.unique_names import Names

FILE = "model.tfevents"
VERSION = "brain.Event:2"
# Seconds since 1970, the same in all files.
WALL_TIME = 0.0
LONGEST_TAG = 200
# Numbers of the fields that are written as a stream.
EVENT_GRAPH, EVENT_SUMMARY, SUMMARY_VALUE, VALUE_TENSOR, TENSOR_STRING = 4, 5, 1, 8, 8


def write(material: Material, folder: Path) -> tuple[str, ...]:
    scopes = Scopes(material.graph)
    layers = LayerBoard(material, scopes)
    ops = layers if material.nodes is None else NodeBoard(material, scopes)
    with new_file(folder / FILE) as stream:
        records = RecordStream(stream)
        records.write(Event(wall_time=WALL_TIME, file_version=VERSION).SerializeToString())
        # Of an empty graph TensorBoard would show nothing, and hide those of other runs behind it.
        if material.nodes or material.graph.layers:
            write_op_graph(records, ops)
        if material.graph.layers:
            write_conceptual_graph(records, layers)
        for event in histograms(material):
            records.write(event.SerializeToString())
    return ()


def write_op_graph(records: RecordStream, nodes: Iterable[BoardNode]) -> None:
    around = ((Event(wall_time=WALL_TIME).SerializeToString(), EVENT_GRAPH),)
    records.write_nested(around, partial(graph_pieces, nodes, EventNames(nodes)))


def write_conceptual_graph(records: RecordStream, layers: Iterable[BoardNode]) -> None:
    """As `tf.keras.callbacks.TensorBoard` does: a text with the plugin `graph_keras_model` and the tag `keras`."""
    metadata = SummaryMetadata(plugin_data={"plugin_name": "graph_keras_model", "content": b"1"})
    around = (
        (Event(wall_time=WALL_TIME).SerializeToString(), EVENT_SUMMARY),
        (b"", SUMMARY_VALUE),
        (Summary.Value(tag="keras", metadata=metadata).SerializeToString(), VALUE_TENSOR),
        (TensorProto(dtype=DT_STRING, tensor_shape=TensorShapeProto()).SerializeToString(), TENSOR_STRING),
    )
    records.write_nested(around, partial(model_pieces, layers, EventNames(layers)))


def histograms(material: Material) -> Iterator[Event]:
    """One for each weight of which there is a histogram, in the form of `tf.summary.histogram`."""
    tags = Names()
    for weight in material.graph.weights:
        found = material.statistics.get(weight.name, TensorStatistics())
        if found.histogram_edges and found.histogram_counts:
            tag = tags.unique(clipped(weight.name, LONGEST_TAG))
            yield histogram(tag, weight.name, found.histogram_edges, found.histogram_counts)


def histogram(tag: str, name: str, edges: tuple[float, ...], counts: tuple[int, ...]) -> Event:
    """Rows of left edge, right edge and count."""
    rows = b"".join(struct.pack("<3d", *row) for row in zip(edges[:-1], edges[1:], counts, strict=True))
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in (len(counts), 3)])
    metadata = create_summary_metadata(display_name=tag, description="")
    metadata.data_class = DATA_CLASS_TENSOR
    tensor = TensorProto(dtype=DT_DOUBLE, tensor_shape=shape, tensor_content=rows)
    return Event(wall_time=WALL_TIME, summary=Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)]))
