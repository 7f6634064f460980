"""What a sweep leaves out of a graph: constants computed without reading weights, ops without effect, duplicates.

The reference for values is ONNX Runtime on the graph as it was, in `small_graphs.optimised`.
"""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_graphs import filled, graph, made_lazy, ops, optimised, run

from exporter.lazy import LazyArray
from exporter.sources.conversion.precision import VECTOR_NBYTES, StoredArray
from exporter.sources.rewriting.constant_folding import FOLDERS, fold_constants
from exporter.sources.rewriting.onnx_editor import Editor
from exporter.sources.rewriting.onnx_graph import stub
from exporter.sources.rewriting.optimising import optimise

# Each computes `y` from constants only.
FOLDED = {
    "Abs": "float[2,3] y = Abs (a)",
    "Add": "float[2,3] y = Add (a, row)",
    "And": "bool[2] y = And (yes, no)",
    "Cast": "int32[2,3] y = Cast <to = 6> (a)",
    "Concat": "float[2,6] y = Concat <axis = -1> (a, b)",
    "Constant": "float[2] y = Constant <value_floats = [1.0, 2.0]> ()",
    "ConstantOfShape": "float[3,2] y = ConstantOfShape (sizes)",
    "Div": "int64[2] y = Div (whole, divisor)",
    "Equal": "bool[2,3] y = Equal (a, b)",
    "Exp": "float[2,3] y = Exp (a)",
    "Expand": "float[2,2,3] y = Expand (a, stack)",
    "Gather": "float[2,2] y = Gather <axis = 1> (a, places)",
    "Greater": "bool[2,3] y = Greater (a, b)",
    "Less": "bool[2,3] y = Less (a, b)",
    "Log": "float[2,3] y = Log (b)",
    "Max": "float[2,3] y = Max (a, b, row)",
    "Min": "float[2,3] y = Min (a, b, row)",
    "Mul": "float[2,3] y = Mul (a, b)",
    "Neg": "float[2,3] y = Neg (a)",
    "Not": "bool[2] y = Not (yes)",
    "Or": "bool[2] y = Or (yes, no)",
    "Pow": "float[2,3] y = Pow (b, a)",
    "Range": "int64[4] y = Range (from, to, step)",
    "Reciprocal": "float[2,3] y = Reciprocal (b)",
    "ReduceMax": "float[2,1] y = ReduceMax (a, last)",
    "ReduceMin": "float y = ReduceMin <keepdims = 0> (a)",
    "ReduceProd": "int64[1] y = ReduceProd (sizes)",
    "ReduceSum": "float[3] y = ReduceSum <keepdims = 0> (a, first)",
    "Reshape": "float[2,3,1] y = Reshape (a, target)",
    "Shape": "int64[1] y = Shape <start = 1> (a)",
    "Size": "int64 y = Size (a)",
    "Slice": "float[2,2] y = Slice (a, one, three, last)",
    "Split": "float[2,1] y, float[2,2] z = Split <axis = 1> (a, parts)",
    "Sqrt": "float[2,3] y = Sqrt (b)",
    "Squeeze": "float[3] y = Squeeze (row, first)",
    "Sub": "float[2,3] y = Sub (a, b)",
    "Transpose": "float[3,2] y = Transpose (a)",
    "Unsqueeze": "float[2,1,3] y = Unsqueeze (a, one)",
    "Where": "float[2] y = Where (yes, pair, other)",
}
CONSTANTS = """
    float[2,3] a = {-2, -1, 0, 1, 2, 3}, float[2,3] b = {1, 2, 3, 1, 2, 0.5}, float[1,3] row = {1, -1, 0.5},
    float[2] pair = {1, 2}, float[2] other = {3, 4}, bool[2] yes = {1, 0}, bool[2] no = {1, 1},
    int64[2] whole = {7, -7}, int64[2] divisor = {2, 2}, int64[2] sizes = {3, 2}, int64[3] stack = {2, 1, 3},
    int64[2] places = {2, 0}, int64 from = {1}, int64 to = {9}, int64 step = {2}, int64[1] last = {-1},
    int64[1] first = {0}, int64[1] one = {1}, int64[1] three = {3}, int64[3] target = {0, -1, 1},
    int64[2] parts = {1, 2}
"""


def test_every_folder_is_tested() -> None:
    assert FOLDED.keys() == FOLDERS.keys()


@pytest.mark.parametrize("lazily", [False, True])
@pytest.mark.parametrize("op", FOLDED)
def test_constants_are_computed(op: str, lazily: bool) -> None:
    results, _, call = FOLDED[op].partition(" = ")
    names = ", ".join(result.split()[-1] for result in re.sub(r"\[.*?\]", "", results).split(","))
    model = graph(f"() => ({results}) <{CONSTANTS}> {{ {names} = {call} }}")
    expected = run(model, {})
    weights = made_lazy(model, ["a", "b", "row"] if lazily else [])
    editor = Editor(model, weights)
    # Outputs of a model stay nodes, so that a model without nodes does not lose them.
    fold_constants(editor)
    assert len(editor.nodes()) == 1
    editor._fixed = frozenset()
    fold_constants(editor)
    if lazily and op in ("Expand", "Gather", "ReduceMax", "ReduceMin", "ReduceSum"):
        assert len(editor.nodes()) == 1
        return
    assert editor.nodes() == []
    for name, value in zip(editor.outputs, expected, strict=True):
        found = editor.constants[name]
        assert (tuple(found.shape), found.dtype) == (value.shape, value.dtype)
        np.testing.assert_allclose(np.asarray(found), value, rtol=1e-6)


def never() -> np.ndarray:
    raise AssertionError("a weight was read")


def test_weights_are_folded_unread() -> None:
    model = graph(
        """(float[2,4] x) => (float[2,3] y) <int64[2] axes = {4, 3}, float two = {2}, float[12] w> {
            r = Reshape (w, axes)  n = Neg (r)  s = Mul (n, two)  y = MatMul (x, s) }"""
    )
    weight = LazyArray([12], np.float32, never, frozenset(["w"]))
    model.graph.initializer.append(stub("w", weight))
    del model.graph.value_info[:]
    weights = optimise(model, {"w": weight}, 18)
    assert ops(model) == {"MatMul": 1}
    (found,) = weights.values()
    assert (found.shape, found.origins) == ((4, 3), {"w"})


@pytest.mark.parametrize(
    "text",
    [
        # A quantised kernel must not become four times as large, nor a vector be repeated.
        "y = Cast <to = 1> (q)",
        "w = Expand (row, large)  y = Identity (w)",
    ],
)
def test_a_fold_does_not_make_the_file_larger(text: str) -> None:
    columns = VECTOR_NBYTES
    shape = "[16]" if "(q)" in text else f"[4,{columns}]"
    model = graph(
        f"(float[1] x) => (float{shape} z) <float[1,1] row = {{1}}, int64[2] large = {{4, {columns}}}>"
        f" {{ {text} z = Add (x, y) }}"
    )
    quantised = StoredArray(LazyArray([16], np.int8, never, frozenset(["q"])))
    model.graph.initializer.append(stub("q", quantised))
    weights = optimise(model, {"q": quantised}, 18)
    assert sum(len(proto.raw_data) for proto in model.graph.initializer) <= 64
    assert all(array.casts for array in weights.values())


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a = Identity (x)  y = Relu (a)", {"Relu": 1}),
        ("y = Identity (x)", {"Identity": 1}),
        ("a = Relu (x)  y = Identity (a)", {"Relu": 1}),
        ("a = Cast <to = 1> (x)  y = Relu (a)", {"Relu": 1}),
        ("a = Cast <to = 11> (x)  b = Relu (a)  c = Cast <to = 11> (b)  y = Cast <to = 1> (c)", {"Cast": 2, "Relu": 1}),
        ("a = Cast <to = 11> (x)  b = Cast <to = 1> (a)  y = Relu (b)", {"Relu": 1}),
        # This one rounds.
        ("a = Cast <to = 10> (x)  b = Cast <to = 1> (a)  y = Relu (b)", {"Cast": 2, "Relu": 1}),
        ("a = Transpose (x)  b = Transpose (a)  y = Relu (b)", {"Relu": 1}),
        ("a = Add (x, zero)  b = Mul (one, a)  c = Sub (b, zero)  d = Div (c, one)  y = Relu (d)", {"Relu": 1}),
        ("a = Sub (zero, x)  y = Relu (a)", {"Sub": 1, "Relu": 1}),
        ("a = Reshape (x, flat)  b = Reshape (a, back)  y = Relu (b)", {"Relu": 1}),
        ("a = Unsqueeze (x, axis)  b = Squeeze (a, axis)  y = Relu (b)", {"Relu": 1}),
        ("a = Unsqueeze (x, axis)  b = Flatten <axis = 1> (a)  y = Relu (b)", {"Relu": 1}),
        ("a = Reshape (x, turned)  b = Relu (a)  y = Reshape (b, back)", {"Reshape": 2, "Relu": 1}),
        ("a = Expand (x, ones)  b = Tile (a, ones)  c = Pad (b, none)  y = Relu (c)", {"Relu": 1}),
        ("a = Slice (x, none2, ends)  b = Concat <axis = 0> (a)  c = Sum (b)  y = Relu (c)", {"Relu": 1}),
        ("a = Slice (x, ones, ends)  p = Pad (a, begin)  y = Relu (p)", {"Slice": 1, "Pad": 1, "Relu": 1}),
        ("a = Sin (x)  b = Sin (x)  y = Add (a, b)", {"Sin": 1, "Add": 1}),
        ("a = Elu <alpha = 0.1> (x)  b = Elu <alpha = 0.2> (x)  y = Add (a, b)", {"Elu": 2, "Add": 1}),
        ("a = Sin (x)  b = Add (a, zero)  c = Sin (x)  d = Cos (b)  e = Cos (c)  y = Mul (d, e)",
         {"Sin": 1, "Cos": 1, "Mul": 1}),
        ("a, b = Split <axis = 1> (x, halves)  c, d = Split <axis = 1> (x, halves)  y = Concat <axis = 1> (a, d)",
         {"Split": 1, "Concat": 1}),
        ("unused = Sin (x)  y = Relu (x)", {"Relu": 1}),
    ],
)  # fmt: skip
def test_what_has_no_effect_goes(text: str, left: dict[str, int]) -> None:
    model = graph(
        f"""(float[N,4] x) => (float[N,4] y) <float zero = {{0}}, float one = {{1}}, int64[1] flat = {{-1}},
            int64[2] back = {{-1, 4}}, int64[2] turned = {{4, -1}}, int64[1] axis = {{1}}, int64[2] ones = {{1, 1}},
            int64[4] none = {{0, 0, 0, 0}}, int64[2] none2 = {{0, 0}}, int64[2] halves = {{2, 2}},
            int64[4] begin = {{1, 1, 0, 0}}, int64[2] ends = {{9223372036854775807, 9223372036854775807}}>
            {{ {text} }}"""
    )
    assert ops(optimised(model)) == left


def test_random_numbers_are_not_merged() -> None:
    model = graph("(float[2] x) => (float[2] y) { a = RandomNormalLike (x)  b = RandomNormalLike (x)  y = Sub (a, b) }")
    optimise(model, {}, 18)
    assert ops(model) == {"RandomNormalLike": 2, "Sub": 1}


@pytest.mark.parametrize(
    ("text", "dims", "left"),
    [
        # [N, 2, 3] → [N, 6], [N·2, 3] and back, written as Keras does.
        ("s = Shape (x)  n = Gather (s, i0)  u = Unsqueeze (n, a0)  t = Concat <axis = 0> (u, six)"
         "  y = Reshape (x, t)",
         "[N,6]", [-1, 6]),
        ("s = Shape (x)  n = Slice (s, v0, v1)  t = Concat <axis = 0> (n, six)  c = Cast <to = 7> (t)"
         "  y = Reshape (x, c)",
         "[N,6]", [-1, 6]),
        ("s = Shape (x)  f = Slice (s, v0, v2)  p = ReduceProd <keepdims = 1> (f, a0)  l = Slice (s, v2, v3)"
         "  t = Concat <axis = 0> (p, l)  y = Reshape (x, t)", "[M,3]", [-1, 3]),
        ("s = Shape (x)  n = Gather (s, i0)  m = Gather (s, i1)  q = Mul (n, m)  u = Unsqueeze (q, a0)"
         "  t = Concat <axis = 0> (u, three)  y = Reshape (x, t)", "[M,3]", [-1, 3]),
    ],
)  # fmt: skip
def test_shapes_that_a_graph_computes(text: str, dims: str, left: list[int]) -> None:
    model = graph(
        f"""(float[N,2,3] x) => (float{dims} y) <int64 i0 = {{0}}, int64 i1 = {{1}}, int64[1] a0 = {{0}},
            int64[1] six = {{6}}, int64[1] three = {{3}}, int64[1] v0 = {{0}}, int64[1] v1 = {{1}},
            int64[1] v2 = {{2}}, int64[1] v3 = {{3}}> {{ {text} }}"""
    )
    found = optimised(model)
    assert ops(found) == {"Reshape": 1}
    (target,) = found.graph.initializer
    # Both say the same: 0 copies the dimension, -1 computes it.
    assert numpy_helper.to_array(target).tolist() in (left, [0, *left[1:]])


def test_two_dynamic_dimensions_stay_in_their_places() -> None:
    model = graph(
        """(float[N,T,6] x) => (float[N,T,2,3] y) <int64[2] heads = {2, 3}, int64[1] v0 = {0}, int64[1] v2 = {2}> {
            s = Shape (x)  d = Slice (s, v0, v2)  t = Concat <axis = 0> (d, heads)  y = Reshape (x, t) }"""
    )
    found = optimised(model)
    assert ops(found) == {"Reshape": 1}
    assert numpy_helper.to_array(found.graph.initializer[0]).tolist() == [0, 0, 2, 3]


def test_a_shape_that_is_not_known_is_computed() -> None:
    model = graph(
        """(float[N,T] x) => (float[A,B] y) <int64[1] v0 = {0}, int64[1] v1 = {1}, int64[1] v2 = {2}> {
            s = Shape (x)  n = Slice (s, v0, v1)  t = Slice (s, v1, v2)  w = Concat <axis = 0> (t, n)
            y = Reshape (x, w) }"""
    )
    assert ops(optimised(model))["Shape"] == 1


@pytest.mark.parametrize(
    ("equation", "shapes", "left"),
    [
        ("aecd,abcd->acbe", ("[2,5,3,4]", "[2,6,3,4]", "[2,3,6,5]"), {"Transpose": 2, "MatMul": 1}),
        ("acbe,aecd->abcd", ("[2,3,6,5]", "[2,5,3,4]", "[2,6,3,4]"), {"Transpose": 2, "MatMul": 1}),
        ("abc,cd->abd", ("[2,3,4]", "[4,5]", "[2,3,5]"), {"MatMul": 1}),
        ("ij,jk->ki", ("[2,3]", "[3,4]", "[4,2]"), {"Transpose": 2, "MatMul": 1}),
        ("abc,cde->abde", ("[2,3,4]", "[4,5,6]", "[2,3,5,6]"), {"Einsum": 1}),
        ("ab,ab->a", ("[2,3]", "[2,3]", "[2]"), {"Einsum": 1}),
        ("ab,cd->ac", ("[2,3]", "[4,5]", "[2,4]"), {"Einsum": 1}),
    ],
)
def test_products_written_as_einsum(equation: str, shapes: tuple[str, str, str], left: dict[str, int]) -> None:
    a, b, y = shapes
    model = graph(f'(float{a} a, float{b} b) => (float{y} y) {{ y = Einsum <equation = "{equation}"> (a, b) }}')
    assert ops(optimised(model)) == left


def test_bodies_of_loops_are_simplified_and_their_nodes_have_names_of_their_own() -> None:
    model = graph(
        """(float[2,4] x) => (float[2,4] y) <bool yes = {1}, int64 trips = {2}, float[4] outer = {1, 2, 3, 4}> {
            y = Loop (trips, yes, x) <body = body (int64 i, bool go, float[2,4] state) => (bool on, float[2,4] next)
                <float[4] w = {1, 2, 3, 4}, float zero = {0}> {
                on = Identity (go)  n = Neg (w)  a = Add (state, zero)  b = Mul (a, n)  c = Mul (a, n)
                d = Add (b, c)  next = Add (d, outer) }> }"""
    )
    found = optimised(model)
    (loop,) = found.graph.node
    (body,) = [attribute.g for attribute in loop.attribute]
    assert [node.op_type for node in body.node] == ["Identity", "Mul", "Add", "Add"]
    assert len({node.name for node in body.node}) == 4


def test_each_run_gives_the_same_bytes() -> None:
    text = """(float[2,4,5,3] x) => (float[2,3,4,5] y, float[2,4,5,3] z) {
        a = Transpose <perm = [0, 3, 1, 2]> (x)  b = Sin (a)  c = Transpose <perm = [0, 2, 3, 1]> (b)  d = Cos (c)
        y = Transpose <perm = [0, 3, 1, 2]> (d)  z = Add (c, d) }"""
    models = [graph(text), graph(text)]
    for model in models:
        optimise(model, {}, 18)
    assert models[0].SerializeToString() == models[1].SerializeToString()
    assert filled(models[0], {}).graph.node
    onnx.checker.check_model(models[0])
