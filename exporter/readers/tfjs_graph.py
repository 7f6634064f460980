"""Graph models of TensorFlow.js: what their JSON and the sizes of their weights say, without TensorFlow."""

from __future__ import annotations

from exporter.readers.described import DescribedModel
from exporter.records import Job
from exporter.sources.web import graph_layers
from exporter.sources.web.model_json import WEIGHTS, read_model_json
from exporter.sources.web.web_values import lazy_values


def read(job: Job, spool_path: str) -> DescribedModel:
    """Raises SourceError, and UsageError for inputs or outputs that are not there."""
    model = read_model_json(job.source)
    found = graph_layers.describe(model, job)
    return DescribedModel(found.graph, WEIGHTS, lazy_values(model) if job.stats else {})
