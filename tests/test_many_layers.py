"""Large graphs: what is done per layer does not grow with the number of layers, and depth has no limit.

Work is counted in calls of Python functions, which do not depend on how busy the machine is.
"""

from __future__ import annotations

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import keras
import onnx
import pytest
import tf2onnx
from conversion import convert, hollow_twin, no_values
from exporting import command, job_for, manifest
from layer_chain import BLOCKS, CHAINS, write
from onnx import helper
from tf2onnx.graph import Graph

from exporter.sources.conversion import onnx_structure, tf2onnx_linear
from exporter.sources.conversion.tracing import trace
from exporter.sources.keras_models.deep_graphs import deep_recursion
from exporter.sources.keras_models.describe import describe, layer_namespaces
from exporter.sources.keras_models.keras_archive import without_weights

LAYERS_OF_BLOCK = {"transformer": 5, "convolutional": 4}


def chain(kind: str, blocks: int) -> Any:
    shape, block = BLOCKS[kind]
    inputs = x = keras.Input(shape, name="start")
    for number in range(blocks):
        x = block(x, number)
    return keras.Model(inputs, x, name="chain")


def python_calls(work: Callable[[], Any]) -> int:
    count = 0

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def steps_of_conversion(kind: str, blocks: int) -> dict[str, int]:
    """The calls of each step, for so many blocks."""
    calls: dict[str, int] = {}
    with hollow_twin(lambda: chain(kind, blocks)) as model:
        results: dict[str, Any] = {}

        def step(name: str, work: Callable[[], Any]) -> None:
            calls[name] = python_calls(lambda: results.setdefault(name, work()))

        step("describe", lambda: describe(model, "m"))
        graph = results["describe"]
        step("trace", lambda: trace(model, graph.inputs, layer_namespaces(model)))
        traced = results["trace"]
        weights = [no_values(variable) for variable in traced.variables]
        step("convert", lambda: onnx_structure.build(traced, weights, graph, 18))
    return calls


@pytest.mark.parametrize("kind", CHAINS)
@pytest.mark.slow
def test_the_work_for_a_layer_does_not_grow_with_their_number(kind: str) -> None:
    steps_of_conversion(kind, 1)  # what is made once in a process
    small, middle, large = (steps_of_conversion(kind, blocks) for blocks in (6, 12, 24))
    for step in small:
        first, second = middle[step] - small[step], large[step] - middle[step]
        assert second <= 2.1 * first, f"{step}: 6 blocks more take {first} calls, then 12 more take {second}"


@pytest.mark.slow
def test_a_model_that_is_deeper_than_python_allows_calls_within_calls(tmp_path: Path) -> None:
    path = tmp_path / "deep.keras"
    write(path, "deep", count := sys.getrecursionlimit() + 200)
    limit = sys.getrecursionlimit()
    built: list[Any] = []

    def build() -> Any:
        built.append(without_weights(job_for(path, tmp_path)))
        return built[-1]

    converted = convert(build, None)
    assert sys.getrecursionlimit() == limit
    assert len(built[-1].layers) == count
    assert Counter(converted.ops) == {"Relu": count - 1}


def test_the_limit_is_put_back_after_an_error() -> None:
    limit = sys.getrecursionlimit()
    with pytest.raises(RecursionError), deep_recursion():
        raise RecursionError
    assert sys.getrecursionlimit() == limit


@pytest.mark.slow
@pytest.mark.parametrize("kind", CHAINS)
def test_thousands_of_layers(kind: str, tmp_path: Path) -> None:
    """Through the command, with all tables and pictures; one node for each layer that computes."""
    write(tmp_path / "many.keras", kind, 5000)
    flags = ["--weights", "random", "--no-verify", "--to", "onnx,parquet,dot,svg", "-o", "out"]
    result = command(["many.keras", *flags], cwd=tmp_path)
    assert result.status == 0, result.text
    about = manifest(tmp_path / "out" / "many")
    assert about["layers"] > 4900
    assert about["onnx_nodes"]["with_layer"] == about["onnx_nodes"]["total"]
    model = onnx.load(str(tmp_path / "out" / "many" / "model.onnx"), load_external_data=False)
    assert len(model.graph.node) == about["onnx_nodes"]["total"]
    ops = Counter(node.op_type for node in model.graph.node)
    assert ops["LayerNormalization" if kind == "transformer" else "Conv"] == about["layers"] // LAYERS_OF_BLOCK[kind]


# tf2onnx's own methods, which ours take the place of.


def random_graph(seed: int, size: int = 60) -> Graph:
    """Nodes with random names, which take any of the values made before, some of them twice."""
    generator = random.Random(seed)
    names = [f"n{number}" for number in generator.sample(range(1000), size)]
    nodes, made = [helper.make_node("Placeholder", [], ["x"], "x")], ["x"]
    for name in names:
        outputs = [f"{name}:{place}" for place in range(generator.choice([1, 1, 2]))]
        inputs = [generator.choice(made) for _ in range(generator.choice([0, 1, 2, 3]))]
        nodes.append(helper.make_node("Op" if inputs else "Const", inputs, outputs, name))
        made += outputs
    generator.shuffle(nodes)
    shapes = {name: [1] for name in made}
    dtypes = dict.fromkeys(made, onnx.TensorProto.FLOAT)
    return Graph(nodes, shapes, dtypes, input_names=["x"], output_names=[made[-1]])


def state(graph: Graph) -> tuple[Any, ...]:
    nodes = [(node.name, list(node.input), list(node.output)) for node in graph.get_nodes()]
    consumers = {
        name: sorted(node.name for node in graph.find_output_consumers(name))
        for _, _, outputs in nodes
        for name in outputs
    }
    return nodes, consumers


@pytest.fixture
def pair(seed: int) -> tuple[Graph, Graph]:
    """The same graph twice; the node names that tf2onnx makes are numbered through the process."""
    graphs = []
    for _ in range(2):
        tf2onnx.utils.INTERNAL_NAME = 1
        graphs.append(random_graph(seed))
    return graphs[0], graphs[1]


SEEDS = pytest.mark.parametrize("seed", range(20))


@SEEDS
def test_nodes_are_sorted_as_tf2onnx_sorts_them(pair: tuple[Graph, Graph]) -> None:
    theirs, ours = pair
    theirs.topological_sort(theirs.get_nodes())
    with tf2onnx_linear.installed():
        ours.topological_sort(ours.get_nodes())
    assert state(ours) == state(theirs)


@SEEDS
def test_a_value_is_renamed_in_the_nodes_that_use_it(pair: tuple[Graph, Graph]) -> None:
    theirs, ours = pair
    for name in [output for node in list(theirs.get_nodes()) for output in node.output][::5]:
        theirs.replace_all_inputs(name, "x", ops=theirs.get_nodes())
        with tf2onnx_linear.installed():
            ours.replace_all_inputs(name, "x", ops=ours.get_nodes())
    assert state(ours) == state(theirs)


@SEEDS
def test_what_nothing_needs_is_dropped(pair: tuple[Graph, Graph]) -> None:
    theirs, ours = pair
    theirs.delete_unused_nodes(theirs.outputs)
    with tf2onnx_linear.installed():
        ours.delete_unused_nodes(ours.outputs)
    assert sorted(state(ours)[0]) == sorted(state(theirs)[0])


def test_a_cycle_is_an_error() -> None:
    nodes = [helper.make_node("Op", ["b:0"], ["a:0"], "a"), helper.make_node("Op", ["a:0"], ["b:0"], "b")]
    graph = Graph(nodes, {"a:0": [1], "b:0": [1]}, {"a:0": 1, "b:0": 1}, output_names=[])
    with tf2onnx_linear.installed(), pytest.raises(ValueError, match=r"cycle through [ab]"):
        graph.topological_sort(graph.get_nodes())


class Counted:
    """Something in a list that counts with how many others it is compared."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return self is other

    __hash__ = object.__hash__


@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
def test_nodes_are_removed_whatever_the_order(order: str) -> None:
    items = [Counted() for _ in range(300)]
    nodes = tf2onnx_linear.NodeList(items)  # type: ignore[arg-type]
    wanted = items[::2] if order == "forwards" else items[::-2]
    if order == "shuffled":
        random.Random(0).shuffle(wanted)
    Counted.comparisons = 0
    for item in wanted:
        nodes.remove(item)  # type: ignore[arg-type]
    assert {id(item) for item in nodes} == {id(item) for item in items} - {id(item) for item in wanted}
    assert [items.index(item) for item in nodes] == sorted(items.index(item) for item in nodes)  # type: ignore[arg-type]


def test_removing_nodes_in_their_order_is_one_pass_over_the_list() -> None:
    items = [Counted() for _ in range(300)]
    nodes = tf2onnx_linear.NodeList(items)  # type: ignore[arg-type]
    Counted.comparisons = 0
    for item in items[::2]:
        nodes.remove(item)  # type: ignore[arg-type]
    assert Counted.comparisons <= len(items)
