"""The shapes of a model's inputs as the user asks for them. Imports neither TensorFlow nor Keras."""

from __future__ import annotations

import dataclasses

from exporter.errors import UsageError
from exporter.records import Job, ModelGraph, Shape, TensorSpec


def input_specs(graph: ModelGraph, job: Job) -> tuple[TensorSpec, ...]:
    """The model's inputs with the shapes that the user asked for. Raises UsageError."""
    asked = dict(job.input_shapes)
    names = [spec.name for spec in graph.inputs]
    if "" in asked and len(names) == 1:
        asked = {names[0]: asked[""]}
    for name in asked:
        if name not in names:
            raise UsageError(
                f"the model has no input {name!r}" if name else "the model has not exactly one input",
                where="--input-shape",
                why=f"its inputs are {', '.join(names)}" if names else "the file records no inputs",
                hint=f"--input-shape {names[0]}:{_text(graph.inputs[0].shape)}" if names else "leave it out",
            )
    return tuple(dataclasses.replace(spec, shape=_shape(spec, asked.get(spec.name), job)) for spec in graph.inputs)


def _shape(spec: TensorSpec, asked: Shape | None, job: Job) -> Shape | None:
    """The declared shape with its free dimensions as asked for; the batch is the first of them."""
    if spec.shape is None:
        return asked
    batch = job.batch_size
    shape = _fitted(spec.name, spec.shape, asked or spec.shape, f"--input-shape {spec.name}:{_text(asked)}")
    if batch is None or not shape:
        return shape
    return _fitted(spec.name, shape, (batch, *shape[1:]), f"--batch-size {batch}")


def _fitted(name: str, declared: Shape, asked: Shape, where: str) -> Shape:
    fits = len(asked) == len(declared) and all(
        have is None or want in (None, have) for have, want in zip(declared, asked, strict=False)
    )
    if not fits:
        raise UsageError(
            "the shape does not fit the model",
            where=where,
            why=f"the model declares {name} as {_text(declared)}, where ? is free to choose",
            hint=f"--input-shape {name}:{_text(declared)}",
        )
    return tuple(want if want is not None else have for want, have in zip(asked, declared, strict=True))


def _text(shape: Shape | None) -> str:
    return ",".join("?" if size is None else str(size) for size in shape or ())
