"""How Keras keeps weights in HDF5 files: groups with attributes that list layers and weights, or groups of variables.

Keras 2 and the legacy format of Keras 3 list the layers of a model and the weights of each in attributes
(`layer_names`, `weight_names`). The format of Keras 3 has a group for each layer, with its variables by number in a
group `vars`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, takewhile

import h5py

from exporter.errors import SourceError
from exporter.sources.h5_values import COPY_AGAIN

# What h5py raises for damaged files.
DAMAGE = (OSError, RuntimeError, LookupError, ValueError, TypeError)
LAYERS, WEIGHTS = "layer_names", "weight_names"
# The group of what the model holds itself, beside those of its layers.
TOP_LEVEL = "top_level_model_weights"


def damaged(path: str, error: Exception) -> SourceError:
    return SourceError("is truncated or corrupt", where=path, why=f"as an HDF5 file: {error}", hint=COPY_AGAIN)


def is_own(item: h5py.Group | h5py.Dataset, group: h5py.Group) -> bool:
    """Whether it is in the same file: a link may lead to any other."""
    return bool(item.file == group.file)


def legacy_root(file: h5py.File) -> h5py.Group | None:
    """Where a legacy file keeps its layers, None for one that follows the layout of Keras 3."""
    group = file.get("model_weights", file)
    is_legacy = is_own(group, file) and any(f"{LAYERS}{number}" in group.attrs for number in ("", 0))
    return group if is_legacy else None


def names_in(group: h5py.Group, attribute: str) -> list[str]:
    """The texts of an attribute, which Keras splits into `…0`, `…1` and so on where it would be too large."""
    if attribute in group.attrs:
        found = [group.attrs[attribute]]
    else:
        parts = takewhile(lambda name: name in group.attrs, (f"{attribute}{number}" for number in count()))
        found = [group.attrs[name] for name in parts]
    texts = [text for each in found for text in ([each] if isinstance(each, (str, bytes)) else each)]
    return [text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in texts]


def legacy_weights(root: h5py.Group) -> Iterator[tuple[str, list[tuple[str, h5py.Dataset]]]]:
    """Each layer that the file names, with its weights by name, in their order. Raises what `DAMAGE` lists."""
    layers = names_in(root, LAYERS)
    for layer in dict.fromkeys([*layers, *([TOP_LEVEL] if TOP_LEVEL in root else [])]):
        group = root[layer]
        if not isinstance(group, h5py.Group) or not is_own(group, root):
            raise KeyError(f"{layer} is no group of the file")
        yield layer, [(weight, dataset(group, weight)) for weight in names_in(group, WEIGHTS)]


def dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """Raises KeyError for what is no dataset of this very file."""
    found = group[name]
    if not isinstance(found, h5py.Dataset) or not is_own(found, group):
        raise KeyError(f"{name} is no dataset of the file")
    return found


def datasets(file: h5py.File) -> Iterator[h5py.Dataset]:
    """All of the file, links to others not followed."""
    paths: list[str] = []
    file.visititems(lambda path, item: paths.append(path) if isinstance(item, h5py.Dataset) else None)
    for path in paths:
        yield file[path]
