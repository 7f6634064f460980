"""What an export can start from. This package alone imports TensorFlow and Keras, and only inside its modules.

A source's module has `without_weights(job)`, the hollow architecture; `with_weights(job, scope, spool_path)`, the same
with its own weights bound and a word on where they come from; and `reference(job)`, the real model as Keras loads it.
One of another framework has `open_source(job, spool_path)`, which gives what `exporter.sources.opened.Opened` says, and
`reference_outputs(job, inputs)`, what that framework computes.
"""

from __future__ import annotations

SOURCES: dict[str, str] = {
    "application": "exporter.sources.keras_models.application",
    "keras_archive": "exporter.sources.keras_models.keras_archive",
    "keras_h5": "exporter.sources.keras_models.keras_h5",
    "keras_folder": "exporter.sources.keras_models.keras_folder",
    "architecture": "exporter.sources.keras_models.architecture",
    "factory": "exporter.sources.keras_models.factory",
    "saved_model": "exporter.sources.graphs.saved_model",
    "graph_def": "exporter.sources.graphs.graph_def",
    "meta_graph": "exporter.sources.graphs.meta_graph",
    "tflite": "exporter.sources.lite.tflite_file",
    "tfjs_graph": "exporter.sources.web.tfjs_graph",
    "tfjs_layers": "exporter.sources.web.tfjs_layers",
}
