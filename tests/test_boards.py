"""The formats for TensorBoard and Model Explorer, read by TensorFlow, TensorBoard and Model Explorer's own types."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dacite
import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from exporting import export_here
from models import MODELS
from sampling import sampled
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.plugins.graph.keras_util import keras_model_to_graph_def
from tensorboard.util.tensor_util import make_ndarray
from test_pictures import GRAPHS, Builder, empty, residual_chain

from exporter.errors import UsageError
from exporter.formats import event_file, event_graph, explorer_graph
from exporter.formats.scopes import Scopes
from exporter.options import ExportOptions, checked
from exporter.records import Job, Material, ModelGraph, OnnxNode, TensorSpec, TensorStatistics, Weight

each_graph = pytest.mark.parametrize("graph", [*GRAPHS.values(), empty()], ids=[*GRAPHS, "empty"])
# The promise of docs/boards.md.
BYTES_PER_NODE, BYTES_PER_LINK, BYTES_PER_WEIGHT, BYTES_BESIDES = 3_500, 600, 2_000, 1_000


def material(graph: ModelGraph, **more: Any) -> Material:
    return Material(Job("net.keras", "keras_archive", "net", "", (), "", ""), graph, **more)


def events(path: Path) -> list[Event]:
    """As TensorFlow reads records, which checks their checksums."""
    return [Event.FromString(record) for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]


def op_graph(found: list[Event]) -> GraphDef:
    (data,) = [event.graph_def for event in found if event.graph_def]
    return GraphDef.FromString(data)


def values(found: list[Event], plugin: str) -> dict[str, np.ndarray]:
    """The tensors of a plugin by tag."""
    stored = [value for event in found for value in event.summary.value]
    chosen = [value for value in stored if value.metadata.plugin_data.plugin_name == plugin]
    assert len({value.tag for value in chosen}) == len(chosen)
    return {value.tag: make_ndarray(value.tensor) for value in chosen}


def conceptual_graph(found: list[Event]) -> GraphDef:
    """As the server of TensorBoard makes it of the text in the file."""
    (text,) = values(found, "graph_keras_model").values()
    return keras_model_to_graph_def(json.loads(text.item()))


def ends(graph: GraphDef) -> set[tuple[str, str]]:
    """The edges by the last parts of the names at both ends."""
    return {(last(source), last(node.name)) for node in graph.node for source in node.input}


def last(name: str) -> str:
    return name.split("/")[-1].split(":")[0]


def written(tmp_path: Path, graph: ModelGraph, **more: Any) -> list[Event]:
    assert event_file.write(material(graph, **more), tmp_path) == ()
    return events(tmp_path / event_file.FILE)


def explorer(tmp_path: Path, graph: ModelGraph, **more: Any) -> dict[str, Any]:
    assert explorer_graph.write(material(graph, **more), tmp_path) == ()
    return loaded(tmp_path)


def loaded(folder: Path) -> dict[str, Any]:
    """The graphs by identifier, after Model Explorer's types have taken the whole file."""
    types = pytest.importorskip("model_explorer.graph_builder", exc_type=ImportError)
    data = json.loads((folder / explorer_graph.GRAPH_FILE).read_text())
    collection = dacite.from_dict(types.GraphCollection, data, dacite.Config(strict=True))
    return {graph.id: graph for graph in collection.graphs}


def node_data(path: Path) -> dict[str, dict[str, Any]]:
    """The values by node of each graph, after Model Explorer's types have taken the whole file."""
    types = pytest.importorskip("model_explorer.node_data_builder", exc_type=ImportError)
    found = {}
    for name, data in json.loads(path.read_text()).items():
        # A verdict is a text, which the type of `value` leaves out and the page shows all the same.
        read = dacite.from_dict(types.GraphNodeData, data, dacite.Config(strict=True, check_types=False))
        found[name] = {key: result.value for key, result in read.results.items()}
    return found


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Exports a model of `models.MODELS` with everything, once; the folder, with the model in it."""
    made: dict[tuple[str, ...], Path] = {}

    def run(name: str, *formats: str) -> Path:
        formats = formats or ("onnx", "tensorboard", "model-explorer")
        if (name, *formats) not in made:
            folder = tmp_path_factory.mktemp(name)
            keras.utils.clear_session()
            MODELS[name]().save(folder / "model.keras")
            outcome = export_here(folder / "model.keras", folder, formats=formats, verify=False)
            assert outcome.status == "done", outcome.error
            made[name, *formats] = folder / outcome.name
        return made[name, *formats]

    return run


SAMPLES = ["residual", "nested_models", "siamese", "shared_conv_one_norm", "several_inputs_and_outputs", "attention"]
each_sample = pytest.mark.parametrize("name", SAMPLES)


# The hierarchy.


def test_repeated_blocks_are_scopes_below_one_for_all_of_them() -> None:
    scopes = Scopes(residual_chain())
    assert scopes.outside["conv1_conv"] == ()
    assert scopes.outside["conv4_block1_1_conv"] == ("conv4_block1",)
    assert scopes.outside["conv4_block7_1_conv"] == ("conv4_block2..conv4_block23 x22", "conv4_block7")
    assert scopes.groups["conv4_block2..conv4_block23 x22",].times == 22


def test_sublayers_are_beside_the_layer_that_holds_them() -> None:
    graph = GRAPHS["masked"]
    scopes = Scopes(graph)
    attention = next(layer for layer in graph.layers if layer.name == "layer3_attention")
    scope = ("layer0..layer39 x40", "layer3", "layer3_attention")
    assert scopes.drawn(attention) == scopes.outside[f"{attention.namespace}/query"] == scope


@each_graph
def test_every_layer_has_a_scope_and_equal_scopes_are_one_block(graph: ModelGraph) -> None:
    scopes = Scopes(graph)
    assert set(scopes.outside) == {layer.namespace for layer in graph.layers}
    for scope, group in scopes.groups.items():
        below = {
            found[len(scope)]
            for found in scopes.outside.values()
            if len(found) > len(scope) and found[: len(scope)] == scope
        }
        assert group.layer is not None or len(below) in (0, group.times)


# TensorBoard.


@each_graph
def test_tensorflow_reads_the_records_and_every_name_is_sound(tmp_path: Path, graph: ModelGraph) -> None:
    found = written(tmp_path, graph)
    assert found[0].file_version == "brain.Event:2"
    assert {event.wall_time for event in found} == {0.0}
    nodes = op_graph(found).node if graph.layers else []
    names = [node.name for node in nodes]
    assert len(set(names)) == len(names)
    scopes = {name.rsplit("/", depth)[0] for name in names for depth in range(1, name.count("/") + 1)}
    assert not scopes & set(names)
    assert all(part and not set(part) & set('^:"\\ \n') for name in names for part in name.split("/"))
    assert {source.split(":")[0] for node in nodes for source in node.input} <= set(names)


@each_graph
def test_both_graphs_have_every_edge_between_layers(tmp_path: Path, graph: ModelGraph) -> None:
    if graph.layers:
        found = written(tmp_path, graph)
        inner = {layer.parent for layer in graph.layers} & {edge.source for edge in graph.edges}
        joined = Counter(edge.target for edge in graph.edges if not {edge.source, edge.target} & inner)
        arrows = sum(len(node.input) for node in op_graph(found).node)
        assert arrows >= sum(joined.values())
        shown = {(node.name, tuple(node.input)) for node in op_graph(found).node}
        assert {(node.name, tuple(node.input)) for node in conceptual_graph(found).node} == shown


@each_sample
@pytest.mark.slow
def test_the_conceptual_graph_is_that_of_the_callback_of_keras(name: str, export: Callable[..., Path]) -> None:
    """The callback writes `model.to_json()`, of which the server understands nested models in part."""
    folder = export(name)
    model = keras.saving.load_model(folder.parent / "model.keras", compile=False)
    theirs = keras_model_to_graph_def(json.loads(model.to_json()))
    ours = conceptual_graph(events(folder / event_file.FILE))
    own = {last(node.name) for node in theirs.node}
    sound = {edge for edge in ends(theirs) if set(edge) <= own}
    assert sound <= {edge for edge in ends(ours) if set(edge) <= own}
    if not any(isinstance(layer, keras.Model) for layer in model.layers):
        assert sound == ends(theirs) == ends(ours)
    classes = {last(node.name): node.attr["keras_class"].s for node in ours.node}
    assert {last(node.name): node.attr["keras_class"].s for node in theirs.node}.items() <= classes.items()


@pytest.mark.parametrize(
    ("name", "edges"),
    [
        ("siamese", {("left", "pixels"), ("right", "pixels"), ("global_max_pooling2d", "subtract")}),
        ("nested_models", {("x", "pixels"), ("pixels", "pixels"), ("head", "input_layer"), ("dense", "re_lu")}),
    ],
)
@pytest.mark.slow
def test_edges_go_through_nested_models(name: str, edges: set[tuple[str, str]], export: Callable[..., Path]) -> None:
    assert edges <= ends(conceptual_graph(events(export(name) / event_file.FILE)))


@each_sample
@pytest.mark.slow
def test_the_op_graph_has_the_nodes_and_edges_of_the_onnx_file(name: str, export: Callable[..., Path]) -> None:
    folder = export(name)
    graph = onnx.load(folder / "model.onnx").graph
    makers = {name: node.name for node in graph.node for name in node.output}
    makers |= {value.name: value.name for value in graph.input}
    real = Counter((makers[name], node.name) for node in graph.node for name in node.input if name in makers)
    real.update((makers[value.name], f"{value.name} (output)") for value in graph.output)
    # By the graph of Model Explorer, whose keys are the names of the nodes.
    shown = loaded(folder)["onnx"]
    assert Counter((edge.sourceNodeId, node.id) for node in shown.nodes for edge in node.incomingEdges) == real
    found = op_graph(events(folder / event_file.FILE))
    assert Counter(node.op for node in found.node if node.op not in ("Input", "Output")) == Counter(
        node.op_type for node in graph.node
    )
    assert sum(len(node.input) for node in found.node) == real.total()


@pytest.mark.slow
def test_shapes_and_facts_are_attributes_and_weights_are_left_out(export: Callable[..., Path]) -> None:
    found = op_graph(events(export("residual") / event_file.FILE))
    conv = next(node for node in found.node if node.op == "Conv")
    assert {"layer", "MACs", "FLOPs", "activation bytes", "dtype", "_output_shapes"} <= set(conv.attr)
    assert conv.attr["_output_shapes"].list.shape[0].dim[0].size == -1
    assert not any("kernel" in name for node in found.node for name in [node.name, *node.input])


@pytest.mark.slow
def test_without_onnx_the_op_graph_is_that_of_layers(export: Callable[..., Path]) -> None:
    found = events(export("residual", "tensorboard") / event_file.FILE)
    ops = {node.op for node in op_graph(found).node}
    assert ops >= {"InputLayer", "Conv2D", "Add"}
    assert "Conv" not in ops
    both = values(events(export("residual") / event_file.FILE), "histograms")
    sizes = {tag: array[:, 2].sum() for tag, array in both.items()}
    assert {tag: array[:, 2].sum() for tag, array in values(found, "histograms").items()} == sizes


@pytest.mark.slow
def test_of_an_onnx_file(export: Callable[..., Path], tmp_path: Path) -> None:
    source = export("residual") / "model.onnx"
    outcome = export_here(source, tmp_path, formats=("tensorboard", "model-explorer"))
    found = events(tmp_path / outcome.name / event_file.FILE)
    kernels = [proto for proto in onnx.load(source).graph.initializer if len(proto.dims) == 4]
    histograms = values(found, "histograms")
    assert [histograms[proto.name][:, 2].sum() for proto in kernels] == [math.prod(proto.dims) for proto in kernels]
    assert {node.op for node in op_graph(found).node} == {
        node.op for node in op_graph(events(source.with_name(event_file.FILE))).node
    }
    parameters = node_data(tmp_path / outcome.name / "explorer_parameters.json")
    assert sum(parameters["onnx"].values()) == sum(parameters["layers"].values()) > 0


@pytest.mark.slow
def test_histograms_count_the_weights(export: Callable[..., Path]) -> None:
    folder = export("residual")
    model = keras.saving.load_model(folder.parent / "model.keras", compile=False)
    found = values(events(folder / event_file.FILE), "histograms")
    assert len(found) == len(model.weights)
    for weight in model.weights:
        left, right, counts = found[weight.path].T
        assert left[1:].tolist() == right[:-1].tolist()
        array = np.asarray(weight)
        assert counts.sum() == array.size
        assert left[0] <= array.min()
        assert array.max() <= right[-1]
        if np.ptp(array):
            real = np.histogram(array, bins=[*left, right[-1]])[0]
            # The bins are filled from buckets, whose middles are up to 0.4 % off.
            assert np.abs(np.cumsum(real) - np.cumsum(counts)).max() <= 0.05 * array.size + 1


def test_no_histograms_where_there_are_no_statistics(tmp_path: Path) -> None:
    weights = (Weight("a/kernel", "a", (2, 3), "float32", 24, True),)
    graph = replace(GRAPHS["tiny"], weights=weights)
    assert values(written(tmp_path, graph), "histograms") == {}
    nothing = {"a/kernel": TensorStatistics(nans=6)}
    assert values(written(tmp_path, graph, statistics=nothing), "histograms") == {}


def test_links_into_and_out_of_a_nested_model_with_several_of_both() -> None:
    """Not in the records: which input layer is which input. They go by their order, and outputs by shape."""
    build = Builder()
    left, right = build.add("InputLayer", name="left"), build.add("InputLayer", name="right")
    outer = build.add("Functional", [left, right], "outer")
    one, two = (build.add("InputLayer", name=name, parent=outer) for name in ("one", "two"))
    first = build.add("Dense", [one], "first", parent=outer, shape=(None, 7))
    build.add("Add", [first, two], "second", parent=outer, shape=(None, 9))
    build.add("Dense", name="reader")
    layers = [
        replace(layer, inputs=(spec(7), spec(9)), outputs=(spec(9), spec(7))) if layer.name == "outer" else layer
        for layer in build.layers
    ]
    for output, size in enumerate((9, 7)):
        build.edge(outer, "reader", target_input=output)
        build.edges[-1] = replace(build.edges[-1], source_output=output, shape=(None, size))
    scopes = Scopes(replace(build.graph(), layers=tuple(layers)))
    board = {
        node.key: node for node in event_file.LayerBoard(material(replace(build.graph(), layers=tuple(layers))), scopes)
    }
    assert "outer" not in board
    assert [link.source for link in board["outer/one"].links] == ["left"]
    assert [link.source for link in board["outer/two"].links] == ["right"]
    assert [link.source for link in board["reader"].links] == ["outer/second", "outer/first"]


def spec(size: int) -> TensorSpec:
    return TensorSpec("x", (None, size), "float32")


LONG = "x" * 20_000 + "é" * 20_000


def overlong(layers: int) -> Material:
    """Every text is longer than anybody needs, and every number too large."""
    build = Builder()
    source = build.add("InputLayer")
    for number in range(layers):
        source = build.add(LONG, [source], f"{LONG}{number}", params=10**30, calls=10**30)
    specs = tuple(TensorSpec(LONG, (10**12,) * 500, LONG) for _ in range(500))
    made = tuple(replace(layer, outputs=specs) for layer in build.layers)
    weights = tuple(Weight(f"{layer.namespace}/w", layer.namespace, (4,), LONG, 4, True) for layer in made)
    numbers = TensorStatistics(
        histogram_edges=tuple(map(float, range(33))), histogram_counts=(2**40,) * 32, distinct=5, nans=0, infs=0
    )
    graph = replace(build.graph(), layers=made, weights=weights)
    return material(graph, statistics={weight.name: numbers for weight in weights})


@pytest.mark.slow
def test_the_size_of_the_event_file_is_bounded(tmp_path: Path) -> None:
    hostile = overlong(40)
    event_file.write(hostile, tmp_path)
    assert len(op_graph(events(tmp_path / event_file.FILE)).node) == 41
    limit = bound(nodes=41, links=40, layers=41, weights=41)
    assert limit / 4 < (tmp_path / event_file.FILE).stat().st_size < limit


def test_the_size_of_a_usual_file(export: Callable[..., Path]) -> None:
    folder = export("residual")
    found = events(folder / event_file.FILE)
    nodes, layers = op_graph(found).node, conceptual_graph(found).node
    links = sum(len(node.input) for node in [*nodes, *layers])
    limit = bound(len(nodes), links, len(layers), len(values(found, "histograms")))
    assert (folder / event_file.FILE).stat().st_size < limit / 3


def bound(nodes: int, links: int, layers: int, weights: int) -> int:
    return BYTES_PER_NODE * (nodes + layers) + BYTES_PER_LINK * links + BYTES_PER_WEIGHT * weights + BYTES_BESIDES


@pytest.mark.parametrize("name", ["", " ", "a b", "a\nb", "日本 語", "\ud800", "^x", "x:1", 'a"\\', "a/b", LONG])
def test_a_part_of_a_name_is_cut_and_cleaned(name: str) -> None:
    found = event_graph.part(name)
    assert found
    assert len(found.encode()) <= event_graph.LONGEST_PART
    assert not set(found) & set('^:/"\\ \n')


def test_scopes_that_become_equal_when_cleaned_stay_apart() -> None:
    nodes = [
        event_graph.BoardNode(str(n), "x", (scope,), "Op", (), ()) for n, scope in enumerate(["a b", "a:b", "a b"])
    ]
    names = event_graph.EventNames(nodes)
    assert [names[key] for key in "012"] == ["a_b/x", "a_b_1/x", "a_b/x_1"]


# Model Explorer.


@each_graph
def test_model_explorer_takes_the_graph_and_finds_what_it_refers_to(tmp_path: Path, graph: ModelGraph) -> None:
    shown = explorer(tmp_path, graph)["layers"]
    keys = [node.id for node in shown.nodes]
    assert len(set(keys)) == len(keys)
    assert {edge.sourceNodeId for node in shown.nodes for edge in node.incomingEdges} <= set(keys)
    namespaces = {node.namespace for node in shown.nodes}
    assert not any(";" in name or "//" in name or name.startswith("/") for name in namespaces)
    within = {
        name[:end] for name in namespaces for end in [len(name), *(i for i, sign in enumerate(name) if sign == "/")]
    }
    assert {name for name in shown.groupNodeAttributes or {} if name} <= within
    for name in explorer_graph.NUMBERS:
        assert set(node_data(tmp_path / name)["layers"]) <= set(keys)


def test_nodes_say_what_they_are(export: Callable[..., Path]) -> None:
    shown = loaded(export("residual"))
    layer = next(node for node in shown["layers"].nodes if node.label.startswith("conv2d"))
    attributes = {entry.key: entry.value for entry in layer.attrs}
    assert attributes["class"] == "Conv2D"
    assert attributes["settings: padding"] == "same"
    assert {"parameters", "MACs", "FLOPs", "activation bytes", "trainable"} <= set(attributes)
    (output,) = layer.outputsMetadata
    assert {entry.key: entry.value for entry in output.attrs}["tensor_shape"].startswith("float32[?,")
    node = next(node for node in shown["onnx"].nodes if node.label == "Conv")
    assert {entry.key: entry.value for entry in node.attrs}["layer class"] == "Conv2D"


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(SAMPLES, every=6))
def test_node_data_adds_up(name: str, export: Callable[..., Path]) -> None:
    folder = export(name)
    model = keras.saving.load_model(folder.parent / "model.keras", compile=False)
    parameters = node_data(folder / "explorer_parameters.json")
    assert sum(parameters["layers"].values()) == model.count_params()
    graph = onnx.load(folder / "model.onnx").graph
    stored = sum(math.prod(proto.dims) for proto in graph.initializer)
    assert 0 < sum(parameters["onnx"].values()) <= stored
    macs = node_data(folder / "explorer_macs.json")
    assert sum(macs["onnx"].values()) == sum(macs["layers"].values()) > 0


@pytest.mark.slow
def test_weight_health_shows_the_worst_of_a_layer(tmp_path: Path) -> None:
    keras.utils.clear_session()
    model = keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(3, name=name) for name in "abcd")])
    model.get_layer("a").kernel.assign(np.full((4, 3), np.nan))
    model.get_layer("b").kernel.assign(np.full((3, 3), 2.0))
    model.get_layer("c").kernel.assign([[1, 0, 2], [3, 0, 4], [5, 0, 6]])
    model.save(tmp_path / "m.keras")
    outcome = export_here(tmp_path / "m.keras", tmp_path, formats=("onnx", "model-explorer"), verify=False, stats=True)
    found = node_data(tmp_path / outcome.name / explorer_graph.HEALTH_FILE)
    verdicts = ["NaN or infinite", "all elements equal", "dead filters", "nothing suspicious"]
    assert [found["layers"][name] for name in "abcd"] == verdicts
    assert Counter(found["onnx"].values()) == Counter(verdicts)


@pytest.mark.slow
def test_without_statistics_there_is_no_file_about_health(export: Callable[..., Path]) -> None:
    with_both, alone = export("residual"), export("residual", "model-explorer")
    assert (with_both / explorer_graph.HEALTH_FILE).exists()
    assert not (alone / explorer_graph.HEALTH_FILE).exists()
    assert set(loaded(alone)) == {"layers"}


# Both.


@pytest.mark.parametrize("name", ["nested_models", "attention"])
@pytest.mark.slow
def test_two_runs_give_the_same_bytes(name: str, export: Callable[..., Path], tmp_path: Path) -> None:
    folder = export(name)
    formats = ("onnx", "tensorboard", "model-explorer")
    outcome = export_here(folder.parent / "model.keras", tmp_path, formats=formats, verify=False)
    files = [event_file.FILE, explorer_graph.GRAPH_FILE, explorer_graph.HEALTH_FILE, *explorer_graph.NUMBERS]
    for file in files:
        data = (tmp_path / outcome.name / file).read_bytes()
        assert data == (folder / file).read_bytes()
        assert str(tmp_path).encode() not in data


def test_nodes_without_layer_without_name_and_with_equal_names(tmp_path: Path) -> None:
    def node(index: int, name: str, namespace: str) -> OnnxNode:
        known = (("x",), (f"y{index}",), ((1,),), ("float32",))
        return OnnxNode(index, name, "Relu", "own.domain", namespace, None, "none", *known)

    nodes = tuple(
        node(index, name, scope) for index, (name, scope) in enumerate([("", ""), ("a", "/b//c/"), ("a", "")])
    )
    graph = GRAPHS["tiny"]
    found = op_graph(written(tmp_path, graph, nodes=nodes))
    assert [node.name for node in found.node] == ["x", "Relu", "b/c/a", "a_1", "x_output"]
    assert {n.attr["op"].s for n in found.node if n.op == "Relu"} == {b"own.domain.Relu"}
    assert len(explorer(tmp_path, graph, nodes=nodes)["onnx"].nodes) == 3 + len(graph.inputs) + len(graph.outputs)


def test_a_missing_package_is_noticed_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else real(name))
    with pytest.raises(UsageError) as found:
        checked(ExportOptions(formats=("parquet", "tensorboard")))
    assert "not installed: tensorboard" in str(found.value)
    assert found.value.hint == "pip install 'export-model[tensorboard]'"
    checked(ExportOptions(formats=("model-explorer",)))


def test_neither_format_imports_tensorflow() -> None:
    code = "from exporter.formats import event_file, explorer_graph; import sys; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
