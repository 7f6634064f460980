"""Models as a report gets them, made without TensorFlow: a residual network, chains, a nested model, hostile names."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from exporter.costs.model_costs import job_costs
from exporter.records import Edge, Job, Layer, Material, ModelGraph, OutputDifference, TensorSpec, Verification, Weight
from exporter.statistics import Surveyor

HOSTILE = "</script><img src=x onerror=\"document.title='ran'\"><!--'&{{data}}"
SHAPE = (None, 8, 8, 16)
PASSED = Verification("passed", outputs=(OutputDifference("head", (2, 10), 1e-7, 1e-7, 1e-3),))


class Drawing:
    """Layers and edges one after the other."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.edges: list[Edge] = []
        self.weights: list[Weight] = []

    def add(
        self,
        name: str,
        kind: str,
        sources: Sequence[str] = (),
        *,
        kernel: tuple[int, ...] = (),
        parent: str = "",
        **config: Any,
    ) -> str:
        """The new layer's namespace; its outputs have `SHAPE`."""
        key = f"{parent}/{name}" if parent else name
        params = int(np.prod(kernel)) if kernel else 0
        inputs = tuple(TensorSpec(source, SHAPE, "float32") for source in sources)
        self.layers.append(
            Layer(
                index=len(self.layers),
                name=name,
                class_name=kind,
                namespace=key,
                depth=key.count("/") if parent else 0,
                parent=parent or None,
                trainable=True,
                inputs=inputs or None,
                outputs=(TensorSpec(key, SHAPE, "float32"),),
                params=params,
                params_trainable=params,
                params_total=params,
                weight_bytes=4 * params,
                calls=1,
                connected_to=tuple(sources),
                config=json.dumps(config),
            )
        )
        self.edges += [Edge(source, 0, 0, key, 0, place, SHAPE, "float32") for place, source in enumerate(sources)]
        if kernel:
            self.weights.append(Weight(f"{key}/kernel", key, kernel, "float32", 4 * params, True))
        return key

    def convolution(self, name: str, source: str, parent: str = "") -> str:
        return self.add(name, "Conv2D", [source], kernel=(3, 3, 16, 16), parent=parent, kernel_size=[3, 3], filters=16)

    def graph(self, name: str) -> ModelGraph:
        inputs = tuple(TensorSpec(at.name, SHAPE, "float32") for at in self.layers if at.class_name == "InputLayer")
        outputs = (TensorSpec(self.layers[-1].namespace, (None, 10), "float32"),)
        return ModelGraph(name, inputs[:1], outputs, tuple(self.layers), tuple(self.edges), tuple(self.weights))


def residual(blocks: int = 6, name: str = "net") -> ModelGraph:
    """Stem, equal residual blocks, a nested model, head; a side output that nothing takes."""
    drawing = Drawing()
    image = drawing.add("image", "InputLayer")
    at = drawing.convolution("stem", image)
    for number in range(1, blocks + 1):
        inner = drawing.convolution(f"block{number}_conv", at)
        inner = drawing.add(f"block{number}_relu", "ReLU", [inner])
        inner = drawing.convolution(f"block{number}_out", inner)
        at = drawing.add(f"block{number}_add", "Add", [at, inner])
    drawing.add("unused", "Flatten", [at])
    model = drawing.add("inner", "Functional", [at])
    first = drawing.add("inner_input", "InputLayer", parent=model)
    drawing.convolution("second", drawing.convolution("first", first, model), model)
    drawing.add("head", "Dense", [model], kernel=(16, 10), units=10)
    return drawing.graph(name)


def chain(number: int, *, equal: bool = True) -> ModelGraph:
    """Dense layers in a row with a skip at every third; equal ones fold, others do not."""
    chance, drawing = random.Random(1), Drawing()
    for place in range(number):
        sources = [f"dense_{place - back}" for back in (1, 3) if place >= back and (back == 1 or place % 3 == 0)]
        width = 16 if equal else chance.choice([8, 16, 24, 32, 48, 64])
        drawing.add(f"dense_{place}", "Dense", sources, kernel=(16, width), units=width)
    return drawing.graph("chain")


def dense(number: int) -> ModelGraph:
    """Each layer takes the outputs of all before it: half of `number` squared edges, no two layers alike."""
    drawing = Drawing()
    for place in range(number):
        sources = [f"mix_{before}" for before in range(place)]
        drawing.add(f"mix_{place}", "Concatenate" if place else "InputLayer", sources, kernel=(16, place + 1))
    return drawing.graph("dense")


def hostile(graph: ModelGraph) -> ModelGraph:
    """The same with markup in every name."""

    def bad(key: str) -> str:
        return "/".join(HOSTILE.replace("/", "\\") + part for part in key.split("/"))

    layers = [
        replace(
            at,
            name=HOSTILE + at.name,
            namespace=bad(at.namespace),
            parent=at.parent and bad(at.parent),
            config=json.dumps({"x": HOSTILE}),
        )
        for at in graph.layers
    ]
    edges = [replace(edge, source=bad(edge.source), target=bad(edge.target)) for edge in graph.edges]
    weights = [replace(weight, name=HOSTILE + weight.name, layer=bad(weight.layer)) for weight in graph.weights]
    ends = [tuple(replace(spec, name=HOSTILE) for spec in specs) for specs in (graph.inputs, graph.outputs)]
    return ModelGraph(HOSTILE, *ends, tuple(layers), tuple(edges), tuple(weights))


def material(graph: ModelGraph, *, stats: bool = False, **changes: Any) -> Material:
    """As the worker makes it when no ONNX file is asked for, but for what `changes` says."""
    job = Job("net.keras", "keras_archive", "net", "outputs/net", ("html",), "f", "d1e2")
    made = Material(job, graph, source="net.keras", weights="net.keras", versions={"keras": "3.15.1", "tf2onnx": None})
    costs = job_costs(job, graph, None)
    return replace(made, costs=costs, statistics=measured(graph) if stats else {}, **changes)


def measured(graph: ModelGraph) -> dict[str, Any]:
    """Statistics of seeded weights; the first has NaN and a dead filter."""
    chance, found = np.random.default_rng(0), {}
    with Surveyor() as surveyor:
        for place, weight in enumerate(graph.weights):
            values = chance.normal(size=weight.shape).astype(np.float32)
            if place == 0:
                values[0, ..., 0], values[..., 1] = np.nan, 0
            found[weight.name] = surveyor.measure([values.ravel()], weight.shape, values.dtype)
    return found
