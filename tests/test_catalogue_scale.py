"""The tables of very large graphs: how much memory writing them takes over the graph itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

LIMIT_BYTES = 300 * 2**20
# Makes a graph of so many layers and nodes, writes the tables, and prints the peak of memory before and after.
CODE = """
import json, sys
from dataclasses import replace
from pathlib import Path
from exporter import memory
from exporter.costs.model_costs import job_costs
from exporter.formats import layer_table, model_table
from exporter.records import Cost, Edge, Job, Layer, Material, ModelGraph, OnnxNode, TensorSpec, Weight

layers, nodes = int(sys.argv[1]), int(sys.argv[2])
shape, config = (None, 8, 8, 16), json.dumps({"units": 16, "activation": "relu", "use_bias": True, "text": "x" * 300})

def layer(number):
    before, after = (TensorSpec(f"t{place}", shape, "float32") for place in (number, number + 1))
    name, before_name = f"dense_{number}", f"dense_{number - 1}"
    return Layer(number, name, "Dense", name, 0, None, True, (before,), (after,), 272, 272, 272, 1088, 1,
                 (before_name,) if number else (), config)

def node(number):
    name = f"dense_{number % layers}/MatMul_{number}"
    cost = Cost(number, 2 * number, 4096, "onnx")
    return OnnxNode(number, name, "MatMul", "", name, f"dense_{number % layers}", "recorded",
                    (f"{name}:in", f"{name}/kernel"), (f"{name}:0",), (shape,), ("float32",), cost)

graph = ModelGraph("net", (), (), tuple(map(layer, range(layers))),
    tuple(Edge(f"dense_{i}", 0, 0, f"dense_{i + 1}", 0, 0, shape, "float32") for i in range(layers - 1)),
    tuple(Weight(f"dense_{i}/kernel", f"dense_{i}", (16, 16), "float32", 1024, True) for i in range(layers)))
job = Job("net.keras", "keras_archive", "net", "outputs/net", ("parquet",), "f", "d")
material = Material(job, graph, tuple(map(node, range(nodes))), ())
before = memory.peak_rss_bytes()
material = replace(material, costs=job_costs(job, graph, material.nodes))
memory.release_unused()
layer_table.write(material, Path())
model_table.write(material, Path())
print(json.dumps([before, memory.peak_rss_bytes()]))
"""


@pytest.mark.slow
def test_a_hundred_thousand_layers_and_a_million_nodes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CODE, "100000", "1000000"]
    before, after = json.loads(subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.PIPE).stdout)
    assert after - before < LIMIT_BYTES
    rows = {path.stem: pq.read_metadata(path).num_rows for path in tmp_path.iterdir()}
    assert rows == {"models": 1, "layers": 100_000, "tensors": 100_000, "edges": 99_999, "nodes": 1_000_000}
