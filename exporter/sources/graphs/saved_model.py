"""SavedModel folders, of TensorFlow 1 and 2, of Keras 2 and 3: a signature, its graph, and variables in a checkpoint.

The variables are never made. Which tensor of the checkpoint a variable gets is what the graph itself says that restores
them, so that nothing is guessed from names.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from exporter.errors import SourceError, UnsupportedError, UsageError
from exporter.records import Job
from exporter.sources.detection.tensorflow_files import saved_model_folder
from exporter.sources.graphs.graph_source import GraphParts, GraphValue, OpenedGraph
from exporter.sources.graphs.graph_weights import trainable_names, variable_values
from exporter.sources.graphs.hollow_graph import SAVED_MODEL, GraphFile, damaged, read_graph_file
from exporter.sources.graphs.saved_layers import known_layers
from exporter.sources.graphs.table_filling import lookup_tables
from exporter.sources.graphs.tensor_bundle import TensorBundle, read_bundle
from exporter.sources.h5_values import COPY_AGAIN

BINARY, TEXT = "saved_model.pb", "saved_model.pbtxt"
CHECKPOINT = ("variables", "variables")
USUAL_TAG, USUAL_SIGNATURE = "serve", "serving_default"
# Signatures that TensorFlow writes for itself.
INTERNAL = ("__saved_model_init_op", "__saved_model_train_op")


def open_source(job: Job, spool_path: str) -> OpenedGraph:
    """Raises SourceError, UsageError (which signature?) and UnsupportedError."""
    job = dataclasses.replace(job, source=saved_model_folder(job.source))
    file, saved = _read(job.source)
    meta_graph = _tagged(saved, job)
    signature = _signature(meta_graph, job)
    bundle = _bundle(job.source)
    constants = {key: GraphValue(array) for key, array in file.constants.items()}
    variables = variable_values(meta_graph, bundle, trainable_names(meta_graph)) if bundle else {}
    parts = GraphParts(
        graph_def=meta_graph.graph_def,
        values=constants | variables,
        inputs=_ends(signature.inputs, job),
        outputs=_ends(signature.outputs, job),
        weights="from the SavedModel",
        known=known_layers(Path(job.source), meta_graph),
        tables=lookup_tables(meta_graph, Path(job.source), lambda key: constants[key].array.real()),
    )
    return OpenedGraph(parts, job.name)


def reference_outputs(job: Job, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What TensorFlow computes for the signature."""
    job = dataclasses.replace(job, source=saved_model_folder(job.source))
    _, saved = _read(job.source)
    meta_graph = _tagged(saved, job)
    signature = _signature(meta_graph, job)
    loaded = tf.saved_model.load(job.source, tags=list(meta_graph.meta_info_def.tags))
    function = loaded.signatures[_chosen(meta_graph, job)]
    names = [name for name, _ in _ends(signature.inputs, job)]
    found = function(**{name: tf.constant(array) for name, array in zip(names, inputs, strict=True)})
    return [found[name].numpy() for name, _ in _ends(signature.outputs, job)]


def _read(source: str) -> tuple[GraphFile, saved_model_pb2.SavedModel]:
    path = os.path.join(source, BINARY)
    if not os.path.exists(path):
        return _read_text(os.path.join(source, TEXT))
    file = read_graph_file(path, SAVED_MODEL)
    try:
        return file, saved_model_pb2.SavedModel.FromString(file.content)
    except (DecodeError, ValueError) as error:
        raise damaged(path, error) from error


def _read_text(path: str) -> tuple[GraphFile, saved_model_pb2.SavedModel]:
    try:
        text = Path(path).read_text("utf-8")
        return GraphFile(b"", {}), text_format.Parse(text, saved_model_pb2.SavedModel())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise damaged(path, error) from error
    except OSError as error:
        raise SourceError("cannot be read", where=path, why=error.strerror or str(error)) from error


def _tagged(saved: saved_model_pb2.SavedModel, job: Job) -> meta_graph_pb2.MetaGraphDef:
    """The graph with the tag that is asked for, else with the usual one, else the only one."""
    by_tags = {",".join(sorted(each.meta_info_def.tags)): each for each in saved.meta_graphs}
    if not by_tags:
        raise SourceError("is not a SavedModel", where=job.source, why="it holds no graph", hint=COPY_AGAIN)
    wanted = ",".join(sorted(job.reading.tag.split(","))) if job.reading.tag else USUAL_TAG
    fitting = [wanted] if wanted in by_tags else [tags for tags in by_tags if wanted in tags.split(",")]
    if len(by_tags) == 1 and not job.reading.tag:
        fitting = list(by_tags)
    if len(fitting) == 1:
        return by_tags[fitting[0]]
    what = f"has no graph tagged {job.reading.tag!r}" if job.reading.tag else "has several graphs"
    why = f"its graphs are tagged {' | '.join(sorted(by_tags))}"
    raise UsageError(what, where=job.source, why=why, hint=f"--tag {min(by_tags)}")


def _signature(meta_graph: meta_graph_pb2.MetaGraphDef, job: Job) -> meta_graph_pb2.SignatureDef:
    return meta_graph.signature_def[_chosen(meta_graph, job)]


def _chosen(meta_graph: meta_graph_pb2.MetaGraphDef, job: Job) -> str:
    """The name of the signature. Raises UsageError where there is a choice, UnsupportedError where there is none."""
    names = sorted(name for name, each in meta_graph.signature_def.items() if name not in INTERNAL and each.outputs)
    wanted = job.reading.signature or (names[0] if len(names) == 1 else USUAL_SIGNATURE)
    if wanted in names:
        return wanted
    if not names:
        why = "it has no signatures: TensorFlow can load it as objects of Python only"
        hint = "save it again with signatures=model.call.get_concrete_function(…)"
        raise UnsupportedError("cannot be read", where=job.source, why=why, hint=hint)
    what = f"has no signature {job.reading.signature!r}" if job.reading.signature else "has several signatures"
    raise UsageError(what, where=job.source, why=f"there are {', '.join(names)}", hint=f"--signature {names[0]}")


def _ends(tensors: Mapping[str, Any], job: Job) -> tuple[tuple[str, str], ...]:
    """Names and tensors, in the order in which people count."""
    for name, info in tensors.items():
        if info.WhichOneof("encoding") != "name":
            why = f"{name} is a {str(info.WhichOneof('encoding')).replace('_', ' ')}, several tensors in one"
            raise UnsupportedError("cannot be read", where=job.source, why=why, hint="--signature names another one")
    return tuple((name, tensors[name].name) for name in sorted(tensors, key=_as_counted))


def _as_counted(name: str) -> list[tuple[int, str]]:
    """`output_2` before `output_10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _bundle(source: str) -> TensorBundle | None:
    """The checkpoint with the variables; None for a model that has none."""
    prefix = os.path.join(source, *CHECKPOINT)
    if not os.path.exists(f"{prefix}.index") and not os.path.isdir(os.path.dirname(prefix)):
        return None
    if not os.path.exists(f"{prefix}.index") and not os.listdir(os.path.dirname(prefix)):
        return None
    bundle = read_bundle(prefix)
    bundle.check_files()
    return bundle
