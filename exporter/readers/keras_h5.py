"""Whole-model `.h5` files, as Keras 2 wrote them and Keras 3 still does, read without Keras."""

from __future__ import annotations

import math
from collections.abc import Iterator

import h5py

from exporter.readers import Unexplained
from exporter.readers.described import DescribedModel
from exporter.readers.h5_groups import DAMAGE, TOP_LEVEL, damaged, legacy_root, legacy_weights
from exporter.readers.keras_graph import Place, Stored, describe
from exporter.readers.keras_legacy import read_legacy_config
from exporter.readers.keras_model import RawModel
from exporter.readers.keras_outputs import ODD
from exporter.readers.keras_unloadable import with_refusals
from exporter.records import Job
from exporter.sources.h5_values import dtype_of, lazy_dataset

# A slot for a weight: the row, which of its weights, and whether training changes it.
Slot = tuple[int, int, bool]


def read(job: Job, spool_path: str, *, lenient: bool = False) -> DescribedModel:
    """Raises SourceError for a damaged file, and Unexplained.

    With `lenient`, layers of unknown classes are described by what the file says of them.
    """
    if lenient:
        return _read(job, lenient=True)
    return with_refusals(job, lambda: _text(job), lambda lenient: _read(job, lenient=lenient), has_modules=False)


def _text(job: Job) -> str:
    try:
        with h5py.File(job.source, "r", locking=False) as file:
            return _config_text(file)
    except DAMAGE as error:
        raise damaged(job.source, error) from error


def _read(job: Job, *, lenient: bool) -> DescribedModel:
    try:
        # Without a lock, which read-only and network file systems may refuse.
        with h5py.File(job.source, "r", locking=False) as file:
            model = _model(file, lenient=lenient)
            root = legacy_root(file)
            if root is None:
                raise Unexplained("a file without lists of weights")
            stored = StoredWeights(dict(legacy_weights(root)), lazily=job.stats, lenient=lenient)
            graph, values = describe(model, job.name, stored, lenient=lenient)
    except DAMAGE as error:
        raise damaged(job.source, error) from error
    return DescribedModel(graph, "from the file", values)


def _model(file: h5py.File, *, lenient: bool) -> RawModel:
    text = _config_text(file)
    try:
        return read_legacy_config(text, lenient=lenient)
    except (*ODD, RecursionError) as error:
        # Keras, or the checks before it, say better what is wrong with it.
        raise Unexplained(f"its config: {error}") from error


def _config_text(file: h5py.File) -> str:
    text = file.attrs["model_config"]
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)


class StoredWeights:
    """The weights by layer of the outermost model: those of all layers inside are in one list, the trainable first."""

    def __init__(self, groups: dict[str, list[tuple[str, h5py.Dataset]]], *, lazily: bool, lenient: bool) -> None:
        self._groups, self._lazily, self._lenient = groups, lazily, lenient

    def __call__(self, places: list[Place]) -> list[list[Stored]]:
        found: list[list[Stored]] = []
        for family in _families(places):
            found += self._of_family(family)
        if not self._lenient and self._groups.get(TOP_LEVEL):
            raise Unexplained("a model with weights of its own")
        return found

    def _of_family(self, family: list[Place]) -> list[list[Stored]]:
        """The weights of a layer and of all that is inside it."""
        outer = family[0].layer
        held = self._groups.get(outer.name, [])
        slots = list(_slots(family))
        if len(slots) != len(held) or any(place.layer.weights is None for place in family):
            if not self._lenient:
                raise Unexplained(f"{outer.name} has {len(held)} weights in the file, not {len(slots)}")
            return self._unplaced(family, held)
        # `legacy_h5_format._legacy_weights`: all of a layer that is frozen, else those that are trained first.
        order = sorted(slots, key=lambda slot: not slot[2]) if outer.trainable else slots
        placed = {slot[:2]: self._stored(*weight) for slot, weight in zip(order, held, strict=True)}
        return [
            [placed[row, number] for number in range(len(place.layer.weights or ()))]
            for row, place in enumerate(family)
        ]

    def _unplaced(self, family: list[Place], held: list[tuple[str, h5py.Dataset]]) -> list[list[Stored]]:
        """All with the outer layer, where what is inside is not known."""
        for place in family:
            place.layer.weights = []
        family[0].layer.weights = None
        return [[self._stored(*weight) for weight in held], *([] for _ in family[1:])]

    def _stored(self, name: str, dataset: h5py.Dataset) -> Stored:
        dtype, shape = dtype_of(dataset.id), dataset.shape
        value = lazy_dataset(dataset) if self._lazily else None
        return Stored(shape, dtype.name, math.prod(shape) * dtype.itemsize, name.split(":")[0], value)


def _families(places: list[Place]) -> Iterator[list[Place]]:
    """Each layer of the outermost model with all that is inside it."""
    family: list[Place] = []
    for place in places:
        if place.depth == 0 and family:
            yield family
            family = []
        family.append(place)
    if family:
        yield family


def _slots(family: list[Place]) -> Iterator[Slot]:
    for row, place in enumerate(family):
        for number, weight in enumerate(place.layer.weights or ()):
            yield row, number, weight.changes and place.layer.trainable
