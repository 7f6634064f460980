"""Checkpoints alone: tensors by name, without what is computed with them. Needs no TensorFlow."""

from __future__ import annotations

import json
import math
import re

from exporter.readers.described import DescribedModel
from exporter.records import Job, ModelGraph, Weight
from exporter.sources.detection.tensorflow_files import checkpoint_prefix
from exporter.sources.scope_rows import KnownLayer, ScopeRows
from exporter.sources.tensor_bundle import OBJECT_GRAPH, Entry, TensorBundle, read_bundle
from exporter.sources.tensorflow_types import numpy_dtype, type_name
from exporter.unique_names import Names

# How TensorFlow 2 ends the key of a variable's value; before it is the way from object to object.
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
# What optimizers keep of a variable: TensorFlow 2 marks the key, TensorFlow 1 has a name below the variable's.
SLOT, SLOT_NAMES = ".OPTIMIZER_SLOT", re.compile(r"/(Adam(_\d+)?|Momentum|RMSProp(_\d+)?|Adagrad|Ftrl(_\d+)?)$")
# Of objects that train and count, and are no part of a model.
BOOKKEEPING = ("optimizer", "save_counter", "global_step", "_optimizer")
GROUP = "Group"


def read(job: Job, spool_path: str) -> DescribedModel:
    """Raises SourceError."""
    prefix = checkpoint_prefix(job.source)
    bundle = read_bundle(prefix)
    bundle.check_files()
    keys = [key for key in bundle.entries if key != OBJECT_GRAPH]
    numbers = [key for key in keys if numpy_dtype(bundle.entries[key].dtype) is not None]
    names = dict(zip(numbers, map(Names().unique, map(tensor_name, numbers)), strict=True))
    graph = describe(job.name, bundle, names)
    values = {name: bundle.value(key).named(name) for key, name in names.items()} if job.stats else {}
    return DescribedModel(graph=graph, weights="from the checkpoint", values=values, notes=_notes(bundle, keys, names))


def tensor_name(key: str) -> str:
    """The key without what TensorFlow puts at its end, and without empty parts."""
    return "/".join(part for part in key.removesuffix(VALUE).split("/") if part) or key


def describe(name: str, bundle: TensorBundle, names: dict[str, str]) -> ModelGraph:
    """A row for everything on the way to a tensor; the last part of a tensor's name is its own."""
    weights = [_weight(bundle.entries[key], own) for key, own in names.items()]
    groups = {outer for weight in weights for outer in _outer(weight.layer)}
    known = {group: KnownLayer(GROUP, json.dumps({}), trainable=False) for group in groups}
    rows = ScopeRows(lambda tensor: (None, None), known)
    for weight in weights:
        rows.hold(weight)
    layers = tuple(rows.rows(()))
    return ModelGraph(name=name, inputs=(), outputs=(), layers=layers, edges=(), weights=tuple(weights), level="tensor")


def _outer(layer: str) -> list[str]:
    parts = layer.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)] if layer else [""]


def _weight(entry: Entry, name: str) -> Weight:
    dtype = numpy_dtype(entry.dtype)
    assert dtype is not None
    nbytes = math.prod(entry.shape) * dtype.itemsize
    return Weight(name, name.rpartition("/")[0], entry.shape, dtype.name, nbytes, trainable=False)


def _notes(bundle: TensorBundle, keys: list[str], names: dict[str, str]) -> tuple[str, ...]:
    notes = ["a checkpoint holds tensors alone: what is computed with them, and which are trained, is not in it"]
    slots = [key for key in names if SLOT in key or SLOT_NAMES.search(key) or key.split("/")[0] in BOOKKEEPING]
    if slots:
        notes.append(f"{len(slots)} of the {len(names)} tensors are of the optimizer or count steps, by their names")
    others = sorted({type_name(bundle.entries[key].dtype) or "?" for key in keys if key not in names})
    if others:
        notes.append(f"{len(keys) - len(names)} entries that are no numbers are left out ({', '.join(others)})")
    return tuple(notes)
