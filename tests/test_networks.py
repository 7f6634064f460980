"""Networks: what NetworkX reads from our files is what `to_networkx` makes of the tables, and both are the model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import networkx as nx
import onnx
import pytest
from exporting import export_here
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from exporter import to_networkx
from exporter.costs.model_costs import job_costs
from exporter.errors import SourceError, UsageError
from exporter.formats import layer_table, model_table, network_gexf, network_graphml, network_json
from exporter.formats.network_xml import allowed
from exporter.records import Edge, Job, Layer, Material, ModelGraph, TensorSpec

FILES = ("model.graphml", "model.gexf", "model.graph.json")
# Quotes, markup, line ends, what XML forbids and what looks like our escape for it, and other scripts.
HOSTILE = ["a<b>&\"'c", "tab\tline\nreturn\r", "\x01", "\\u0001", "\\\\u0001", "\x0b\ufffe", " ", "нейрон 層 🙂", "]]>"]


@pytest.fixture(scope="module")
def model() -> Any:
    """A layer called twice, a tensor used twice by one call, a nested model, an open dimension."""
    inner_in = keras.Input((None, 4), name="inner_in")
    inner = keras.Model(inner_in, layers.Add(name="sum")([inner_in, layers.Dense(4, name="d")(inner_in)]), name="inner")
    a, b = keras.Input((None, 4), name="a"), keras.Input((None, 4), name="b")
    shared = layers.Dense(4, name="shared")
    twice = layers.Multiply(name="square")([shared(a), shared(a)])
    once = shared(b)
    out = layers.Add(name="add")([inner(twice), inner(once), once, once])
    attention = layers.MultiHeadAttention(2, 3, name="attention")(out, out)
    return keras.Model([a, b], [attention, out])


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("networks")
    model.save(place / "net.keras")
    formats = ("onnx", "parquet", "graphml", "gexf", "json")
    outcome = export_here(place / "net.keras", place, formats=formats, verify=False)
    assert outcome.status == "done", outcome.error
    return Path(outcome.output_path)


def read(folder: Path, file: str) -> nx.MultiDiGraph:
    """With NetworkX's own readers. Without parallel edges that of GEXF gives a graph of another class."""
    if file == "model.graphml":
        return nx.read_graphml(folder / file, force_multigraph=True)
    if file == "model.gexf":
        return nx.read_gexf(folder / file)
    return nx.node_link_graph(json.loads((folder / file).read_text()), edges="edges")


def contents(graph: nx.MultiDiGraph) -> tuple[Any, Any]:
    """Nodes and edges with the values and types of all attributes, but for the `id` that GEXF's reader adds."""
    nodes = [(key, typed(data)) for key, data in graph.nodes(data=True)]
    kept = (
        (u, v, k, {name: data[name] for name in data if name != "id"}) for u, v, k, data in graph.edges.data(keys=True)
    )
    edges = sorted((*ends, typed(data)) for *ends, data in kept)
    return nodes, edges


def typed(data: dict[str, Any]) -> list[tuple[str, str, Any]]:
    return sorted((name, type(value).__name__, value) for name, value in data.items())


@pytest.mark.parametrize("file", FILES)
def test_what_networkx_reads_is_what_to_networkx_makes(file: str, folder: Path) -> None:
    made, found = to_networkx(folder), read(folder, file)
    assert isinstance(found, nx.MultiDiGraph)
    assert contents(found) == contents(made)
    if file == "model.gexf":
        assert found.graph["name"] == made.graph["name"]
    else:
        assert {name: found.graph[name] for name in made.graph} == made.graph


def test_edges_are_those_of_keras(model: Any, folder: Path) -> None:
    """Counted from Keras's own nodes, with their multiplicity."""
    wanted: Counter[tuple[str, str]] = Counter()
    for layer in model.layers:
        for node in layer._inbound_nodes:
            wanted.update((parent._keras_history.operation.name, layer.name) for parent in node.input_tensors)
    graph = to_networkx(folder)
    top = {key for key, parent in graph.nodes(data="parent") if parent is None}
    assert Counter((u, v) for u, v in graph.edges() if u in top) == wanted
    assert wanted["shared", "square"] == 2
    assert wanted["shared", "add"] == 2


def test_layers_of_a_nested_model_are_joined_with_each_other(folder: Path) -> None:
    graph = to_networkx(folder)
    assert sorted((u, v) for u, v in graph.edges() if u.startswith("inner/")) == [
        ("inner/d", "inner/sum"),
        ("inner/inner_in", "inner/d"),
        ("inner/inner_in", "inner/sum"),
    ]
    assert graph.nodes["inner/d"]["parent"] == "inner"


def test_attributes_are_the_catalogue_and_unknown_ones_are_absent(model: Any, folder: Path) -> None:
    graph = to_networkx(folder)
    nodes = graph.nodes
    assert sum(nodes[key]["params"] for key in nodes) == model.count_params() == graph.graph["params"]
    assert nodes["shared"]["class"] == "Dense"
    assert nodes["shared"]["calls"] == 3
    assert json.loads(nodes["shared"]["output_shapes"]) == [[None, None, 4]]
    assert nodes["shared"]["trainable"] is True
    assert "parent" not in nodes["shared"]
    edge = next(data for u, v, data in graph.edges(data=True) if (u, v) == ("a", "shared"))
    assert edge["dtype"] == "float32"
    assert json.loads(edge["shape"]) == [None, None, 4]


def test_nodes_are_those_of_onnx(folder: Path) -> None:
    proto = onnx.load(str(folder / "model.onnx")).graph
    maker = {tensor: node.name for node in proto.node for tensor in node.output}
    wanted = Counter((maker[tensor], node.name) for node in proto.node for tensor in node.input if tensor in maker)
    graph = to_networkx(folder, level="nodes")
    assert {key: data["op_type"] for key, data in graph.nodes(data=True)} == {n.name: n.op_type for n in proto.node}
    assert Counter(graph.edges()) == wanted
    assert nx.is_directed_acyclic_graph(graph)
    assert {data["tensor"] for *_, data in graph.edges(data=True)} <= maker.keys()
    assert {data["layer"] for _, data in graph.nodes(data=True) if "layer" in data} <= set(to_networkx(folder))


@pytest.mark.parametrize("level", ["layers", "nodes"])
def test_networkx_can_write_the_graph_itself(level: str, folder: Path, tmp_path: Path) -> None:
    """No value of ours is of a kind that its writers refuse."""
    graph = to_networkx(folder, level)
    nx.write_graphml(graph, tmp_path / "written.graphml", edge_id_from_attribute=None)
    nx.write_gexf(graph, tmp_path / "written.gexf")
    nx.write_gml(graph, tmp_path / "written.gml")
    again = nx.read_graphml(tmp_path / "written.graphml", force_multigraph=True)
    assert contents(again) == contents(graph)


@pytest.mark.slow
def test_two_exports_give_the_same_bytes(model: Any, folder: Path, tmp_path: Path) -> None:
    model.save(tmp_path / "net.keras")
    formats = ("onnx", "graphml", "gexf", "json")
    outcome = export_here(tmp_path / "net.keras", tmp_path, formats=formats, verify=False)
    for file in FILES:
        assert (Path(outcome.output_path) / file).read_bytes() == (folder / file).read_bytes()


def chain(names: list[str]) -> Material:
    """Layers one after the other, each also fed by the first."""
    spec = TensorSpec("t", (None, 3), "float32")

    def layer(place: int, name: str) -> Layer:
        return Layer(place, name, "Dense", name, 0, None, True, (spec,), None, 1, 1, 1, 4, 1, (), '{"units": 1}')

    pairs = [(first, name) for earlier, name in pairwise(names) for first in (earlier, names[0])]
    edges = tuple(Edge(source, 0, 0, target, 0, 0, (None, 3), None) for source, target in pairs)
    graph = ModelGraph("net", (spec,), (spec,), tuple(layer(*at) for at in enumerate(names)), edges, ())
    job = Job("net", "keras_archive", "net", "outputs/net", ("parquet",), "f", "d")
    return Material(job, graph, costs=job_costs(job, graph, None))


def write_all(material: Material, folder: Path) -> None:
    layer_table.write(material, folder)
    model_table.write(material, folder)
    for module in (network_graphml, network_gexf, network_json):
        module.write(material, folder)


@pytest.mark.parametrize("file", FILES)
def test_hostile_names_survive(file: str, tmp_path: Path) -> None:
    """In XML, what it forbids is spelled out, in such a way that no two names become one."""
    write_all(chain(HOSTILE), tmp_path)
    found, made = read(tmp_path, file), to_networkx(tmp_path)
    spelling = (lambda text: text) if file == "model.graph.json" else allowed
    renamed = nx.relabel_nodes(made, {name: spelling(name) for name in HOSTILE})
    for _, data in renamed.nodes(data=True):
        data |= {"name": spelling(data["name"]), "label": spelling(data["label"])}
    assert contents(found) == contents(renamed)
    assert len(found) == len(HOSTILE)


@pytest.mark.slow
@given(st.lists(st.text(st.characters(codec="utf-8") | st.sampled_from("\\u0123\x00\x01"), max_size=9), unique=True))
@settings(max_examples=300, deadline=None)
def test_spelled_out_names_stay_different_and_can_be_read_back(names: list[str]) -> None:
    spelled = [allowed(name) for name in names]
    back = [re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), name) for name in spelled]
    assert back == names


def test_a_model_without_parallel_edges_is_read_too(tmp_path: Path) -> None:
    """NetworkX's readers then make a DiGraph unless told otherwise; the edges are the same."""
    graph = chain(["a", "b", "c"]).graph
    write_all(replace(chain(["a", "b", "c"]), graph=replace(graph, edges=graph.edges[1:])), tmp_path)
    assert sorted(read(tmp_path, "model.gexf").edges()) == sorted(to_networkx(tmp_path).edges())


def test_what_is_unknown_is_absent(tmp_path: Path) -> None:
    write_all(chain(["a", "b"]), tmp_path)
    graph = to_networkx(tmp_path)
    assert all("output_shapes" not in data and "parent" not in data for _, data in graph.nodes(data=True))
    assert all("dtype" not in data and data["target_input"] == 0 for *_, data in graph.edges(data=True))


def test_a_model_without_layers_is_a_network_without_nodes(tmp_path: Path) -> None:
    write_all(chain([]), tmp_path)
    assert [len(read(tmp_path, file)) for file in FILES] == [0, 0, 0]


def test_what_is_no_export_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no level"):
        to_networkx(folder, level="weights")
    with pytest.raises(UsageError, match=r"no models\.parquet, layers\.parquet, edges\.parquet"):
        to_networkx(tmp_path)
    write_all(chain(["a"]), tmp_path)
    with pytest.raises(UsageError, match=r"no nodes\.parquet") as caught:
        to_networkx(tmp_path, level="nodes")
    assert "--to onnx,parquet" in caught.value.hint
    (tmp_path / "layers.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(SourceError, match=r"layers\.parquet"):
        to_networkx(tmp_path)


def test_without_networkx_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(ImportError, match=r"export-model\[networks\]"):
        to_networkx(folder)


# Writes the three files of a network of so many layers and edges, and prints the peak of memory before and after.
CODE = """
import json, sys
from pathlib import Path
from exporter import memory
from exporter.costs.model_costs import job_costs
from exporter.formats import network_gexf, network_graphml, network_json
from exporter.records import Edge, Job, Layer, Material, ModelGraph, TensorSpec

layers, edges = int(sys.argv[1]), int(sys.argv[2])
spec = (TensorSpec("t", (None, 8, 8, 16), "float32"),)
names = [f"dense_{number}" for number in range(layers)]
graph = ModelGraph("net", (), (),
    tuple(Layer(n, name, "Dense", name, 0, None, True, spec, spec, 272, 272, 272, 1088, 1, (), "{}")
          for n, name in enumerate(names)),
    tuple(Edge(names[n % (layers - 1)], 0, 0, names[n % (layers - 1) + 1], 0, n, (None, 8, 8, 16), "float32")
          for n in range(edges)), ())
job = Job("net.keras", "keras_archive", "net", "outputs/net", ("graphml",), "f", "d")
material = Material(job, graph, costs=job_costs(job, graph, None))
memory.release_unused()
before = memory.peak_rss_bytes()
for module in (network_graphml, network_gexf, network_json):
    module.write(material, Path())
print(json.dumps([before, memory.peak_rss_bytes()]))
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_layers_and_a_million_edges(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CODE, "100000", "1000000"]
    before, after = json.loads(subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.PIPE).stdout)
    assert after - before < 50 * 2**20
    found = json.loads((tmp_path / "model.graph.json").read_bytes())
    assert (len(found["nodes"]), len(found["edges"])) == (100_000, 1_000_000)
    for file, edge in (("model.graphml", b"</edge>"), ("model.gexf", b"</edge>")):
        assert (tmp_path / file).read_bytes().count(edge) == 1_000_000
