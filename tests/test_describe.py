"""What `describe` says about Keras models: one row per layer, edges per call, each weight counted once.

Every model goes through `described`, which holds the invariants; the tests then say what is particular.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import keras
import pytest
from keras import layers, ops

from exporter.records import Edge, Layer, ModelGraph
from exporter.sources.keras_models.describe import describe, graph_of, layer_namespaces, weight_names


@pytest.fixture(autouse=True)
def _fresh_names() -> None:
    keras.utils.clear_session()


@pytest.fixture
def _hollow() -> Iterator[None]:
    with keras.StatelessScope(initialize_variables=False):
        yield


def described(model: Any) -> ModelGraph:
    graph = describe(model, "m")
    namespaces = {layer.namespace for layer in graph.layers}
    assert [layer.index for layer in graph.layers] == list(range(len(graph.layers)))
    assert len(namespaces) == len(graph.layers)
    assert {layer.parent for layer in graph.layers} <= namespaces | {None}
    assert all(layer.depth == layer.namespace.count("/") for layer in graph.layers)
    check_weights(model, graph)
    check_edges(model, graph)
    for layer in graph.layers:
        json.loads(layer.config, parse_constant=pytest.fail)
    assert list(layer_namespaces(model).values()) == [layer.namespace for layer in graph.layers]
    return graph


def check_weights(model: Any, graph: ModelGraph) -> None:
    counts = [sum(math.prod(weight.shape) for weight in kind) for kind in (model.weights, model.trainable_weights)]
    assert sum(layer.params for layer in graph.layers) == counts[0] == (model.count_params() if model.built else 0)
    assert sum(layer.params_trainable for layer in graph.layers) == counts[1]
    assert sum(layer.weight_bytes for layer in graph.layers) == sum(weight.nbytes for weight in graph.weights)
    names = weight_names(model)
    assert list(names.values()) == [weight.name for weight in graph.weights]
    assert set(names) == {id(weight) for weight in model.weights}
    assert len(set(names.values())) == len(model.weights)
    for layer in graph.layers:
        held = [weight for weight in graph.weights if weight.layer == layer.namespace]
        assert layer.params == sum(math.prod(weight.shape) for weight in held)


def check_edges(model: Any, graph: ModelGraph) -> None:
    rows = {layer.namespace: layer for layer in graph.layers}
    for edge in graph.edges:
        assert edge.source_call < rows[edge.source].calls
        assert edge.target_call < rows[edge.target].calls
    assert len(graph.edges) == len(tensor_uses(model))
    assert len({(edge.target, edge.target_call, edge.target_input) for edge in graph.edges}) == len(graph.edges)
    for layer in graph.layers:
        assert list(layer.connected_to) == unique(edge.source for edge in graph.edges if edge.target == layer.namespace)


def tensor_uses(model: Any) -> set[tuple[int, int]]:
    """Each input of each call, of the graphs at any depth, counted by walking Keras's own nodes."""
    uses = set()
    for item in [model, *model._flatten_layers(include_self=False)]:
        graph = graph_of(item)
        for nodes in graph._nodes_by_depth.values() if graph else ():
            uses |= {(id(node), position) for node in nodes for position, _ in enumerate(node.input_tensors)}
    return uses


def unique(names: Any) -> list[str]:
    return list(dict.fromkeys(names))


def rows(graph: ModelGraph) -> dict[str, Layer]:
    return {layer.namespace: layer for layer in graph.layers}


def ends(edge: Edge) -> tuple[Any, ...]:
    return (edge.source, edge.source_call, edge.source_output, edge.target, edge.target_call, edge.target_input)


def encoder(name: str = "encoder") -> Any:
    x = keras.Input((4,), name="features")
    return keras.Model(x, layers.Dense(3, name="dense")(x), name=name)


def test_siamese() -> None:
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    shared = encoder()
    model = keras.Model([left, right], layers.Concatenate(name="both")([shared(left), shared(right)]))
    graph = described(model)
    assert list(rows(graph)) == ["left", "right", "encoder", "encoder/features", "encoder/dense", "both"]
    assert [ends(edge) for edge in graph.edges] == [
        ("left", 0, 0, "encoder", 0, 0),
        ("right", 0, 0, "encoder", 1, 0),
        ("encoder", 0, 0, "both", 0, 0),
        ("encoder", 1, 0, "both", 0, 1),
        ("encoder/features", 0, 0, "encoder/dense", 0, 0),
    ]
    row = rows(graph)["encoder"]
    assert (row.calls, row.params, row.params_total, row.connected_to) == (2, 0, 15, ("left", "right"))
    assert json.loads(row.config) == {"class_name": "Functional", "name": "encoder", "trainable": True}
    assert [(spec.name, spec.shape) for spec in graph.inputs] == [("left", (None, 4)), ("right", (None, 4))]


def test_a_layer_called_in_another_model_too_does_not_leak_edges() -> None:
    x = keras.Input((4,), name="x")
    dense = layers.Dense(4, name="dense")
    dense(dense(keras.Input((4,), name="elsewhere")))
    graph = described(keras.Model(x, dense(x)))
    assert [ends(edge) for edge in graph.edges] == [("x", 0, 0, "dense", 0, 0)]
    assert rows(graph)["dense"].calls == 1


def test_a_model_and_an_extractor_of_its_features_share_rows_and_edges() -> None:
    x = keras.Input((4,), name="x")
    base = encoder("base")
    extractor = keras.Model(base.input, base.get_layer("dense").output, name="extractor")
    graph = described(keras.Model(x, layers.Add(name="add")([base(x), extractor(x)])))
    assert list(rows(graph)) == ["x", "base", "base/features", "base/dense", "extractor", "add"]
    assert rows(graph)["extractor"].params_total == 15
    assert rows(graph)["base/dense"].calls == 1


def test_an_operation_of_the_outer_graph_stays_there_when_a_nested_model_uses_it_first() -> None:
    dense = layers.Dense(4, name="dense")
    inner_in, x = keras.Input((4,), name="inner_in"), keras.Input((4,), name="x")
    inner = keras.Model(inner_in, dense(inner_in), name="inner")
    graph = described(keras.Model(x, dense(inner(x))))
    assert list(rows(graph)) == ["x", "inner", "inner/inner_in", "dense"]
    assert rows(graph)["dense"].calls == 2
    assert [ends(edge) for edge in graph.edges] == [
        ("x", 0, 0, "inner", 0, 0),
        ("inner", 0, 0, "dense", 0, 0),
        ("inner/inner_in", 0, 0, "dense", 1, 0),
    ]


def test_nested_two_levels_with_the_same_names_inside() -> None:
    def stack(name: str) -> Any:
        return keras.Sequential([keras.Input((4,), name="in"), layers.Dense(4, name="dense")], name=name)

    middle_in, x = keras.Input((4,), name="middle_in"), keras.Input((4,), name="x")
    middle = keras.Model(middle_in, stack("second")(stack("first")(middle_in)), name="middle")
    graph = described(keras.Model(x, middle(x)))
    assert [(layer.namespace, layer.depth, layer.parent, layer.params) for layer in graph.layers] == [
        ("x", 0, None, 0),
        ("middle", 0, None, 0),
        ("middle/middle_in", 1, "middle", 0),
        ("middle/first", 1, "middle", 0),
        ("middle/first/in", 2, "middle/first", 0),
        ("middle/first/dense", 2, "middle/first", 20),
        ("middle/second", 1, "middle", 0),
        ("middle/second/in", 2, "middle/second", 0),
        ("middle/second/dense", 2, "middle/second", 20),
    ]
    assert rows(graph)["middle"].params_total == 40
    assert len({weight.name for weight in graph.weights}) == 4


def test_a_layer_called_three_times() -> None:
    x = keras.Input((4,), name="x")
    dense = layers.Dense(4, name="dense")
    graph = described(keras.Model(x, dense(dense(dense(x)))))
    assert [ends(edge) for edge in graph.edges] == [
        ("x", 0, 0, "dense", 0, 0),
        ("dense", 0, 0, "dense", 1, 0),
        ("dense", 1, 0, "dense", 2, 0),
    ]
    row = rows(graph)["dense"]
    assert (row.calls, row.params, row.connected_to) == (3, 20, ("x", "dense"))
    assert row.inputs is not None
    assert row.inputs[0].name == "x"


def test_many_inputs_and_outputs() -> None:
    words, mask = keras.Input((7,), dtype="int32", name="words"), keras.Input((7,), dtype="bool", name="mask")
    embedded = layers.Embedding(11, 4, name="embedding")(words)
    sequence, state, carry = layers.LSTM(5, return_sequences=True, return_state=True, name="lstm")(embedded, mask=mask)
    graph = described(keras.Model([words, mask], [sequence, state, layers.Add(name="add")([state, carry])]))
    assert [(spec.name, spec.shape, spec.dtype) for spec in graph.inputs] == [
        ("words", (None, 7), "int32"),
        ("mask", (None, 7), "bool"),
    ]
    assert [spec.name for spec in graph.outputs] == ["lstm", "lstm_1", "add"]
    lstm = rows(graph)["lstm"]
    assert lstm.connected_to == ("embedding", "mask")
    assert [spec.name for spec in lstm.outputs or ()] == ["lstm", "lstm:1", "lstm:2"]
    assert [edge.source_output for edge in graph.edges if edge.target == "add"] == [1, 2]


def test_a_dict_of_outputs_gives_its_keys() -> None:
    x = keras.Input((4,), name="x")
    outputs = {"logits": layers.Dense(2, name="dense")(x), "same": x}
    assert [spec.name for spec in described(keras.Model(x, outputs)).outputs] == ["logits", "same"]


def test_operations_are_rows() -> None:
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    graph = described(keras.Model([x, y], ops.relu((x + y) * 2.0)[:, 0]))
    assert [layer.class_name for layer in graph.layers[2:]] == ["Add", "Multiply", "Relu", "GetItem"]
    assert rows(graph)["add"].connected_to == ("x", "y")
    assert all((layer.params, layer.calls, layer.trainable) == (0, 1, False) for layer in graph.layers[2:])


def test_composites() -> None:
    x = keras.Input((6, 8), name="x")
    y = layers.MultiHeadAttention(2, 4, name="mha")(x, x)
    y = layers.Bidirectional(layers.LSTM(3, return_sequences=True, name="lstm"), name="both_ways")(y)
    y = layers.TimeDistributed(keras.Sequential([layers.Dense(5, name="dense")], name="inner"), name="each")(y)
    graph = described(keras.Model(x, y))
    assert [(edge.source, edge.target) for edge in graph.edges if "/" not in edge.target] == [
        ("x", "mha"),
        ("x", "mha"),
        ("mha", "both_ways"),
        ("both_ways", "each"),
    ]
    found = rows(graph)
    inside = [name for name, layer in found.items() if layer.parent == "mha"]
    assert {"mha/query", "mha/key", "mha/value", "mha/attention_output"} <= set(inside)
    assert [layer.class_name for layer in graph.layers if layer.parent == "both_ways"] == ["LSTM", "LSTM"]
    assert (found["mha/query"].calls, found["mha/query"].inputs, found["mha/query"].outputs) == (0, None, None)
    assert found["mha"].params_total == sum(layer.params for layer in graph.layers if layer.parent == "mha") > 0
    assert found["each/inner/dense"].params == 35
    assert "dense" not in found["each"].config


class Readout(layers.Layer):
    """Multiplies by the embedding's matrix, which it holds, and owns a bias."""

    def __init__(self, embedding: Any, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.embedding = embedding

    def build(self, input_shape: Any) -> None:
        self.bias = self.add_weight(shape=(self.embedding.input_dim,), name="bias")

    def call(self, x: Any) -> Any:
        return ops.matmul(x, ops.transpose(self.embedding.embeddings)) + self.bias


def test_tied_weights_are_counted_where_they_are_met_first() -> None:
    x = keras.Input((7,), dtype="int32", name="x")
    embedding = layers.Embedding(11, 4, name="embedding")
    graph = described(keras.Model(x, Readout(embedding, name="readout")(embedding(x))))
    found = rows(graph)
    assert list(found) == ["x", "embedding", "readout"]
    assert [(found[name].params, found[name].params_total) for name in ("embedding", "readout")] == [(44, 44), (11, 55)]
    assert found["readout"].config == "{}"


def test_seeds_and_metrics_are_not_weights() -> None:
    x = keras.Input((8, 8, 3), name="x")
    y = layers.Dropout(0.5)(layers.BatchNormalization()(layers.RandomFlip()(layers.GaussianNoise(0.1)(x))))
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(y)))
    model.compile(loss="mse", metrics=["mae"])
    assert len(described(model).weights) == 6


def test_trainable() -> None:
    x = keras.Input((4,), name="x")
    frozen, free = layers.Dense(4, name="frozen"), layers.Dense(4, name="free")
    model = keras.Model(x, layers.BatchNormalization(name="norm")(free(frozen(x))))
    frozen.trainable = False
    found = rows(described(model))
    assert [(found[name].trainable, found[name].params_trainable) for name in ("frozen", "free", "norm")] == [
        (False, 0),
        (True, 20),
        (True, 8),
    ]
    model.trainable = False
    assert not any(weight.trainable for weight in described(model).weights)


class OwnWeights(keras.Model):
    def __init__(self) -> None:
        x = keras.Input((4,), name="x")
        super().__init__(x, layers.Dense(2, name="dense")(x), name="own_weights")
        self.scale = self.add_weight(shape=(3,), name="scale")
        self.attached = layers.Dense(2, name="attached")
        self.attached.build((None, 4))


def test_weights_of_the_model_itself_and_a_layer_outside_its_graph_have_rows() -> None:
    graph = described(OwnWeights())
    root, _, dense, attached = graph.layers
    assert (root.namespace, root.class_name, root.depth, root.parent) == ("", "OwnWeights", 0, None)
    assert (root.params, root.params_total, root.calls, root.inputs) == (3, 23, 0, None)
    assert (dense.parent, dense.depth, dense.calls) == (None, 0, 1)
    assert (attached.namespace, attached.params, attached.calls, attached.inputs) == ("attached", 10, 0, None)
    assert graph.weights[0].layer == ""


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.blocks = [layers.Dense(4, name="same"), layers.Dense(4, name="same")]
        self.inner = encoder()

    def build(self, input_shape: Any) -> None:
        for block in self.blocks:
            block.build(input_shape)

    def call(self, x: Any) -> Any:
        return self.inner(self.blocks[1](self.blocks[0](x)))


def test_a_subclassed_model_has_rows_and_no_edges_of_its_own() -> None:
    model = Subclassed()
    model.build((None, 4))
    graph = described(model)
    assert (graph.inputs, graph.outputs) == ((), ())
    assert list(rows(graph)) == ["same", "same_1", "encoder", "encoder/features", "encoder/dense"]
    assert rows(graph)["same_1"].inputs is None
    assert [ends(edge) for edge in graph.edges] == [("encoder/features", 0, 0, "encoder/dense", 0, 0)]


def test_sequential_models() -> None:
    built = keras.Sequential([keras.Input((4,), name="x"), layers.Dense(2, name="dense")])
    graph = described(built)
    assert [ends(edge) for edge in graph.edges] == [("x", 0, 0, "dense", 0, 0)]
    assert (graph.inputs[0].name, graph.outputs[0].name) == ("x", "dense")
    unbuilt = described(keras.Sequential([layers.Dense(2, name="dense")]))
    assert (list(rows(unbuilt)), unbuilt.edges, unbuilt.inputs) == (["dense"], (), ())


@pytest.mark.parametrize(
    ("policy", "sizes"), [("bfloat16", {2}), ("mixed_bfloat16", {4}), ("float16", {2}), ("float64", {8})]
)
def test_bytes_of_dtypes(policy: str, sizes: set[int]) -> None:
    x = keras.Input((4,), name="x")
    graph = described(keras.Model(x, layers.Dense(2, dtype=policy)(x)))
    assert {weight.nbytes // math.prod(weight.shape) for weight in graph.weights} == sizes


@pytest.mark.slow
def test_bytes_of_quantized_and_boolean_weights() -> None:
    x = keras.Input((4,), name="x")
    eight, four = (layers.Dense(6, name=name) for name in ("eight", "four"))
    model = keras.Model(x, four(eight(x)))
    eight.quantize("int8")
    four.quantize("int4", config=keras.quantizers.Int4QuantizationConfig(block_size=None))
    four.trainable = True
    sizes = {weight.name: (weight.dtype, weight.nbytes) for weight in described(model).weights}
    assert sizes["eight/kernel"] == ("int8", 24)
    assert sizes["four/kernel"] == ("int8", 18)
    flag = layers.Layer(name="flag")
    flag.add_weight(shape=(5,), dtype="bool", trainable=False, name="flag", initializer="zeros")
    flag.built = True
    weight = describe(keras.Sequential([flag]), "m").weights[0]
    assert (weight.dtype, weight.nbytes, weight.trainable) == ("bool", 5, False)


class Odd(layers.Layer):
    def __init__(self, config: Callable[[], Any]) -> None:
        super().__init__(name="odd")
        self.config = config

    def get_config(self) -> Any:
        return self.config()


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (lambda: {"b": (1, 2), "a": None}, '{"a":null,"b":[1,2]}'),
        (lambda: {"limit": math.inf, 3: "three", "none": math.nan}, '{"3":"three","limit":"inf","none":"nan"}'),
        (lambda: {"thing": object()}, "{}"),
        (lambda: {"unit": ops.missing}, "{}"),
        (lambda: None, "{}"),
    ],
)
def test_config_is_json_whatever_the_layer_says(config: Callable[[], Any], text: str) -> None:
    assert described(keras.Sequential([Odd(config)])).layers[0].config == text


@pytest.mark.usefixtures("_hollow")
@pytest.mark.parametrize("name", ["ResNet50", "MobileNetV3Small", "NASNetMobile"])
@pytest.mark.slow
def test_applications_built_hollow(name: str) -> None:
    model = getattr(keras.applications, name)(weights=None)
    graph = described(model)
    assert all(variable._value is None for variable in model.variables)
    assert graph.edges
    assert [(spec.name, spec.dtype) for spec in graph.inputs] == [(model.layers[0].name, "float32")]
    assert graph.outputs[0].shape == (None, 1000)
    assert max(Counter(weight.name for weight in graph.weights).values()) == 1


@pytest.mark.usefixtures("_hollow")
def test_a_hollow_model_larger_than_memory_allocates_nothing() -> None:
    x = keras.Input((1_000_000,), name="x")
    graph = described(keras.Model(x, layers.Dense(1_000_000, name="terabytes")(x)))
    assert graph.weights[0].nbytes == 4 * 10**12


FRESH = """
import hashlib, keras, os
from exporter.sources.keras_models.describe import describe
keras.StatelessScope(initialize_variables=False).__enter__()
print(hashlib.sha256(repr(describe(keras.applications.MobileNetV3Small(weights=None), "m")).encode()).hexdigest())
"""


@pytest.mark.slow
def test_two_fresh_processes_agree() -> None:
    run = [sys.executable, "-c", FRESH]
    children = [subprocess.Popen(run, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (child.communicate()[0] for child in children)
    assert first == second != ""


def many_towers(count: int) -> Any:
    """Flat and wide: Keras itself builds deep chains by recursion."""
    x = keras.Input((2,), name="x")
    return keras.Model(x, layers.Add(name="add")([layers.Activation("relu")(x) for _ in range(count)]))


def function_calls(work: Callable[[], object]) -> int:
    """How many Python and C functions `work` calls: what time would be on a machine that does nothing else."""
    counted = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return counted


@pytest.mark.usefixtures("_hollow")
@pytest.mark.slow
def test_work_is_linear_in_the_number_of_layers() -> None:
    small, large = (function_calls(lambda model=model: describe(model, "m")) for model in map(many_towers, (100, 800)))
    assert large < 8 * 1.2 * small
