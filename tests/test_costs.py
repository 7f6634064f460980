"""Costs of layers and of ONNX nodes, against TensorFlow's profiler, published numbers, each other, and by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from conversion import convert
from keras import layers, ops
from onnx import TensorProto, helper
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from exporter.costs.model_costs import DIMENSION, job_costs, layer_costs
from exporter.costs.node_costs import node_costs
from exporter.formats import layer_table, model_table
from exporter.records import Edge, Job, Layer, LayerCosts, Material, ModelGraph, OnnxNode, TensorSpec
from exporter.sources.keras_models.describe import describe

Build = Callable[[], keras.Model]
PRODUCTS = ("Conv2D", "Conv3D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "MatMul", "BatchMatMulV2")


def chain(shape: tuple[int | None, ...], *items: Callable[[], Any]) -> Build:
    def build() -> keras.Model:
        tensor = inputs = keras.Input(shape)
        for item in items:
            tensor = item()(tensor)
        return keras.Model(inputs, tensor)

    return build


def described(build: Build) -> ModelGraph:
    keras.utils.clear_session(free_memory=False)
    with keras.StatelessScope(initialize_variables=False):
        return describe(build(), "m")


def costs_of(build: Build, batch_size: int = 1, dimension: int = DIMENSION) -> LayerCosts:
    return layer_costs(described(build), None, batch_size, dimension)


def profiled(graph: tf.Graph) -> Counter[str]:
    """Floating-point operations of a TensorFlow graph by op; a multiplication and an addition count as two."""
    options = tf.compat.v1.profiler.ProfileOptionBuilder
    chosen = options(options.float_operation()).with_empty_output().build()
    found: Counter[str] = Counter()

    def collect(node: Any) -> None:
        if node.float_ops:
            found[node.name] = node.float_ops
        for child in node.children:
            collect(child)

    collect(tf.compat.v1.profiler.profile(graph, cmd="op", options=chosen))
    return found


def frozen(model: keras.Model, sizes: Sequence[int | None]) -> tf.Graph:
    specs = [
        tf.TensorSpec([size or fixed for size, fixed in zip(x.shape, sizes, strict=True)], x.dtype)
        for x in model.inputs
    ]
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(*specs)
    return convert_variables_to_constants_v2(function).graph


# Models in which TensorFlow makes of each product an op that its profiler knows, and the shape of one input.
PROFILED: dict[str, tuple[tuple[int, ...], list[Callable[[], Any]]]] = {
    "dense": ((7, 5), [lambda: layers.Dense(3), lambda: layers.Dense(4, use_bias=False)]),
    "convolutions": (
        (16, 12, 3),
        [
            lambda: layers.Conv2D(8, 3, padding="same"),
            lambda: layers.Conv2D(4, (3, 2), strides=2),
        ],
    ),
    "depthwise": (
        (9, 9, 4),
        [lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), lambda: layers.DepthwiseConv2D(2)],
    ),
    "separable": ((9, 9, 4), [lambda: layers.SeparableConv2D(6, 3, depth_multiplier=2)]),
    "one dimension": ((16, 3), [lambda: layers.Conv1D(4, 3, strides=2, padding="causal")]),
    "volume": ((6, 5, 4, 2), [lambda: layers.Conv3D(3, 2, padding="same")]),
    "transposed": ((5, 6, 3), [lambda: layers.Conv2DTranspose(4, 3, strides=2, padding="same")]),
    "einsum": ((4, 6), [lambda: layers.EinsumDense("abc,cd->abd", output_shape=(4, 5), bias_axes="d")]),
}


@pytest.mark.parametrize("name", PROFILED)
def test_products_are_those_that_the_profiler_counts(name: str) -> None:
    shape, items = PROFILED[name]
    build = chain(shape, *items)
    found = profiled(frozen(build(), (1, *shape)))
    assert 2 * costs_of(build).macs == sum(found[op] for op in PRODUCTS)


def test_all_operations_are_those_that_the_profiler_counts() -> None:
    """Of ops that it knows: convolution, bias, pooling, addition, softmax, means."""

    def build() -> keras.Model:
        inputs = keras.Input((8, 8, 3))
        left = layers.Conv2D(4, 3, padding="same")(inputs)
        right = layers.AveragePooling2D(3, strides=1, padding="same")(left)
        both = layers.MaxPooling2D(2)(layers.Subtract()([left, layers.Multiply()([left, right])]))
        return keras.Model(inputs, layers.Dense(5, activation="softmax")(layers.GlobalAveragePooling2D()(both)))

    found = profiled(frozen(build(), (1, 8, 8, 3)))
    # Which counts one division more for each mean.
    assert costs_of(build).flops == sum(found.values()) - (found["Mean"] - 4 * 4 * 4)


# Multiply-accumulates at 224 × 224, from the papers: He et al. 2015 (arXiv:1512.03385, table 1), Sandler et al. 2018
# (arXiv:1801.04381, table 4), Tan and Le 2019 (arXiv:1905.11946, table 2); VGG16: torchvision's documentation.
PUBLISHED = {"ResNet50": 3.8e9, "ResNet101": 7.6e9, "MobileNetV2": 300e6, "EfficientNetB0": 0.39e9, "VGG16": 15.47e9}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.slow
def test_published_numbers(name: str) -> None:
    costs = costs_of(lambda: getattr(keras.applications, name)(weights=None))
    assert costs.macs == pytest.approx(PUBLISHED[name], rel=0.016)
    assert costs.layers_without_cost == 0


# Activation functions, of which the profiler knows softmax only, less the arithmetic on the weights of batch norms, of
# which it counts six operations for each channel. In EfficientNetB0 these are sigmoids, and 3 operations on constants.
DIFFERENCES = {
    "ResNet50": 9_081_856 - 6 * 26_560,
    "ResNet101": 14_199_808 - 6 * 52_672,
    "MobileNetV2": 12_211_584 - 6 * 17_056,
    "EfficientNetB0": 8_960 - 6 * 21_008 - 3,
    "VGG16": 13_555_712,
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.slow
def test_applications_against_the_profiler(name: str) -> None:
    """The model as Keras runs it, in a TensorFlow graph with placeholders for weights that have no values."""
    keras.utils.clear_session(free_memory=False)
    with keras.StatelessScope(initialize_variables=False):
        model = getattr(keras.applications, name)(weights=None)
        costs = layer_costs(describe(model, "m"), None)

    def run(image: Any, weights: list[Any]) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(model.variables, weights, strict=True))):
            return model(image, training=False)

    specs = [tf.TensorSpec(variable.shape, variable.dtype) for variable in model.variables]
    traced = tf.function(run, autograph=False).get_concrete_function(tf.TensorSpec((1, 224, 224, 3)), specs)
    found = profiled(traced.graph)
    assert 2 * costs.macs == sum(found[op] for op in PRODUCTS)
    assert costs.flops - sum(found.values()) == DIFFERENCES[name]


def bert_base(length: int | None) -> keras.Model:
    """Devlin et al. 2018, without the heads of its training."""
    words, kinds = keras.Input((length,), dtype="int32"), keras.Input((length,), dtype="int32")
    x = layers.LayerNormalization()(
        layers.Add()([layers.Embedding(30522, 768)(words), layers.Embedding(2, 768)(kinds)])
    )
    for _ in range(12):
        x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(12, 64)(x, x)]))
        inner = layers.Dense(768)(layers.Dense(3072, activation="gelu")(x))
        x = layers.LayerNormalization()(layers.Add()([x, inner]))
    return keras.Model([words, kinds], layers.Dense(768, activation="tanh")(x[:, 0]))


@pytest.mark.slow
@pytest.mark.parametrize("length", [128, None])
def test_bert_base(length: int | None) -> None:
    """22.5 GFLOPs for 128 tokens: Jiao et al. 2019 (arXiv:1909.10351, table 1)."""
    costs = costs_of(lambda: bert_base(length), dimension=128)
    by_hand = 12 * (128 * (4 * 768**2 + 2 * 768 * 3072) + 2 * 128**2 * 768) + 768**2
    assert costs.macs == by_hand
    assert costs.flops == pytest.approx(22.5e9, rel=0.005)


def attention() -> keras.Model:
    queries, values = keras.Input((None, 16)), keras.Input((5, 12))
    x = layers.MultiHeadAttention(2, 3, value_dim=4)(queries, values)
    x = layers.MultiHeadAttention(4, 4, use_bias=False)(x, x)
    return keras.Model([queries, values], layers.GroupQueryAttention(4, 4, 2)(x, x))


def masked_attention() -> keras.Model:
    """The mask has the shape that a key could have."""
    inputs, mask = keras.Input((7, 6)), keras.Input((7, 7), dtype="bool")
    return keras.Model([inputs, mask], layers.MultiHeadAttention(2, 3)(inputs, inputs, attention_mask=mask))


def windows() -> keras.Model:
    """The batch gets larger on the way: 16 × 16 pixels as four windows of 8 × 8."""
    inputs = keras.Input((16, 16, 8))
    x = ops.transpose(ops.reshape(inputs, (-1, 2, 8, 2, 8, 8)), (0, 1, 3, 2, 4, 5))
    x = ops.reshape(x, (-1, 64, 8))
    x = layers.Dense(8, activation="gelu")(layers.MultiHeadAttention(2, 4)(x, x))
    return keras.Model(inputs, ops.reshape(x, (-1, 16, 16, 8)))


def siamese() -> keras.Model:
    """A nested model whose own sizes are open, called twice."""
    inside = keras.Input((None, None, 3))
    base = keras.Model(inside, layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(inside), name="base")
    left, right = keras.Input((32, 32, 3)), keras.Input((32, 32, 3))
    return keras.Model([left, right], layers.Dense(2)(layers.Add()([base(left), base(right)])))


def products() -> keras.Model:
    inputs = keras.Input((6, 4))
    x = ops.matmul(inputs, ops.transpose(inputs, (0, 2, 1)))
    x = ops.einsum("abc,acd->abd", x, inputs)
    return keras.Model(inputs, layers.Dot(axes=(1, 1))([x, inputs]))


CONVERTED: dict[str, Build] = {
    "convolutions": chain(
        (None, None, 3),
        lambda: layers.Conv2D(8, 3, strides=2, padding="same"),
        lambda: layers.ZeroPadding2D(1),
        lambda: layers.Conv2D(8, 3, strides=2),
        lambda: layers.BatchNormalization(),
        lambda: layers.MaxPooling2D(),
        lambda: layers.Conv2D(6, 3, groups=2),
        lambda: layers.SeparableConv2D(6, 3),
        lambda: layers.DepthwiseConv2D(3),
        lambda: layers.GlobalAveragePooling2D(),
        lambda: layers.Dense(4),
    ),
    "dilated": chain((12, 12, 3), lambda: layers.Conv2D(8, 2, padding="same", dilation_rate=2)),
    "transposed": chain((6, 6, 4), lambda: layers.Conv2DTranspose(3, 3, strides=2)),
    "attention": attention,
    "masked attention": masked_attention,
    "heads": chain((7, 6), lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de")),
    "windows": windows,
    "siamese": siamese,
    "products": products,
    "lstm": chain((8, 6), lambda: layers.LSTM(5, return_sequences=True), lambda: layers.Bidirectional(layers.LSTM(3))),
    "gru": chain((8, 6), lambda: layers.GRU(5)),
    "gru, reset before": chain((8, 6), lambda: layers.GRU(5, reset_after=False)),
    "simple": chain((8, 6), lambda: layers.SimpleRNN(5)),
    "convolutional lstm": chain((4, 6, 6, 2), lambda: layers.ConvLSTM2D(3, 3, padding="same")),
    "distributed": chain((8, 6), lambda: layers.TimeDistributed(layers.Dense(4, activation="gelu"))),
}


def with_nodes(build: Build) -> tuple[ModelGraph, list[OnnxNode]]:
    converted = convert(build)
    found = node_costs(converted.structure.model, 1, DIMENSION)
    return converted.graph, [
        replace(node, cost=cost) for node, cost in zip(converted.structure.nodes, found, strict=True)
    ]


@pytest.mark.parametrize("name", CONVERTED)
@pytest.mark.slow
def test_layers_and_nodes_agree_on_products(name: str) -> None:
    """Layer by layer: the formulas of both sides know nothing of each other."""
    graph, nodes = with_nodes(CONVERTED[name])
    costs = layer_costs(graph, nodes)
    assert [node.name for node in nodes if node.cost.macs is None] == []
    by_layer: Counter[str] = Counter()
    for node in nodes:
        by_layer[node.layer.split("/")[0]] += node.cost.macs
    outermost = {layer.namespace: costs.layers[layer.namespace].macs for layer in graph.layers if layer.depth == 0}
    assert outermost == {namespace: by_layer[namespace] for namespace in outermost}
    assert costs.macs == sum(outermost.values()) > 0


@pytest.mark.parametrize(
    "name", ["dilated", "transposed", "attention", "heads", "windows", "siamese", "products", "lstm", "distributed"]
)
@pytest.mark.slow
def test_layers_and_nodes_agree_on_all_operations(name: str) -> None:
    """Where nothing is folded, and ONNX needs nothing beside."""
    graph, nodes = with_nodes(CONVERTED[name])
    assert layer_costs(graph, nodes).flops == sum(node.cost.flops for node in nodes)


# Operations in each turn of the loop that ONNX needs beside the layer's own: its counter and its condition.
IN_EACH_TURN = 4


@pytest.mark.parametrize(
    ("name", "turns"), [("gru", 8), ("gru, reset before", 8), ("simple", 8), ("convolutional lstm", 4)]
)
@pytest.mark.slow
def test_a_recurrent_layer_takes_what_the_loop_takes(name: str, turns: int) -> None:
    graph, nodes = with_nodes(CONVERTED[name])
    loop = sum(node.cost.flops for node in nodes)
    assert loop - layer_costs(graph, nodes).flops == IN_EACH_TURN * turns


def test_dynamic_sizes_go_through_strides_and_padding() -> None:
    items = (
        lambda: layers.Conv2D(8, 3, strides=2),
        lambda: layers.ZeroPadding2D(((1, 0), (2, 1))),
        lambda: layers.DepthwiseConv2D(3, strides=2, padding="same"),
        lambda: layers.Conv2DTranspose(4, 3, strides=2),
        lambda: layers.Cropping2D(2),
        lambda: layers.UpSampling2D(2),
        lambda: layers.AveragePooling2D(3),
    )
    open_sizes = costs_of(chain((None, None, 3), *items), batch_size=2, dimension=45)
    assert open_sizes == replace(costs_of(chain((45, 45, 3), *items), batch_size=2), dimension=45)


def test_costs_grow_with_the_batch() -> None:
    build = CONVERTED["siamese"]
    one, three = costs_of(build), costs_of(build, batch_size=3)
    assert (three.macs, three.flops, three.peak_activation_bytes) == (
        3 * one.macs,
        3 * one.flops,
        3 * one.peak_activation_bytes,
    )


def test_a_nested_model_is_the_sum_of_what_is_inside() -> None:
    costs = costs_of(siamese).layers
    assert costs["base"].method == "sum"
    # Both calls: 16 × 16 × 4 outputs of 3 × 3 × 3 products.
    assert costs["base"].macs == costs["base/conv2d"].macs == 2 * 16 * 16 * 4 * 27


def test_a_nested_model_on_different_sizes_is_not_known() -> None:
    def build() -> keras.Model:
        inside = keras.Input((None, 3))
        base = keras.Model(inside, layers.Dense(4)(inside), name="base")
        left, right = keras.Input((8, 3)), keras.Input((16, 3))
        return keras.Model([left, right], [base(left), base(right)])

    costs = costs_of(build)
    assert costs.layers["base"].macs is None
    assert costs.layers_without_cost == 1


def test_a_layer_called_on_different_sizes_counts_each_call() -> None:
    def build() -> keras.Model:
        dense = layers.Dense(4, name="dense")
        left, right = keras.Input((8, 3)), keras.Input((16, 3))
        return keras.Model([left, right], layers.Concatenate(1)([dense(left), dense(right)]))

    cost = costs_of(build).layers["dense"]
    assert (cost.macs, cost.flops, cost.activation_bytes) == (24 * 4 * 3, 24 * 4 * 7, 24 * 4 * 4)
    # Inputs, outputs, and the weights once.
    assert cost.arithmetic_intensity == 24 * 4 * 7 / (24 * 3 * 4 + 24 * 4 * 4 + (3 * 4 + 4) * 4)


@keras.saving.register_keras_serializable("costs")
class Doubled(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return x + ops.matmul(x, ops.transpose(x, (0, 2, 1)))


def test_unknown_is_not_zero() -> None:
    build = chain((4, 4), lambda: layers.Dense(4), lambda: Doubled(name="own"), lambda: layers.Discretization([0.0]))
    costs = costs_of(build)
    own = costs.layers["own"]
    assert (own.macs, own.flops, own.method, own.activation_bytes) == (None, None, None, 64)
    assert costs.layers_without_cost == 2
    assert costs.macs == 64


def test_an_unknown_activation_leaves_the_products_known() -> None:
    def build() -> keras.Model:
        return chain((4,), lambda: layers.Dense(3, activation=keras.activations.sparse_sigmoid, name="dense"))()

    cost = costs_of(build).layers["dense"]
    assert (cost.macs, cost.flops) == (12, None)


@pytest.mark.slow
def test_nodes_tell_what_no_formula_knows() -> None:
    graph, nodes = with_nodes(chain((4, 4), lambda: Doubled(name="own")))
    cost = layer_costs(graph, nodes).layers["own"]
    assert (cost.macs, cost.flops, cost.method) == (64, 2 * 64 + 16, "onnx")


def test_a_quantised_layer_has_the_same_products() -> None:
    def build() -> keras.Model:
        model = chain((6,), lambda: layers.Dense(3, name="dense"))()
        model.quantize("int8")
        return model

    keras.utils.clear_session(free_memory=False)
    cost = layer_costs(describe(build(), "m"), None).layers["dense"]
    assert (cost.macs, cost.flops) == (18, 2 * 18 + 3 + 6 * 6 + 3)


def test_the_peak_keeps_what_is_still_needed() -> None:
    def build() -> keras.Model:
        inputs = keras.Input((10,), name="in")  # 40 bytes
        wide = layers.Dense(100, name="wide")(inputs)  # 400 bytes
        narrow = layers.Dense(10, name="narrow")(wide)  # 40 bytes
        return keras.Model(inputs, layers.Add(name="sum")([inputs, narrow]))

    # While `narrow` runs: the input, which the sum needs, the wide one and the narrow one.
    assert costs_of(build).peak_activation_bytes == 40 + 400 + 40


def test_the_peak_looks_inside_of_nested_models() -> None:
    def build() -> keras.Model:
        inside = keras.Input((10,))
        x = layers.Dense(10)(layers.Dense(100)(inside))
        inputs = keras.Input((10,))
        return keras.Model(inputs, layers.Add()([inputs, keras.Model(inside, x)(inputs)]))

    assert costs_of(build).peak_activation_bytes == 40 + 400 + 40


def test_an_output_of_the_model_stays_until_the_end() -> None:
    def build() -> keras.Model:
        inputs = keras.Input((10,))
        wide = layers.Dense(100)(inputs)
        return keras.Model(inputs, [wide, layers.Dense(50)(layers.Dense(10)(wide))])

    assert costs_of(build).peak_activation_bytes == 400 + 40 + 200


def test_what_the_job_fixes_stands_for_open_sizes() -> None:
    graph = described(chain((None, 4), lambda: layers.Dense(3)))
    job = Job("s", "k", "n", "o", (), "f", "d", batch_size=2, input_shapes={"": (None, 10, 4)})
    costs = job_costs(job, graph, None)
    assert (costs.batch_size, costs.dimension, costs.macs) == (2, 10, 2 * 10 * 4 * 3)


@pytest.mark.slow
def test_the_tables_have_the_costs(tmp_path: Path) -> None:
    graph, nodes = with_nodes(chain((None, 4), lambda: layers.Dense(3, name="dense"), lambda: Doubled(name="own")))
    graph = replace(graph, layers=tuple(replace(row, calls=0) if row.name == "own" else row for row in graph.layers))
    job = Job("s", "k", "n", "o", (), "f", "d")
    of_dense = tuple(replace(node, layer="dense") for node in nodes)
    material = Material(job, graph, nodes=of_dense, stored=(), costs=job_costs(job, graph, of_dense))
    layer_table.write(material, tmp_path)
    model_table.write(material, tmp_path)
    rows = {row["layer"]: row for row in pq.read_table(tmp_path / "layers.parquet").to_pylist()}
    columns = ("macs", "flops", "activation_bytes", "cost_method")
    assert [rows["dense"][name] for name in columns] == [1536, 3456, 1536, "layer"]
    assert rows["dense"]["arithmetic_intensity"] == 3456 / (128 * 7 * 4 + 15 * 4)
    assert [rows["own"][name] for name in ("macs", "flops", "cost_method", "arithmetic_intensity")] == [None] * 4
    node = pq.read_table(tmp_path / "nodes.parquet").to_pylist()[0]
    assert [node[name] for name in columns] == [nodes[0].cost.macs, nodes[0].cost.flops, 1536, "onnx"]
    (row,) = pq.read_table(tmp_path / "models.parquet").to_pylist()
    totals = ("cost_batch_size", "cost_dimension", "layers_without_cost", "macs", "flops")
    assert [row[name] for name in totals] == [1, 128, 1, 1536, 3456]


@pytest.mark.slow
def test_many_layers() -> None:
    """20,000 layers in a chain, described without Keras."""
    count = 20_000
    specs = (TensorSpec("x", (None, 8), "float32"),)
    first = Layer(0, "d0", "InputLayer", "d0", 0, None, True, (), specs, 0, 0, 0, 0, 1, (), '{"name":"d0"}')
    config = '{"units":8,"use_bias":true,"activation":"relu"}'
    dense = replace(first, class_name="Dense", inputs=specs, params=72, weight_bytes=288, config=config)
    rows = [first, *(replace(dense, index=i, name=f"d{i}", namespace=f"d{i}") for i in range(1, count))]
    edges = [Edge(f"d{i - 1}", 0, 0, f"d{i}", 0, 0, (None, 8), "float32") for i in range(1, count)]
    costs = layer_costs(ModelGraph("m", specs, specs, tuple(rows), tuple(edges), ()), None)
    assert costs.macs == (count - 1) * 64
    assert costs.flops == (count - 1) * (128 + 8 + 8)
    assert costs.peak_activation_bytes == 2 * 8 * 4


def one_node(op: str, shapes: dict[str, tuple[int | str, ...]], output: tuple[int, ...], **attributes: Any) -> Any:
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, output)
    node = helper.make_node(op, list(shapes), ["y"], **attributes)
    graph = helper.make_graph([node], "g", inputs, [result])
    return node_costs(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), 2, 3)[0]


@pytest.mark.parametrize(
    ("op", "shapes", "output", "attributes", "macs", "flops"),
    [
        ("Gemm", {"a": (5, 4), "b": (6, 5), "c": (6,)}, (4, 6), {"transA": 1, "transB": 1}, 120, 264),
        ("MatMul", {"a": (3, 4, 5), "b": (5, 6)}, (3, 4, 6), {}, 360, 720),
        ("Einsum", {"a": (4, 5), "b": (4, 6)}, (5, 6), {"equation": "ij,ik->jk"}, 120, 240),
        ("Softmax", {"a": (3, 4)}, (3, 4), {}, 0, 60),
        ("Gelu", {"a": (3, 4)}, (3, 4), {}, 0, 60),
        ("LayerNormalization", {"a": (3, 4), "s": (4,), "b": (4,)}, (3, 4), {}, 0, 84),
        ("ReduceMean", {"a": (3, 4)}, (1, 1), {}, 0, 12),
    ],
)
def test_one_node(op: str, shapes: Any, output: Any, attributes: Any, macs: int, flops: int) -> None:
    cost = one_node(op, shapes, output, **attributes)
    assert (cost.macs, cost.flops) == (macs, flops)


def test_dynamic_dimensions_of_nodes() -> None:
    cost = one_node("Relu", {"a": ("batch", "length", 5)}, ("batch", "length", 5))  # type: ignore[arg-type]
    assert (cost.flops, cost.activation_bytes) == (2 * 3 * 5, 4 * 2 * 3 * 5)


def test_an_op_that_is_not_known_is_not_zero() -> None:
    cost = one_node("Det", {"a": (3, 3)}, ())
    assert (cost.macs, cost.flops, cost.method) == (None, None, None)
    assert cost.activation_bytes == 4


def test_hollow_initializers_are_not_read() -> None:
    kernel = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[8, 4], data_location=TensorProto.EXTERNAL)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 4))],
        [kernel],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    before = model.SerializeToString()
    assert node_costs(model)[0].macs == 32
    assert model.SerializeToString() == before
