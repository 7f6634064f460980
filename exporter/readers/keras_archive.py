"""`.keras` archives: the config says what the layers are, the weights file how large their weights are."""

from __future__ import annotations

import math
from collections.abc import Callable

import h5py

from exporter.errors import SourceError
from exporter.lazy import LazyArray
from exporter.readers import Unexplained
from exporter.readers.described import DescribedModel
from exporter.readers.keras_config import read_config
from exporter.readers.keras_graph import Place, describe
from exporter.records import Job
from exporter.sources import archive_members
from exporter.sources.archive_members import WEIGHTS
from exporter.sources.h5_values import COPY_AGAIN, Extent, dtype_of, lazy_dataset

# What h5py raises for damaged files.
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError)


def read(job: Job, spool_path: str) -> DescribedModel:
    """Raises SourceError for a damaged archive, and Unexplained."""
    with archive_members.opened(job.source) as archive:
        try:
            model = read_config(archive_members.config_bytes(archive, job.source).decode())
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            # Keras, or the checks before it, say better what is wrong with it.
            raise Unexplained(f"its config: {error}") from error
        if WEIGHTS not in archive.namelist():
            raise archive_members.no_weights(archive, job.source)
        checks: list[Callable[[], None]] = []
        stream, extent, text = archive_members.weights_stream(archive, job.source, spool_path, checks.append)
    try:
        stored = StoredWeights(h5py.File(stream, "r"), extent, lazily=job.stats)
        graph = describe(model, job.name, stored)
    except DAMAGE as error:
        why = f"as an HDF5 file: {error}"
        raise SourceError("is truncated or corrupt", where=job.source, why=why, hint=COPY_AGAIN) from error
    values = dict(zip((weight.name for weight in graph.weights), stored.values, strict=job.stats))
    values = {name: value.named(name) for name, value in values.items()}
    # Without statistics no weight is read, so that there is nothing to check.
    return DescribedModel(graph, text, values, checks=tuple(checks) if job.stats else ())


class StoredWeights:
    """The weights of a `model.weights.h5`; with `lazily`, `values` collects them in the order of the questions."""

    def __init__(self, file: h5py.File, extent: Extent, *, lazily: bool) -> None:
        self._file, self._extent, self._lazily = file, extent, lazily
        self.values: list[LazyArray] = []

    def __call__(self, place: Place) -> list[tuple[tuple[int, ...], str, int]]:
        if not place.layer.weights:
            return []
        count, links = len(place.layer.weights), self._file.id.links
        paths = [f"{place.stored}vars/{number}".encode() for number in range(count + 1)]
        if [links.exists(path) for path in paths] != [True] * count + [False]:
            raise Unexplained(f"{place.namespace} has not {count} weights in the file")
        identities = [h5py.h5d.open(self._file.id, path) for path in paths[:-1]]
        if self._lazily:
            self.values += [lazy_dataset(h5py.Dataset(identity), self._extent) for identity in identities]
        specs = [(identity.shape, dtype_of(identity)) for identity in identities]
        return [(shape, dtype.name, math.prod(shape) * dtype.itemsize) for shape, dtype in specs]
