"""Layers models of TensorFlow.js: a config as Keras 2 wrote it, and a manifest with the shapes of the weights."""

from __future__ import annotations

import json
from typing import Any

from exporter.readers import Unexplained
from exporter.readers.described import DescribedModel
from exporter.readers.keras_graph import Stored, describe
from exporter.readers.keras_h5 import StoredWeights
from exporter.readers.keras_legacy import read_legacy_config
from exporter.readers.keras_outputs import ODD
from exporter.readers.keras_unloadable import with_refusals
from exporter.records import Job
from exporter.sources.web.layer_weights import model_config, weights_by_layer
from exporter.sources.web.model_json import WEIGHTS, WebModel, WebWeight, read_model_json
from exporter.sources.web.web_values import lazy_values


def read(job: Job, spool_path: str, *, lenient: bool = False) -> DescribedModel:
    """Raises SourceError, and Unexplained. `lenient` as for `.h5` files."""
    file = read_model_json(job.source)
    config = model_config(file)
    text = json.dumps(config)
    if lenient:
        return _read(job, file, config, text, lenient=True)
    return with_refusals(
        job, lambda: text, lambda lenient: _read(job, file, config, text, lenient=lenient), has_modules=False
    )


def _read(job: Job, file: WebModel, config: dict[str, Any], text: str, *, lenient: bool) -> DescribedModel:
    try:
        model = read_legacy_config(text, lenient=lenient)
    except (*ODD, RecursionError) as error:
        raise Unexplained(f"its config: {error}") from error
    graph, values = describe(model, job.name, WebWeights(job, file, config, lenient=lenient), lenient=lenient)
    return DescribedModel(graph, WEIGHTS, values)


class WebWeights(StoredWeights):
    """Those of a manifest, which are in the order of Keras's legacy files."""

    def __init__(self, job: Job, file: WebModel, config: dict[str, Any], *, lenient: bool) -> None:
        groups = weights_by_layer(file, config)
        held: Any = {layer: [(each.name, each) for each in weights] for layer, weights in groups.items()}
        super().__init__(held, lazily=job.stats, lenient=lenient)
        self._values = lazy_values(file) if job.stats else {}

    def _stored(self, name: str, weight: WebWeight) -> Stored:
        return Stored(weight.shape, weight.dtype, weight.nbytes, name, self._values.get(name))
