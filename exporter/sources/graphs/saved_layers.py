"""What Keras 2 wrote beside a SavedModel about its layers; Keras 3's `export` writes nothing of the kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorflow.core.protobuf import meta_graph_pb2

from exporter.errors import SourceError
from exporter.protobuf import fields
from exporter.sources.graphs.scope_rows import KnownLayer
from exporter.sources.h5_values import COPY_AGAIN
from exporter.sources.keras_models.config_text import config_text

METADATA = "keras_metadata.pb"
# Fields of SavedMetadata and SavedObject in Keras 2's `saved_metadata.proto`.
NODES, PATH, IDENTIFIER, TEXT = 1, 3, 4, 5
# Marks of what is a layer; metrics and the model itself have others.
LAYERS = ("_tf_keras_layer", "_tf_keras_input_layer", "_tf_keras_rnn_layer")
MODELS = ("_tf_keras_network", "_tf_keras_model", "_tf_keras_sequential")
ROOT = "root"
MARKED = ("__tuple__", "TensorShape")


def known_layers(folder: Path, meta_graph: meta_graph_pb2.MetaGraphDef) -> dict[str, KnownLayer]:
    """Class and settings by the name of the layer; empty where nothing is recorded. Raises SourceError."""
    path = folder / METADATA
    try:
        found = list(_from_file(path)) if path.is_file() else list(_from_objects(meta_graph))
        return {name: layer for text in found for name, layer in _layer(text)}
    except (ValueError, OSError, RecursionError) as error:
        why = f"as metadata of Keras: {error}"
        raise SourceError("is truncated or corrupt", where=str(path), why=why, hint=COPY_AGAIN) from error


def _from_file(path: Path) -> Iterator[str]:
    content = path.read_bytes()
    for node in fields(content, 0, len(content)):
        if node.number == NODES:
            found = {each.number: content[each.start : each.stop] for each in fields(content, node.start, node.stop)}
            if found.get(IDENTIFIER, b"").decode() in (*LAYERS, *MODELS) and found.get(PATH) != ROOT.encode():
                yield found.get(TEXT, b"").decode()


def _from_objects(meta_graph: meta_graph_pb2.MetaGraphDef) -> Iterator[str]:
    """Before TensorFlow 2.5 the same was in the graph of objects, the model first."""
    for place, node in enumerate(meta_graph.object_graph_def.nodes):
        if place and node.HasField("user_object") and node.user_object.identifier in (*LAYERS, *MODELS):
            yield node.user_object.metadata


def _layer(text: str) -> Iterator[tuple[str, KnownLayer]]:
    data = json.loads(text) if text else None
    if isinstance(data, dict) and isinstance(data.get("name"), str) and isinstance(data.get("class_name"), str):
        config = data.get("config") if isinstance(data.get("config"), dict) else {}
        class_name = data["class_name"].rpartition(">")[2]
        yield data["name"], KnownLayer(class_name, config_text(_decoded(config)), bool(data.get("trainable", True)))


def _decoded(value: Any) -> Any:
    """Settings as Keras has them: tuples and shapes are marked in the text."""
    if isinstance(value, dict):
        if value.get("class_name") in MARKED and isinstance(value.get("items"), list):
            return [_decoded(item) for item in value["items"]]
        return {key: _decoded(item) for key, item in value.items()}
    return [_decoded(item) for item in value] if isinstance(value, list) else value
