"""Sources that describe themselves: what a file says about its model, read without TensorFlow and Keras.

A reader's module has `read(job: Job, spool_path: str) -> DescribedModel`. It raises `Unexplained` for whatever it does
not know exactly (a class of layer, a setting, an older layout): then Keras itself is asked, by `exporter.sources`. An
ONNX file, or one of weights alone, has no other way. Both ways give the same rows wherever both go: a reader never
guesses.
"""

from __future__ import annotations

READERS: dict[str, str] = {
    "keras_archive": "exporter.readers.keras_archive",
    "onnx_file": "exporter.readers.onnx_file",
    "keras_weights": "exporter.readers.keras_weights",
    "safetensors": "exporter.readers.safetensors_file",
}


class Unexplained(Exception):  # noqa: N818 (no error: the other way of reading is taken)
    """What the file holds, as far as this package knows, does not say all that a description needs."""
