"""`.tflite` files: what they say of their operators and tensors, without TensorFlow."""

from __future__ import annotations

from exporter.readers.described import DescribedModel
from exporter.records import Job
from exporter.sources.lite import lite_layers
from exporter.sources.lite.lite_reading import read_model
from exporter.sources.lite.lite_values import lazy_values


def read(job: Job, spool_path: str) -> DescribedModel:
    """Raises SourceError, and UsageError for a signature that is not there."""
    found = lite_layers.describe(read_model(job.source), job)
    values = lazy_values(job.source, found.tensors) if job.stats else {}
    return DescribedModel(found.graph, WEIGHTS, values, found.notes)


WEIGHTS = "from the TensorFlow Lite file"
