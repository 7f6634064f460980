"""Checkpoints alone: tensors by name, without what is computed with them. Needs no TensorFlow."""

from __future__ import annotations

import re

from exporter.readers.described import DescribedModel
from exporter.readers.weight_tree import Tensor, described
from exporter.records import Job
from exporter.sources.detection.tensorflow_files import checkpoint_prefix
from exporter.sources.graphs.tensor_bundle import OBJECT_GRAPH, TensorBundle, read_bundle
from exporter.sources.graphs.tensorflow_types import numpy_dtype, type_name
from exporter.unique_names import Names

# How TensorFlow 2 ends the key of a variable's value; before it is the way from object to object.
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
# What optimizers keep of a variable: TensorFlow 2 marks the key, TensorFlow 1 has a name below the variable's.
SLOT, SLOT_NAMES = ".OPTIMIZER_SLOT", re.compile(r"/(Adam(_\d+)?|Momentum|RMSProp(_\d+)?|Adagrad|Ftrl(_\d+)?)$")
# Of objects that train and count, and are no part of a model.
BOOKKEEPING = ("optimizer", "save_counter", "global_step", "_optimizer")


def read(job: Job, spool_path: str) -> DescribedModel:
    """Raises SourceError."""
    prefix = checkpoint_prefix(job.source)
    bundle = read_bundle(prefix)
    bundle.check_files()
    keys = [key for key in bundle.entries if key != OBJECT_GRAPH]
    numbers = [key for key in keys if numpy_dtype(bundle.entries[key].dtype) is not None]
    names = dict(zip(numbers, map(Names().unique, map(tensor_name, numbers)), strict=True))
    tensors = (_tensor(name, bundle, key) for key, name in names.items())
    return described(job.name, tensors, "from the checkpoint", _notes(bundle, keys, names))


def tensor_name(key: str) -> str:
    """The key without what TensorFlow puts at its end, and without empty parts."""
    return "/".join(part for part in key.removesuffix(VALUE).split("/") if part) or key


def _tensor(name: str, bundle: TensorBundle, key: str) -> Tensor:
    """The last part of the name is the tensor's own; a row is made for everything on the way to it."""
    value = bundle.value(key)
    return Tensor(name, tuple((part, part) for part in name.split("/")[:-1]), value, value.nbytes)


def _notes(bundle: TensorBundle, keys: list[str], names: dict[str, str]) -> tuple[str, ...]:
    notes = ["a checkpoint holds tensors alone, and so has no ONNX form: what is computed with them is not in it"]
    slots = [key for key in names if SLOT in key or SLOT_NAMES.search(key) or key.split("/")[0] in BOOKKEEPING]
    if slots:
        notes.append(f"{len(slots)} of the {len(names)} tensors are of the optimizer or count steps, by their names")
    others = sorted({type_name(bundle.entries[key].dtype) or "?" for key in keys if key not in names})
    if others:
        notes.append(f"{len(keys) - len(names)} entries that are no numbers are left out ({', '.join(others)})")
    return tuple(notes)
