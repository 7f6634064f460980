"""The weights of a TensorFlow.js model, read when they are asked for; one may lie in several files."""

from __future__ import annotations

import bisect
import os
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from exporter.lazy import LazyArray
from exporter.sources.file_values import Read, file_array
from exporter.sources.h5_values import Extent
from exporter.sources.web.model_json import WebModel, WebWeight


def lazy_values(model: WebModel) -> dict[str, LazyArray]:
    """By the weight's name, as numbers of its type; text is left out. Files stay open for the life of this process."""
    reads = [joined(files) for files in model.groups]
    name = os.path.basename(model.path)
    return {
        weight.name: _lazy(reads[weight.group], weight, f"{name}, weight {weight.name}").named(weight.name)
        for weight in model.weights.values()
        if weight.dtype != "string"
    }


def joined(files: Sequence[str]) -> Read:
    """Reads from the files as if they were one."""
    extents = [Extent(os.open(file, os.O_RDONLY)) for file in files]
    starts = list(accumulate((os.fstat(extent.descriptor).st_size for extent in extents), initial=0))

    def read(start: int, nbytes: int) -> np.ndarray:
        if not nbytes:
            return np.empty(0, np.uint8)
        if start + nbytes > starts[-1]:
            raise OSError("the files end too early")
        place, found = bisect.bisect_right(starts, start) - 1, []
        while nbytes:
            count = min(nbytes, starts[place + 1] - start)
            if count:
                found.append(extents[place].read(start - starts[place], count))
            start, nbytes, place = start + count, nbytes - count, place + 1
        return found[0] if len(found) == 1 else np.concatenate(found)

    return read


def _lazy(read: Read, weight: WebWeight, where: str) -> LazyArray:
    stored = weight.quantisation
    if stored is None:
        return file_array(read, weight.start, weight.shape, weight.dtype, where)
    packed = file_array(read, weight.start, weight.shape, stored.dtype, where)
    if stored.dtype == "float16":
        return packed.astype(weight.dtype)

    def expanded(values: np.ndarray) -> np.ndarray:
        """In double precision, as JavaScript computes."""
        numbers = values.astype(np.float64) * stored.scale + stored.lowest
        return (np.rint(numbers) if weight.dtype == "int32" else numbers).astype(weight.dtype)

    part = packed._part
    assert part is not None
    return LazyArray(
        weight.shape,
        weight.dtype,
        lambda: expanded(packed.real()),
        part=lambda start, stop: expanded(part(start, stop)),
    )
