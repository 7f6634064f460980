"""Weights without their model: `.weights.h5` files of Keras 3, legacy ones, and sharded ones (`.weights.json`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import h5py

from exporter.errors import SourceError
from exporter.readers.described import DescribedModel
from exporter.readers.h5_groups import DAMAGE, TOP_LEVEL, damaged, datasets, legacy_root, legacy_weights
from exporter.readers.weight_tree import Part, Tensor, described, natural
from exporter.records import Job
from exporter.sources.h5_values import COPY_AGAIN, Extent, lazy_dataset
from exporter.sources.keras_models.weight_map import is_sharded, shard_paths
from exporter.unique_names import Names

T = TypeVar("T")
VARIABLES = "vars"
# Groups that only say that their owner has layers.
CONTAINERS = ("layers", "_layer_checkpoint_dependencies")


def read(job: Job, spool_path: str) -> DescribedModel:
    """Raises SourceError."""
    if is_sharded(job.source):
        shards = [str(path) for path in shard_paths(job.source)]
        # Which shard says what a layer is called is not said.
        labels = {path: label for shard in shards for path, label in _opened(shard, labels_in).items()}
        tensors = [tensor for shard in shards for tensor in _opened(shard, lambda file: tensors_in(file, labels))]
        text = f"from {len(shards)} shards"
    else:
        tensors, text = _opened(job.source, _of_file), "from the file"
    if not tensors:
        raise SourceError("holds no weights", where=job.source, why="it has no datasets", hint=COPY_AGAIN)
    return described(job.name, ordered(tensors) if is_sharded(job.source) else tensors, text)


def _opened(path: str, look: Callable[[h5py.File], T]) -> T:
    """What `look` finds in the file. Raises SourceError."""
    try:
        # Without a lock, which read-only and network file systems may refuse.
        with h5py.File(path, "r", locking=False) as file:
            return look(file)
    except DAMAGE as error:
        raise damaged(path, error) from error


def _of_file(file: h5py.File) -> list[Tensor]:
    root = legacy_root(file)
    return list(_legacy(root)) if root else ordered(tensors_in(file, labels_in(file)))


def ordered(tensors: Iterable[Tensor]) -> list[Tensor]:
    return sorted(tensors, key=lambda tensor: natural(tensor.name))


def _legacy(root: h5py.Group) -> Iterator[Tensor]:
    """In the model's order; a nested model's group has the weights of all its layers, whose names start with theirs."""
    names = Names()
    for layer, weights in legacy_weights(root):
        for weight, dataset in weights:
            name = weight.split(":")[0]
            prefix = name.split("/")[:-1]
            outer = [] if prefix[:1] == [layer] or layer == TOP_LEVEL else [layer]
            unique = names.unique(f"{layer}/{name}" if name in names.taken else name)
            yield _with_value(unique, tuple((part, part) for part in (*outer, *prefix)), dataset)


def tensors_in(file: h5py.File, labels: dict[str, str], extent: Extent | None = None) -> list[Tensor]:
    """All of the file, named by their paths; `labels` are the names of layers by the paths of their groups.

    `extent` is as `lazy_dataset` takes it. Raises what `DAMAGE` lists.
    """
    tensors: list[Tensor] = []
    for dataset in datasets(file):
        name = dataset.name.strip("/")
        keys = name.split("/")[:-1]
        paths = ["/".join(keys[:depth]) for depth, key in enumerate(keys, 1) if key not in (VARIABLES, *CONTAINERS)]
        groups = tuple((path, labels.get(path) or path.rpartition("/")[2]) for path in paths)
        tensors.append(_with_value(name, groups, dataset, extent))
    return tensors


def labels_in(file: h5py.File) -> dict[str, str]:
    """What layers are called, which their groups of variables say, by the paths of their groups."""
    labels: dict[str, str] = {}

    def visit(path: str, item: h5py.Group | h5py.Dataset) -> None:
        owner, _, key = path.rpartition("/")
        if key == VARIABLES and "name" in item.attrs:
            name = item.attrs["name"]
            text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
            labels[owner] = text.replace("/", "_")

    file.visititems(visit)
    return labels


def _with_value(name: str, parts: tuple[Part, ...], dataset: h5py.Dataset, extent: Extent | None = None) -> Tensor:
    value = lazy_dataset(dataset, extent)
    return Tensor(name, parts, value, value.nbytes)
