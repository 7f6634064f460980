"""The index of a graph under change: producers, consumers, order and names stay right whatever is changed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from small_graphs import filled, graph, inputs_of, made_lazy, run

from exporter.lazy import LazyArray
from exporter.sources.rewriting.onnx_editor import Editor


def types(editor: Editor) -> list[str]:
    return [node.op_type for node in editor.nodes()]


def branching() -> onnx.ModelProto:
    return graph(
        """(float[N,4] x) => (float[N,4] y, float[N,4] z) <float[4] w = {1, 2, 3, 4}> {
            a = Sin (x)  b = Cos (a)  y = Add (a, b)  c = Mul (y, w)  z = Neg (c) }"""
    )


def test_what_is_written_back_is_what_was_read() -> None:
    model = branching()
    before = onnx.ModelProto()
    before.CopyFrom(model)
    assert Editor(model, {}).finish() == {}
    assert list(model.graph.node) == list(before.graph.node)
    assert [proto.name for proto in model.graph.initializer] == ["w"]
    for a, b in zip(run(model, inputs_of(model)), run(before, inputs_of(model)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_order_stays_as_far_as_producers_allow() -> None:
    model = branching()
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([nodes[3], nodes[4], nodes[0], nodes[1], nodes[2]])
    assert types(Editor(model, {})) == ["Sin", "Cos", "Add", "Mul", "Neg"]


def test_a_cycle_is_an_error() -> None:
    editor = Editor(branching(), {})
    (sine,) = [node for node in editor.nodes() if node.op_type == "Sin"]
    editor.set_inputs(sine, ["c"])
    with pytest.raises(ValueError, match="cycle through"):
        editor.nodes()


def test_a_deep_graph_is_sorted_without_recursion() -> None:
    depth = 5000
    model = graph(
        f"(float[2] x0) => (float[2] x{depth}) {{ {' '.join(f'x{i + 1} = Neg (x{i})' for i in range(depth))} }}"
    )
    assert len(Editor(model, {}).nodes()) == depth


def test_questions() -> None:
    model = branching()
    editor = Editor(model, made_lazy(model, ["w"]))
    assert isinstance(editor.constant("w"), LazyArray)
    assert editor.constant("x") is None
    assert editor.producer("x") is None
    assert [node.op_type for node in editor.consumers("a")] == ["Cos", "Add"]
    assert editor.sole_consumer("a") is None
    # An output has a user that cannot be seen.
    assert editor.sole_consumer("y") is None
    assert editor.is_output("y")
    product = editor.sole_consumer("w")
    assert product is not None
    assert product.op_type == "Mul"
    assert editor.shape("x") == (None, 4)
    assert editor.dims("x") == ("N", 4)
    assert editor.shape("a") is None
    editor.set_type("a", np.float32, ["N", 4])
    assert (editor.dims("a"), editor.dtype("a")) == (("N", 4), np.float32)


@pytest.mark.parametrize(
    ("output", "value", "done", "left"),
    [
        ("b", "a", True, ["Sin", "Add", "Mul", "Neg"]),
        # The output's name goes to what makes the value, also for its other users.
        ("y", "b", True, ["Sin", "Cos", "Mul", "Neg"]),
        ("z", "c", True, ["Sin", "Cos", "Add", "Mul"]),
        # The value is an output itself, an input, a constant.
        ("z", "y", False, ["Sin", "Cos", "Add", "Mul", "Neg"]),
        ("y", "x", False, ["Sin", "Cos", "Add", "Mul", "Neg"]),
        ("z", "w", False, ["Sin", "Cos", "Add", "Mul", "Neg"]),
    ],
)
def test_bypass(output: str, value: str, done: bool, left: list[str]) -> None:
    model = branching()
    editor = Editor(model, {})
    node = editor.producer(output)
    assert node is not None
    assert editor.bypass(node, value) is done
    assert types(editor) == left
    editor.finish()
    onnx.checker.check_model(model)
    assert [result.shape for result in run(filled(model, {}), inputs_of(model))] == [(2, 4), (2, 4)]


def test_new_nodes_and_constants_have_names_of_their_own() -> None:
    model = branching()
    editor = Editor(model, {})
    node = editor.producer("c")
    assert node is not None
    names = [editor.add_constant(np.ones(4, np.float32), "w") for _ in range(2)]
    made = [editor.add_node("Add", [node.outputs[0], name], node, axis=3) for name in names]
    values = [*names, *(value for each in made for value in each.outputs)]
    assert len({*values, "w", "a", "b", "c", "x", "y", "z"}) == len(values) + 7
    assert {each.name for each in made} == {node.name}
    assert made[0].get("axis") == 3
    # Nobody uses them: they are not written.
    editor.finish()
    assert [proto.op_type for proto in model.graph.node] == ["Sin", "Cos", "Add", "Mul", "Neg"]
    assert [proto.name for proto in model.graph.initializer] == ["w"]


def test_a_node_becomes_a_constant() -> None:
    model = branching()
    editor = Editor(model, {})
    node = editor.producer("b")
    assert node is not None
    editor.make_constant(node, [LazyArray.of(np.zeros((1, 4), np.float32))])
    weights = editor.finish()
    assert weights.keys() == {"b"}
    a, y = (run(filled(model, weights), inputs_of(model))[0], np.sin(inputs_of(model)["x"]))
    np.testing.assert_allclose(a, y, rtol=1e-6)


def test_bodies_use_values_from_outside() -> None:
    model = graph(
        """(float[2] x) => (float[2] y) <bool yes = {1}, int64 trips = {3}> {
            a = Sin (x)  b = Cos (x)
            y = Loop (trips, yes, x) <body = outer (int64 i, bool go, float[2] s) => (bool on, float[2] t) {
                on = Identity (go)
                t = If (go) <then_branch = then () => (float[2] p) { p = Add (s, a) },
                             else_branch = other () => (float[2] q) { q = Sub (s, b) }> }> }"""
    )
    expected = run(model, inputs_of(model))
    editor = Editor(model, {})
    (loop,) = editor.consumers("a")
    assert loop.op_type == "Loop"
    assert {"a", "b"} <= set(loop.captured)
    assert types(editor)[-1] == "Loop"
    sine = editor.producer("a")
    assert sine is not None
    editor.add_node("Sin", ["x"], sine, ["elsewhere"])
    editor.replace_uses("a", "elsewhere")
    assert editor.consumers("a") == []
    assert editor.consumers("elsewhere") == [loop]
    editor.finish()
    assert [node.output[0] for node in model.graph.node] == ["b", "elsewhere", "y"]
    np.testing.assert_array_equal(run(filled(model, {}), inputs_of(model)), expected)
