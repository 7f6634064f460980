"""Fewer transposes: which ops can work in another layout, and that the choice of layouts is the cheapest one.

The reference for values is ONNX Runtime on the graph as it was (`small_graphs.optimised`), for minimum cuts trying all.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from small_graphs import graph, ops, optimised

from exporter.sources.rewriting import minimum_cut
from exporter.sources.rewriting.layout_rules import composed, inverse, normal
from exporter.sources.rewriting.minimum_cut import SINK, SOURCE, FlowNetwork

FIRST, LAST = "<perm = [0, 3, 1, 2]>", "<perm = [0, 2, 3, 1]>"

# Ops between [2, 4, 5, 3], seen with channels last, and what makes and uses them with channels first.
BETWEEN = {
    "Relu (x)": "float[2,4,5,3]",
    "Clip (x, low, high)": "float[2,4,5,3]",
    "Mul (x, channels)": "float[2,4,5,3]",
    "Add (scalar, x)": "float[2,4,5,3]",
    "Where (positive, x, channels)": "float[2,4,5,3]",
    "PRelu (x, rows)": "float[2,4,5,3]",
    "Add (x, x)": "float[2,4,5,3]",
    "Concat <axis = 3> (x, x, filled)": "float[2,4,5,9]",
    "Concat <axis = -2> (x, x)": "float[2,4,10,3]",
    "Softmax <axis = 1> (x)": "float[2,4,5,3]",
    "ReduceMean <keepdims = 1> (x, axes)": "float[2,1,1,3]",
    "ReduceMax <keepdims = 1> (x)": "float[1,1,1,1]",
    "ReduceSum <keepdims = 1> (x, last)": "float[2,4,5,1]",
    "Pad (x, pads)": "float[2,7,8,3]",
    "Pad (x, short_pads, nothing, axes)": "float[2,7,8,3]",
    "Slice (x, starts, ends, axes, steps)": "float[2,2,3,3]",
    "Slice (x, starts, ends)": "float[1,3,5,3]",
    "Tile (x, repeats)": "float[2,8,5,9]",
    "Expand (x, full)": "float[2,4,5,3]",
    "Gather <axis = 3> (x, indices)": "float[2,4,5,2]",
}
CONSTANTS = """
    float low = {-0.5}, float high = {0.5}, float scalar = {2.5}, float nothing = {0.25}, float[3] channels = {1, 2, 3},
    bool[2,4,5,1] positive = {%s}, float[4,1,1] rows = {1, 2, 3, 4}, float[2,4,5,3] filled = {%s},
    int64[2] axes = {1, 2}, int64[1] last = {-1}, int64[8] pads = {0, 1, 2, 0, 0, 2, 1, 0},
    int64[4] short_pads = {1, 2, 2, 1}, int64[2] starts = {1, 1}, int64[2] ends = {3, 4}, int64[2] steps = {1, 1},
    int64[4] repeats = {1, 2, 1, 3}, int64[4] full = {1, 4, 5, 3}, int64[2] indices = {2, 0}
""" % (", ".join(str(place % 3 % 2) for place in range(40)), ", ".join(map(str, range(120))))  # noqa: UP031


@pytest.mark.parametrize("op", BETWEEN)
def test_an_op_between_two_transposes(op: str) -> None:
    shape = BETWEEN[op].removeprefix("float")
    sizes = [int(size) for size in shape.strip("[]").split(",")]
    outside = [sizes[0], sizes[3], sizes[1], sizes[2]]
    model = graph(
        f"(float[2,3,4,5] a) => (float{outside} z) <{CONSTANTS}> {{"
        f" x = Transpose {LAST} (a)  y = {op}  z = Transpose {FIRST} (y) }}"
    )
    assert ops(optimised(model))["Transpose"] == 0


@pytest.mark.parametrize(
    ("op", "shape", "transposes"),
    [
        # What loses its channels, or only those, has no layout any more.
        ("ReduceMean <keepdims = 0> (x, axes)", "[2,3]", 0),
        ("ReduceMean <keepdims = 0> (x, last)", "[2,4,5]", 0),
        ("Gather <axis = 3> (x, index)", "[2,4,5]", 0),
        ("Gather <axis = 1> (x, index)", "[2,5,3]", 1),
        ("Shape (x)", "[4]", 0),
        ("Shape <start = 1, end = 3> (x)", "[2]", 0),
        ("ArgMax <axis = 3, keepdims = 0> (x)", "[2,4,5]", 0),
        # Kernels for the last axis are faster than a transposition saved.
        ("Softmax <axis = -1> (x)", "[2,4,5,3]", 1),
        # A matrix product needs its operands as they are.
        ("MatMul (x, matrix)", "[2,4,5,2]", 1),
    ],
)
def test_an_op_behind_a_transpose(op: str, shape: str, transposes: int) -> None:
    kind = "int64" if op.startswith(("Shape", "ArgMax")) else "float"
    model = graph(
        f"(float[N,3,4,5] a) => ({kind}{shape} y) <int64[2] axes = {{1, 2}}, int64[1] last = {{3}},"
        f" int64 index = {{1}}, float[3,2] matrix = {{1, 2, 3, 4, 5, 6}}>"
        f" {{ x = Transpose {LAST} (a)  y = {op} }}"
    )
    assert ops(optimised(model))["Transpose"] == transposes


def test_one_copy_serves_all_and_inputs_and_outputs_keep_their_layout() -> None:
    model = graph(
        f"""(float[2,4,5,3] x) => (float[2,3,4,5] a, float[2,3,4,5] b, float[2,4,5,3] c, float[2,4,5,3] d) {{
            s = Transpose {FIRST} (x)  t = Transpose {FIRST} (x)  a = Sin (s)  b = Cos (t)
            u = Transpose {LAST} (a)   c = Relu (u)  d = Transpose {LAST} (b) }}"""
    )
    # One for the input, one for each of the outputs with channels last.
    assert ops(optimised(model))["Transpose"] == 3


def test_a_squeeze_and_excite_block_has_no_transpose() -> None:
    kernels = ", ".join(f"float[3,3,1,1] {name} = {{{', '.join(map(str, range(9)))}}}" for name in "kqr")
    model = graph(
        f"""(float[2,3,4,5] a) => (float[2,3,4,5] z)
            <{kernels}, int64[2] axes = {{1, 2}}, int64[4] shape = {{-1, 1, 1, 3}}> {{
            c = Conv (a, k)  x = Transpose {LAST} (c)  m = ReduceMean <keepdims = 0> (x, axes)  s = Reshape (m, shape)
            t = Transpose {FIRST} (s)  p = Conv (t, q)  o = Transpose {LAST} (p)  g = Sigmoid (o)  y = Mul (x, g)
            v = Transpose {FIRST} (y)  z = Conv (v, r) }}"""
    )
    found = ops(optimised(model, ["k", "q", "r"]))
    assert found == {"Conv": 3, "GlobalAveragePool": 1, "Sigmoid": 1, "Mul": 1}


def test_a_stream_between_convolutions_and_products_is_transposed_twice_in_each_block() -> None:
    blocks = "".join(
        f"""t{i} = Transpose {FIRST} (x{i})  c{i} = Conv (t{i}, kernel)  u{i} = Transpose {LAST} (c{i})
            m{i} = MatMul (u{i}, matrix)  g{i} = Sigmoid (m{i})  x{i + 1} = Add (x{i}, g{i})  """
        for i in range(4)
    )
    nine = ", ".join(str(number / 10) for number in range(9))
    model = graph(
        f"(float[2,4,5,3] x0) => (float[2,4,5,3] x4)"
        f" <float[3,3,1,1] kernel = {{{nine}}}, float[3,3] matrix = {{{nine}}}> {{ {blocks} }}"
    )
    assert ops(optimised(model, ["kernel", "matrix"]))["Transpose"] == 8


def test_images_taken_out_of_a_stack() -> None:
    """Frames of a video, each convolved: the video is transposed, not each frame."""
    frames = "".join(
        f"""s{i} = Slice (x, p{i}, p{i + 1}, one)  i{i} = Squeeze (s{i}, one)  t{i} = Transpose {FIRST} (i{i})
            c{i} = Conv (t{i}, k)  o{i} = Transpose {LAST} (c{i})  v{i} = Unsqueeze (o{i}, one)  """
        for i in range(3)
    )
    places = ", ".join(f"int64[1] p{i} = {{{i}}}" for i in range(4))
    model = graph(
        f"(float[2,3,4,5,3] x) => (float[2,3,4,5,3] y) <{places}, int64[1] one = {{1}},"
        f" float[3,3,1,1] k = {{1, 2, 3, 4, 5, 6, 7, 8, 9}}> {{ {frames} y = Concat <axis = 1> (v0, v1, v2) }}"
    )
    assert ops(optimised(model, ["k"]))["Transpose"] == 2


def test_what_a_loop_takes_from_outside_has_the_layout_that_it_expects() -> None:
    model = graph(
        f"""(float[2,3,4,5] a) => (float[2,3,4,5] z) <bool yes = {{1}}, int64 trips = {{3}}> {{
            x = Transpose {LAST} (a)  y = Relu (x)
            l = Loop (trips, yes, y) <body = body (int64 i, bool go, float[2,4,5,3] state)
                => (bool on, float[2,4,5,3] next) {{ on = Identity (go)  next = Add (state, y) }}>
            z = Transpose {FIRST} (l) }}"""
    )
    assert ops(optimised(model)) == {"Transpose": 2, "Relu": 1, "Loop": 1}


# Random graphs of [2, 3, 4, 5] and its permutations.
UNARY = ("Relu", "Sin", "Neg")


@st.composite
def random_graphs(draw: st.DrawFn) -> onnx.ModelProto:
    shapes: dict[str, tuple[int, ...]] = {"x0": (2, 4, 5, 3)}
    nodes: list[Any] = []

    def add(op: str, inputs: list[str], shape: tuple[int, ...], **attributes: Any) -> None:
        name = f"x{len(shapes)}"
        nodes.append(helper.make_node(op, inputs, [name], name=f"node_{name}", **attributes))
        shapes[name] = shape

    for _ in range(draw(st.integers(2, 14))):
        value = draw(st.sampled_from(sorted(shapes)))
        shape = shapes[value]
        kind = draw(
            st.sampled_from(["transpose", "transpose", "unary", "binary", "constant", "concat", "rigid", "mean"])
        )
        alike = sorted(name for name, other in shapes.items() if other == shape)
        if kind == "transpose":
            perm = draw(st.sampled_from([(0, 3, 1, 2), (0, 2, 3, 1), (0, 2, 1, 3)]))
            add("Transpose", [value], tuple(shape[axis] for axis in perm), perm=perm)
        elif kind == "unary":
            add(draw(st.sampled_from(UNARY)), [value], shape)
        elif kind == "binary":
            add(draw(st.sampled_from(["Add", "Mul"])), [value, draw(st.sampled_from(alike))], shape)
        elif kind == "constant":
            add("Add", [value, f"vector{shape[-1]}"], shape)
        elif kind == "concat" and sum(shape) < 40:
            axis = draw(st.integers(0, 3))
            joined = tuple(2 * size if place == axis else size for place, size in enumerate(shape))
            add("Concat", [value, draw(st.sampled_from(alike))], joined, axis=axis)
        elif kind == "rigid":
            add("LpNormalization", [value], shape, axis=1)
        elif kind == "mean":
            add("ReduceMean", [value, "axes"], (shape[0], 1, 1, shape[3]), keepdims=1)
    outputs = sorted({f"x{len(shapes) - 1}", draw(st.sampled_from(sorted(shapes)))} - {"x0"}) or ["x1"]
    vectors = [
        onnx.numpy_helper.from_array(np.arange(size, dtype=np.float32), f"vector{size}")
        for size in {shape[-1] for shape in shapes.values()}
    ]
    axes = onnx.numpy_helper.from_array(np.array([1, 2]), "axes")
    proto = helper.make_graph(
        nodes,
        "random",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, shapes["x0"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in outputs],
        [*vectors, axes],
    )
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(random_graphs().filter(lambda model: len(model.graph.node) > 0))
def test_random_graphs_compute_the_same_with_no_more_transposes(model: onnx.ModelProto) -> None:
    found = optimised(model)
    assert ops(found)["Transpose"] <= ops(model)["Transpose"]


# Permutations and cuts by themselves.


@given(st.permutations(range(4)), st.permutations(range(4)))
def test_permutations_are_those_of_numpy(first: list[int], second: list[int]) -> None:
    array = np.arange(120).reshape(2, 3, 4, 5)
    both = composed(normal(first), normal(second))
    np.testing.assert_array_equal(array.transpose(both or range(4)), array.transpose(first).transpose(second))
    back = composed(normal(first), inverse(normal(first)))
    assert back is None


@st.composite
def random_edges(draw: st.DrawFn) -> tuple[int, list[tuple[int, int, int, int]]]:
    size = draw(st.integers(1, 6))
    node = st.integers(0, size + 1)
    edge = st.tuples(node, node, st.integers(0, 5), st.integers(0, 5)).filter(lambda edge: edge[0] != edge[1])
    return size, draw(st.lists(edge, max_size=14))


@pytest.mark.slow
@settings(deadline=None, derandomize=True)
@given(random_edges())
def test_cuts_are_minimum_and_as_near_to_the_sink_as_can_be(drawn: tuple[int, list[tuple[int, int, int, int]]]) -> None:
    size, edges = drawn
    network = FlowNetwork()
    for _ in range(size):
        network.add_node()
    for edge in edges:
        network.add_edge(*edge)
    side = network.sink_side()
    assert side[SINK]
    assert not side[SOURCE]

    def cost(sink_side: tuple[bool, ...]) -> int:
        return sum(
            (not sink_side[tail] and sink_side[head]) * there + (sink_side[tail] and not sink_side[head]) * back
            for tail, head, there, back in edges
        )

    cuts = {(False, True, *rest): 0 for rest in itertools.product((False, True), repeat=size)}
    cuts = {cut: cost(cut) for cut in cuts}
    least = [cut for cut, price in cuts.items() if price == min(cuts.values())]
    assert cuts[tuple(side)] == min(cuts.values())
    assert sum(side) == min(map(sum, least))


def test_cutting_a_longer_chain_takes_no_more_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks between which source and sink pull: what costs time is a phase, and their number must not grow."""
    phases = []
    levels = minimum_cut.FlowNetwork._levels
    monkeypatch.setattr(minimum_cut.FlowNetwork, "_levels", lambda network: phases.append(0) or levels(network))
    counts = []
    for blocks in (10, 200):
        phases.clear()
        network = FlowNetwork()
        before = SOURCE
        for _ in range(blocks):
            inner, outer = network.add_node(), network.add_node()
            network.add_edge(before, inner, 3, 3)
            network.add_edge(inner, SINK, 2)
            network.add_edge(inner, outer, 2, 2)
            network.add_edge(SOURCE, outer, 5)
            before = outer
        network.sink_side()
        counts.append(len(phases))
    assert counts[0] == counts[1]
