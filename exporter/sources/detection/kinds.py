"""The kinds of source, what each is called, and what the families of detectors share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

APPLICATION, KERAS_ARCHIVE, KERAS_H5 = "application", "keras_archive", "keras_h5"
ARCHITECTURE, KERAS_FOLDER = "architecture", "keras_folder"
ONNX_FILE = "onnx_file"
FACTORY, LIVE_MODEL = "factory", "live_model"
SAVED_MODEL, GRAPH_DEF, META_GRAPH, CHECKPOINT = "saved_model", "graph_def", "meta_graph", "checkpoint"
TFLITE_FILE = "tflite"
TFJS_LAYERS, TFJS_GRAPH = "tfjs_layers", "tfjs_graph"
KERAS_WEIGHTS, SAFETENSORS = "keras_weights", "safetensors"

# Kinds with weights in HDF5, or in whose place somebody may name a file of such.
HDF5 = (KERAS_H5, KERAS_ARCHIVE, KERAS_FOLDER, KERAS_WEIGHTS, ARCHITECTURE, APPLICATION, LIVE_MODEL)

# Of a source that has not been fetched yet: what it is will be seen then. No choice of `--source-kind`.
REMOTE = "remote"

# What a sentence calls them; also the choices of `--source-kind`.
KINDS = {
    APPLICATION: "a model of keras.applications",
    KERAS_ARCHIVE: "a Keras archive",
    KERAS_H5: "a Keras model in HDF5",
    KERAS_FOLDER: "the folder of a Keras model",
    ARCHITECTURE: "a Keras architecture in JSON",
    ONNX_FILE: "an ONNX file",
    FACTORY: "a Python function that makes a model",
    LIVE_MODEL: "the description of a live model",
    SAVED_MODEL: "a SavedModel",
    GRAPH_DEF: "a TensorFlow graph",
    META_GRAPH: "a TensorFlow graph with its checkpoint",
    CHECKPOINT: "a TensorFlow checkpoint",
    TFLITE_FILE: "a TensorFlow Lite file",
    TFJS_LAYERS: "a layers model of TensorFlow.js",
    TFJS_GRAPH: "a graph model of TensorFlow.js",
    KERAS_WEIGHTS: "a file of Keras weights",
    SAFETENSORS: "a safetensors file",
}
# Kinds that are described and not converted, and why; `--to onnx` is refused with that.
WITHOUT_ONNX = {
    ONNX_FILE: "it is an ONNX file",
    LIVE_MODEL: "it describes a model and is none",
    CHECKPOINT: "a checkpoint alone holds tensors, and not what is computed with them",
}
WITHOUT_ONNX |= dict.fromkeys(
    (KERAS_WEIGHTS, SAFETENSORS), "it holds weights alone, without the model that they are of"
)
# Kinds that have their own weights or none: no others can be put in their place.
OWN_WEIGHTS = (*WITHOUT_ONNX, SAVED_MODEL, GRAPH_DEF, META_GRAPH, TFLITE_FILE, TFJS_GRAPH)

SAVE_HINT = "save the model from Keras with model.save('model.keras') and export that file"


@dataclass(frozen=True)
class Seen:
    """What a detector looks at: a file, its first bytes and its size."""

    path: Path
    head: bytes
    nbytes: int
