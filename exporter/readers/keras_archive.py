"""`.keras` archives: the config says what the layers are, the weights file how large their weights are."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

import h5py
import numpy as np

from exporter.lazy import LazyArray
from exporter.readers import Unexplained
from exporter.readers.described import DescribedModel
from exporter.readers.h5_groups import DAMAGE, damaged, is_own
from exporter.readers.keras_config import is_model_of_its_own, read_config
from exporter.readers.keras_graph import Place, Stored, describe
from exporter.readers.keras_model import RawModel
from exporter.readers.keras_outputs import ODD
from exporter.readers.keras_quantised import NOT_STORED, OwnWeight, adapter_shape, is_incomplete
from exporter.readers.keras_shared import all_layers
from exporter.readers.keras_unloadable import with_refusals
from exporter.readers.keras_weights import labels_in, ordered, tensors_in
from exporter.readers.weight_tree import described
from exporter.records import Job
from exporter.sources.h5_values import Extent, dtype_of, lazy_dataset
from exporter.sources.keras_models import archive_members
from exporter.sources.keras_models.archive_members import WEIGHTS

INCOMPLETE_NOTE = (
    "layers that are quantised by GPTQ or AWQ are described without their zero points: Keras 3.15 does not write them, "
    "and cannot load such a file again"
)
# What HDF5 says of a path whose beginning is missing.
MISSING = "component not found"


def read(job: Job, spool_path: str, *, lenient: bool = False) -> DescribedModel:
    """Raises SourceError for a damaged archive, and Unexplained.

    With `lenient`, layers of unknown classes are described by what the archive says of them.
    """
    if lenient:
        return _read(job, spool_path, lenient=True)
    return with_refusals(
        job, lambda: _text(job), lambda lenient: _read(job, spool_path, lenient=lenient), has_modules=True
    )


def _text(job: Job) -> str:
    with archive_members.opened(job.source) as archive:
        return archive_members.config_bytes(archive, job.source).decode("utf-8", "replace")


def _read(job: Job, spool_path: str, *, lenient: bool) -> DescribedModel:
    checks: list[Callable[[], None]] = []
    with archive_members.opened(job.source) as archive:
        model = _model(archive, job, lenient=lenient)
        if WEIGHTS not in archive.namelist():
            raise archive_members.no_weights(archive, job.source)
        stream, extent, text = archive_members.weights_stream(archive, job.source, spool_path, checks.append)
    # Without statistics no weight is read, so that there is nothing to check.
    kept = tuple(checks) if job.stats else ()
    try:
        file = h5py.File(stream, "r")
        if model is None:
            tensors = ordered(tensors_in(file, labels_in(file), extent))
            return replace(described(job.name, tensors, text), checks=kept)
        stored = StoredWeights(file, extent, lazily=job.stats)
        graph, values = describe(model, job.name, stored, lenient=lenient)
    except IndexError as error:
        # The config, not the file of weights.
        raise Unexplained(f"its config: {error}") from error
    except DAMAGE as error:
        raise damaged(job.source, error) from error
    notes = (INCOMPLETE_NOTE,) if any(is_incomplete(layer.config) for layer in all_layers(model)) else ()
    return DescribedModel(graph, text, values, notes, checks=kept)


def _model(archive: zipfile.ZipFile, job: Job, *, lenient: bool) -> RawModel | None:
    """What the config says; with `lenient`, None of a model that is a class of its own. Raises Unexplained."""
    text = archive_members.config_bytes(archive, job.source).decode("utf-8", "replace")
    try:
        return read_config(text, lenient=lenient)
    except (*ODD, RecursionError) as error:
        if lenient and is_model_of_its_own(text):
            return None
        # Keras, or the checks before it, say better what is wrong with it.
        raise Unexplained(f"its config: {error}") from error


class StoredWeights:
    """The weights of a `model.weights.h5`; with `lazily`, their values too."""

    def __init__(self, file: h5py.File, extent: Extent, *, lazily: bool) -> None:
        self._file, self._extent, self._lazily = file, extent, lazily

    def __call__(self, places: list[Place]) -> Iterator[list[Stored]]:
        for place in places:
            weights = place.layer.weights
            if weights is None:
                yield self._all(place)
            elif not any(weight.number is not None for weight in weights):
                yield self._numbered(place, range(len(weights))) if weights else []
            else:
                yield self._placed(place, weights)

    def _numbered(self, place: Place, numbers: Collection[int]) -> list[Stored]:
        """The variables of those numbers in the layer's group, which has no others but those that are lent."""
        try:
            group = h5py.h5g.open(self._file.id, f"{place.stored}vars".encode())
            identities = [h5py.h5d.open(group, b"%d" % number) for number in numbers]
        except (KeyError, ValueError) as error:
            # A group without the groups around it is a ValueError.
            if isinstance(error, ValueError) and MISSING not in str(error):
                raise
            raise Unexplained(f"{place.namespace} has not {len(numbers)} weights in the file") from error
        if group.get_num_objs() != len(numbers) + place.layer.lent:
            raise Unexplained(f"{place.namespace} has {group.get_num_objs()} weights in the file")
        return [self._stored(identity, "") for identity in identities]

    def _placed(self, place: Place, weights: list[OwnWeight]) -> list[Stored]:
        """The file has its own order, and not the adapters: with them the weight that they adapt, which is first there.

        Keras loads zeros for them.
        """
        numbers = [weight.number for weight in weights if weight.number is not None and weight.number != NOT_STORED]
        there = dict(zip(numbers, self._numbered(place, numbers), strict=True))
        rank = int(place.layer.config.get("lora_rank") or 0)
        return [
            there[weight.number]
            if weight.number in there
            else self._zeros(adapter_shape(weight.name, rank, there[0].shape))
            for weight in weights
        ]

    def _zeros(self, shape: tuple[int, ...]) -> Stored:
        value = LazyArray(shape, np.dtype("float32"), lambda: np.zeros(shape, np.float32)) if self._lazily else None
        return Stored(shape, "float32", 4 * math.prod(shape), "", value)

    def _all(self, place: Place) -> list[Stored]:
        """All that is in the layer's group and in the groups inside, named by where it is."""
        group = self._file.get(place.stored.rstrip("/"))
        if not isinstance(group, h5py.Group) or not is_own(group, self._file):
            return []
        paths: list[str] = []
        group.visititems(lambda path, item: paths.append(path) if isinstance(item, h5py.Dataset) else None)
        found = [(path, "/".join(path.split("/vars/")).removeprefix("vars/")) for path in paths]
        return [self._stored(h5py.h5d.open(group.id, path.encode()), name) for path, name in found]

    def _stored(self, identity: h5py.h5d.DatasetID, name: str) -> Stored:
        if h5py.h5i.get_file_id(identity) != self._file.id:
            raise ValueError(f"{h5py.h5i.get_name(identity).decode()} leads out of the file")
        dtype, shape = dtype_of(identity), identity.shape
        value = lazy_dataset(h5py.Dataset(identity), self._extent) if self._lazily else None
        return Stored(shape, dtype.name, math.prod(shape) * dtype.itemsize, name, value)
