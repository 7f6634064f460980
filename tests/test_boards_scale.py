"""The files for TensorBoard and Model Explorer of a very large graph: how much memory writing them takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.formats import FORMATS

LIMIT_BYTES = 300 * 2**20
# Makes a graph of so many layers and twice as many nodes, writes one format, and prints the peak before and after.
CODE = """
import importlib, json, sys
from pathlib import Path
from exporter import memory
from exporter.records import (
    Cost, Edge, Job, Layer, LayerCosts, Material, ModelGraph, OnnxNode, TensorSpec, TensorStatistics, Weight)

module, layers = importlib.import_module(sys.argv[1]), int(sys.argv[2])
shape, config = (None, 8, 8, 16), json.dumps({"units": 16, "activation": "relu", "use_bias": True, "text": "x" * 300})

def layer(number):
    before, after = (TensorSpec(f"t{place}", shape, "float32") for place in (number, number + 1))
    name, before_name = f"dense_{number}", f"dense_{number - 1}"
    return Layer(number, name, "Dense", name, 0, None, True, (before,), (after,), 272, 272, 272, 1088, 1,
                 (before_name,) if number else (), config)

def node(number):
    layer = f"dense_{number // 2}"
    name, cost = f"{layer}/MatMul_{number}", Cost(number, 2 * number, 4096, "onnx")
    return OnnxNode(number, name, "MatMul", "", layer, layer, "recorded",
                    (f"t{number - 1}:0", f"{layer}/kernel"), (f"t{number}:0",), (shape,), ("float32",), cost)

graph = ModelGraph("net", (), (), tuple(map(layer, range(layers))),
    tuple(Edge(f"dense_{i}", 0, 0, f"dense_{i + 1}", 0, 0, shape, "float32") for i in range(layers - 1)),
    tuple(Weight(f"dense_{i}/kernel", f"dense_{i}", (16, 16), "float32", 1024, True) for i in range(layers)))
found = TensorStatistics(nans=0, infs=0, distinct=9, histogram_edges=tuple(map(float, range(33))),
    histogram_counts=tuple(range(32)))
costs = LayerCosts({layer.namespace: Cost(1, 2, 3, "layer") for layer in graph.layers}, 1, 128, 0, 1, 2, 3)
job = Job("net.keras", "keras_archive", "net", "outputs/net", (), "f", "d")
material = Material(job, graph, tuple(map(node, range(2 * layers))), (), costs=costs,
    statistics={weight.name: found for weight in graph.weights})
before = memory.peak_rss_bytes()
module.write(material, Path())
print(json.dumps([before, memory.peak_rss_bytes()]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tensorboard", "model-explorer"])
def test_a_hundred_thousand_layers(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-c", CODE, FORMATS[name].module, "100000"]
    before, after = json.loads(subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.PIPE).stdout)
    assert after - before < LIMIT_BYTES
    assert {path.name for path in tmp_path.iterdir()} == set(FORMATS[name].files)
