"""Inputs to compare on: their sizes and their values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ml_dtypes  # noqa: F401 (teaches NumPy the name bfloat16)
import numpy as np

from exporter.errors import SourceError
from exporter.records import ModelGraph, TensorSpec

# With a dynamic batch two samples are run, so that a batch size that got baked in shows.
DYNAMIC_BATCH = 2
DYNAMIC_IMAGE_SIZE, DYNAMIC_LENGTH = 128, 16
USUAL_SIZES = (DYNAMIC_IMAGE_SIZE, DYNAMIC_LENGTH)
# Of images and of sequences, for models whose convolutions and croppings leave nothing of the usual ones.
LARGER_SIZES = ((256, 256), (512, 4096), (512, 16384))
IMAGE_CHANNELS = (1, 3, 4)
# One part in a million: about what rounding in float32 does to a value on its way through a few layers.
PERTURBATION = 2.0**-20
# Texts as NumPy has them before their lengths are known.
TEXT = "object"


def given_sizes(inputs: Sequence[TensorSpec], onnx_path: Path) -> tuple[TensorSpec, ...]:
    """The source's inputs with the sizes that an ONNX file has fixed for what they leave open.

    The file's inputs are found by name, or by position where names differ. Raises SourceError.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(str(onnx_path), load_external_data=False).graph
    except (OSError, DecodeError) as error:
        raise SourceError("cannot be read", where=str(onnx_path), why=str(error)) from error
    weights = {proto.name for proto in graph.initializer}
    there = [value for value in graph.input if value.name not in weights]
    named = {value.name: value for value in there}
    if not {spec.name for spec in inputs} <= named.keys() and len(there) == len(inputs):
        named = {spec.name: value for spec, value in zip(inputs, there, strict=True)}
    return tuple(_with_sizes(spec, named[spec.name]) if spec.name in named else spec for spec in inputs)


def _with_sizes(spec: TensorSpec, value: Any) -> TensorSpec:
    dims = value.type.tensor_type.shape.dim
    if spec.shape is None or len(dims) != len(spec.shape):
        return spec
    sizes = zip(spec.shape, dims, strict=True)
    return replace(spec, shape=tuple(dim.dim_value or None if size is None else size for size, dim in sizes))


def concrete(spec: TensorSpec, batch: int = DYNAMIC_BATCH, others: tuple[int, int] = USUAL_SIZES) -> TensorSpec:
    """The input with a size for every dynamic dimension; `others` are those of images and of sequences."""
    if spec.shape is None:
        return spec
    other = others[0 if len(spec.shape) >= 4 else 1]
    sizes = tuple(size if size is not None else batch if axis == 0 else other for axis, size in enumerate(spec.shape))
    return TensorSpec(spec.name, sizes, spec.dtype)


def index_inputs(graph: ModelGraph) -> tuple[str, ...]:
    """Inputs of fractions that go into a table of embeddings: those of Keras 2 have no dtype of their own."""
    tables = {layer.namespace for layer in graph.layers if layer.class_name == "Embedding"}
    taken = {edge.source for edge in graph.edges if edge.target in tables}
    return tuple(spec.name for spec in graph.inputs if spec.name in taken and spec.dtype == "float32")


def index_limit(graph: ModelGraph) -> int:
    """Whole-number inputs are taken for indices; they stay below the smallest table that the model has."""
    limits = []
    for layer in graph.layers:
        config = json.loads(layer.config)
        limits += [config[key] for key in ("input_dim", "num_tokens") if isinstance(config.get(key), int)]
    return min(limits, default=2)


def make_inputs(
    inputs: Sequence[TensorSpec],
    index_limit: int,
    seed: int,
    choices: Mapping[str, Sequence[Any]] = MappingProxyType({}),
) -> list[np.ndarray]:
    """Seeded inputs: normal numbers, a second sample of another kind; whole numbers below `index_limit`.

    Numbers of 8 bits are no indices but pixels, or quantised: of them all values occur. `choices` has the values of an
    input by its name, where others are not known to mean anything.

    The second sample of an image is around mid-grey on the scale from 0 to 255, which models with a rescaling of their
    own are made for; of anything else it is 16 times as large.
    """
    generator = np.random.default_rng(seed)
    arrays: list[np.ndarray] = []
    for spec in inputs:
        shape = tuple(size or 1 for size in spec.shape or ())
        dtype = np.dtype(TEXT if spec.dtype == "string" else spec.dtype or "float32")
        if choices.get(spec.name):
            arrays.append(_chosen(choices[spec.name], shape, generator).astype(dtype))
            continue
        if dtype.kind in "iu" and dtype.itemsize == 1:
            info = np.iinfo(dtype)
            arrays.append(generator.integers(info.min, info.max, shape, dtype, endpoint=True))
            continue
        if dtype.kind in "iub":
            arrays.append(generator.integers(0, 2 if dtype.kind == "b" else index_limit, shape).astype(dtype))
            continue
        array = generator.standard_normal(shape)
        if shape and shape[0] > 1:
            is_image = len(shape) == 4 and shape[-1] in IMAGE_CHANNELS
            array[1] = 127.5 + 4 * array[1] if is_image else 16 * array[1]
        arrays.append(array.astype(dtype))
    return arrays


def _chosen(choices: Sequence[Any], shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """The last of the choices is in it, where there is room for one."""
    places = generator.integers(0, len(choices), shape)
    places[(-1,) * len(shape)] = len(choices) - 1
    return np.array(choices, TEXT)[places]


def perturbed(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The same inputs with every real number changed by one part in a million."""
    return [array * array.dtype.type(1 + PERTURBATION) if array.dtype.kind == "f" else array for array in inputs]
