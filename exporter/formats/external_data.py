"""Which weights go into files of their own, which files, and at which offsets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from exporter.lazy import LazyArray

DATA = "model.onnx.data"
# Models of at most this many bytes of weights are one file, unless asked otherwise.
SINGLE_FILE_NBYTES = 32 * 2**20
# Smaller tensors stay in the model file, where shape inference and viewers see their values.
EXTERNAL_NBYTES = 1024
# Large tensors start on a page, so that runtimes can map them; the ONNX specification recommends it.
PAGE_BYTES, LARGE_NBYTES, ALIGNMENT_BYTES = 4096, 2**20, 64


@dataclass(frozen=True)
class Place:
    """Bytes from `offset` on in a data file of that name."""

    file: str
    offset: int


@dataclass
class DataFile:
    """A data file to write: arrays in the order of their offsets."""

    name: str
    nbytes: int
    content: list[tuple[int, LazyArray]]

    def items(self) -> Iterable[bytes | LazyArray]:
        """The arrays, with zeros up to the offset of each."""
        end = 0
        for offset, array in self.content:
            if offset > end:
                yield b"\0" * (offset - end)
            yield array
            end = offset + array.nbytes


def is_external(mode: str, total_nbytes: int) -> bool:
    """`mode` is that of `--external-data`."""
    return mode == "always" or (mode == "auto" and total_nbytes > SINGLE_FILE_NBYTES)


def arrange(
    weights: Iterable[tuple[str, LazyArray]], shard_nbytes: int | None
) -> tuple[list[DataFile], dict[str, Place]]:
    """The data files, and the place of each weight that goes into one, by its initializer's name.

    Equal content by construction (tied weights) has one place. A file ends before a weight that would make it larger
    than `shard_nbytes`, so that only a file with a single, larger weight is larger.
    """
    files: list[DataFile] = []
    places: dict[str, tuple[int, int]] = {}
    known: dict[object, tuple[int, int]] = {}
    for name, array in weights:
        if array.nbytes < EXTERNAL_NBYTES:
            continue
        if array.content not in known:
            known[array.content] = _placed(array, files, shard_nbytes)
        places[name] = known[array.content]
    for number, file in enumerate(files, 1):
        file.name = DATA if shard_nbytes is None else f"model-{number:05}-of-{len(files):05}.onnx.data"
    return files, {name: Place(files[index].name, offset) for name, (index, offset) in places.items()}


def _placed(array: LazyArray, files: list[DataFile], shard_nbytes: int | None) -> tuple[int, int]:
    """Append the array to the last file, or to a new one; the number of the file and the offset."""
    offset = _aligned(files[-1].nbytes, array) if files else 0
    if not files or (shard_nbytes is not None and offset and offset + array.nbytes > shard_nbytes):
        files.append(DataFile("", 0, []))
        offset = 0
    files[-1].content.append((offset, array))
    files[-1].nbytes = offset + array.nbytes
    return len(files) - 1, offset


def _aligned(offset: int, array: LazyArray) -> int:
    alignment = PAGE_BYTES if array.nbytes >= LARGE_NBYTES else ALIGNMENT_BYTES
    return offset + -offset % alignment
