"""A model of another process, as that one described it (`exporter.sources.keras_models.live_model`)."""

from __future__ import annotations

import dataclasses
import json

import h5py

from exporter.errors import SourceError
from exporter.lazy import LazyArray
from exporter.readers.described import DescribedModel
from exporter.records import Job, ModelGraph
from exporter.sources.h5_values import lazy_dataset
from exporter.sources.keras_models.live_file import FROM_LIVE_MODEL, GRAPH, WEIGHTS
from exporter.wire import restore

# What h5py raises for damaged files, and what JSON that is no description does.
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, RecursionError)


def read(job: Job, spool_path: str) -> DescribedModel:
    """Raises SourceError."""
    try:
        with h5py.File(job.source, "r", locking=False) as file:
            graph = restore(ModelGraph, json.loads(file[GRAPH][()].tobytes()))
            values = dict(_values(file, graph)) if job.stats else {}
    except DAMAGE as error:
        hint = "call exporter.export(model) again"
        raise SourceError("is truncated or corrupt", where=job.source, why=str(error), hint=hint) from error
    return DescribedModel(dataclasses.replace(graph, name=job.name), FROM_LIVE_MODEL, values)


def _values(file: h5py.File, graph: ModelGraph) -> list[tuple[str, LazyArray]]:
    weights = (lazy_dataset(file[f"{WEIGHTS}/{number}"]) for number in range(len(graph.weights)))
    return [(weight.name, value.named(weight.name)) for weight, value in zip(graph.weights, weights, strict=True)]
