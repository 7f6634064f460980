"""Sources that describe themselves: what a file says about its model, read without TensorFlow and Keras.

A reader's module has `read(job: Job, spool_path: str) -> DescribedModel`. It raises `Unexplained` for whatever it does
not know exactly (a class of layer, a setting, an older layout): then Keras itself is asked, by `exporter.sources`. An
ONNX file, or one of weights alone, has no other way. Both ways give the same rows wherever both go: a reader never
guesses.
"""

from __future__ import annotations

from exporter.errors import ExportError
from exporter.formats import HOLLOW, needed
from exporter.records import Job

READERS: dict[str, str] = {
    "keras_archive": "exporter.readers.keras_archive",
    "onnx_file": "exporter.readers.onnx_file",
    "live_model": "exporter.readers.live_model",
    "checkpoint": "exporter.readers.checkpoint",
    "tflite": "exporter.readers.tflite_file",
    "tfjs_graph": "exporter.readers.tfjs_graph",
    "tfjs_layers": "exporter.readers.tfjs_layers",
    "keras_h5": "exporter.readers.keras_h5",
    "keras_weights": "exporter.readers.keras_weights",
    "safetensors": "exporter.readers.safetensors_file",
}
# Readers whose `read` takes `lenient`: then it goes on where the framework cannot load the file, and takes layers of
# unknown classes as they stand there.
LENIENT = ("keras_archive", "keras_h5")


def unloaded_note(error: ExportError) -> str:
    """What the user must see of a model that is described although its framework cannot load it, and why it cannot."""
    why = f"{error.what} ({error.why})"
    return f"described by the file alone, because Keras cannot load it: it {why}; what the file leaves open is NULL"


def is_only_read(job: Job) -> bool:
    """Whether a job will be done, in all likelihood, without the source's framework."""
    takes_framework = "onnx" in job.formats or HOLLOW in needed(job.formats) or job.weights != "auto"
    return job.kind in READERS and not takes_framework


class Unexplained(Exception):  # noqa: N818 (no error: the other way of reading is taken)
    """What the file holds, as far as this package knows, does not say all that a description needs."""
